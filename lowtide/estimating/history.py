"""What earlier runs of a job have used, from the tables under the root."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowtide.errors import NotFound
from lowtide.protocols import Store

_RUNS = 8
_WINDOWS = 4
_ROWS = 20_000
_RUN_COLUMNS = ("run_id", "model", "asked_requests", "input_tokens", "text_bytes", "cancelled")
_ROW_COLUMNS = ("run_id", "operation_version", "model", "input_tokens", "output_tokens", "attempts", "cached")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run's answers to one operation were like: how many were looked at, and their output tokens."""

    rows: int
    output_mean: float
    output_deviation: float


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run: its totals, and its answers by the version of their operation.

    `requests` are those that were asked, and `text_bytes` is the text in them. `again` is how many tokens, in those of
    first attempts, were spent on further ones.
    """

    model: str
    requests: int
    input_tokens: int
    text_bytes: int
    again: float
    answers: Mapping[str, Answers]

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of each operation in the requests."""
        total = sum(found.rows for found in self.answers.values())
        return {version: found.rows / total for version, found in self.answers.items()}


@dataclass(frozen=True, slots=True)
class History:
    """Earlier runs of a job, the newest first."""

    runs: tuple[PastRun, ...] = ()

    def of(self, model: str) -> tuple[PastRun, ...]:
        """Those with this model."""
        return tuple(run for run in self.runs if run.model == model)


NO_HISTORY = History()


def read_history(store: Store, job: str) -> History:
    """The newest runs whose results are published, in bounded work: 8 rows of runs, 20,000 rows of 4 results tables.

    What cannot be read as a table, or has other columns, is passed over. Raises Transient and StoreError.
    """
    found = store.list(f"tables/runs/job={job}/")
    newest = heapq.nlargest(_RUNS, found, key=lambda info: (info.modified, info.path))
    runs: list[PastRun] = []
    windows: list[str] = []
    for info in newest:
        window = info.path.split("/")[-2].removeprefix("window=")
        if window in windows or len(windows) == _WINDOWS:
            continue
        row = _head(store, info.path, _RUN_COLUMNS, 1)
        if row is None or not len(row):
            continue
        past = _past_run(store, f"tables/results/job={job}/window={window}/results.parquet", row.to_pylist()[0])
        if past is not None:
            runs.append(past)
            windows.append(window)
    return History(tuple(runs))


def _past_run(store: Store, results: str, row: Mapping[str, object]) -> PastRun | None:
    numbers = [row[name] for name in ("asked_requests", "input_tokens", "text_bytes")]
    requests, tokens, text_bytes = (value if isinstance(value, int) else 0 for value in numbers)
    if row["cancelled"] or not requests or not tokens or not text_bytes:
        return None
    rows = _head(store, results, _ROW_COLUMNS, _ROWS)
    if rows is None:
        return None
    field = pc.field
    bought = rows.filter(
        (field("run_id") == row["run_id"])
        & (field("model") == row["model"])
        & ~field("cached")
        & (field("attempts") >= 1)
        & (field("input_tokens") > 0)
    )
    attempts, spent, written = (
        bought[name].to_numpy().astype(np.float64) for name in ("attempts", "input_tokens", "output_tokens")
    )
    once = float((spent / attempts).sum())
    if not once:
        return None
    versions = bought["operation_version"].to_numpy()
    answers = {str(version): _answers((written / attempts)[versions == version]) for version in np.unique(versions)}
    return PastRun(str(row["model"]), requests, tokens, text_bytes, float(spent.sum()) / once - 1, answers)


def _answers(written: npt.NDArray[np.float64]) -> Answers:
    return Answers(len(written), float(written.mean()), float(written.std()))


def _head(store: Store, path: str, columns: Sequence[str], most: int) -> pa.Table | None:
    """The first rows of a table, as many as are in its first row group; None if it is no such table."""
    try:
        with store.open(path) as source:
            parquet = pq.ParquetFile(source, pre_buffer=False)
            if not parquet.num_row_groups or not set(columns) <= set(parquet.schema_arrow.names):
                return None
            batch = next(parquet.iter_batches(batch_size=most, row_groups=[0], columns=list(columns)), None)
    except (NotFound, pa.ArrowInvalid):
        return None
    return pa.Table.from_batches([batch]) if batch is not None else None
