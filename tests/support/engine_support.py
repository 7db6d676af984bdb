"""What the tests of the engine share: a clock, a driver without pauses, and a look at what was written."""

from __future__ import annotations

import io
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
from support.standins import MemoryStore

from lowtide.engine import Progress, Run, drive


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def finish(run: Run, *, seconds: float = 0.0, clock: Clock | None = None) -> Progress:
    def sleep(_: float) -> None:
        if clock is not None:
            clock.now += seconds

    until = run.context.clock() + 10_000 if clock is not None else None
    return drive(run, poll=seconds, sleep=sleep, until=until)


def results(store: MemoryStore) -> list[dict[str, object]]:
    data = store.objects["tables/results/job=test/window=all/results.parquet"]
    rows: list[dict[str, object]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


def ledger(store: MemoryStore, run: Run) -> pa.Table:
    return pq.read_table(
        io.BytesIO(store.objects[f"tables/ledger/job=test/window=all/{run.plan.run_id}.parquet"]), partitioning=None
    )


def billed(store: MemoryStore, run: Run) -> Counter[str]:
    tokens: Counter[str] = Counter()
    for row in ledger(store, run).to_pylist():
        if row["kind"] == "actual":
            tokens[row["token_type"]] += row["quantity"]
    return tokens


def statuses(store: MemoryStore) -> Counter[object]:
    return Counter(row["status"] for row in results(store))


def ledger_tokens(store: MemoryStore, run: Run) -> Counter[str]:
    """The same as `billed`, for a run that may have published nothing."""
    return billed(store, run)
