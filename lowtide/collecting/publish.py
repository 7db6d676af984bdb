"""The window's results table: all shards' rows in one sorted file, in memory that does not depend on their number.

Document ids are hashes, so equal ranges of them hold about equally many rows: the rows are taken range by range from
every shard's sorted file, sorted, and written as one row group each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowtide.collecting.rows import money
from lowtide.schemas import MONEY, results_schema

GROUP_ROWS = 80_000
"""Rows to a row group: point lookups and scans are both quick between 50,000 and 120,000."""

GROUP_BYTES = 32 << 20
"""Bytes to a row group before compression, where rows are long. Publishing holds a little more than twice as much."""

_SAMPLED = 16
_IDS = 1 << 32

_UNIQUE = frozenset({"document_id", "output_text", "output", "content_sha256"})
"""Columns that no dictionary would shorten."""
_LONG = frozenset({"output_text", "output", "status_reason"})
"""Columns whose least and greatest value help no query."""


class _SortedRows:
    """One shard's rows, handed out in order of document id, range by range. Holds nothing between two ranges."""

    def __init__(self, open_rows: Callable[[], BinaryIO], shares: npt.NDArray[np.int64] | None) -> None:
        self._open = open_rows
        self._shares = shares
        self._batch = 0
        self._row = 0
        self._done = 0

    def below(self, bound: str | None) -> Iterator[pa.RecordBatch]:
        """The rows not yet handed out whose document id sorts before `bound`; all that are left if it is None."""
        # Opened for each range: a run may have more shards than a process may have open files.
        with self._open() as source:
            reader = pa.ipc.open_file(source)
            while self._batch < reader.num_record_batches:
                batch = reader.get_batch(self._batch)
                inside = len(batch) if bound is None else pc.sum(pc.less(batch["document_id"], bound)).as_py() or 0
                part = batch.slice(self._row, inside - self._row)
                if inside == len(batch):
                    self._batch, self._row = self._batch + 1, 0
                    yield self._charged(part)
                else:
                    self._row = inside
                    # A slice would keep the whole batch in memory, and there may be many shards.
                    yield self._charged(part.take(pa.array(np.arange(len(part)))))
                    return

    def _charged(self, part: pa.RecordBatch) -> pa.RecordBatch:
        """The next rows, each with its share of what the shard has cost beyond its answers."""
        start, self._done = self._done, self._done + len(part)
        if self._shares is None:
            return part
        own = part["cost_usd"].cast(pa.decimal128(30, 12))
        cost = pc.add(own, money(self._shares[start : self._done]).cast(pa.decimal128(30, 12))).cast(MONEY)
        names = part.schema.names
        part = part.set_column(names.index("cost_usd"), "cost_usd", cost)
        return part.set_column(names.index("cost_usd_float"), "cost_usd_float", cost.cast(pa.float64()))

    def bytes_per_row(self) -> int:
        """From the first batch: rows are in the order of hashes, so that it is a fair sample."""
        with self._open() as source:
            reader = pa.ipc.open_file(source)
            batch = reader.get_batch(0) if reader.num_record_batches else None
        return batch.nbytes // len(batch) if batch else 0


class Rows(NamedTuple):
    """A shard's rows, sorted, and what each bears of the shard's cost beyond it, in 1e-12 USD; None if there is none.

    The shares are in the order of the file.
    """

    open: Callable[[], BinaryIO]
    shares: npt.NDArray[np.int64] | None = None


class Written(NamedTuple):
    """What a results table holds: rows by status, and what they would have cost in real time, None if unknown."""

    rows: int
    counts: dict[str, int]
    realtime_usd: Decimal | None


def write_results(
    shards: Sequence[Rows],
    out: Path,
    *,
    total: int,
    fields: Sequence[str],
    constants: Mapping[str, object],
    by_operation: Mapping[str, Sequence[str]],
    metadata: Mapping[str, str],
    on_progress: Callable[[int], None] = lambda rows: None,
) -> Written:
    """Write the table to a local file. `constants` are columns with one value in the whole run,
    `by_operation` columns with one value for each operation, `metadata` goes into the file's footer.
    """
    schema = results_schema(fields)
    schema = schema.with_metadata({name.encode(): value.encode() for name, value in metadata.items()})
    sources = [_SortedRows(*rows) for rows in shards]
    row_bytes = max((source.bytes_per_row() for source in sources[:_SAMPLED]), default=0)
    ranges = max(1, -(-total // GROUP_ROWS), -(-total * row_bytes // GROUP_BYTES))
    bounds: list[str | None] = [f"{_IDS * (i + 1) // ranges:08x}" for i in range(ranges - 1)]
    written = 0
    counts = Counter[str]()
    realtime = Decimal(0)
    priced = True
    with pq.ParquetWriter(
        out,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in schema.names if name not in _UNIQUE],
        write_statistics=[name for name in schema.names if name not in _LONG],
    ) as writer:
        for bound in [*bounds, None]:
            batches = [batch for source in sources for batch in source.below(bound)]
            if not batches:
                continue
            rows = pa.Table.from_batches(batches)
            order = pc.sort_indices(rows, [("document_id", "ascending"), ("op", "ascending")])
            columns = dict(zip(rows.column_names, rows.columns, strict=True))
            # Each column's source is let go of as soon as the column is in order.
            del batches, rows
            table = _complete(columns, order, schema, constants, by_operation)
            writer.write_table(table, row_group_size=GROUP_ROWS * 2)
            written += len(table)
            for pair in table["status"].value_counts().to_pylist():
                counts[pair["values"]] += pair["counts"]
            realtime += pc.sum(table["cost_if_realtime_usd"]).as_py() or 0
            priced &= not pc.all(pc.is_null(table["cost_if_realtime_usd"])).as_py()
            del table
            pa.default_memory_pool().release_unused()
            on_progress(written)
    return Written(written, dict(counts), realtime if priced else None)


def _complete(
    columns: dict[str, pa.ChunkedArray],
    order: pa.Array,
    schema: pa.Schema,
    constants: Mapping[str, object],
    by_operation: Mapping[str, Sequence[str]],
) -> pa.Table:
    """The rows in this order, with the columns that the shards' files leave out. Empties `columns`."""
    op = columns.pop("op").take(order)
    found: list[pa.Array | pa.ChunkedArray] = []
    for column in schema:
        if column.name in by_operation:
            found.append(pa.array(list(by_operation[column.name]), pa.string()).take(op.combine_chunks()))
        elif column.name in constants:
            found.append(pa.repeat(pa.scalar(constants[column.name], column.type), len(order)))
        else:
            found.append(columns.pop(column.name).take(order))
    return pa.table(found, schema=schema)
