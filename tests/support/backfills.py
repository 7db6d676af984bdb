"""A job over some weeks, in memory: one store, one strict provider, a clock, and processes that may die anywhere."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pyarrow.parquet as pq
from support.standins import PRICE, ListedDocuments, MemoryStore, echo_operation
from support.world import WORK, Clock, Crash, Hook, Kind, StrictProvider, WatchedBackend, WatchedStore, limits_of

from lowtide import backfill as domain
from lowtide.backfill import Allotments, Backfill, Drive, Ended, PlannedWindow, Reprocess, Standing
from lowtide.calendars import Calendar, Every
from lowtide.engine.publishing import results_path
from lowtide.openruns import Asked
from lowtide.operations import Operation
from lowtide.plan import Work
from lowtide.prices import Price
from lowtide.ticking import Taken, take_turns
from lowtide.windows import Window, parse_window

JOB_FILE = "job.yaml"
CALENDAR = Calendar(Every("week"), ZoneInfo("UTC"))
PASSES = 3_000
"""Pauses after which a backfill that has not ended is one that never will."""


def weeks(count: int, documents: int = 4) -> dict[str, dict[str, str | None]]:
    """So many weeks from 2026-W02 on, each with so many documents of its own."""
    return {
        f"2026-W{week:02d}": {f"{week}/d{number}": f"week {week} text {number}" for number in range(documents)}
        for week in range(2, 2 + count)
    }


@dataclass
class Weeks:
    """What all processes share. `texts` are the documents by window, `kinds` what is made of a record by its text."""

    texts: dict[str, dict[str, str | None]]
    price: Price = PRICE
    operations: tuple[Operation, ...] = (echo_operation(),)
    live: int = 4
    approve_above_usd: Decimal | None = None
    broken: frozenset[str] = frozenset()
    kinds: dict[str, Kind] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.provider = StrictProvider(self.clock, 1_000)

    @property
    def billed(self) -> Decimal:
        """USD that the provider has earned."""
        return PRICE.amount(self.provider.bill)

    def answer(self) -> None:
        """The provider answers everything that is out."""
        for batch in self.provider.open:
            for request in batch.requests:
                self.provider.process(batch, [self.kinds.get(request["text"], "ok")])
            self.provider.end(batch, "completed")

    def rows(self, window: str) -> list[dict[str, Any]]:
        data = self.store.objects[results_path("test", window)]
        return list(pq.read_table(io.BytesIO(data)).to_pylist())

    def published(self) -> list[str]:
        """The windows that have results."""
        return [name for name in sorted(self.texts) if results_path("test", name) in self.store.objects]


@dataclass
class Process:
    """One process that fills the weeks. It dies at the point of this number, if there is one.

    `on_point` hears of each point.
    """

    world: Weeks
    dies_at: int = 0
    points: int = 0
    told: list[Ended] = field(default_factory=list)
    most_open: int = 0
    on_pause: Callable[[], None] = lambda: None
    on_point: Hook = lambda name: None

    @property
    def dead(self) -> bool:
        return bool(self.dies_at) and self.points >= self.dies_at

    def _point(self, name: str) -> None:
        self.points += 1
        if self.dead:
            raise Crash
        self.on_point(name)

    def work_of(self, window: Window) -> Work:
        world, hook = self.world, self._point
        texts = {"broken": "x"} if window.name in world.broken else world.texts.get(window.name, {})
        work = replace(
            WORK,
            job="test",
            window=window,
            operations=world.operations,
            documents=ListedDocuments(texts),
            root=WatchedStore(world.store, hook),
            backend=_Backend(world, hook),
            price=world.price,
            poll=timedelta(seconds=60),
            deadline=timedelta(hours=24),
            approve_above_usd=world.approve_above_usd,
            asked=Asked(job_file=JOB_FILE),
        )
        if window.name in world.broken:
            work = replace(work, root=_Unwritable(world.store, hook))
        return work

    @property
    def windows(self) -> tuple[Window, ...]:
        names = sorted(self.world.texts)
        span = domain.span_of(CALENDAR, names[0], names[-1], datetime(2027, 1, 1, tzinfo=UTC))
        return domain.windows_of(CALENDAR, span)

    def plan(
        self, reprocess: Reprocess = "missing", *, again: bool = False, max_usd: Decimal | None = None
    ) -> tuple[Backfill | None, tuple[PlannedWindow, ...]]:
        work = self.work_of(self.windows[0])
        first, last = self.windows[0].start, self.windows[-1].end
        assert first is not None
        assert last is not None
        wanted = domain.wanted(work, CALENDAR, domain.Span(first, last), None, reprocess)
        found = domain.going_on(work.root, wanted, job_file=JOB_FILE, again=again)
        if found is None:
            return None, ()
        found = msgspec.structs.replace(found, max_usd=max_usd)
        allotments = self.allotments(found)
        domain.settle_ended(work, allotments)
        ended = {line.run for line in allotments.lines() if line.settled}
        planned = domain.plan_backfill(found, self.windows, self.work_of, ended=ended, clock=self.world.clock)
        return domain.with_windows(found, planned, at=self.world.clock()), planned

    def allotments(self, found: Backfill) -> Allotments:
        root = WatchedStore(self.world.store, self._point)
        return Allotments(root, found.id, "test", {}, "p", cap=found.max_usd, clock=self.world.clock)

    def run(
        self,
        reprocess: Reprocess = "missing",
        *,
        max_usd: Decimal | None = None,
        most: int = 3,
        newest_first: bool = False,
        approved_usd: Decimal | None = None,
        again: bool = False,
    ) -> Counter[str] | None:
        """Fill the weeks, as the command does: how many ended in which way; None if there is nothing to do."""
        found, planned = self.plan(reprocess, again=again, max_usd=max_usd)
        if found is None or not found.to_do:
            return None
        root, allotments = self.work_of(self.windows[0]).root, self.allotments(found)
        if approved_usd is not None:
            found = msgspec.structs.replace(found, approved_usd=approved_usd, approved_by="tester")
        domain.write_backfill(root, found)
        drive = self.drive(found, allotments, most)
        ended = drive.run(planned[::-1] if newest_first else planned)
        domain.conclude(root, found, [each.stand for each in ended], at=self.world.clock())
        return Counter(each.stand for each in ended)

    def cancel(self, reprocess: Reprocess = "missing") -> Counter[str]:
        found, _ = self.plan(reprocess)
        assert found is not None
        return Counter(each.stand for each in self.drive(found, self.allotments(found), 3).cancel(self.windows))

    def drive(self, found: Backfill, allotments: Allotments, most: int) -> Drive:
        pauses = 0

        def sleep(seconds: float) -> None:
            nonlocal pauses
            pauses += 1
            assert pauses < PASSES, "never at its end"
            self.world.clock.now += seconds
            self.world.answer()
            self.on_pause()

        def listen(standing: Standing) -> None:
            self.most_open = max(self.most_open, len(standing.open))

        return Drive(
            found,
            self.work_of,
            allotments,
            most=most,
            clock=self.world.clock,
            sleep=sleep,
            listen=listen,
            ended=self.told.append,
        )


def tick(world: Weeks) -> list[Taken]:
    """One pass over all open runs by another machine, which knows no more of them than their notes."""
    process = Process(world)

    def assemble(job_file: str, window: str, asked: Asked) -> Work:
        work = process.work_of(parse_window(window))
        return replace(work, asked=asked, run_usd=asked.max_usd)

    taken = list(take_turns(world.store, assemble, lambda run: run.advance().step))
    assert not [each for each in taken if each.error], taken
    return taken


class _Backend(WatchedBackend):
    def __init__(self, world: Weeks, hook: Hook) -> None:
        super().__init__(world.provider, limits_of(world.live), hook)


class _Unwritable(WatchedStore):
    """A root in which no request can be written."""

    def writer(self, path: str) -> Any:
        if "/requests/" in path:
            from lowtide.errors import StoreError

            raise StoreError(f"{path}: read-only file system")
        return super().writer(path)
