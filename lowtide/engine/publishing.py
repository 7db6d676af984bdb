"""Publishing: the window's results replaced in one step, then the ledger and the runs table."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide import events as e
from lowtide.collecting.publish import write_results
from lowtide.engine.context import Context
from lowtide.errors import StalePlan
from lowtide.ledger import ledger_table, moment, spent
from lowtide.plan import spool
from lowtide.protocols import Store
from lowtide.schemas import CONTRACT_VERSION, RUNS, STATUSES
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
    """Replace the window's tables. Doing it again changes nothing.

    Raises StalePlan if a run that was asked for later has published already.
    """
    plan, state, store = context.plan, context.state, context.store
    with spool() as folder:
        local = Path(folder) / "results.parquet"
        rows, size = _write_results(context, local, on_rows)
        while True:
            now_there = published_table(store, plan.job, plan.window)
            if now_there.run_id != plan.run_id and now_there.requested_at > state.requested_at:
                raise StalePlan(
                    f"run {plan.run_id} is not published: run {now_there.run_id} of the same job and window was asked "
                    "for later and has been published; run the job again to publish what is there now"
                )
            if store.replace(results_path(plan.job, plan.window), local, expected=now_there.etag):
                break
    counts = Counter[str]()
    for shard in state.shards.values():
        counts.update(shard.counts)
    ledger = _parquet(ledger_table(plan, state, context.work.price))
    store.write(ledger_path(plan.job, plan.window, plan.run_id), ledger)
    now = context.clock()
    written = size + len(ledger) + sum(shard.size for shard in state.shards.values())
    table = pa.Table.from_pylist([_run_row(context, state, rows, counts, now, written)], schema=RUNS)
    store.write(runs_path(plan.job, plan.window, plan.run_id), _parquet(table))
    context.journal.append(e.Published(at=now, rows=rows, counts=dict(counts), bytes_written=written))


def _write_results(context: Context, local: Path, on_rows: Callable[[int], None]) -> tuple[int, int]:
    plan, state, operations = context.plan, context.state, context.work.operations
    shards = [shard for _, shard in sorted(state.shards.items())]
    paths = [context.path(shard.rows) for shard in shards]
    constants: dict[str, object] = {
        "run_id": plan.run_id,
        "window_start": plan.window_start,
        "window_end": plan.window_end,
        "model": plan.model,
        "backend": plan.backend,
        "cost_if_realtime_usd": None,
        "cached": False,
    }
    rows = write_results(
        [lambda path=path: context.store.open(path) for path in paths],  # type: ignore[misc]  # bound at once
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
    return rows, local.stat().st_size


def _run_row(
    context: Context, state: RunState, rows: int, counts: Counter[str], now: float, written: int
) -> dict[str, object]:
    plan, attempts = context.plan, list(state.attempts.values())
    tokens = Counter[str]()
    for attempt in attempts:
        for tally in attempt.tallies:
            tokens[tally.token_type] += tally.quantity
    waiting = _covered([(attempt.submitted_at, attempt.ended_at) for attempt in attempts if attempt.ended_at])
    return {
        "run_id": plan.run_id,
        "window_start": plan.window_start,
        "window_end": plan.window_end,
        "backend": plan.backend,
        "model": plan.model,
        "documents": state.documents,
        "rows": rows,
        **{status: counts[status] for status in STATUSES},
        "requests": sum(shard.total for shard in state.shards.values()),
        "shards": len(state.shards),
        "batches": len(attempts),
        "attempts": max((attempt.attempt for attempt in attempts), default=0),
        "planned_input_tokens": plan.input_tokens,
        "input_tokens": tokens["input"] + tokens["cached_input"],
        "output_tokens": tokens["output"] + tokens["reasoning"],
        "planned_cost_usd": plan.cost_usd,
        "cost_usd": spent(state, context.work.price),
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


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the spans."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()
