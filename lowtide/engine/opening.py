"""Planning a run, opening it, and finding the one that a job and a window had last."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from lowtide import events as e
from lowtide import openruns
from lowtide.engine.context import Context
from lowtide.engine.publishing import published_table, results_path
from lowtide.engine.run import Run
from lowtide.engine.superseding import check_within_reach, wind_down
from lowtide.errors import ConfigError, CorruptJournal, StalePlan
from lowtide.inputs import Inputs, list_inputs, spool
from lowtide.journal import Journal
from lowtide.openruns import Asked
from lowtide.ownership import this_owner
from lowtide.plan import Candidate, PlannedReplacement, RunPlan, Work, check_candidates, run_id_of
from lowtide.planning.making import Before, plan_work
from lowtide.planning.published import read_published
from lowtide.planning.staleness import changes_of_run
from lowtide.planning.survey import Counted
from lowtide.protocols import Store


def plan_run(
    work: Work,
    *,
    exact: bool = True,
    clock: Callable[[], float] = time.time,
    listen: Counted = lambda documents: None,
    keep: Callable[[Inputs], None] = lambda inputs: None,
) -> RunPlan:
    """What a run would do now. Reads all documents, or a sample if not `exact`; writes nothing and spends nothing.

    `keep` is shown the listing, which is gone after that. Raises ConfigError if no backend can do all operations, or
    the source holds no document of the window.
    """
    with spool() as folder:
        inputs = _listed(work, Path(folder))
        refresh = _next_refresh(work, inputs.sha256, clock)
        plan = _planned(work, inputs, Path(folder), clock, exact=exact, refresh=refresh, listen=listen)
        keep(inputs)
        return plan


def open_run(work: Work, *, retry: bool = False, clock: Callable[[], float] = time.time) -> Run:
    """The run for what is there now: a new one, or the one that was begun or done before.

    A new run is planned from a sample of the documents; one that is there goes by its plan. An open run is asked for in
    its journal; one whose rows are published already is left as it is. `retry` asks again for rows that ended without
    an answer, and so does a run that was cancelled or had reached its budget. With `work.refresh`, everything is asked
    anew: by the run that was begun so and is not published, or else by another one.
    """
    asked_at = _asking(work, clock)
    with spool() as folder:
        inputs = _listed(work, Path(folder))
        refresh = _next_refresh(work, inputs.sha256, clock)
        run_id = run_id_of(work, inputs.sha256, refresh)
        _check_before(work, run_id, clock)
        stored = _read_plan(work.root, _prefix(work, run_id))
        if stored is None:
            plan = _planned(work, inputs, Path(folder), clock, exact=False, refresh=refresh)
            stored = _store_plan(work, plan, inputs)
    return _asked_for(_attach(work, stored, clock), asked_at, retry=retry)


def apply_plan(
    work: Work,
    plan: RunPlan,
    check: Callable[[Inputs], None] = lambda inputs: None,
    *,
    clock: Callable[[], float] = time.time,
) -> Run:
    """The run that a plan describes: with its backend, deadline and prices, begun now or going on.

    `check` is shown what the source holds now, and raises StalePlan if that is not what was planned. Raises StalePlan
    if the job file asks something else, or if the run was begun by another plan, with another backend, price, limit or
    number of attempts. Its deadline may be another one: a run keeps the one that it was begun with.
    """
    asked_at = _asking(work, clock)
    with spool() as folder:
        inputs = _listed(work, Path(folder))
        check(inputs)
        if run_id_of(work, inputs.sha256, plan.refresh) != plan.run_id:
            raise StalePlan(f"plan of run {plan.run_id}: the job file, or what it reads, is not what was planned")
        _check_before(work, plan.run_id, clock)
        stored = _read_plan(work.root, plan.prefix)
        if stored is None:
            if clock() > plan.deadline:
                raise StalePlan(f"plan of run {plan.run_id}: its deadline has passed")
            # Under another root, or an emptied one, the same plan's batches must not be taken for those of this run.
            stored = _store_plan(work, msgspec.structs.replace(plan, nonce=secrets.token_hex(4)), inputs)
    if differing := list(changes_of_run(stored, plan)):
        told = "".join(f"\n  {change}" for change in differing)
        raise StalePlan(
            f"run {plan.run_id} was begun by another plan, and goes by that one:{told}\nlowtide run goes on with it as "
            f"it was begun; if it has sent nothing yet, it may be begun anew: delete {work.root.uri_of(plan.prefix)}"
        )
    return _asked_for(_attach(work, stored, clock), asked_at)


def _asking(work: Work, clock: Callable[[], float]) -> float:
    """When a run is asked for, to be taken before its documents are listed.

    So of two runs the one that knows later documents counts as asked for later; and behind what is published, whatever
    the clock of the machine that published it says.
    """
    return max(clock(), published_table(work.root, work.job, work.window.name).requested_at + 1e-6)


def _asked_for(run: Run, asked_at: float, *, retry: bool = False) -> Run:
    """The run, with what is asked of it in its journal."""
    state, work = run.state, run.context.work
    if run.fit.moved:
        return with_chores(run)
    unanswered = any(shard.remaining for shard in state.shards.values() if shard.rows)
    events: list[e.AnyEvent] = []
    everything = retry and unanswered and state.settled
    cut_short = state.cancelled or any(shard.given_up == "cancelled" for shard in state.shards.values())
    if cut_short or everything or run.affords_more():
        events.append(e.Reopened(at=run.context.clock(), attempts=run.plan.attempts, everything=everything))
    if events or not is_published(run):
        events.append(e.Requested(at=asked_at))
    if events:
        openruns.write_asked(work.root, run.plan.job, run.plan.window, run.plan.run_id, work.asked)
        run.context.journal.append(*events)
        if openruns.read_asked(work.root, run.plan.job, run.plan.window, run.plan.run_id) is None:
            # Who was just publishing it has taken the note away.
            openruns.write_asked(work.root, run.plan.job, run.plan.window, run.plan.run_id, work.asked)
    work.root.write(f"{work.folder}/latest", run.plan.run_id.encode())
    return with_chores(run)


def find_run(work: Work, *, run_id: str | None = None, clock: Callable[[], float] = time.time) -> Run | None:
    """The run that was last asked for with this job and window, or the one that is named; None if there is none."""
    if run_id is None:
        if work.root.info(f"{work.folder}/latest") is None:
            return None
        run_id = work.root.read(f"{work.folder}/latest").decode()
    plan = _read_plan(work.root, f"{work.folder}/{run_id}")
    return None if plan is None else _attach(work, plan, clock)


def _check_before(work: Work, run_id: str, clock: Callable[[], float]) -> None:
    """Raise StalePlan if another run has batches out that cannot be seen with the job file as it is now."""
    for before in _others(work, run_id, clock):
        check_within_reach(before)


def _others(work: Work, run_id: str, clock: Callable[[], float]) -> Iterator[Run]:
    """The open runs of the job and window beside this one. Their notes are not read: no more is asked for them."""
    for other in openruns.ids_of(work.root, work.job, work.window.name):
        plan = None if other == run_id else _read_plan(work.root, _prefix(work, other))
        if plan is not None:
            yield _attach(work, plan, clock, asked=work.asked)


def with_chores(run: Run) -> Run:
    """The run, with other runs of its job and window to wind down: begun, and not known to be finished."""
    for before in _others(run.context.work, run.plan.run_id, run.context.clock):
        run.before.append(before)
        run.chores.append(partial(wind_down, before))
    return run


def is_published(run: Run) -> bool:
    """Whether the window's results are those of this run, and nothing is left to do."""
    state = run.state
    if not state.published_at:
        return False
    return published_table(run.context.store, run.plan.job, run.plan.window).run_id == run.plan.run_id


def _listed(work: Work, folder: Path) -> Inputs:
    """The source's files, listed in `folder`. Raises ConfigError if no backend can do the work, or there is no file."""
    check_candidates(work.operations, work.allowed)
    inputs = list_inputs(work.documents, folder / "inputs.parquet")
    if not inputs.files:
        raise ConfigError(
            f"job {work.job!r}: no document in window {work.window.name!r}: "
            f"nothing under {work.reading.get('uri')!r} matches; check source.uri, source.window_by and --window"
        )
    return inputs


def _planned(
    work: Work,
    inputs: Inputs,
    folder: Path,
    clock: Callable[[], float],
    *,
    exact: bool,
    refresh: int,
    listen: Counted = lambda documents: None,
) -> RunPlan:
    return plan_work(work, inputs, folder, clock(), exact=exact, before=_before(work), refresh=refresh, listen=listen)


def _before(work: Work) -> Before:
    """What is published for the window."""
    there = published_table(work.root, work.job, work.window.name)
    path = results_path(work.job, work.window.name)
    info = work.root.info(path) if there.etag is not None else None
    if info is None:
        return Before()
    with work.root.open(path) as source:
        documents = read_published(source)
    return Before(documents, PlannedReplacement(there.run_id, documents.rows, info.modified.timestamp()))


def _next_refresh(work: Work, inputs_sha256: str, clock: Callable[[], float]) -> int:
    """How often everything was asked anew before the run that is meant.

    That is the last run there is; and where everything is to be asked anew once more, the one behind it, unless the
    last one was begun for that and is not complete.
    """
    last = 0
    plan: RunPlan | None = None
    while (found := _read_plan(work.root, _prefix(work, run_id_of(work, inputs_sha256, last + 1)))) is not None:
        last, plan = last + 1, found
    if plan is None or not work.refresh:
        return last + work.refresh
    state = _attach(work, plan, clock).state
    complete = state.published_at and not any(shard.given_up for shard in state.shards.values())
    return last + 1 if complete else last


def _prefix(work: Work, run_id: str) -> str:
    return f"{work.folder}/{run_id}"


def _store_plan(work: Work, plan: RunPlan, inputs: Inputs) -> RunPlan:
    """Keep the plan and its listing with the run; returns the plan that counts, which may be somebody else's."""
    work.root.replace(f"{plan.prefix}/inputs.parquet", inputs.path, expected=None)
    work.root.put_if_absent(f"{plan.prefix}/plan.json", msgspec.json.encode(plan))
    stored = _read_plan(work.root, plan.prefix)
    if stored is None:
        raise CorruptJournal(f"{work.root.uri_of(plan.prefix)}/plan.json: written, and not there to be read")
    return stored


def _attach(work: Work, plan: RunPlan, clock: Callable[[], float], *, asked: Asked | None = None) -> Run:
    """The run, at the backend of its plan; where the job no longer names that, `Run.fit` says so.

    It is bounded by its note, or by what is `asked` without a look at that.
    """
    if asked is None:
        asked = openruns.bounded(work.asked, openruns.read_asked(work.root, plan.job, plan.window, plan.run_id))
    caps = [cap for cap in (work.run_usd, asked.max_usd) if cap is not None]
    work = replace(work, asked=asked, run_usd=min(caps, default=None))
    candidate = _planned_candidate(work, plan)
    work = replace(work if candidate is None else work.choosing(candidate), refresh=plan.refresh > 0)
    if plan.price is not None:
        work = replace(work, price=plan.price.price())
    owner = this_owner()
    journal = Journal(work.root, plan.prefix, owner)
    journal.refresh()
    return Run(Context(work, plan, journal, owner, clock))


def _planned_candidate(work: Work, plan: RunPlan) -> Candidate | None:
    """The one of the job's backends that the plan names: in the same region, if there are several."""
    named = [found for found in work.allowed if (found.backend.name, found.backend.model) == (plan.backend, plan.model)]
    alike = [found for found in named if dict(found.backend.parameters) == plan.parameters]
    return next((found for found in alike if found.backend.region == plan.region), alike[0] if alike else None)


def _read_plan(store: Store, prefix: str) -> RunPlan | None:
    path = f"{prefix}/plan.json"
    if store.info(path) is None:
        return None
    try:
        return msgspec.json.decode(store.read(path), type=RunPlan)
    except msgspec.DecodeError as error:
        raise CorruptJournal(f"{store.uri_of(path)}: not a plan that this version knows: {error}") from error
