"""The requests of a shard on their way to the engine, and a fixed set of tasks that asks them."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from lowtide_worker.parts import Line
from lowtide_worker.ports import Desk, EngineDown

_LAST_WORDS_SECONDS = 5.0
_ORDINAL = re.compile(rb'"custom_id": ?"r(\d{7})x')


class BadRequests(Exception):
    """The file of requests is not what the task says; the message says where."""


class Record(NamedTuple):
    """One request: the ordinal of its record, and its line without the newline."""

    ordinal: int
    line: bytes


class Feed:
    """The records of a shard that have no answer, each handed out once, and again only after it was given back."""

    def __init__(self, lines: AsyncGenerator[list[bytes], None], seen: bytearray, records: int | None = None) -> None:
        """`seen` has a byte for each ordinal. There are so many `records`, by default one for each ordinal."""
        self._lines = lines
        self._seen = seen
        self._records = len(seen) if records is None else records
        self._count = 0
        self._back: deque[Record] = deque()
        self._some: Iterator[bytes] = iter(())
        self._ordinal = -1
        self._read_all = False
        self._reading: asyncio.Task[list[bytes] | None] | None = None
        self._lock = asyncio.Lock()

    async def take(self) -> Record | None:
        """The next one, or None when there is none. Raises BadRequests and StoreError."""
        while True:
            if self._back:
                return self._back.popleft()
            record = self._next()
            if record or self._read_all:
                return record
            async with self._lock:
                # Others have waited for the same lines.
                record = self._next()
                if record:
                    return record
                if not self._read_all:
                    await self._read()

    async def close(self) -> None:
        """Read no further."""
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._lines.aclose()

    def give_back(self, records: Iterable[Record]) -> None:
        self._back.extend(records)

    def _next(self) -> Record | None:
        seen = self._seen
        for line in self._some:
            self._count += 1
            if self._count > self._records:
                raise BadRequests(f"the requests have more than the {self._records} lines that the task tells of")
            ordinal = self._ordinal = self._ordinal + 1 if self._records == len(seen) else self._higher(line)
            if seen[ordinal]:
                continue
            if line.find(b'"r%07dx' % ordinal) < 0:
                raise BadRequests(f"line {self._count} of the requests has no custom_id r{ordinal:07d}x...")
            return Record(ordinal, line)
        return None

    def _higher(self, line: bytes) -> int:
        """The ordinal of a record where some are left out."""
        found = _ORDINAL.search(line)
        if found is None or not self._ordinal < int(found[1]) < len(self._seen):
            raise BadRequests(
                f"line {self._count} of the requests has no custom_id between r{self._ordinal + 1:07d}x... and "
                f"r{len(self._seen) - 1:07d}x..."
            )
        return int(found[1])

    async def _read(self) -> None:
        # Whoever waits here may be cancelled, and a cancelled generator yields nothing more.
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._more())
        some = await asyncio.shield(self._reading)
        self._reading = None
        if some is not None:
            self._some = iter(some)
            return
        self._read_all = True
        if self._count < self._records:
            raise BadRequests(f"the requests have {self._count} lines, and the task tells of {self._records}")

    async def _more(self) -> list[bytes] | None:
        async for some in self._lines:
            return some
        return None


class Round:
    """Asks what it is given, `most` requests at a time and never more than the desk has room for.

    It is over when there is nothing more to take, when it is closed, or when the engine is down: `dead` says why.
    What was in flight then is in `flying`.
    """

    def __init__(
        self,
        desk: Desk,
        take: Callable[[], Awaitable[Record | None]],
        keep: Callable[[Line], None],
        *,
        most: int,
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self.dead = ""
        self.kept = 0
        self.flying: dict[int, Record] = {}
        self.untouched: list[Record] = []
        """Taken, and not asked, since the round was closed meanwhile."""
        self._desk = desk
        self._take = take
        self._keep = keep
        self._most = most
        self._room = room
        self._closed = False
        self._parked: dict[int, asyncio.Future[None]] = {}
        self._open = 0
        """How many may ask, as it was when somebody last looked."""

    async def run(self) -> None:
        """Raises what taking raises. Cancelled, it leaves what was in flight in `flying`."""
        tasks = {asyncio.ensure_future(self._ask(index)) for index in range(self._most)}
        try:
            left = tasks
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if self.dead and left:
                    # Whoever is still asking the same engine hears so too, at once or never.
                    _, left = await asyncio.wait(left, timeout=_LAST_WORDS_SECONDS)
                    break
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Ask nothing more; what is in flight may still be answered."""
        self._closed = True
        for parked in self._parked.values():
            if not parked.done():
                parked.set_result(None)

    async def _ask(self, index: int) -> None:
        while not self._closed:
            if index >= self._limit():
                await self._park(index)
                continue
            await self._room()
            record = await self._take()
            if record is None:
                self.close()
                return
            if self._closed:
                self.untouched.append(record)
                return
            self.flying[record.ordinal] = record
            try:
                line = await self._desk.ask(record.line)
            except EngineDown as error:
                self.dead = self.dead or str(error) or "the engine is down"
                self.close()
                return
            del self.flying[record.ordinal]
            self.kept += 1
            self._keep(Line(record.ordinal, line))
            self._unpark()

    def _limit(self) -> int:
        return max(1, min(self._most, self._desk.room))

    async def _park(self, index: int) -> None:
        self._open = min(self._open, index)
        parked = self._parked[index] = asyncio.get_running_loop().create_future()
        try:
            await parked
        finally:
            del self._parked[index]

    def _unpark(self) -> None:
        limit = self._limit()
        if limit <= self._open:
            self._open = limit
            return
        self._open = limit
        for index, parked in self._parked.items():
            if index < limit and not parked.done():
                parked.set_result(None)
