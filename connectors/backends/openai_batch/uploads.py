"""A shard's lines on their way to a provider, with the model's name exchanged where the deployment is another."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

import orjson

from lowtide.connectors.backends.openai_batch.requests import model_in, named
from lowtide.connectors.positioned import Positioned
from lowtide.errors import Terminal
from lowtide.records import Shard

_BLOCK = 1 << 18


def opened(shard: Shard, model: str) -> BinaryIO:
    """The shard's file, with this name of the model in every line. Never more of it in memory than a block."""
    source = shard.open()
    written, wanted = model_in(source.readline()), orjson.dumps(model)
    source.seek(0)
    if written is None:
        source.close()
        raise Terminal(f"{shard.uri!r} does not begin with a request line of this backend")
    if written == wanted:
        return source
    source.close()
    size = shard.size + shard.records * (len(wanted) - len(written))
    return io.BufferedReader(_Renamed(shard.open, named(written), named(wanted), size, shard.uri), _BLOCK)


class _Renamed(Positioned):
    """A file in which the first `old` of each line is `new`. `size` is its size then; it can be read from its start."""

    def __init__(self, open_source: Callable[[], BinaryIO], old: bytes, new: bytes, size: int, uri: str) -> None:
        super().__init__(size)
        self._open, self._old, self._new, self._uri = open_source, old, new, uri
        self._blocks: Iterator[bytes] = iter(())
        self._rest = b""
        self._started = False

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to the start, or to the end to learn the size. Raises UnsupportedOperation for any other place."""
        before = self.at
        target = super().seek(offset, whence)
        if target not in {0, before, self.size}:
            self.at = before
            raise io.UnsupportedOperation("only the start and the end can be gone to")
        if target != before:
            self._blocks, self._rest, self._started = iter(()), b"", False
        return target

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # as io.BufferedReader calls it
        """Fill the buffer with what is at hand."""
        if not self._started and self.at == 0:
            self._started, self._blocks = True, self._renamed()
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = block
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self.at += count
        return count

    def _renamed(self) -> Iterator[bytes]:
        held: list[bytes] = []
        size = 0
        with self._open() as source:
            for number, line in enumerate(source, 1):
                if self._old not in line:
                    raise Terminal(f"line {number} of {self._uri!r} is no request line of this backend")
                held.append(line.replace(self._old, self._new, 1))
                size += len(line)
                if size >= _BLOCK:
                    yield b"".join(held)
                    held, size = [], 0
        yield b"".join(held)
