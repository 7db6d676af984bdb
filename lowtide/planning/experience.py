"""How long earlier runs of a job have taken, from the runs table: what a finish is told by, where there is any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from lowtide.prices.by_time import Pace
from lowtide.protocols import Store
from lowtide.records import Limits

_RUNS = 10
"""Runs that are looked at, the latest: a provider's pace is that of last month, and not of last year."""

_ALIKE = 4
"""By how many times smaller the batches of an earlier run may have been to say something about those of this one."""

_COLUMNS = [
    *("backend", "model", "documents", "requests", "shards", "seconds_waiting", "seconds_working", "cancelled"),
    *("input_tokens", "output_tokens"),
]
_NEWER = ["machine", "compute_seconds"]
"""Columns that an earlier version's tables do not have."""

SECONDS_PER_DOCUMENT = 0.0002
"""Of our own work, where no earlier run tells: 200 s for a million small objects (docs/operations/performance.md)."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """One row of the runs table; times in seconds."""

    backend: str
    model: str
    documents: int
    requests: int
    shards: int
    seconds_waiting: float
    seconds_working: float
    tokens: int = 0
    machine: str = ""
    compute_seconds: int = 0


@dataclass(frozen=True)
class Experience:
    """The latest runs of a job."""

    runs: Sequence[EarlierRun] = ()

    def at(self, backend: str, model: str) -> Experience:
        """Those that went to this backend, and asked something there."""
        here = (run for run in self.runs if (run.backend, run.model) == (backend, model))
        return Experience(tuple(run for run in here if run.requests and run.shards and run.seconds_waiting))

    def like(self, requests: int, shard_records: int, limits: Limits) -> Experience:
        """Those that were not much smaller than so many requests, in shards of so many records, and sent as batches.

        Where a batch takes its time whatever it holds, their shards; where records take theirs, the whole run.
        """
        if limits.records_per_second is not None:
            alike = [run for run in self.runs if run.requests >= requests / _ALIKE]
        else:
            fewest = max(min(requests, shard_records, limits.records) / _ALIKE, limits.minimum_records)
            alike = [run for run in self.runs if run.requests / run.shards >= fewest]
        return Experience(alike)

    def wave_seconds(self, limits: Limits) -> float | None:
        """The longest that batches which are open together have taken; None if nothing is known."""
        waves = (run.seconds_waiting / math.ceil(run.shards / limits.live_batches) for run in self.runs)
        return max(waves, default=None)

    def records_per_second(self) -> float | None:
        """The slowest that so many records were answered; None if nothing is known."""
        return min((run.requests / run.seconds_waiting for run in self.runs), default=None)

    def pace(self, machines: Sequence[str]) -> Pace | None:
        """How fast a machine of these kinds was in the latest run on each: the slowest kind; None if none is known."""
        found: dict[str, float] = {}
        for run in self.runs:
            if run.machine in machines and run.compute_seconds and run.tokens:
                found[run.machine] = run.tokens / run.compute_seconds
        if not found:
            return None
        machine = min(found, key=found.__getitem__)
        return Pace(found[machine], f"measured in this job's last run on {machine}")

    def build_seconds(self, documents: int) -> float:
        """How long we work ourselves on so many documents."""
        known = [run.seconds_working / run.documents for run in self.runs if run.documents]
        return documents * (max(known) if known else SECONDS_PER_DOCUMENT)


def read_experience(store: Store, job: str) -> Experience:
    """The job's latest runs under this root, over any window. Raises what the store raises."""
    files = [info for info in store.list(f"tables/runs/job={job}/") if info.path.endswith(".parquet")]
    latest = sorted(files, key=lambda info: info.modified)[-_RUNS:]
    runs: list[EarlierRun] = []
    for info in latest:
        with store.open(info.path) as source:
            table = pq.ParquetFile(source, pre_buffer=False)
            columns = [*_COLUMNS, *(name for name in _NEWER if name in table.schema_arrow.names)]
            rows = table.read(columns=columns, use_threads=False).to_pylist()
        runs += [
            EarlierRun(
                row["backend"],
                row["model"],
                row["documents"] or 0,
                row["requests"] or 0,
                row["shards"] or 0,
                row["seconds_waiting"] or 0.0,
                row["seconds_working"] or 0.0,
                (row["input_tokens"] or 0) + (row["output_tokens"] or 0),
                row.get("machine") or "",
                row.get("compute_seconds") or 0,
            )
            for row in rows
            if not row["cancelled"]
        ]
    return Experience(tuple(runs))
