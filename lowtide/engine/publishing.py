"""Publishing: the window's results replaced in one step, then the ledger and the runs table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowtide import events as e
from lowtide.collecting.elsewhere import twin_rows
from lowtide.collecting.publish import Rows, Written, write_results
from lowtide.collecting.rows import pico_of
from lowtide.engine.building import questions_of
from lowtide.engine.context import Context
from lowtide.engine.keeping import keep_answers, read_columns
from lowtide.errors import StalePlan
from lowtide.inputs import spool
from lowtide.journal import Superseded
from lowtide.ledger import entries, ledger_table, moment, saved, spent
from lowtide.money import allocate
from lowtide.prices import PICO
from lowtide.protocols import Store
from lowtide.schemas import CONTRACT_VERSION, RUNS, STATUSES
from lowtide.shards import Attempt, ShardState
from lowtide.states import RunState


def results_path(job: str, window: str) -> str:
    """Where a window's results lie in the root."""
    return f"tables/results/job={job}/window={window}/results.parquet"


def ledger_path(job: str, window: str, run_id: str) -> str:
    """Where a run's ledger lies in the root."""
    return f"tables/ledger/job={job}/window={window}/{run_id}.parquet"


def runs_path(job: str, window: str, run_id: str) -> str:
    """Where a run's row of the runs table lies in the root."""
    return f"tables/runs/job={job}/window={window}/{run_id}.parquet"


class PublishedTable(NamedTuple):
    """The results table that readers see now: its etag, whose run it is, and when that run was last asked for."""

    etag: str | None
    run_id: str
    requested_at: float


def published_table(store: Store, job: str, window: str) -> PublishedTable:
    """What is published for the window; an empty record if nothing is."""
    path = results_path(job, window)
    info = store.info(path)
    if info is None:
        return PublishedTable(None, "", 0.0)
    with store.open(path) as source:
        metadata = pq.read_metadata(source).metadata or {}
    return PublishedTable(
        info.etag, metadata.get(b"lowtide.run_id", b"").decode(), float(metadata.get(b"lowtide.requested_at", b"0"))
    )


def publish(context: Context, on_rows: Callable[[int], None]) -> None:
    """Replace the run's ledger, the window's results and the run's row, in this order. Doing it again changes nothing.

    What is there is looked at before the journal is read, and replaced only if nobody has replaced it since: so nobody
    who began earlier overwrites what somebody wrote who knew more. Raises Superseded then, and StalePlan, with the
    ledger written, if a run that was asked for later has published its results.
    """
    plan, store, decided = context.plan, context.store, context.state.entry
    ledger_at, runs_at = (path(plan.job, plan.window, plan.run_id) for path in (ledger_path, runs_path))
    there = published_table(store, plan.job, plan.window)
    ledger_there, runs_there = _etag(store, ledger_at), _etag(store, runs_at)
    state = context.journal.refresh()
    if state.entry != decided:
        raise Superseded("the run has moved on since it was decided to publish it")
    with spool() as folder:
        ledger = Path(folder) / "ledger.parquet"
        pq.write_table(ledger_table(plan, state, context.work.price), ledger, compression="zstd")
        _replace(store, ledger_at, ledger, ledger_there)
        if there.run_id != plan.run_id and there.requested_at > state.requested_at:
            raise StalePlan(
                f"run {plan.run_id} is not published: run {there.run_id} of the same job and window was asked for "
                "later and has been published; run the job again to publish what is there now"
            )
        results = Path(folder) / "results.parquet"
        found = _write_results(context, results, Path(folder), on_rows)
        # A run that was cut short does not take a complete table away from its readers.
        kept = there.run_id not in ("", plan.run_id) and any(shard.given_up for shard in state.shards.values())
        if not kept:
            _replace(store, results_path(plan.job, plan.window), results, there.etag)
        keep_answers(context, Path(folder))
        now = context.clock()
        requests = sum(shard.size for shard in state.shards.values())
        written = requests + sum(path.stat().st_size for path in (ledger, results))
        row = Path(folder) / "run.parquet"
        table = pa.Table.from_pylist([_run_row(context, state, found, now, written)], schema=RUNS)
        pq.write_table(table, row, compression="zstd")
        _replace(store, runs_at, row, runs_there)
    context.journal.append(
        e.Published(at=now, rows=found.rows, counts=found.counts, bytes_written=written, kept=kept),
        guard=lambda after: after.entry == decided,
    )


def write_ledger(context: Context) -> None:
    """Write the run's ledger alone, as its journal has it now, and keep its answers for later runs."""
    plan, store = context.plan, context.store
    path = ledger_path(plan.job, plan.window, plan.run_id)
    there = _etag(store, path)
    context.journal.refresh()
    with spool() as folder:
        ledger = Path(folder) / "ledger.parquet"
        pq.write_table(ledger_table(plan, context.state, context.work.price), ledger, compression="zstd")
        _replace(store, path, ledger, there)
        keep_answers(context, Path(folder))


def _etag(store: Store, path: str) -> str | None:
    info = store.info(path)
    return info.etag if info else None


def _replace(store: Store, path: str, source: Path, expected: str | None) -> None:
    if not store.replace(path, source, expected=expected):
        raise Superseded(f"{store.uri_of(path)} was written by somebody else meanwhile")


def _write_results(context: Context, local: Path, folder: Path, on_rows: Callable[[int], None]) -> Written:
    plan, state, operations = context.plan, context.state, context.work.operations
    shards = [shard for _, shard in sorted(state.shards.items())]
    constants: dict[str, object] = {
        "run_id": plan.run_id,
        "window_start": plan.window_start,
        "window_end": plan.window_end,
        "model": plan.model,
        "backend": plan.backend,
    }
    return write_results(
        list(_sources(context, shards, folder)),
        local,
        total=sum(shard.documents for shard in shards) * len(operations),
        fields=plan.fields,
        constants=constants,
        by_operation={
            "operation": [op.name for op in operations],
            "operation_kind": [op.kind for op in operations],
            "operation_version": [op.version for op in operations],
        },
        metadata={
            "lowtide.contract": CONTRACT_VERSION,
            "lowtide.run_id": plan.run_id,
            "lowtide.requested_at": repr(state.requested_at),
            "lowtide.job": plan.job,
            "lowtide.window": plan.window,
        },
        on_progress=on_rows,
    )


def _sources(context: Context, shards: Sequence[ShardState], folder: Path) -> Iterator[Rows]:
    """The rows of all shards, of what they reuse, and of the requests that others of the run stand for."""

    def opener(name: str) -> Callable[[], BinaryIO]:
        return lambda: context.store.open(context.path(name))

    beyond = costs_beyond_rows(context)
    for shard in shards:
        extra = beyond.get(shard.number, 0)
        yield Rows(opener(shard.rows), _shares(context, shard, extra) if extra else None)
        if shard.reused_rows:
            yield Rows(opener(shard.reused_rows))
    total = sum(shard.twins for shard in shards)
    if total:
        repeated = twin_rows(
            [opener(shard.twin_rows) for shard in shards if shard.twin_rows],
            [opener(shard.rows) for shard in shards if shard.total],
            questions_of(context.plan),
            folder,
            total=total,
            field_names=context.plan.fields,
            on_demand=context.work.price.on_demand,
        )
        for path in repeated:
            yield Rows(lambda path=path: path.open("rb"))  # type: ignore[misc]  # bound at once


def costs_beyond_rows(context: Context) -> dict[int, int]:
    """By shard: what it has cost beyond what its rows' answers did, in 1e-12 USD: lost answers, surplus batches."""
    state, price = context.state, context.work.price
    cost = Counter[int]()
    for entry in entries(context.plan, state, price):
        if entry.kind == "actual" and entry.shard is not None:
            cost[entry.shard] += int(entry.amount * PICO)
    beyond: dict[int, int] = {}
    for number, total in cost.items():
        rows = read_columns(context, context.path(state.shards[number].rows), ["cost_usd"])
        beyond[number] = total - int((pc.sum(rows["cost_usd"]).as_py() or Decimal(0)) * PICO)
    return beyond


def _shares(context: Context, shard: ShardState, extra: int) -> npt.NDArray[np.int64]:
    """What each of the shard's rows bears of it: in proportion to its own cost, or else in equal parts."""
    rows = read_columns(context, context.path(shard.rows), ["ordinal", "cost_usd"])
    weights = pico_of(rows["cost_usd"])
    if not len(weights):
        # All its documents were forgotten: no row bears what they have cost.
        return weights
    if not weights.any() and "ordinal" in rows.column_names:
        weights = np.where(rows["ordinal"].to_numpy() >= 0, 1, 0)
    return allocate(extra, weights)


def _run_row(context: Context, state: RunState, found: Written, now: float, written: int) -> dict[str, object]:
    plan, attempts = context.plan, list(state.attempts.values())
    tokens = Counter[str]()
    for attempt in attempts:
        for tally in attempt.tallies:
            tokens[tally.token_type] += tally.quantity
    # A shard that was given up before it was asked has used no tokens: estimates would be too low by its text.
    asked = [state.shards[number] for number in sorted({attempt.shard for attempt in attempts})]
    waiting = _covered([(attempt.submitted_at, attempt.ended_at) for attempt in attempts if attempt.ended_at])
    return {
        "run_id": plan.run_id,
        "window_start": plan.window_start,
        "window_end": plan.window_end,
        "backend": plan.backend,
        "model": plan.model,
        "documents": state.documents,
        "rows": found.rows,
        **{status: found.counts.get(status, 0) for status in STATUSES},
        "requests": sum(shard.total for shard in state.shards.values()),
        "asked_requests": sum(shard.total for shard in asked),
        "shards": len(state.shards),
        "batches": len(attempts),
        "attempts": max((attempt.attempt for attempt in attempts), default=0),
        "planned_input_tokens": plan.input_tokens,
        "planned_output_tokens": plan.output_tokens,
        "input_tokens": tokens["input"] + tokens["cached_input"],
        "output_tokens": tokens["output"] + tokens["reasoning"],
        "text_bytes": sum(shard.text_bytes for shard in asked),
        "reused_requests": sum(shard.reused for shard in state.shards.values()),
        "twin_requests": sum(shard.twins for shard in state.shards.values()),
        **_machine_time(attempts),
        "planned_cost_usd": plan.cost_usd,
        "cost_usd": spent(state, context.work.price),
        "cost_if_realtime_usd": found.realtime_usd,
        "saved_usd": saved(state, context.work.price),
        "started": moment(state.started_at),
        "finished": moment(now),
        "deadline": moment(plan.deadline),
        "seconds_waiting": waiting,
        "seconds_working": max(now - state.started_at - waiting, 0.0),
        "bytes_read": state.bytes_read,
        "bytes_written": written,
        "cancelled": state.cancelled,
        "tags": list(plan.tags.items()),
    }


def _machine_time(attempts: Sequence[Attempt]) -> dict[str, object]:
    """Seconds of machines that went into answers, those that did not, and the kind that most of them were of."""
    seconds, machines = Counter[bool](), Counter[str]()
    for attempt in attempts:
        seconds[True] += attempt.compute_seconds
        for part in attempt.compute:
            seconds[not part.waste] += part.seconds
            machines[part.machine] += part.seconds
    machine = machines.most_common(1)[0][0] if machines else None
    return {"compute_seconds": seconds[True], "compute_waste_seconds": seconds[False], "machine": machine or None}


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the spans."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
