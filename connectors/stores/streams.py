"""Streams over objects, both ways, in bounded memory."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lowtide.connectors.positioned import Positioned

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# S3 takes 10,000 parts of 5 MiB or more, Blob Storage 50,000 blocks of up to 4,000 MiB:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
# https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs
PART = 8 * 1024 * 1024
_PARTS_BEFORE_GROWTH = 1000
_UPLOADING = 3


@dataclass(frozen=True, slots=True)
class Condition:
    """What must still hold when an object is written: its etag, or None for that it does not exist."""

    etag: str | None


class Parts(Protocol):
    """One object's upload in parts, as a service does it."""

    def begin(self) -> None:
        """Called once, before the first part."""

    def send(self, number: int, body: bytes) -> str:
        """Upload part `number`, from 1; what is returned names it at the end. Called from several threads."""

    def complete(self, parts: list[str], condition: Condition | None) -> None:
        """Make the object appear, of these parts in this order."""

    def abort(self) -> None:
        """Drop the parts that went up. Never raises: it runs when something else has failed."""

    def overtaken(self, etag: str) -> bool:
        """Whether another writer, of whom this etag is, can have made these parts vanish since they began."""


class RangedReader(Positioned):
    """A seekable object of `size` bytes, of which `fetch(start, end)` gives any range."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(size)
        self._fetch = fetch

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with one request, as far as the object goes."""
        view = memoryview(buffer).cast("B")
        end = min(self.at + len(view), self.size)
        if end <= self.at:
            return 0
        data = self._fetch(self.at, end)
        view[: len(data)] = data
        self.at += len(data)
        return len(data)


class Upload(io.RawIOBase):
    """Bytes on their way into an object, which exists only after `commit`.

    Up to one part is kept here and handed to `put_small` at the end; more goes up in parts, three at a time. Parts grow
    after the first thousand, so that an object may have 500 GB.
    """

    def __init__(self, parts: Parts, *, put_small: Callable[[bytes], None], part: int = PART) -> None:
        super().__init__()
        self._parts = parts
        self._put_small = put_small
        self._part = part
        self._buffer = bytearray()
        self._written = 0
        self._sent: list[str] = []
        self._pending: deque[Future[str]] = deque()
        self._numbers = 0
        self._pool: ThreadPoolExecutor | None = None

    def writable(self) -> bool:
        """Until it is closed."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._written

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of it. Raises what the client raises for an earlier part that failed."""
        if self.closed:
            raise ValueError("write to a closed stream")
        view = memoryview(data).cast("B")
        self._buffer += view
        self._written += len(view)
        while len(self._buffer) >= self._size_of_next():
            self._send(self._size_of_next())
        return len(view)

    def commit(self, condition: Condition | None = None) -> None:
        """Make the object appear. With a condition it goes up in parts, however small it is."""
        if self._pool is None and condition is None:
            self._put_small(bytes(self._buffer))
            return
        if self._buffer or not self._numbers:
            self._send(len(self._buffer))
        while self._pending:
            self._sent.append(self._pending.popleft().result())
        self._parts.complete(self._sent, condition)

    def discard(self) -> None:
        """Drop the parts that went up. Never raises: it runs when something else has failed."""
        for part in self._pending:
            part.cancel()
        if self._pool:
            self._pool.shutdown()
            self._parts.abort()

    def end(self) -> None:
        """Let go of the threads."""
        if self._pool:
            self._pool.shutdown()

    def _size_of_next(self) -> int:
        return self._part if self._numbers < _PARTS_BEFORE_GROWTH else 8 * self._part

    def _send(self, size: int) -> None:
        if self._pool is None:
            self._parts.begin()
            self._pool = ThreadPoolExecutor(_UPLOADING, thread_name_prefix="lowtide-upload")
        while len(self._pending) >= _UPLOADING:
            self._sent.append(self._pending.popleft().result())
        body = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._numbers += 1
        self._pending.append(self._pool.submit(self._parts.send, self._numbers, body))
