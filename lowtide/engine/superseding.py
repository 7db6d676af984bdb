"""Runs that were begun and are not finished when another run of the same job and window is asked for.

Their batches go on costing, and what those cost belongs into a ledger. So each open run has a marker in the root; the
run that comes after it stops what is still out, collects what was answered, and writes the ledger. Its results are
nobody's any more, unless the same documents and questions are asked for again: then the run goes on.
"""

from __future__ import annotations

from lowtide import events as e
from lowtide import openruns
from lowtide.decisions import Action, Build, Drain, Poll, Publish, Resolve
from lowtide.engine import collecting, publishing
from lowtide.engine.run import Run
from lowtide.engine.spending import charges
from lowtide.errors import StalePlan
from lowtide.journal import Superseded
from lowtide.shards import Phase


def check_within_reach(run: Run) -> None:
    """Raise StalePlan if the run has batches that the job file's backends cannot see, and may be billed for them.

    Whoever began another run now would buy the same a second time, and what the first one costs would be in no ledger.
    """
    plan, work = run.plan, run.context.work
    if not charges(work.price) or not costs_unknown(run):
        return
    if plan.backend != work.backend.name:
        where, now = (
            f"backend {plan.backend}, model {plan.model}",
            f"the job file does not name {plan.backend} any more",
        )
    elif run.fit.moved:
        where = ", ".join(sorted(run.state.places))
        now = f"the job file names {', '.join(work.backend.places) or 'no such place'} now"
    else:
        return
    raise StalePlan(
        f"run {plan.run_id} of job {plan.job} has batches at {where}, and {now}: they cannot be seen from here, and "
        "would be bought again; put the job file back until they are collected, or end that run with lowtide cancel "
        "and the job file as it was"
    )


def wind_down(run: Run) -> bool:
    """One pass towards the end of a superseded run; whether there is nothing more to do for it now.

    A run that asked other questions than the job file does now is stopped, and not collected: its answers cannot be
    read with these questions. What it has cost is counted all the same. If answers are left, it stays marked, for the
    day when the job file is put back, or until somebody gives them up: see `lowtide.engine.ending`.
    """
    work, state = run.context.work, run.refresh()
    if state.published_at or not state.entry:
        _close(run)
        return True
    if run.plan.backend != work.backend.name or run.fit.moved:
        if not costs_unknown(run):
            _close_unread(run)
        return True
    if not state.cancelled:
        run.context.journal.append(e.CancelRequested(at=run.context.clock()))
    if run.fit.differs:
        return _wind_down_unread(run)
    run.advance(leave=(Build, Publish))
    if not run.state.settled and run.state.build_finished:
        return False
    run.spending.finish()
    publishing.write_ledger(run.context)
    _close(run)
    return True


def _wind_down_unread(run: Run) -> bool:
    """One pass for a run whose answers cannot be read now: stop its batches, and count what they have cost."""
    wanted: tuple[type[Action], ...] = (Resolve, Poll, Drain)
    run.spending.refresh()
    run.perform([action for action in run.decide().actions if isinstance(action, wanted)])
    try:
        for number, shard in run.state.shards.items():
            if shard.phase is Phase.ENDED and not run.state.attempts[f"{number}-{shard.attempt}"].known_at:
                collecting.count(run.context, number)
        run.spending.settle()
        if costs_unknown(run):
            return False
        _close_unread(run)
    except Superseded:
        # Somebody else winds it down as well.
        run.refresh()
        return False
    return True


def _close_unread(run: Run) -> None:
    """Close the account and write the ledger of a run of which all costs are known."""
    run.spending.finish(in_hand=False)
    publishing.write_ledger(run.context)
    if run.state.settled:
        _close(run)


def _close(run: Run) -> None:
    openruns.close(run.context.store, run.plan.job, run.plan.window, run.plan.run_id)


def costs_unknown(run: Run) -> bool:
    """Whether batches may be out, or have ended and are not counted."""
    state = run.state
    attempts = (attempt for attempt in state.attempts.values() if not attempt.known_at)
    return any(attempts) or any(shard.phase is Phase.SUBMITTING for shard in state.shards.values())
