"""The window's table out of the shards' rows: what a join in pandas would give, in memory that stays flat."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lowtide import ids
from lowtide.collecting.publish import Rows, write_results
from lowtide.collecting.rows import money, write_rows
from lowtide.schemas import MOMENT, MONEY, RESULT_COLUMNS, results_schema

OPERATIONS = {
    "operation": ["summary", "topic"],
    "operation_kind": ["summarize", "classify"],
    "operation_version": ["v1", "v2"],
}
CONSTANTS: dict[str, object] = {
    "run_id": "run",
    "window_start": None,
    "window_end": datetime(2026, 11, 2, tzinfo=UTC),
    "model": "m",
    "backend": "b",
}


def shard_rows(documents: list[int]) -> pa.Table:
    """Rows of these documents, sorted by id, as a shard's file holds them."""
    names = sorted((ids.document_id(f"u{number}", ""), number) for number in documents)
    names = [name for name in names for _ in range(2)]
    count = len(names)
    op = np.tile(np.arange(2, dtype=np.int8), len(documents))
    numbers = [number for _, number in names]
    texts = [f"text {number}.{which}" for number, which in zip(numbers, op, strict=True)]
    return pa.table(
        {
            "op": pa.array(op),
            "document_id": pa.array([name for name, _ in names], pa.string()),
            "document_uri": pa.array([f"u{number}" for number in numbers], pa.string()),
            "document_modified": pa.nulls(count, MOMENT),
            "content_sha256": pa.nulls(count, pa.string()),
            "status": pa.array(["ok"] * count, pa.string()),
            "status_reason": pa.nulls(count, pa.string()),
            "output_text": pa.array(texts, pa.string()),
            "output": pa.nulls(count, pa.string()),
            "label": pa.nulls(count, pa.string()),
            "confidence": pa.array([number / 7 for number in numbers], pa.float64()),
            "language": pa.nulls(count, pa.string()),
            "input_tokens": pa.array(numbers, pa.int64()),
            "output_tokens": pa.array(op, pa.int64()),
            "cached_tokens": pa.array([0] * count, pa.int64()),
            "cost_usd": money(np.array(numbers, dtype=np.int64) * 1_000_003),
            "cost_usd_float": pa.array([number * 1.000003e-6 for number in numbers], pa.float64()),
            "cost_if_realtime_usd": pa.nulls(count, MONEY),
            "cached": pa.array([False] * count),
            "attempts": pa.array([1] * count, pa.int32()),
            "requested_at": pa.nulls(count, MOMENT),
            "answered_at": pa.nulls(count, MOMENT),
            "customer": pa.array([f"c{number % 3}" for number in numbers], pa.string()),
        }
    )


def opened(table: pa.Table) -> Callable[[], BinaryIO]:
    out = io.BytesIO()
    write_rows(table, out)
    return lambda: io.BytesIO(out.getvalue())


def published(shards: list[pa.Table], out: Path, **more: object) -> pa.Table:
    written = write_results(
        [Rows(opened(shard)) for shard in shards],
        out,
        total=sum(map(len, shards)),
        fields=("customer",),
        constants=CONSTANTS,
        by_operation=OPERATIONS,
        metadata={"lowtide.run_id": "run"},
        **more,  # type: ignore[arg-type]
    )
    table = pq.read_table(out)
    assert written.rows == len(table) == sum(written.counts.values())
    return table


def scattered(documents: int, shards: int, seed: int = 1) -> list[pa.Table]:
    numbers = list(range(documents))
    random.Random(seed).shuffle(numbers)
    cuts = sorted(random.Random(seed).choices(range(documents + 1), k=shards - 1))
    return [shard_rows(numbers[start:end]) for start, end in zip([0, *cuts], [*cuts, documents], strict=True)]


@pytest.mark.parametrize(("documents", "shards"), [(0, 1), (1, 1), (500, 1), (3000, 40), (50_000, 7)])
def test_the_table_is_what_a_join_in_pandas_would_give(documents: int, shards: int, tmp_path: Path) -> None:
    parts = scattered(documents, shards)
    table = published(parts, tmp_path / "results.parquet")
    naive = pd.concat([part.to_pandas() for part in parts]).sort_values(["document_id", "op"], ignore_index=True)
    found = table.to_pandas()
    assert len(found) == 2 * documents
    for name, values in OPERATIONS.items():
        expected = [values[op] for op in naive["op"]]
        assert found[name].tolist() == expected
    for name in set(naive.columns) - {"op"}:
        pd.testing.assert_series_equal(found[name], naive[name], check_names=False, check_dtype=False)
    assert (found["run_id"] == "run").all()
    assert found["window_start"].isna().all()


def test_many_ranges_come_out_in_one_order(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    table = published(scattered(100_000, 25), out)
    groups = pq.ParquetFile(out).metadata
    assert [groups.row_group(at).num_rows // 10_000 for at in range(groups.num_row_groups)] == [6, 6, 6]
    order = pc.sort_indices(table, [("document_id", "ascending"), ("operation", "ascending")])
    assert order.equals(pa.array(np.arange(200_000), pa.uint64()))


def test_the_columns_are_those_of_the_contract_and_the_footer_says_whose_they_are(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    published(scattered(5, 2), out)
    schema = pq.read_schema(out)
    assert tuple(schema.names) == (*RESULT_COLUMNS, "customer")
    assert schema.remove_metadata().equals(results_schema(("customer",)))
    assert pq.read_metadata(out).metadata[b"lowtide.run_id"] == b"run"


def test_a_run_of_empty_shards_is_an_empty_table(tmp_path: Path) -> None:
    assert len(published([shard_rows([]), shard_rows([])], tmp_path / "results.parquet")) == 0


def test_progress_counts_up_to_all_rows(tmp_path: Path) -> None:
    seen: list[int] = []
    published(scattered(300, 3), tmp_path / "results.parquet", on_progress=seen.append)
    assert seen[-1] == 600
    assert seen == sorted(seen)


def test_money_is_exact_on_the_way(tmp_path: Path) -> None:
    table = published(scattered(100, 3), tmp_path / "results.parquet")
    for cost, tokens in zip(table["cost_usd"].to_pylist(), table["input_tokens"].to_pylist(), strict=True):
        assert cost == Decimal(tokens * 1_000_003).scaleb(-12)


_MEASURE = """
import io, resource, sys, tempfile
from pathlib import Path
sys.path[:0] = [{tests!r}]
from lowtide.collecting.publish import Rows, write_results
from lowtide.collecting.rows import write_rows
import importlib.util
spec = importlib.util.spec_from_file_location("shards", {here!r})
shards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shards)
count = int(sys.argv[1])
folder = Path(tempfile.mkdtemp())
for shard in range(count):
    with (folder / str(shard)).open("wb") as out:
        write_rows(shards.shard_rows(list(range(shard * 5000, shard * 5000 + 5000))), out)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sources = [Rows(lambda shard=shard: (folder / str(shard)).open("rb")) for shard in range(count)]
write_results(sources, folder / "results",
    total=count * 10000, fields=("customer",), constants=shards.CONSTANTS, by_operation=shards.OPERATIONS,
    metadata={{}})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def growth(shards: int) -> float:
    program = "import lowtide\n" + _MEASURE.format(tests=str(Path(__file__).parents[2]), here=__file__)
    done = subprocess.run([sys.executable, "-c", program, str(shards)], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_shards() -> None:
    """In MB above what reading one shard had taken before. 40 shards are 400,000 rows in five row groups."""
    few, many = growth(10), growth(40)
    assert many < few + 60
