"""What the runs table says of this run: planned against actual, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import BinaryIO

from lowtide.report.parquet import TableReader
from lowtide.report.text import aware

_COLUMNS = (
    "run_id",
    "window_start",
    "window_end",
    "backend",
    "model",
    "cancelled",
    "documents",
    "rows",
    "ok",
    "invalid",
    "refused",
    "error",
    "skipped",
    "requests",
    "batches",
    "attempts",
    "planned_input_tokens",
    "planned_output_tokens",
    "input_tokens",
    "output_tokens",
    "reused_requests",
    "twin_requests",
    "planned_cost_usd",
    "cost_usd",
    "cost_if_realtime_usd",
    "saved_usd",
    "started",
    "finished",
    "deadline",
    "seconds_waiting",
    "seconds_working",
    "bytes_read",
    "bytes_written",
)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of the runs table; None for what it does not say. Amounts in USD.

    `realtime` is what the work would have cost in real time, `saved` what answers of earlier runs would have cost.
    """

    run_id: str | None
    statuses: dict[str, int]
    window_start: datetime | None
    window_end: datetime | None
    backend: str
    model: str
    cancelled: bool
    documents: int | None
    rows: int | None
    requests: int | None
    batches: int | None
    attempts: int | None
    planned_input_tokens: int | None
    planned_output_tokens: int | None
    input_tokens: int | None
    output_tokens: int | None
    reused_requests: int | None
    twin_requests: int | None
    planned_cost: Decimal | None
    cost: Decimal | None
    realtime: Decimal | None
    saved: Decimal | None
    started: datetime | None
    finished: datetime | None
    deadline: datetime | None
    seconds_waiting: float | None
    seconds_working: float | None
    bytes_read: int | None
    bytes_written: int | None


def read_run(stream: BinaryIO, run_id: str) -> RunRecord | None:
    """The row of that run, or the last row if none names it; None if the table is empty."""
    chosen: dict[str, object] | None = None
    for batch in TableReader("runs", stream).batches(_COLUMNS, 1_024):
        columns = {name: batch.values(name) for name in _COLUMNS}
        for row in range(batch.rows):
            candidate = {name: values[row] for name, values in columns.items()}
            if chosen is None or candidate["run_id"] == run_id or chosen["run_id"] != run_id:
                chosen = candidate
    return None if chosen is None else _record(chosen)


def _record(row: dict[str, object]) -> RunRecord:
    def integer(name: str) -> int | None:
        value = row[name]
        return int(value) if isinstance(value, int | Decimal) else None

    def amount(name: str) -> Decimal | None:
        value = row[name]
        return Decimal(str(value)) if isinstance(value, int | float | Decimal) else None

    def seconds(name: str) -> float | None:
        value = row[name]
        return float(value) if isinstance(value, int | float | Decimal) else None

    def time(name: str) -> datetime | None:
        value = row[name]
        return aware(value) if isinstance(value, datetime) else None

    statuses = {name: integer(name) for name in ("ok", "invalid", "refused", "error", "skipped")}
    return RunRecord(
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        statuses={name: number for name, number in statuses.items() if number is not None},
        window_start=time("window_start"),
        window_end=time("window_end"),
        backend=str(row["backend"] or ""),
        model=str(row["model"] or ""),
        cancelled=bool(row["cancelled"]),
        documents=integer("documents"),
        rows=integer("rows"),
        requests=integer("requests"),
        batches=integer("batches"),
        attempts=integer("attempts"),
        planned_input_tokens=integer("planned_input_tokens"),
        planned_output_tokens=integer("planned_output_tokens"),
        input_tokens=integer("input_tokens"),
        output_tokens=integer("output_tokens"),
        reused_requests=integer("reused_requests"),
        twin_requests=integer("twin_requests"),
        planned_cost=amount("planned_cost_usd"),
        cost=amount("cost_usd"),
        realtime=amount("cost_if_realtime_usd"),
        saved=amount("saved_usd"),
        started=time("started"),
        finished=time("finished"),
        deadline=time("deadline"),
        seconds_waiting=seconds("seconds_waiting"),
        seconds_working=seconds("seconds_working"),
        bytes_read=integer("bytes_read"),
        bytes_written=integer("bytes_written"),
    )
