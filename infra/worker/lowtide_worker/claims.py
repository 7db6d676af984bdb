"""Which shards are still to be done, and which worker works at each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from lowtide_worker.layout import CANCEL, END, TASK, Beat, Claim, beat_path, claim_path, number_of, shard_path
from lowtide_worker.stores import Folder, Found, Missing, groups

_CLAIM = msgspec.json.Decoder(Claim)
_BEAT = msgspec.json.Decoder(Beat)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A shard with a task and no end. Nothing is to be asked of a `cancelled` one, but its end is to be written."""

    shard: str
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A shard under this worker's claim of that number."""

    shard: str
    cancelled: bool
    number: int


class Claims:
    """The claims of one worker. Whoever claimed a shard last has it, for as long as that worker lives."""

    def __init__(self, folder: Folder, worker: str, lease_seconds: float) -> None:
        self._folder = folder
        self._worker = worker
        self._lease = lease_seconds
        self._ended: set[str] = set()
        self._open = ""

    async def unfinished(self) -> list[Unfinished]:
        """All that is left to do, whoever is doing it. Every worker sees it in an order of its own."""
        shards, _ = await self._folder.names("shards/")
        left = [shard for shard in shards if shard not in self._ended]
        found: list[Unfinished] = []
        for some in groups(left):
            for shard, (_, names) in zip(some, await asyncio.gather(*map(self._names, some)), strict=True):
                if END in names:
                    self._ended.add(shard)
                elif TASK in names:
                    found.append(Unfinished(shard, CANCEL in names))
        start = hash(self._worker) % len(found) if found else 0
        return found[start:] + found[:start]

    async def is_work_left(self) -> bool:
        """Whether anything is to be asked still, by whomever. One look at one shard, as long as that has not ended."""
        if self._open:
            _, names = await self._names(self._open)
            if TASK in names and not {END, CANCEL} & set(names):
                return True
        self._open = next((one.shard for one in await self.unfinished() if not one.cancelled), "")
        return bool(self._open)

    async def take(self, shards: Iterable[Unfinished], now: float) -> Held | None:
        """Claim the first of the shards that nobody has.

        `now` is the store's time of this worker's own beat, written just before. A worker is gone when its beat says
        that it ended, or when no beat and no claim of it is younger than the lease.
        """
        left = list(shards)
        for some in groups(left):
            lists = await asyncio.gather(*(self._folder.below(shard_path(one.shard, "claims")) for one in some))
            # Shards that nobody has touched go first: the others' workers may yet come back.
            for one, claims in sorted(zip(some, lists, strict=True), key=lambda pair: bool(pair[1])):
                number = await self._claim(one.shard, claims, now)
                if number:
                    return Held(one.shard, one.cancelled, number)
        return None

    async def holds(self, shard: str, number: int) -> bool:
        """Whether nobody has claimed the shard since."""
        try:
            await self._folder.get(claim_path(shard, number + 1))
        except Missing:
            return True
        return False

    async def _names(self, shard: str) -> tuple[list[str], list[str]]:
        return await self._folder.names(shard_path(shard))

    async def _claim(self, shard: str, claims: list[Found], now: float) -> int | None:
        last = max(claims, key=lambda claim: number_of(claim.path), default=None)
        number = number_of(last.path) if last else 0
        if last:
            holder = _CLAIM.decode((await self._folder.get(last.path)).data).worker
            if holder == self._worker:
                return number
            if not await self._gone(holder, last.modified, now):
                return None
        own = msgspec.json.encode(Claim(worker=self._worker, at=time.time()))
        return number + 1 if await self._folder.put_if_absent(claim_path(shard, number + 1), own) else None

    async def _gone(self, worker: str, claimed: float, now: float) -> bool:
        try:
            beat = await self._folder.get(beat_path(worker))
        except Missing:
            return now - claimed > self._lease
        return _BEAT.decode(beat.data).state == "ended" or now - max(claimed, beat.modified) > self._lease


async def seconds_spent(folder: Folder, shard: str) -> float:
    """What all workers have spent on a shard, as far as their beats tell."""
    beats = await folder.below("workers")
    total = 0.0
    for some in groups([beat.path for beat in beats]):
        for content in await asyncio.gather(*map(folder.get, some)):
            total += sum(spell.seconds for spell in _BEAT.decode(content.data).spells if spell.shard == shard)
    return total
