"""Runs that were begun and are not finished when another run of the same job and window is asked for.

Their batches go on costing, and what those cost belongs into a ledger. So each open run has a marker in the root; the
run that comes after it stops what is still out, collects what was answered, and writes the ledger. Its results are
nobody's any more, unless the same documents and questions are asked for again: then the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator

from lowtide import events as e
from lowtide.decisions import Build, Poll, Publish, Resolve
from lowtide.engine import publishing
from lowtide.engine.run import Run
from lowtide.plan import Work


def marker(work: Work, run_id: str) -> str:
    """Where it stands that a run is open."""
    return f"{work.folder}/open/{run_id}"


def open_runs(work: Work) -> Iterator[str]:
    """The ids of the job's and window's runs that are not known to be finished."""
    for info in work.root.list(f"{work.folder}/open/"):
        yield info.path.rpartition("/")[2]


def wind_down(run: Run) -> bool:
    """One pass towards the end of a superseded run; whether there is nothing more to do for it now.

    A run that asked other questions than the job file does now is stopped, and not collected: its answers cannot be
    read with these questions. It stays marked, for the day when the job file is put back.
    """
    work, state = run.context.work, run.refresh()
    if state.published_at or not state.entry:
        work.root.delete(marker(work, run.plan.run_id))
        return True
    if run.plan.backend != work.backend.name or run.moved():
        return True
    if not state.cancelled:
        run.context.journal.append(e.CancelRequested(at=run.context.clock()))
    if run.differs():
        run.perform([action for action in run.decide().actions if isinstance(action, Resolve | Poll)])
        return not run.progress("").open_batches
    run.advance(leave=(Build, Publish))
    if not run.state.settled and run.state.build_finished:
        return False
    run.spending.finish()
    publishing.write_ledger(run.context)
    work.root.delete(marker(work, run.plan.run_id))
    return True
