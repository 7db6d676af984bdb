"""Files that are compressed as a whole: read as a stream, under a limit on how much they grow."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import BinaryIO, Protocol

from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes


class Readable(Protocol):
    """All that the row readers ask of a stream."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class GzipReader:
    """The inflated bytes of a .gz stream. Reading raises Unreadable for a damaged one, and for a bomb."""

    def __init__(self, stream: BinaryIO, limits: ReadLimits) -> None:
        self._counted = _Counted(stream)
        # GzipFile only reads from it, and BufferedReader gives it the methods that it looks for.
        self._file = gzip.GzipFile(fileobj=io.BufferedReader(self._counted))
        self._limits = limits
        self._given = 0

    def read(self, size: int, /) -> bytes:
        try:
            block = self._file.read(size)
        except (OSError, EOFError, zlib.error):
            raise Unreadable("damaged or truncated gzip: what follows cannot be inflated; copy it again") from None
        self._given += len(block)
        limits = self._limits
        if self._given > limits.expansion_floor and self._given > limits.expansion * self._counted.taken:
            raise Unreadable(f"it inflates more than {limits.expansion} times: a bomb? Inflate it first if it is not")
        return block


def inflate(data: bytes, limits: ReadLimits) -> bytes:
    """A whole .gz file, if it holds no more than a plain file may. Raises Unreadable."""
    content = GzipReader(io.BytesIO(data), limits).read(limits.file_bytes + 1)
    if len(content) > limits.file_bytes:
        raise Unreadable(f"inflates to more than {megabytes(limits.file_bytes)}, the limit for one document: split it")
    return content


class _Counted(io.RawIOBase):
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # RawIOBase asks for any writable buffer
        block = self._stream.read(len(buffer))
        self.taken += len(block)
        buffer[: len(block)] = block
        return len(block)
