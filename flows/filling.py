"""A backfill as a flow run finds it: its job and root, its windows, its record, and what may be spent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import cast

import msgspec

from lowtide import backfill as domain
from lowtide import money
from lowtide.backfill import Allotments, Backfill, PlannedWindow, Reprocess
from lowtide.calendars import Calendar, is_last, parse_every
from lowtide.connectors.assembly import assemble
from lowtide.job import load_job
from lowtide.openruns import Asked
from lowtide.ownership import this_owner
from lowtide.plan import Work
from lowtide.windows import Window


class Place:
    """Where a backfill happens, by the parameters of its flow. `now` is what the window `last` goes by.

    Which one is meant is said by `job`, `first`, `last`, `by`, `reprocess` and `backends`. `range` is `first` and
    `last` by names that mean the same at any time. Raises ConfigError.
    """

    def __init__(self, asked: Mapping[str, object], now: datetime) -> None:
        self.job = load_job(Path(str(asked["job"])))
        self._backends = tuple(cast("Sequence[str]", asked.get("backends") or ()))
        by = asked.get("by")
        every = parse_every(str(by)) if by else None
        calendar = self.job.calendar
        self.range = {name: _lasting(calendar, str(asked[name]), now) for name in ("first", "last")}
        span = domain.span_of(calendar, self.range["first"], self.range["last"], now)
        self.windows = domain.windows_of(calendar, span, every)
        self.first = assemble(self.job, self.windows[0], asked=Asked(backends=self._backends))
        reprocess = cast("Reprocess", asked.get("reprocess") or "missing")
        self.wanted = domain.wanted(self.first, calendar, span, every, reprocess)
        self.root = self.first.root

    def work_of(self, window: Window) -> Work:
        """The job, put together for a window."""
        return assemble(self.job, window, asked=Asked(backends=self._backends), try_root=False)

    def allotments(self, found: Backfill) -> Allotments:
        """The backfill's money."""
        work = self.first
        return Allotments(work.root, found.id, work.job, work.tags, this_owner(), cap=found.max_usd, clock=time.time)

    def going_on(self, max_usd: Decimal | None, *, again: bool) -> Backfill | None:
        """The backfill that is meant, within this cap; None if it was asked before, and is not to be paid once more."""
        found = domain.going_on(self.root, self.wanted, job_file=str(self.job.file), again=again)
        above = self.job.budget.approve_above_usd
        return found and msgspec.structs.replace(found, max_usd=max_usd, approve_above_usd=above, cancelled_at=0.0)

    def plan(self, found: Backfill, *, newest_first: bool, exact: bool) -> Planned:
        """One plan over all windows; what has ended meanwhile is settled before."""
        allotments = self.allotments(found)
        domain.settle_ended(self.first, allotments)
        ended = {line.run for line in allotments.lines() if line.settled}
        windows = domain.in_order(self.windows, newest_first=newest_first)
        planned = domain.plan_backfill(found, windows, self.work_of, ended=ended, exact=exact, clock=time.time)
        found = domain.with_windows(found, planned, at=found.asked_at or time.time())
        return Planned(found, planned, allotments, allotments.spent)


def _lasting(calendar: Calendar, window: str, now: datetime) -> str:
    return calendar.last(now).name if is_last(window) else window


@dataclass(frozen=True)
class Planned:
    """A backfill's record with what is shown, and what it has spent before, in USD."""

    found: Backfill
    windows: tuple[PlannedWindow, ...]
    allotments: Allotments
    gone: Decimal

    @property
    def total(self) -> Decimal:
        """What it is expected to cost in all, in USD."""
        return money.total((self.gone, self.found.cost_usd))

    @property
    def asks(self) -> bool:
        """Whether somebody has to say yes before anything is bought.

        Not where nothing is to be paid, or what was approved covers it; always where it does not. With nothing
        approved, a job with `approve_above_usd` asks where all windows together cost more than that, and one without
        where there is no cap.
        """
        found = self.found
        if not any(window.worst_usd or window.cost_high_usd for window in found.to_do) or found.covers(self.total):
            return False
        if found.approved_usd is not None:
            return True
        if found.approve_above_usd is not None:
            return self.total > found.approve_above_usd
        return found.max_usd is None

    def approved(self, usd: Decimal, by: str) -> Planned:
        """The same, with so much approved."""
        found = msgspec.structs.replace(self.found, approved_usd=usd, approved_by=by)
        return Planned(found, self.windows, self.allotments, self.gone)
