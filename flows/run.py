"""The flow that runs a job over a window: list, build, answer, publish. Deployments use `lowtide.flows.run.run_job`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from prefect import Flow, flow
from prefect.runtime import flow_run

from lowtide.engine import is_published
from lowtide.engine.progress import Listener
from lowtide.engine.run import Run
from lowtide.flows import approval, happenings
from lowtide.flows.failures import say_plainly
from lowtide.flows.pages import ProgressPage, write_summary
from lowtide.summary import Summary, summarize
from lowtide.tasks import steps

PASS_SECONDS = 20.0
"""What one task does: enough to be worth its overhead, little enough to read."""

MOST_PASSES = 90
"""Task runs of a flow run stay below a hundred; a run that needs more goes on in the next flow run."""


def scheduled() -> datetime:
    """When the flow run was to begin, in UTC; however late it came. Now, where nobody has set a time."""
    # Prefect's times are of a class of its own, whose sums lose the zone.
    return datetime.fromtimestamp(flow_run.scheduled_start_time.timestamp(), UTC)


def flow_run_name() -> str:
    """What the flow run is called on Prefect's pages: the job file's name and the window."""
    parameters = flow_run.parameters
    return f"{Path(str(parameters['job'])).stem}, window {parameters['window']}"


def job_flow(
    listen: Listener = lambda progress: None,
) -> Flow[[str, str, bool, float, str, bool, bool], dict[str, object]]:
    """The flow, telling its progress to `listen` as well."""

    @flow(name="lowtide run", flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
    def run_job(
        job: str,
        window: str = "all",
        retry: bool = False,
        wait: float = 1800.0,
        run_id: str = "",
        no_cache: bool = False,
        refresh: bool = False,
    ) -> dict[str, object]:
        """Run a job file over a window, or go on with a run; returns its summary.

        `wait` bounds the seconds that this flow run waits for answers. A run that is not done by then loses nothing:
        run the flow again, or let the advance flow do it. With `run_id`, the run of that id goes on, and nothing is
        listed. `no_cache` and `refresh` are as in the command.
        """
        say_plainly()
        run = steps.open_run(job, window, retry=retry, run_id=run_id, no_cache=no_cache, refresh=refresh)
        before = happenings.standing(run) if is_published(run) else frozenset()
        if run.chores or not is_published(run):
            page = ProgressPage(run.plan.job, run.plan.window, listen)
            steps.build(run, page)
            until = time.monotonic() + wait
            if not wait or not approval.asks_here(run) or approval.ask(run, wait):
                answer_shards(run, page, max(until - time.monotonic(), 0.0))
        happenings.tell(run, before)
        return _finish(run)

    return run_job


def answer_shards(run: Run, listen: Listener, wait: float) -> None:
    """Passes over the shards until all are settled, then publish; stops early when `wait` seconds are over."""
    until = run.context.clock() + wait
    poll = run.context.work.poll_seconds
    for number in range(1, MOST_PASSES + 1):
        progress = steps.answer(
            run, listen, number=number, seconds=max(PASS_SECONDS, wait / MOST_PASSES) if wait else 0.0
        )
        if progress.done:
            steps.publish(run, listen)
            return
        if run.context.clock() + poll > until:
            return
        time.sleep(poll)


def _finish(run: Run) -> dict[str, object]:
    summary: Summary = summarize(run)
    write_summary(summary, run)
    result: dict[str, object] = msgspec.to_builtins(summary)
    return result


run_job = job_flow()
