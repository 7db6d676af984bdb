"""A shard, from the claim to its end."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from lowtide_worker.answers import failed, read_asked, usage
from lowtide_worker.beats import Beats, Tally
from lowtide_worker.claims import Claims, Held, seconds_spent
from lowtide_worker.feeding import BadRequests, Feed, Record, Round
from lowtide_worker.layout import CANCEL, END, TASK, End, Fleet, Outcome, Task, shard_path
from lowtide_worker.parts import Answered, Line, PartWriter, read_parts
from lowtide_worker.ports import Desk
from lowtide_worker.purse import Purse
from lowtide_worker.stores import Folder, Missing, Short, open_parent

_log = logging.getLogger(__name__)

LONGEST_DRAIN_SECONDS = 9.0
"""A worker that has to go has 20 s for everything."""

Left = Literal["ended", "lost", "stopped"]
"""The shard has its end from here; another worker has it, or has ended it; this one has to go."""

_Halt = Literal["stopped", "over", "lost", "cancelled", "late"]


class Bench(Protocol):
    """The engine with a desk in front of it."""

    async def desk(self) -> Desk:
        """The desk, once the engine is up. Raises EngineFailed."""
        ...

    async def renew(self, most: int) -> Desk:
        """Start the engine again: a new desk for that many requests at a time. Raises EngineFailed."""
        ...

    def reason(self) -> str:
        """Why the engine is gone, as far as it can be told; "" where it cannot."""
        ...


@dataclass(slots=True)
class Trouble:
    """What the deaths of the engine tell, at one shard.

    Those in flight at a death are suspects. They are asked before all others, fewer at a time after each death, and who
    is in flight when it dies again stays one. Who was alone then is guilty, and is not asked again. Where nobody is
    found guilty it was too much at a time, and half as many are asked from then on.
    """

    restarts: int
    most: int
    at_a_time: int = 0
    barren: int = 0
    """Restarts since the engine's last answer that nobody was found guilty of."""
    guilty: int = 0
    """Found guilty since the engine's last answer."""
    _suspects: deque[Record] = field(default_factory=deque)
    _freed: list[Record] = field(default_factory=list)
    _before: int = 0

    @property
    def probing(self) -> bool:
        """Whether only suspects are to be asked."""
        return self.at_a_time > 0

    @property
    def now(self) -> int:
        """How many requests may be in flight."""
        return self.at_a_time or self.most

    @property
    def hopeless(self) -> bool:
        """Whether the engine has been started again often enough without any answer since.

        Of an engine that dies on everything each record looks guilty.
        """
        return self.barren >= self.restarts or self.guilty >= self.restarts

    async def take(self) -> Record | None:
        """The next suspect."""
        return self._suspects.popleft() if self._suspects else None

    def cleared(self) -> None:
        """All suspects have an answer."""
        self.at_a_time = 0

    def death(self, flying: list[Record], kept: int) -> Record | None:
        """The engine died after that many answers: the guilty record, if this shows it."""
        if kept:
            self.barren = self.guilty = 0
        if self.at_a_time == 1:
            # The other suspects stay alone with the engine: there may be more of the kind, and this tells at once.
            self.most = self._before
            self.barren = 0
            self.guilty += 1
            return flying[0]
        if not self.probing:
            self._before, self.most = self.most, max(1, min(self.most, len(flying)) // 2)
        self._freed += self._suspects
        # Who came last before the death is the likeliest.
        self._suspects = deque(reversed(flying))
        # One restart is left to go on with once the guilty one is found.
        self.at_a_time = 1 if self.barren + 2 >= self.restarts else math.isqrt(len(flying))
        return None

    def freed(self) -> list[Record]:
        """Who is no suspect any more and was not asked again."""
        freed, self._freed = self._freed, []
        return freed


class Shift:
    """The work of one worker at one shard that it has claimed. `stop` is set once the worker has to go."""

    def __init__(
        self, folder: Folder, fleet: Fleet, held: Held, claims: Claims, bench: Bench, beats: Beats, stop: asyncio.Event
    ) -> None:
        self._folder = folder
        self._fleet = fleet
        self._held = held
        self._claims = claims
        self._bench = bench
        self._beats = beats
        self._stop = stop
        # One of its own: what an earlier look has found knows nothing of a shard that came since, nor of its time.
        self._purse = Purse(folder, fleet)
        self._tally = Tally(held.shard)
        self._halted: asyncio.Future[_Halt] = asyncio.get_running_loop().create_future()
        self._behind: set[asyncio.Task[None]] = set()
        self._looked = -math.inf
        self._over = self._cancelled = False

    async def run(self) -> Left:
        """Answer what is not answered. Raises StoreError, and EngineFailed where the engine does not start again.

        What was answered is written whatever happens, if the store takes it.
        """
        account = self._beats.account
        account.work(self._tally)
        task = msgspec.json.decode((await self._folder.get(self._path(TASK))).data, type=Task)
        answered = await read_parts(self._folder, self._held.shard, task.ordinals or task.records)
        # After the parts were read: those of a shard that has ended may be removed already.
        if await self._is_over():
            self._tally.broke_off()
            return "lost"
        seconds = math.inf
        if task.seconds is not None:
            seconds = task.seconds - await seconds_spent(self._folder, self._held.shard)
            if await self._purse.is_empty():
                seconds = 0.0
        if self._held.cancelled or seconds <= 0:
            self._halted.set_result("cancelled" if self._held.cancelled else "late")
            return await self._leave(answered, task, "")
        writer = PartWriter(
            self._folder,
            self._held.shard,
            answered,
            self._tally,
            rows=self._fleet.part_rows,
            seconds=self._fleet.part_seconds,
            usage=usage,
            wanted=self._is_wanted,
        )
        failure = ""
        try:
            failure = await self._answer(task, answered, writer, seconds)
        finally:
            account.work(self._tally)
            await self._finish(writer)
            if answered.count < task.records:
                self._tally.broke_off()
        return await self._leave(answered, task, failure)

    async def _answer(self, task: Task, answered: Answered, writer: PartWriter, seconds: float) -> str:
        """Why it cannot be gone on with, or "" where all is answered or the work was halted."""
        try:
            parent, name = open_parent(task.requests)
        except ValueError as error:
            return str(error)
        feed = Feed(parent.lines(name, task.size), answered.seen, task.records)
        self._behind = {asyncio.ensure_future(writer.run()), asyncio.ensure_future(self._watch(seconds))}
        try:
            return await self._ask_all(feed, writer)
        except (BadRequests, Missing, Short) as error:
            return str(error)
        finally:
            await feed.close()

    async def _ask_all(self, feed: Feed, writer: PartWriter) -> str:
        trouble = Trouble(self._fleet.engine.restarts, max(1, self._fleet.most))
        convicted: list[Line] = []

        def keep(line: Line) -> None:
            # The engine answers again, so those were to blame: of a broken engine nothing would be true.
            while convicted:
                writer.add(convicted.pop())
            writer.add(line)

        # It runs already, as a rule. Where it does not, its start takes as long as any other.
        desk = await self._up(self._bench.desk())
        while desk:
            take = trouble.take if trouble.probing else feed.take
            asking = Round(desk, take, keep, most=trouble.now, room=writer.room)
            await self._ask(asking)
            if self._halted.done():
                break
            if not asking.dead and not trouble.probing:
                for line in convicted:
                    writer.add(line)
                break
            if not asking.dead:
                trouble.cleared()
                continue
            reason = self._bench.reason() or asking.dead
            _log.warning("the engine is down: %s", reason)
            self._beats.note = reason
            guilty = trouble.death(list(asking.flying.values()), asking.kept)
            feed.give_back([*asking.untouched, *trouble.freed()])
            if guilty:
                convicted.append(Line(guilty.ordinal, _died_on(guilty, reason)))
            if trouble.hopeless:
                return f"the engine goes down again and again without an answer in between: {reason}"
            trouble.barren += 1
            self._beats.restarts += 1
            desk = await self._up(self._bench.renew(trouble.most))
        return ""

    async def _ask(self, asking: Round) -> None:
        self._beats.in_flight = lambda: len(asking.flying)
        running = asyncio.ensure_future(asking.run())
        try:
            await self._until(running)
            if not running.done():
                asking.close()
                lost = self._halted.result() in {"over", "lost"}
                seconds = 0.0 if lost else min(self._fleet.drain_seconds, LONGEST_DRAIN_SECONDS)
                await asyncio.wait({running}, timeout=seconds)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
            self._beats.in_flight = lambda: 0
        if not running.cancelled():
            running.result()

    async def _up(self, desk: Awaitable[Desk]) -> Desk | None:
        """The desk once its engine is up, which counts as boot, or None if the work is halted meanwhile."""
        self._beats.account.boot()
        starting = asyncio.ensure_future(desk)
        try:
            await self._until(starting)
            return starting.result() if starting.done() else None
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
            self._beats.account.work(self._tally)

    async def _until(self, awaited: asyncio.Future[Desk] | asyncio.Future[None]) -> None:
        """Wait for it, or for the work to be halted. Raises what goes wrong behind it."""
        await asyncio.wait({awaited, self._halted, *self._behind}, return_when=asyncio.FIRST_COMPLETED)
        for task in self._behind:
            if task.done():
                task.result()

    async def _watch(self, seconds: float) -> None:
        """Halt the work when the worker has to go, the time is over, another has the shard, or it is cancelled."""
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            while True:
                self._beats.account.settle()
                left = seconds - self._tally.seconds
                await asyncio.wait({stopped}, timeout=max(0.0, min(self._fleet.part_seconds, left)))
                halt = await self._look(seconds)
                if halt:
                    self._halt(halt)
                    return
        finally:
            stopped.cancel()

    async def _look(self, seconds: float) -> _Halt | None:
        if self._stop.is_set():
            return "stopped"
        if await self._is_over():
            return "over"
        self._beats.account.settle()
        if self._tally.seconds >= seconds or await self._purse.is_empty():
            return "late"
        if not await self._claims.holds(self._held.shard, self._held.number):
            return "lost"
        return "cancelled" if self._cancelled else None

    def _halt(self, why: _Halt) -> None:
        if not self._halted.done():
            self._halted.set_result(why)

    async def _is_over(self) -> bool:
        """Whether the shard has its end, or is gone: from then on it takes no more answers."""
        now = time.monotonic()
        _, names = await self._folder.names(self._path(""))
        self._looked, self._cancelled = now, CANCEL in names
        self._over = self._over or END in names or TASK not in names
        return self._over

    async def _is_wanted(self) -> bool:
        """Whether the shard takes answers. One that was paused since it looked last looks before it writes."""
        paused = min(2 * self._fleet.part_seconds, self._fleet.lease_seconds / 2)
        if not self._over and time.monotonic() - self._looked > paused and await self._is_over():
            self._halt("over")
        return not self._over

    async def _finish(self, writer: PartWriter) -> None:
        """Write what is answered, unless writing has just failed."""
        broken = any(task.done() and not task.cancelled() and task.exception() for task in self._behind)
        for task in self._behind:
            task.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)
        if not broken:
            await writer.flush()

    async def _leave(self, answered: Answered, task: Task, failure: str) -> Left:
        halt = self._halted.result() if self._halted.done() else None
        if not await self._is_wanted():
            return "lost"
        if answered.count == task.records:
            return await self._end(answered, "completed")
        if halt in {"stopped", "lost"}:
            return "stopped" if halt == "stopped" else "lost"
        if await self._is_over() or not await self._claims.holds(self._held.shard, self._held.number):
            return "lost"
        if halt == "late":
            reason = f"the {task.seconds or 0:g} s reserved for it, and for its workers' start and waits, are used up"
            return await self._end(answered, "partial", reason)
        if halt == "cancelled":
            return await self._end(answered, "cancelled")
        return await self._end(answered, "failed", failure)

    async def _end(self, answered: Answered, outcome: Outcome, reason: str = "") -> Left:
        end = End(
            outcome=outcome, answered=answered.count, errors=answered.errors, at=round(time.time(), 3), reason=reason
        )
        await self._folder.put_if_absent(self._path(END), msgspec.json.encode(end))
        return "ended"

    def _path(self, name: str) -> str:
        return shard_path(self._held.shard, name)


def _died_on(record: Record, reason: str) -> bytes:
    message = f"engine died on this record: {reason}"
    return failed(read_asked(record.line).custom_id, None, "engine_died", message)
