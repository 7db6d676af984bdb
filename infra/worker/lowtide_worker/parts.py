"""A shard's answers: which records have one, and the writing of more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from lowtide_worker.beats import Tally
from lowtide_worker.layout import number_of, part_path, shard_path
from lowtide_worker.stores import Folder, groups

_AT_ONCE = 4
_MOST_BYTES = 32 * 1024 * 1024


class Line(NamedTuple):
    """The answer to the record of that ordinal, without a newline."""

    ordinal: int
    data: bytes


class Tokens(NamedTuple):
    """Tokens that an answer was billed with, or several."""

    input: int
    output: int


class _Error(msgspec.Struct):
    pass


class _Answer(msgspec.Struct):
    custom_id: str
    error: _Error | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


class Answered:
    """Which of a shard's records have a line in a part: one byte for each."""

    def __init__(self, records: int) -> None:
        self.seen = bytearray(records)
        self.count = 0
        self.errors = 0
        self.last = 0
        """The number of the last part that was read or written."""

    def note(self, lines: Iterable[bytes]) -> None:
        """These lines stand in the next part. Raises ValueError for a line that is none of this shard."""
        for line in lines:
            answer = _ANSWER.decode(line)
            ordinal = ordinal_of(answer.custom_id)
            if ordinal >= len(self.seen):
                raise ValueError(f"a part holds record {ordinal}, and the shard has {len(self.seen)} records")
            if not self.seen[ordinal]:
                self.seen[ordinal] = 1
                self.count += 1
                self.errors += answer.error is not None
        self.last += 1


def ordinal_of(custom_id: str) -> int:
    """The record's number in `r0000012x...`; raises ValueError."""
    if custom_id[:1] != "r" or custom_id[8:9] != "x" or not custom_id[1:8].isdigit():
        raise ValueError(f"a custom_id has to be r, seven digits and x at its start, and is {custom_id[:20]!r}")
    return int(custom_id[1:8])


async def read_parts(folder: Folder, shard: str, records: int) -> Answered:
    """All that is answered so far."""
    answered = Answered(records)
    found = await folder.below(shard_path(shard, "parts"))
    paths = [part_path(shard, number) for number in sorted(filter(None, (number_of(one.path) for one in found)))]
    for some in groups(paths, _AT_ONCE):
        for part in await asyncio.gather(*map(folder.get, some)):
            answered.note(_lines(part.data))
    return answered


class PartWriter:
    """Writes answers as parts, each `rows` rows or `seconds` seconds after the last one, whichever comes first.

    A part under the next number that somebody else has written is read, and what it answers is dropped here: so a
    record stands in one part, however many workers are at it. Before each part it asks whether answers are `wanted`;
    once they are not, they are dropped.
    """

    def __init__(
        self,
        folder: Folder,
        shard: str,
        answered: Answered,
        tally: Tally,
        *,
        rows: int,
        seconds: float,
        usage: Callable[[bytes], tuple[int, int]],
        wanted: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._folder = folder
        self._shard = shard
        self._answered = answered
        self._tally = tally
        self._rows = rows
        self._seconds = seconds
        self._usage = usage
        self._wanted = wanted
        self._buffer: list[Line] = []
        self._batch: list[Line] = []
        self._bytes = 0
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._lock = asyncio.Lock()

    @property
    def buffered(self) -> int:
        """Answers that are in no part yet."""
        return len(self._buffer) + len(self._batch)

    def add(self, line: Line) -> None:
        self._buffer.append(line)
        self._bytes += len(line.data)
        if len(self._buffer) >= self._rows:
            self._full.set()
        if self._bytes > _MOST_BYTES:
            self._room.clear()

    async def room(self) -> None:
        """Wait while the store is so slow that answers pile up."""
        if not self._room.is_set():
            await self._room.wait()

    async def run(self) -> None:
        """Write parts for ever. Raises StoreError once the store does not take them."""
        while True:
            full = asyncio.ensure_future(self._full.wait())
            try:
                await asyncio.wait({full}, timeout=self._seconds)
            finally:
                full.cancel()
            await self._write_one()

    async def flush(self) -> None:
        """Write all that there is. Once interrupted, it goes on with the very same part."""
        while self.buffered:
            await self._write_one()

    async def _write_one(self) -> None:
        async with self._lock:
            if not self._batch:
                taken, self._buffer, self._bytes = self._buffer, [], 0
                self._full.clear()
                self._room.set()
                # Some may have come while a part of somebody else was read that answers them too.
                self._batch = self._without_duplicates(taken)
            while self._batch:
                if self._wanted and not await self._wanted():
                    self._batch, self._buffer, self._bytes = [], [], 0
                    self._room.set()
                    return
                await self._write()

    async def _write(self) -> None:
        path = part_path(self._shard, self._answered.last + 1)
        data = b"\n".join([line.data for line in self._batch]) + b"\n"
        if await self._folder.put_if_absent(path, data):
            written, self._batch = self._batch, []
            self._answered.note(line.data for line in written)
            self._count(written)
            return
        other = await self._folder.get(path)
        self._answered.note(_lines(other.data))
        self._batch = self._without_duplicates(self._batch)

    def _without_duplicates(self, lines: list[Line]) -> list[Line]:
        kept = [line for line in lines if not self._answered.seen[line.ordinal]]
        self._tally.duplicates += len(lines) - len(kept)
        return kept

    def _count(self, batch: list[Line]) -> None:
        self._tally.answered += len(batch)
        for line in batch:
            tokens = Tokens(*self._usage(line.data))
            self._tally.input_tokens += tokens.input
            self._tally.output_tokens += tokens.output
        self._tally.wrote()


def _lines(part: bytes) -> Iterator[bytes]:
    return (line for line in part.split(b"\n") if line)
