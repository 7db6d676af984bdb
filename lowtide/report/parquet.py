"""One Parquet table, read in bounded memory and with tolerance for columns that are missing or typed otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowtide.errors import StoreError

_PAGE_BUFFER = 1 << 20
_MONEY = pa.decimal128(38, 12)


class TableReader:
    """A Parquet file behind a seekable stream, which stays open and is the caller's to close.

    Raises StoreError, here and while reading, if the stream does not hold a table.
    """

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self._name = name
        try:
            # With a buffer, and nothing read ahead, column chunks are read page by page. Otherwise a whole chunk comes
            # into memory at once, which for a file of one row group is the whole column.
            self._file = pq.ParquetFile(stream, buffer_size=_PAGE_BUFFER, pre_buffer=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._broken(error) from error
        self.rows: int = self._file.metadata.num_rows
        self.columns: tuple[str, ...] = tuple(self._file.schema_arrow.names)

    def batches(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        """The named columns, as far as the table has them, `size` rows at a time."""
        present = [name for name in columns if name in self.columns]
        try:
            if present:
                for batch in self._file.iter_batches(size, columns=present, use_threads=False):
                    yield Batch(batch, batch.num_rows)
            elif self.rows:
                for start in range(0, self.rows, size):
                    yield Batch(None, min(size, self.rows - start))
        except (pa.ArrowInvalid, OSError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> StoreError:
        return StoreError(f"the {self._name} table cannot be read as Parquet ({type(error).__name__}: {error})")


class Batch:
    """Some rows of a table, column by column. A column that the table lacks is all null."""

    def __init__(self, batch: pa.RecordBatch | None, rows: int) -> None:
        self._batch = batch
        self.rows = rows

    def text(self, name: str, characters: int) -> pa.Array:
        """A column as strings, each cut after so many characters, before any of them becomes a Python object."""
        column = self._column(name, pa.string())
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            try:
                column = column.cast(pa.string())
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                column = pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
        return pc.utf8_slice_codeunits(column, 0, characters).cast(pa.string())

    def integer(self, name: str) -> pa.Array:
        """A column as int64."""
        return self._column(name, pa.int64()).cast(pa.int64(), safe=False)

    def amount(self, name: str) -> pa.Array:
        """A column as decimal128(38, 12)."""
        return self._column(name, _MONEY).cast(_MONEY)

    def boolean(self, name: str) -> pa.Array:
        """A column as bool."""
        return self._column(name, pa.bool_()).cast(pa.bool_())

    def values(self, name: str) -> list[object]:
        """A column of scalars as Python objects: only for a few rows, or for narrow types."""
        values: list[object] = self._column(name, pa.null()).to_pylist()
        return values

    def take(self, rows: Sequence[int]) -> Batch:
        """Only the rows at these positions."""
        chosen = None if self._batch is None else self._batch.take(pa.array(rows, pa.int64()))
        return Batch(chosen, len(rows))

    def _column(self, name: str, absent: pa.DataType) -> pa.Array:
        if self._batch is None or name not in self._batch.schema.names:
            return pa.nulls(self.rows, absent)
        return self._batch.column(name)


def total(column: pa.Array) -> Decimal | None:
    """The sum of a decimal column, None if it holds nothing."""
    value: Decimal | None = pc.sum(column).as_py()
    return value
