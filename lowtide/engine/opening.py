"""Planning a run, opening it, and finding the one that a job and a window had last."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from lowtide import events as e
from lowtide.engine.context import Context
from lowtide.engine.publishing import published_table
from lowtide.engine.run import Run
from lowtide.engine.superseding import marker, open_runs, wind_down
from lowtide.errors import ConfigError, CorruptJournal
from lowtide.journal import Journal
from lowtide.ownership import this_owner
from lowtide.plan import Inputs, RunPlan, Work, list_inputs, make_plan, spool
from lowtide.protocols import Store


def plan_run(work: Work, *, clock: Callable[[], float] = time.time) -> RunPlan:
    """What a run would do now. Lists the source; writes nothing and spends nothing.

    Raises ConfigError if the backend cannot do an operation, or the source holds no document of the window.
    """
    with spool() as folder:
        return _planned(work, Path(folder), clock)[0]


def open_run(work: Work, *, retry: bool = False, clock: Callable[[], float] = time.time) -> Run:
    """The run for what is there now: a new one, or the one that was begun or done before.

    An open run is asked for in its journal; one whose rows are published already is left as it is. `retry` asks again
    for rows that ended without an answer, and so does a run that was cancelled or had reached its budget.
    """
    # Taken before the listing, so that of two runs the one that knows later documents counts as asked for later; and
    # behind what is published, whatever the clock of the machine that published it says.
    asked_at = max(clock(), published_table(work.root, work.job, work.window.name).requested_at + 1e-6)
    with spool() as folder:
        plan, inputs = _planned(work, Path(folder), clock)
        stored = _read_plan(work.root, plan.prefix)
        if stored is None:
            work.root.replace(f"{plan.prefix}/inputs.parquet", inputs.path, expected=None)
            work.root.put_if_absent(f"{plan.prefix}/plan.json", msgspec.json.encode(plan))
            stored = _read_plan(work.root, plan.prefix)
            if stored is None:
                raise CorruptJournal(f"{work.root.uri_of(plan.prefix)}/plan.json: written, and not there to be read")
    run = _attach(work, stored, clock)
    state = run.state
    if run.moved():
        return with_chores(run)
    unanswered = any(shard.remaining for shard in state.shards.values() if shard.rows)
    events: list[e.AnyEvent] = []
    everything = retry and unanswered and state.settled
    cut_short = state.cancelled or any(shard.given_up == "cancelled" for shard in state.shards.values())
    if cut_short or everything or run.affords_more():
        events.append(e.Reopened(at=clock(), attempts=stored.attempts, everything=everything))
    if events or not is_published(run):
        events.append(e.Requested(at=asked_at))
    if events:
        work.root.write(marker(work, stored.run_id), b"")
        run.context.journal.append(*events)
    work.root.write(f"{work.folder}/latest", stored.run_id.encode())
    return with_chores(run)


def find_run(work: Work, *, run_id: str | None = None, clock: Callable[[], float] = time.time) -> Run | None:
    """The run that was last asked for with this job and window, or the one that is named; None if there is none."""
    if run_id is None:
        if work.root.info(f"{work.folder}/latest") is None:
            return None
        run_id = work.root.read(f"{work.folder}/latest").decode()
    plan = _read_plan(work.root, f"{work.folder}/{run_id}")
    return None if plan is None else _attach(work, plan, clock)


def with_chores(run: Run) -> Run:
    """The run, with other runs of its job and window to wind down: begun, and not known to be finished."""
    work = run.context.work
    for run_id in open_runs(work):
        plan = None if run_id == run.plan.run_id else _read_plan(work.root, f"{work.folder}/{run_id}")
        if plan is not None:
            run.chores.append(partial(wind_down, _attach(work, plan, run.context.clock)))
    return run


def is_published(run: Run) -> bool:
    """Whether the window's results are those of this run, and nothing is left to do."""
    state = run.state
    if not state.published_at:
        return False
    return published_table(run.context.store, run.plan.job, run.plan.window).run_id == run.plan.run_id


def _planned(work: Work, folder: Path, clock: Callable[[], float]) -> tuple[RunPlan, Inputs]:
    inputs = list_inputs(work.documents, folder / "inputs.parquet")
    plan = make_plan(work, inputs, clock())
    if not inputs.files:
        raise ConfigError(
            f"job {work.job!r}: no document in window {work.window.name!r}: "
            f"nothing under {work.reading.get('uri')!r} matches; check source.uri, source.window_by and --window"
        )
    return plan, inputs


def _attach(work: Work, plan: RunPlan, clock: Callable[[], float]) -> Run:
    if plan.price is not None:
        work = replace(work, price=plan.price.price())
    owner = this_owner()
    journal = Journal(work.root, plan.prefix, owner)
    journal.refresh()
    return Run(Context(work, plan, journal, owner, clock))


def _read_plan(store: Store, prefix: str) -> RunPlan | None:
    path = f"{prefix}/plan.json"
    if store.info(path) is None:
        return None
    try:
        return msgspec.json.decode(store.read(path), type=RunPlan)
    except msgspec.DecodeError as error:
        raise CorruptJournal(f"{store.uri_of(path)}: not a plan that this version knows: {error}") from error
