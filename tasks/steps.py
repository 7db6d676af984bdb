"""The steps of a run as Prefect tasks: one for each thing that a person would want to see on the page of a flow run.

States of shards live in our journal, never in Prefect: a task that is run twice finds its work done. Clients are passed
in, so nothing is hashed, cached or kept as a result.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from lowtide import engine
from lowtide.connectors.assembly import assemble
from lowtide.decisions import Build, Publish
from lowtide.engine.progress import Listener, Progress
from lowtide.engine.run import Run
from lowtide.job import load_job
from lowtide.windows import parse_window


@task(name="list documents", task_run_name="list documents", cache_policy=NO_CACHE, persist_result=False)
def open_run(
    job: str, window: str, *, retry: bool, run_id: str = "", no_cache: bool = False, refresh: bool = False
) -> Run:
    """List the source and open the run for what is there; or go on with the run of that id, whatever is there now."""
    work = assemble(load_job(Path(job)), parse_window(window))
    work = replace(work, use_cache=not no_cache, refresh=refresh)
    begun = engine.find_run(work, run_id=run_id) if run_id else None
    run = engine.with_chores(begun) if begun else engine.open_run(work, retry=retry)
    _log(f"run {run.plan.run_id}: {run.plan.files:,} files, {run.plan.bytes:,} bytes under {work.root.uri}")
    return run


@task(name="find run", task_run_name="find the last run", cache_policy=NO_CACHE, persist_result=False)
def find_run(job: str, window: str) -> Run | None:
    """The run that was last asked for; None if there is none."""
    run = engine.find_run(assemble(load_job(Path(job)), parse_window(window)))
    return None if run is None else engine.with_chores(run)


@task(name="build shards", task_run_name="read documents, build shards", cache_policy=NO_CACHE, persist_result=False)
def build(run: Run, listen: Listener) -> Progress:
    """Read the documents and build the shards that are missing."""
    run.refresh()
    if run.holds_build:
        return run.progress("waiting for the run before this one")
    run.perform([action for action in run.decide().actions if isinstance(action, Build)], listen)
    progress = run.progress("built")
    _log(f"{progress.documents:,} documents, {progress.records:,} requests in {progress.shards:,} shards")
    return progress


@task(name="answer shards", task_run_name="answer shards, pass {number}", cache_policy=NO_CACHE, persist_result=False)
def answer(run: Run, listen: Listener, *, number: int, seconds: float) -> Progress:
    """Submit, poll and collect for about so many seconds, or until there is nothing left to do but to publish."""
    until = run.context.clock() + seconds
    poll = run.context.work.poll_seconds
    progress = engine.drive(run, listen, poll=poll, until=until, leave=(Publish,))
    _log(
        f"{progress.answered:,} of {progress.records:,} requests answered, "
        f"{progress.settled:,} of {progress.shards:,} shards settled, {progress.open_batches:,} batches open"
    )
    return progress


@task(name="publish", task_run_name="publish the tables", cache_policy=NO_CACHE, persist_result=False)
def publish(run: Run, listen: Listener) -> Progress:
    """Replace the window's tables by this run's rows."""
    progress = engine.drive(run, listen, poll=0.0, until=0.0)
    _log(f"the tables of window {run.plan.window} hold run {run.plan.run_id}")
    return progress


def _log(line: str) -> None:
    get_run_logger().info(line)
