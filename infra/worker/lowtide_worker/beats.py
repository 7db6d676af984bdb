"""A worker's beat: the account of its time, and its writing every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from lowtide_worker.layout import Beat, Spell, State, beat_path
from lowtide_worker.notices import Machine
from lowtide_worker.stores import Folder, StoreError

_log = logging.getLogger(__name__)


class Tally:
    """What a worker does at one shard, while it does it. Seconds are counted by the account alone."""

    def __init__(self, shard: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.shard = shard
        self.seconds = 0.0
        self.answered = 0
        self.duplicates = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self._clock = clock
        self._kept_at = clock()
        self._tail = 0.0

    def wrote(self) -> None:
        """What was done so far is kept."""
        self._kept_at = self._clock()

    def broke_off(self) -> None:
        """The work ended in the middle: what came since the last part is lost."""
        self._tail = self._clock() - self._kept_at

    def spell(self, seconds: float) -> Spell:
        # The engine may have been started again since the last part, and that time counts as boot.
        tail = min(self._tail, seconds)
        asked = self.answered + self.duplicates
        twice = (seconds - tail) * self.duplicates / asked if asked else 0.0
        return Spell(
            shard=self.shard,
            seconds=seconds,
            lost=tail + twice,
            answered=self.answered,
            duplicates=self.duplicates,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
        )


class Account:
    """Where a worker's time goes: each moment counts as boot, as waiting or as work at one shard."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, started: float | None = None) -> None:
        self.started = time.time() if started is None else started
        self._clock = clock
        self._begun = self._since = clock()
        self._boot = 0.0
        self._waited = 0.0
        self._tallies: list[Tally] = []
        self._now: Tally | str = "boot"

    def boot(self) -> None:
        self._turn_to("boot")

    def wait(self) -> None:
        self._turn_to("wait")

    def work(self, tally: Tally) -> None:
        """From now on it works at that shard, for the first time or again after a restart of the engine."""
        if tally not in self._tallies:
            self._tallies.append(tally)
        self._turn_to(tally)

    def settle(self) -> None:
        """Count what has passed until now."""
        self._turn_to(self._now)

    def fill(self, beat: Beat) -> Beat:
        """The beat as of now: the parts add up to the whole."""
        self.settle()
        return msgspec.structs.replace(
            beat,
            at=self.started + (self._since - self._begun),
            boot=self._boot,
            waited=self._waited,
            spells=tuple(tally.spell(tally.seconds) for tally in self._tallies),
        )

    def _turn_to(self, what: Tally | str) -> None:
        now = self._clock()
        passed, self._since = now - self._since, now
        if isinstance(self._now, Tally):
            self._now.seconds += passed
        elif self._now == "boot":
            self._boot += passed
        else:
            self._waited += passed
        self._now = what


class Beats:
    """The only writer of a worker's beat. One that cannot be written is logged and no more: the next one tells all."""

    def __init__(self, folder: Folder, worker: str, every: float, account: Account, machine: Machine, job: str) -> None:
        self.account = account
        self.state: State = "booting"
        self.note = ""
        self.restarts = 0
        self.in_flight: Callable[[], int] = lambda: 0
        self._folder = folder
        self._path = beat_path(worker)
        self._every = every
        self._lock = asyncio.Lock()
        self._writing: asyncio.Future[None] | None = None
        self._beat = Beat(
            worker=worker,
            state="booting",
            started=account.started,
            at=account.started,
            instance=machine.instance,
            instance_type=machine.instance_type,
            region=machine.region,
            zone=machine.zone,
            job=job,
            up_before=machine.up_before,
        )

    async def run(self) -> None:
        """Write it for ever, every so many seconds."""
        while True:
            try:
                await self.write()
            except StoreError as error:
                _log.warning("the beat was not written: %s", error)
            await asyncio.sleep(self._every)

    async def write(self, exit_code: int | None = None) -> None:
        """Write it now; with an exit code it is the last one."""
        async with self._lock:
            state: State = self.state if exit_code is None else "ended"
            beat = msgspec.structs.replace(
                self.account.fill(self._beat),
                state=state,
                note=self.note,
                restarts=self.restarts,
                in_flight=self.in_flight(),
                exit_code=exit_code,
            )
            if self._writing:
                # One that was interrupted is on its way yet, and must not come after this one.
                await asyncio.wait({self._writing})
            self._writing = asyncio.ensure_future(self._folder.put(self._path, msgspec.json.encode(beat)))
            await asyncio.shield(self._writing)

    async def store_time(self) -> float:
        """Write it now, and say at what time that was by the store's clock."""
        await self.write()
        return (await self._folder.get(self._path)).modified
