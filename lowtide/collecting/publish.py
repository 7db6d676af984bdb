"""The window's results table: all shards' rows in one sorted file, in memory that does not depend on their number.

Document ids are hashes, so equal ranges of them hold about equally many rows: the rows are taken range by range from
every shard's sorted file, sorted, and written as one row group each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowtide.schemas import results_schema

GROUP_ROWS = 80_000
"""Rows to a row group: point lookups and scans are both quick between 50,000 and 120,000."""

_IDS = 1 << 32


class _SortedRows:
    """One shard's rows, handed out in order of document id, one batch in memory at a time."""

    def __init__(self, open_rows: Callable[[], BinaryIO]) -> None:
        self._open = open_rows
        self._next = 0
        self._held: pa.RecordBatch | None = None
        self._done = False

    def below(self, bound: str | None) -> Iterator[pa.RecordBatch]:
        """The rows not yet handed out whose document id sorts before `bound`; all that are left if it is None."""
        while True:
            batch = self._held if self._held is not None else self._read()
            if batch is None:
                return
            self._held = None
            if bound is None:
                yield batch
                continue
            inside = pc.sum(pc.less(batch["document_id"], bound)).as_py() or 0
            if inside:
                yield batch.slice(0, inside)
            if inside < len(batch):
                self._held = batch.slice(inside)
                return

    def _read(self) -> pa.RecordBatch | None:
        if self._done:
            return None
        # Opened for each batch: a run may have more shards than a process may have open files.
        with self._open() as source:
            reader = pa.ipc.open_file(source)
            if self._next >= reader.num_record_batches:
                self._done = True
                return None
            batch = reader.get_batch(self._next)
        self._next += 1
        return batch


def write_results(
    shards: Sequence[Callable[[], BinaryIO]],
    out: Path,
    *,
    total: int,
    fields: Sequence[str],
    constants: Mapping[str, object],
    by_operation: Mapping[str, Sequence[str]],
    metadata: Mapping[str, str],
    on_progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write the table to a local file; returns its rows. `constants` are columns with one value in the whole run,
    `by_operation` columns with one value for each operation, `metadata` goes into the file's footer.
    """
    schema = results_schema(fields)
    schema = schema.with_metadata({name.encode(): value.encode() for name, value in metadata.items()})
    sources = [_SortedRows(open_rows) for open_rows in shards]
    ranges = max(1, -(-total // GROUP_ROWS))
    bounds: list[str | None] = [f"{_IDS * (i + 1) // ranges:08x}" for i in range(ranges - 1)]
    written = 0
    with pq.ParquetWriter(out, schema, compression="zstd", compression_level=3, write_statistics=True) as writer:
        for bound in [*bounds, None]:
            batches = [batch for source in sources for batch in source.below(bound)]
            if not batches:
                continue
            rows = pa.Table.from_batches(batches)
            rows = rows.take(pc.sort_indices(rows, [("document_id", "ascending"), ("op", "ascending")]))
            writer.write_table(_complete(rows, schema, constants, by_operation), row_group_size=GROUP_ROWS * 2)
            written += len(rows)
            on_progress(written)
    return written


def _complete(
    rows: pa.Table, schema: pa.Schema, constants: Mapping[str, object], by_operation: Mapping[str, Sequence[str]]
) -> pa.Table:
    columns: list[pa.Array | pa.ChunkedArray] = []
    op = rows["op"].combine_chunks()
    for column in schema:
        if column.name in by_operation:
            columns.append(pa.array(list(by_operation[column.name]), pa.string()).take(op))
        elif column.name in constants:
            columns.append(pa.repeat(pa.scalar(constants[column.name], column.type), len(rows)))
        else:
            columns.append(rows[column.name])
    return pa.table(columns, schema=schema)
