"""Streams over S3 objects, both ways, in bounded memory."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from lowtide.connectors.stores.s3_errors import explain

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

# S3 takes 10,000 parts of 5 MiB or more: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART = 8 * 1024 * 1024
_PARTS_BEFORE_GROWTH = 1000
_UPLOADING = 3


class RangedReader(io.RawIOBase):
    """A seekable object of `size` bytes, of which `fetch(start, end)` gives any range."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere; nothing is fetched yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}: before the object's start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with one request, as far as the object goes."""
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        data = self._fetch(self._at, end)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class Upload(io.RawIOBase):
    """Bytes on their way into an object, which exists only after `commit`.

    Up to one part is kept here and handed to `put_small` at the end; more goes up as a multipart upload, three parts
    at a time. Parts grow after the first thousand, so that an object may have 500 GB. An upload whose process was
    killed stays invisible but is charged for until a lifecycle rule (AbortIncompleteMultipartUpload) removes it:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html

    `writer` is stored with the object, to tell ours from another's when the answer to a request is lost.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        *,
        writer: str,
        put_small: Callable[[bytes], None],
        part: int = PART,
    ) -> None:
        super().__init__()
        self._client = client
        self._bucket = bucket
        self._key = key
        self._writer = writer
        self._put_small = put_small
        self._part = part
        self._buffer = bytearray()
        self._written = 0
        self._upload_id = ""
        self._parts: list[CompletedPartTypeDef] = []
        self._pending: deque[Future[CompletedPartTypeDef]] = deque()
        self._numbers = 0
        self._pool: ThreadPoolExecutor | None = None

    def writable(self) -> bool:
        """Until it is closed."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._written

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of it. Raises what boto3 raises for an earlier part that failed."""
        if self.closed:
            raise ValueError("write to a closed stream")
        view = memoryview(data).cast("B")
        self._buffer += view
        self._written += len(view)
        while len(self._buffer) >= self._size_of_next():
            self._send(self._size_of_next())
        return len(view)

    def commit(self, **condition: str) -> None:
        """Make the object appear. `condition` is IfMatch or IfNoneMatch, and goes with a multipart upload only."""
        if not self._upload_id and not condition:
            self._put_small(bytes(self._buffer))
            return
        if self._buffer or not self._numbers:
            self._send(len(self._buffer))
        while self._pending:
            self._parts.append(self._pending.popleft().result())
        self._client.complete_multipart_upload(
            Bucket=self._bucket,
            Key=self._key,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
            **condition,  # type: ignore[arg-type]  # the stubs want each keyword by name
        )

    def discard(self) -> None:
        """Drop the parts that went up. Never raises: it runs when something else has failed."""
        for part in self._pending:
            part.cancel()
        if self._pool:
            self._pool.shutdown()
        if self._upload_id:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)

    def end(self) -> None:
        """Let go of the threads."""
        if self._pool:
            self._pool.shutdown()

    def _size_of_next(self) -> int:
        return self._part if self._numbers < _PARTS_BEFORE_GROWTH else 8 * self._part

    def _send(self, size: int) -> None:
        if self._pool is None:
            started = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=self._key, Metadata={"lowtide-writer": self._writer}
            )
            self._upload_id = started["UploadId"]
            self._pool = ThreadPoolExecutor(_UPLOADING, thread_name_prefix="lowtide-upload")
        while len(self._pending) >= _UPLOADING:
            self._parts.append(self._pending.popleft().result())
        body = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._numbers += 1
        self._pending.append(self._pool.submit(self._upload, self._numbers, body))

    def _upload(self, number: int, body: bytes) -> CompletedPartTypeDef:
        answer = self._client.upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=body
        )
        return {"ETag": answer["ETag"], "PartNumber": number}


def vanished(error: Exception) -> bool:
    """Whether an upload is gone: completed by a request whose answer was lost, or dropped."""
    return explain(error).code == "NoSuchUpload"
