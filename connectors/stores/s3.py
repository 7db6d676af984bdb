"""A bucket, or a part of one, as a store."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import obstore

from lowtide.connectors.stores.paths import check_plain, is_plain
from lowtide.connectors.stores.readahead import in_order
from lowtide.connectors.stores.s3_connection import Connection
from lowtide.connectors.stores.s3_errors import FAILURES, explain, reported, translated
from lowtide.connectors.stores.s3_list import list_objects
from lowtide.connectors.stores.s3_stream import PART, RangedReader, Upload, vanished
from lowtide.errors import NotFound, StoreError, Transient
from lowtide.records import FileContent, FileInfo

if TYPE_CHECKING:
    from obstore import UpdateVersion

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html: one PUT takes up to 5 GB.
_SINGLE_PUT = 5 * 1000**3
_WINDOW = 64 * 1024 * 1024
_STREAM_BUFFER = 4 * 1024 * 1024
_TRIES = 5
_STAMP = "lowtide-writer"


class S3Store:
    """A `Store` over the keys of a bucket that start with `prefix/`.

    obstore does the bulk of the work. boto3 does what obstore cannot: keys with empty, `.` or `..` parts or control
    characters (they can be listed and read, never written), and conditional writes of files over `small` bytes.

    A conditional write says which writer it is in the object's metadata. So one whose answer was lost, or that S3
    answered with 409 because another request was in the way, is told from a lost race by looking, never by guessing
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html: "retry on 409").

    Keys that end in a slash, which consoles make to show a folder, are not objects here.
    """

    def __init__(
        self,
        connection: Connection,
        prefix: str = "",
        *,
        readers: int = 8,
        small: int = PART,
        single_put: int = _SINGLE_PUT,
    ) -> None:
        prefix = prefix.rstrip("/")
        self._base = f"{prefix}/" if prefix else ""
        self._uri = f"s3://{connection.name}/{prefix}".rstrip("/")
        self._name = connection.name
        self._bucket = connection.bucket
        self._client = connection.client
        self._connection = connection
        self._readers = readers
        self._small = small
        self._single_put = single_put

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return self._uri

    def uri_of(self, path: str) -> str:
        """The whole address of one object, its key as it is: nothing is percent-encoded."""
        return f"{self._uri}/{path}"

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        """Objects in the order of their keys, a page of 1,000 at a time."""
        with translated(self._uri, "list"):
            yield from list_objects(self._connection, self._base, prefix, after)

    def info(self, path: str) -> FileInfo | None:
        """The object's size, etag and time, or None if there is none (or no such bucket: HEAD does not say)."""
        key, uri = self._key(path), self.uri_of(path)
        try:
            with translated(uri, "read"):
                if not is_plain(key):
                    head = self._client.head_object(Bucket=self._name, Key=key)
                    return FileInfo(path, uri, head["ContentLength"], head["ETag"], head["LastModified"])
                meta = obstore.head(self._bucket, key)
        except NotFound:
            return None
        return FileInfo(path, uri, meta["size"], meta["e_tag"] or "", meta["last_modified"])

    def read(self, path: str) -> bytes:
        """The whole object."""
        key = self._key(path)
        with translated(self.uri_of(path), "read"):
            if not is_plain(key):
                return self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
            return obstore.get(self._bucket, key).bytes().to_bytes()

    def open(self, path: str) -> BinaryIO:
        """A seekable stream, fetched 4 MiB at a time. Reading raises StoreError once the object has been replaced."""
        info = self.info(path)
        if info is None:
            raise NotFound(f"there is no object {self.uri_of(path)!r}", uri=self.uri_of(path))
        reader = RangedReader(lambda start, end: self._range(info, start, end), info.size)
        return cast(BinaryIO, io.BufferedReader(reader, _STREAM_BUFFER))

    def read_many(self, files: Iterable[FileInfo], *, largest: int) -> Iterator[FileContent]:
        """Each file's bytes, reading ahead up to 64 MiB.

        Raises Transient or StoreError for what would fail every file alike: no network, no bucket, bad credentials.
        """
        return in_order(
            files,
            lambda info: self._content(info, largest),
            threads=self._readers,
            weight=lambda info: min(info.size, largest),
            window=_WINDOW,
        )

    def write(self, path: str, data: bytes) -> None:
        """Create or replace the object in one step."""
        key = self._writable(path)
        with translated(self.uri_of(path), "write"):
            obstore.put(self._bucket, key, data, chunk_size=PART, max_concurrency=4)

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A stream into one PUT, or above 8 MiB a multipart upload, that is completed when the block ends."""
        key, uri = self._writable(path), self.uri_of(path)
        stamp = secrets.token_hex(16)
        upload = Upload(
            self._client, self._name, key, writer=stamp, put_small=lambda data: self._put(key, data), part=self._small
        )
        try:
            with translated(uri, "write"):
                yield cast(BinaryIO, upload)
                self._complete(upload, key, stamp)
        except BaseException:
            upload.discard()
            raise
        finally:
            upload.end()

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the object unless it exists (`If-None-Match: *`); of any number of writers one wins."""
        key = self._writable(path)

        def put(stamp: str) -> None:
            obstore.put(self._bucket, key, data, mode="create", use_multipart=False, attributes={_STAMP: stamp})

        return self._conditionally(key, self.uri_of(path), None, put)

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        """Upload `source` if the object's etag is still `expected` (`If-Match`, or `If-None-Match: *` for None).

        `source` stays as it is. Up to 5 GB go up in one streamed PUT: some S3-compatible stores that honour
        conditions there ignore them at the end of a multipart upload.
        """
        key = self._writable(path)
        size = source.stat().st_size
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}

        def put_small(stamp: str) -> None:
            mode: Literal["create"] | UpdateVersion = "create" if expected is None else {"e_tag": expected}
            data = source.read_bytes()
            obstore.put(self._bucket, key, data, mode=mode, use_multipart=False, attributes={_STAMP: stamp})

        def put_streamed(stamp: str) -> None:
            with source.open("rb") as body:
                self._client.put_object(
                    Bucket=self._name,
                    Key=key,
                    Body=body,
                    Metadata={_STAMP: stamp},
                    **condition,  # type: ignore[arg-type]  # the stubs want each keyword by name
                )

        def put_parts(stamp: str) -> None:
            upload = Upload(
                self._client, self._name, key, writer=stamp, put_small=lambda data: None, part=max(PART, size // 9000)
            )
            try:
                with source.open("rb") as body:
                    while data := body.read(PART):
                        upload.write(data)
                upload.commit(**condition)
            except BaseException:
                upload.discard()
                raise
            finally:
                upload.end()

        put = put_small if size <= self._small else put_streamed if size <= self._single_put else put_parts
        return self._conditionally(key, self.uri_of(path), expected, put)

    def delete(self, path: str) -> None:
        """Remove the object; S3 says nothing if there is none."""
        key = self._writable(path)
        with translated(self.uri_of(path), "delete"):
            obstore.delete(self._bucket, key)

    def _key(self, path: str) -> str:
        if not path:
            raise StoreError(f"an object of {self._uri!r} needs a name", uri=self._uri)
        return self._base + path

    def _writable(self, path: str) -> str:
        check_plain(path, self._uri)
        return self._base + path

    def _put(self, key: str, data: bytes) -> None:
        obstore.put(self._bucket, key, data, use_multipart=False)

    def _complete(self, upload: Upload, key: str, stamp: str) -> None:
        try:
            upload.commit()
        except FAILURES as error:
            found = self._stamped(key) if vanished(error) else None
            if found is None or found[1] != stamp:
                raise

    def _range(self, info: FileInfo, start: int, end: int) -> bytes:
        key = self._key(info.path)
        with translated(info.uri, "read"):
            if is_plain(key):
                options: obstore.GetOptions = {"range": (start, end), "if_match": info.etag}
                return obstore.get(self._bucket, key, options=options).bytes().to_bytes()
            span = f"bytes={start}-{end - 1}"
            found = self._client.get_object(Bucket=self._name, Key=key, Range=span, IfMatch=info.etag)
            return found["Body"].read()

    def _content(self, info: FileInfo, largest: int) -> FileContent:
        if info.size > largest:
            return FileContent(info, b"", f"{info.size} bytes, more than the {largest} that are allowed")
        key = self._key(info.path)
        try:
            if not is_plain(key):
                return FileContent(info, self._client.get_object(Bucket=self._name, Key=key)["Body"].read())
            found = obstore.get(self._bucket, key)
            if found.meta["size"] > largest:
                return FileContent(info, b"", f"grew past the {largest} bytes that are allowed before it was read")
            return FileContent(info, found.bytes().to_bytes())
        except FAILURES as error:
            told = reported(error, info.uri, "read")
            if explain(error).wholesale:
                raise told from error
            return FileContent(info, b"", str(told))

    def _stamped(self, key: str) -> tuple[str, str] | None:
        """The etag and the writer's stamp of what is there now; None if nothing is."""
        try:
            found = obstore.get(self._bucket, key, options={"head": True})
        except FileNotFoundError:
            return None
        return found.meta["e_tag"] or "", str(found.attributes.get(_STAMP, ""))

    def _conditionally(self, key: str, uri: str, expected: str | None, put: Callable[[str], None]) -> bool:
        """Try a conditional write until it is known who has won."""
        stamp = secrets.token_hex(16)
        last: Exception | None = None
        for attempt in range(_TRIES):
            time.sleep(0.05 * (2**attempt - 1))
            try:
                put(stamp)
                return True
            except FAILURES as error:
                failure = explain(error)
                if not (failure.conflict or failure.passing or failure.missing or vanished(error)):
                    raise reported(error, uri, "write") from error
                last = error
            with translated(uri, "write"):
                found = self._stamped(key)
            if found is not None and found[1] == stamp:
                return True
            if (found[0] if found else None) != expected:
                return False
        raise Transient(f"cannot write {uri!r} now: no answer in {_TRIES} tries said who had written it") from last
