"""The flow that advances one job's run: one idempotent pass, which the tick makes over all open runs of a root."""

from __future__ import annotations

import msgspec
from prefect import flow

from lowtide.engine.progress import Listener
from lowtide.engine.run import Run
from lowtide.flows import happenings
from lowtide.flows.failures import say_plainly
from lowtide.flows.pages import ProgressPage, write_summary
from lowtide.flows.run import answer_shards, flow_run_name
from lowtide.summary import Summary, summarize
from lowtide.tasks import steps


@flow(name="lowtide advance", flow_run_name=flow_run_name, persist_result=False)
def advance_job(job: str, window: str = "all") -> dict[str, object] | None:
    """Advance the run that was last asked for; starts none. Returns its summary, None if there is no run.

    Does not wait: what is ready is collected, what has room is submitted, and a settled run is published.
    """
    say_plainly()
    run = steps.find_run(job, window)
    if run is None:
        return None
    result: dict[str, object] = msgspec.to_builtins(advance_once(run))
    return result


def advance_once(run: Run, listen: Listener = lambda progress: None, *, is_new: bool = False) -> Summary:
    """One pass, with the run's pages, if anything has changed, and an event for what has come of it.

    Of a run that `is_new` it is also told what was so from the beginning.
    """
    entry = run.state.entry
    over = run.decide().done and not run.chores
    before = frozenset() if is_new and not over else happenings.standing(run)
    if not over:
        steps.build(run, listen)
        answer_shards(run, listen, 0.0)
    summary = summarize(run)
    if run.state.entry != entry:
        ProgressPage(run.plan.job, run.plan.window, listen)(run.progress(summary.state, done=run.decide().done))
        write_summary(summary, run)
    happenings.tell(run, before)
    return summary
