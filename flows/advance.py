"""The flow that advances what is open: one idempotent pass, for a deployment on a short cron."""

from __future__ import annotations

import msgspec
from prefect import flow

from lowtide.flows.pages import write_summary
from lowtide.flows.run import answer_shards, flow_run_name
from lowtide.summary import summarize
from lowtide.tasks import steps


@flow(name="lowtide advance", flow_run_name=flow_run_name, persist_result=False)
def advance_job(job: str, window: str = "all") -> dict[str, object] | None:
    """Advance the run that was last asked for; starts none. Returns its summary, None if there is no run.

    Does not wait: what is ready is collected, what has room is submitted, and a settled run is published.
    """
    run = steps.find_run(job, window)
    if run is None:
        return None
    if run.chores or not run.decide().done:
        steps.build(run, lambda progress: None)
        answer_shards(run, lambda progress: None, 0.0)
    summary = summarize(run)
    write_summary(summary, run)
    result: dict[str, object] = msgspec.to_builtins(summary)
    return result
