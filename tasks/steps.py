"""The steps of a run as Prefect tasks: one for each thing that a person would want to see on the page of a flow run.

States of shards live in our journal, never in Prefect: a task that is run twice finds its work done. Clients are passed
in, so nothing is hashed, cached or kept as a result.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from lowtide import engine, openruns
from lowtide.connectors.assembly import assemble
from lowtide.connectors.stores import open_store
from lowtide.decisions import Build, Publish
from lowtide.engine.progress import Listener, Progress
from lowtide.engine.run import Run
from lowtide.errors import ConfigError, StalePlan, Transient
from lowtide.job import Job, load_job
from lowtide.openruns import Asked
from lowtide.plan import Work
from lowtide.windows import Window


@task(name="list documents", task_run_name="list documents", cache_policy=NO_CACHE, persist_result=False)
def open_run(
    job: str, window: str, *, retry: bool, run_id: str = "", no_cache: bool = False, refresh: bool = False
) -> Run:
    """List the source and open the run for what is there; or go on with the run of that id, whatever is there now."""
    work = replace(_work(job, window), use_cache=not no_cache, refresh=refresh)
    begun = engine.find_run(work, run_id=run_id) if run_id else None
    run = engine.with_chores(begun) if begun else engine.open_run(work, retry=retry)
    _log(f"run {run.plan.run_id}: {run.plan.files:,} files, {run.plan.bytes:,} bytes under {work.root.uri}")
    return run


def _may_pass(task: object, task_run: object, state: State[object]) -> bool:
    """Whether a task that failed may work if it is tried again."""
    return isinstance(state.result(raise_on_failure=False), Transient)


@task(
    name="open run",
    task_run_name="open window {window.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    # Nothing is submitted here. Who comes at a set time only, and loses it to a short outage, loses the window.
    retries=5,
    retry_delay_seconds=[10, 30, 60, 120, 240],
    retry_condition_fn=_may_pass,
)
def open_window(job: Job, window: Window, asked: Asked, *, retry: bool = False, refresh: bool = False) -> Run | None:
    """List the window's documents and open the run for what is there, as it is asked for; None if nothing is there."""
    work = replace(assemble(job, window, asked=asked), refresh=refresh)
    try:
        run = engine.open_run(work, retry=retry)
    except ConfigError:
        if next(work.documents.files(), None) is not None:
            raise
        _log(f"job {job.name}: no document in window {window.name}: nothing to do")
        return None
    _log(f"run {run.plan.run_id}: {run.plan.files:,} files, {run.plan.bytes:,} bytes under {work.root.uri}")
    return run


@task(name="find open run", task_run_name="find run {run_id}", cache_policy=NO_CACHE, persist_result=False)
def find_open(job: Job, window: Window, run_id: str) -> Run:
    """The run of that id, as it was asked for. Lists nothing. Raises StalePlan if there is none."""
    asked = openruns.read_asked(open_store(job.output.root), job.name, window.name, run_id)
    work = assemble(job, window, asked=asked)
    run = engine.find_run(work, run_id=run_id)
    if run is None:
        raise StalePlan(f"job {job.name}, window {window.name}: found no run {run_id} under {work.root.uri}")
    return engine.with_chores(run)


@task(name="find run", task_run_name="find the last run", cache_policy=NO_CACHE, persist_result=False)
def find_run(job: str, window: str) -> Run | None:
    """The run that was last asked for; None if there is none."""
    run = engine.find_run(_work(job, window))
    return None if run is None else engine.with_chores(run)


@task(name="build shards", task_run_name="read documents, build shards", cache_policy=NO_CACHE, persist_result=False)
def build(run: Run, listen: Listener) -> Progress:
    """Read the documents and build the shards that are missing."""
    run.refresh()
    if run.holds_build:
        return run.progress("waiting for the run before this one")
    run.perform([action for action in run.decide().actions if isinstance(action, Build)], listen)
    progress = run.progress("built")
    shards = f"{progress.shards:,} shard{'' if progress.shards == 1 else 's'}"
    _log(f"{progress.documents:,} documents, {progress.records:,} requests in {shards}")
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


def _work(job: str, window: str) -> Work:
    """The job's work over the window, which is read in the job's time zone; `last` is the last one that has ended."""
    loaded = load_job(Path(job))
    return assemble(loaded, loaded.calendar.named(window, datetime.now(UTC)))


def _log(line: str) -> None:
    get_run_logger().info(line)
