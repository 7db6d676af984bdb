"""What a worker knows of the machine time that its fleet may still take: see `reckoning`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import msgspec

from lowtide_worker.layout import TASK, Accounted, Beat, Fleet, Task, number_of, shard_path
from lowtide_worker.reckoning import seconds_left
from lowtide_worker.stores import Folder, Found, Missing, groups

LONGEST_PAUSE = 60.0
"""Seconds after which is looked again, however much is left: shards come, and workers."""

_ENDING_SECONDS = 15.0
_MARGIN_SHARE = 0.1

_BEAT = msgspec.json.Decoder(Beat)
_TASK = msgspec.json.Decoder(Task)
_ACCOUNT = msgspec.json.Decoder(Accounted)


class Purse:
    """The time that is reserved for a fleet's shards and for all that their workers take. `clock` counts in seconds.

    It is looked at anew so often that all workers together see its end coming. Methods raise StoreError.
    """

    def __init__(self, folder: Folder, fleet: Fleet, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._fleet = fleet
        self._clock = clock
        self._tasks: dict[str, float | None] = {}
        self._listed: dict[str, Found] = {}
        self._beats: dict[str, tuple[float, Beat]] = {}
        self._left = math.inf
        self._living = 1
        self._looked = self._next = -math.inf

    async def left(self) -> float:
        """Seconds until all workers of the fleet have to stop what they do; `math.inf` where nothing limits them.

        What they take to end is not among them.
        """
        if self._clock() >= self._next:
            await self._look()
        return (self._left - self._living * (self._clock() - self._looked)) / self._living

    async def is_empty(self) -> bool:
        return await self.left() <= 0

    async def wait_until_empty(self) -> None:
        while (left := await self.left()) > 0:
            await asyncio.sleep(min(max(left, 0.05), self._fleet.beat_seconds))

    async def _look(self) -> None:
        account = await self._last_account()
        shards, _ = await self._folder.names("shards/")
        open_ = [shard for shard in shards if shard not in account.shards]
        await self._read_tasks([shard for shard in open_ if shard not in self._tasks])
        found = await self._folder.below("workers")
        await self._read_beats(found)
        now = max((one.modified for one in found), default=0.0)
        beats = [beat for _, beat in self._beats.values()]
        living = (at for at, beat in self._beats.values() if beat.state != "ended")
        self._living = max(1, sum(now - at <= self._fleet.lease_seconds for at in living))
        allowed = {shard: self._tasks[shard] for shard in open_ if shard in self._tasks}
        left = seconds_left(allowed, beats, account, rented=self._fleet.rented)
        self._left = math.inf if left is None else left - self._margin(allowed)
        self._looked = self._clock()
        pause = min(self._left / self._living / 2, LONGEST_PAUSE)
        self._next = self._looked + max(pause, min(self._fleet.beat_seconds, self._fleet.part_seconds))

    def _margin(self, allowed: dict[str, float | None]) -> float:
        """What it takes from the last look to the last beats of all who live, of a small purse no large share."""
        fleet = self._fleet
        each = fleet.drain_seconds + fleet.beat_seconds + fleet.part_seconds + _ENDING_SECONDS
        whole = sum(seconds or 0.0 for seconds in allowed.values())
        return min(each * self._living, whole * _MARGIN_SHARE)

    async def _last_account(self) -> Accounted:
        found = await self._folder.below("accounts")
        last = max(found, key=lambda one: number_of(one.path.removesuffix(".json")), default=None)
        return _ACCOUNT.decode((await self._folder.get(last.path)).data) if last else Accounted()

    async def _read_tasks(self, shards: list[str]) -> None:
        for some in groups(shards):
            for shard, task in zip(some, await asyncio.gather(*map(self._task, some)), strict=True):
                if task is not None:
                    self._tasks[shard] = task.seconds

    async def _task(self, shard: str) -> Task | None:
        try:
            return _TASK.decode((await self._folder.get(shard_path(shard, TASK))).data)
        except Missing:
            # It was removed, or is yet to be written.
            return None

    async def _read_beats(self, found: list[Found]) -> None:
        changed = [one for one in found if self._listed.get(one.path) != one]
        for some in groups(changed):
            contents = await asyncio.gather(*(self._folder.get(one.path) for one in some))
            for one, content in zip(some, contents, strict=True):
                # What was read may be newer than what was listed: then the next listing differs again.
                self._listed[one.path] = one
                self._beats[one.path] = content.modified, _BEAT.decode(content.data)
