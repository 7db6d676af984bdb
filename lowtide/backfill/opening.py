"""The run of one window: begun within what the backfill has left, and settled when it has ended.

Whoever drives a backfill, one process or many, goes this way: `open_window`, then passes of the run until it is over,
then `close_window`. Each may be called again after a crash at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import msgspec

from lowtide import money, openruns
from lowtide.backfill.allotments import Allotment, Allotments, Line
from lowtide.backfill.listing import Listed
from lowtide.backfill.looking import Found, find
from lowtide.backfill.planning import PlannedWindow, WorkOf, worst_usd
from lowtide.backfill.record import Backfill
from lowtide.budget import approval
from lowtide.engine import Run, apply_plan, find_run, open_run, plan_run
from lowtide.errors import StalePlan
from lowtide.events import CancelRequested
from lowtide.inputs import Inputs, spool
from lowtide.ledger import spent
from lowtide.openruns import Asked
from lowtide.plan import RunPlan, Work, run_id_of
from lowtide.prices import Price
from lowtide.protocols import Store
from lowtide.states import RunState
from lowtide.windows import Window


@dataclass(frozen=True)
class Opened:
    """The run of a window, and what it may spend."""

    run: Run
    allotment: Allotment


def open_window(
    planned: PlannedWindow,
    work: Work,
    backfill: Backfill,
    allotments: Allotments,
    *,
    clock: Callable[[], float],
    least_usd: Decimal | None = None,
) -> Opened | None:
    """Begin the window's run, or go on with it; None, with nothing written, if the cap has no room for it now.

    First the money is reserved, then the run is asked for with it: so a crash in between leaves money that nobody
    spends, and never a run whose money is not reserved. What is listed now counts: documents that have come since the
    plan are part of it, as far as what was approved covers them. With `least_usd`, so little is enough. Raises what
    `engine.open_run` raises.
    """
    source = work.documents
    with spool() as folder:
        listed = Listed(source, Path(folder))
        work = replace(work, documents=listed, refresh=planned.need.refresh)
        plan = _plan_of(planned, work, listed.inputs, clock)
        _check_covered(planned, plan, work.root, backfill, allotments)
        there = find(work.root, plan.prefix)
        before = Decimal(0) if there is None else ended_usd(there.state, _price(there.plan, work))
        _free_never_begun(work, plan.prefix, allotments)
        line = allotments.line_of(plan.prefix)
        most, least = _wishes(planned, plan, work)
        allotment = allotments.allot(
            plan.prefix, most=most, least=least if least_usd is None else least_usd, spent=before
        )
        if allotment is None:
            return None
        work = _within(work, backfill, allotment)
        # A crash may lie between the question and its being asked; what has cost something since was asked.
        retry = planned.need.retry and (line is None or before <= line.before)
        if there is None or not there.state.entry:
            run = _begin(work, plan, retry=retry, clock=clock)
        else:
            run = open_run(work, retry=retry, clock=clock)
        run.context.work = replace(run.context.work, documents=source)
    if run.plan.prefix != plan.prefix:
        run.context.journal.append(CancelRequested(at=clock()))
        allotments.release(plan.prefix)
        raise StalePlan(f"window {planned.window.name}: somebody else asked it anew meanwhile; the same command again")
    if allotments.line_of(plan.prefix) is None and not allotments.allot(
        plan.prefix, most=allotment.usd, least=allotment.usd, spent=allotment.before
    ):
        # Whoever has freed it took the run for one that never began, and somebody else has the money now.
        run.context.journal.append(CancelRequested(at=clock()))
        raise StalePlan(f"window {planned.window.name}: its money went to another window; the same command again")
    approve(run, backfill, allotments, at=clock())
    return Opened(run, allotment)


def _plan_of(planned: PlannedWindow, work: Work, inputs: Inputs, clock: Callable[[], float]) -> RunPlan:
    """The plan that was shown, or another one if its documents are no longer those."""
    plan = planned.plan
    if plan is None or run_id_of(work, inputs.sha256, plan.refresh) != plan.run_id:
        return plan_run(work, exact=False, clock=clock)
    return plan


def _check_covered(
    planned: PlannedWindow, plan: RunPlan, store: Store, backfill: Backfill, allotments: Allotments
) -> None:
    """Raise StalePlan if so many documents have come since the plan that what was approved does not cover them."""
    if backfill.approved_usd is None or (planned.plan is not None and planned.plan.run_id == plan.run_id):
        return
    others = money.total(_committed(store, backfill, line) for line in allotments.lines() if line.run != plan.prefix)
    if plan.cost_usd > planned.shown.cost_usd and not backfill.covers(money.total((plan.cost_usd, others))):
        raise StalePlan(
            f"window {planned.window.name}: its documents are others than when it was planned, and cost about "
            f"{money.rough(plan.cost_usd)} USD now, which was not approved; the same command plans it again"
        )


def _wishes(planned: PlannedWindow, plan: RunPlan, work: Work) -> tuple[Decimal, Decimal]:
    """The most that the run may need, and what is enough to be done as expected."""
    if planned.plan is not None and planned.plan.run_id == plan.run_id:
        return planned.shown.worst_usd, planned.shown.least_usd
    option = next((found for found in plan.options if found.chosen), None)
    worst = worst_usd(work, plan, option)
    shards = max(option.shards if option else 1, 1)
    return worst, min(worst, (option.cost_high_usd if option else plan.cost_usd) + worst / shards)


def _within(work: Work, backfill: Backfill, allotment: Allotment) -> Work:
    """The work, bounded by what the run is allotted where the backfill has a cap."""
    asked = msgspec.structs.replace(work.asked, backfill=backfill.id)
    if backfill.max_usd is None:
        return replace(work, asked=asked)
    asked = msgspec.structs.replace(asked, max_usd=allotment.run_usd)
    caps = [usd for usd in (work.run_usd, asked.max_usd) if usd is not None]
    return replace(work, asked=asked, run_usd=min(caps))


def asked_of(backfill: Backfill, allotment: Allotment, job_file: str = "") -> Asked:
    """How a run of the backfill is asked for, for who opens it himself."""
    usd = None if backfill.max_usd is None else allotment.run_usd
    return Asked(job_file=job_file or backfill.job_file, max_usd=usd, backfill=backfill.id)


def _begin(work: Work, plan: RunPlan, *, retry: bool, clock: Callable[[], float]) -> Run:
    """The run as it was planned; its deadline counts from now, and not from when the backfill was planned."""
    now = clock()
    fresh = msgspec.structs.replace(
        plan, created_at=now, deadline=now + work.deadline.total_seconds(), run_usd=work.run_usd
    )
    try:
        return apply_plan(work, fresh, clock=clock)
    except StalePlan:
        # Somebody has begun it meanwhile: it goes on as it was begun.
        return open_run(work, retry=retry, clock=clock)


def approve(run: Run, backfill: Backfill, allotments: Allotments, *, at: float) -> bool:
    """Approve the run, if it waits for that, and what was shown of the whole backfill covers it; whether it waits not.

    What other runs of the backfill have spent, or are expected to, counts as well.
    """
    if not run.awaits_approval:
        return True
    expected = approval.expected_usd(run.plan, run.state)
    others = money.total(
        _committed(run.context.store, backfill, line) for line in allotments.lines() if line.run != run.plan.prefix
    )
    if not backfill.covers(money.total((expected, others))):
        return False
    approval.approve(run.context.journal, run.plan, by=backfill.approved_by, at=at, usd=expected)
    run.refresh()
    return not run.awaits_approval


def _committed(store: Store, backfill: Backfill, line: Line) -> Decimal:
    """What a run has spent, or may be expected to spend: nothing as long as it waits for its own approval."""
    if line.settled:
        return line.spent
    found, shown = find(store, line.run), backfill.window(line.window)
    if found is not None and approval.awaits_approval(found.plan, found.state):
        return Decimal(0)
    return line.reserved if shown is None else min(line.reserved, shown.cost_usd)


def close_window(run: Run, allotments: Allotments) -> bool:
    """Settle what the run has spent, if it has ended; whether it has."""
    state = run.refresh()
    if not is_over(state):
        return False
    _settle(Found(run.plan, state), run.context.work.price, allotments)
    return True


def stop_windows(
    windows: Iterable[Window],
    work_of: WorkOf,
    allotments: Allotments,
    *,
    clock: Callable[[], float],
) -> Iterator[tuple[Window, Run, Line]]:
    """Ask the open runs of these windows to stop, and free the money of those that never began.

    Whoever advances them next stops their batches, and publishes what was answered.
    """
    there = {window.name: window for window in windows}
    # A window has two where late documents have come between two processes that died.
    for line in [line for line in allotments.lines() if not line.settled and line.window in there]:
        window = there[line.window]
        run = find_run(work_of(window), run_id=line.run.rpartition("/")[2], clock=clock)
        if run is None or not run.state.entry:
            allotments.release(line.run)
            continue
        if not run.state.cancelled and not run.state.published_at:
            run.context.journal.append(CancelRequested(at=clock()))
        yield window, run, line


def settle_ended(work: Work, allotments: Allotments) -> None:
    """Settle all runs of the backfill that have ended, whoever has driven them and died before he said so."""
    marked = {
        f"runs/{info.path.removeprefix(openruns.FOLDER)}" for info in work.root.list(f"{openruns.FOLDER}{work.job}/")
    }
    for line in allotments.lines():
        found = find(work.root, line.run) if line.run in marked or not line.settled else None
        if found is not None and line.run in marked and found.state.published_at:
            _unmark(work.root, found)
        if line.settled:
            continue
        if found is not None and (is_over(found.state) or _wound_down(work.root, found)):
            _settle(found, _price(found.plan, work), allotments)


def _settle(found: Found, price: Price, allotments: Allotments) -> None:
    """What it has spent counts; where that is nothing, and something is left to ask, it may be allotted anew."""
    run, usd, line = found.plan.prefix, ended_usd(found.state, price), allotments.line_of(found.plan.prefix)
    incomplete = found.state.cancelled or any(shard.given_up for shard in found.state.shards.values())
    if line is not None and usd <= line.before and incomplete:
        allotments.release(run)
    else:
        allotments.settle(run, usd)


def _unmark(store: Store, found: Found) -> None:
    """Take away the mark of a run that was published by a process that died before it could; it is not open.

    Unless somebody asks for it at this moment.
    """
    place = (found.plan.job, found.plan.window, found.plan.run_id)
    asked = openruns.read_asked(store, *place)
    openruns.close(store, *place)
    again = find(store, found.plan.prefix)
    if asked is not None and again is not None and not again.state.published_at:
        openruns.write_asked(store, *place, asked)


def _wound_down(store: Store, found: Found) -> bool:
    """Whether another run of the window has taken the place of this one, and all that it has cost is known."""
    plan = found.plan
    return found.state.settled and openruns.read_asked(store, plan.job, plan.window, plan.run_id) is None


def _free_never_begun(work: Work, run: str, allotments: Allotments) -> None:
    """Free what was allotted for other runs of the window that never began, since other documents are there now."""
    for line in allotments.lines():
        if line.run == run or line.settled or not line.run.startswith(f"{work.folder}/"):
            continue
        found = find(work.root, line.run)
        if found is None or not found.state.entry:
            # Nor may a tick begin it any more: its note says that it may spend what is freed here.
            openruns.close(work.root, work.job, work.window.name, line.run.rpartition("/")[2])
            begun = find(work.root, line.run)
            if begun is None or not begun.state.entry:
                allotments.release(line.run)


def is_over(state: RunState) -> bool:
    """Whether the run will spend nothing more by itself."""
    if not state.entry:
        return False
    return bool(state.published_at) or (state.cancelled and not state.build_finished)


def ended_usd(state: RunState, price: Price) -> Decimal:
    """What the run has cost, and what batches may cost that nobody knows the end of."""
    return money.total((spent(state, price), state.reserved))


def _price(plan: RunPlan, work: Work) -> Price:
    return work.price if plan.price is None else plan.price.price()
