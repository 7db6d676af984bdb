"""The rows of a bill's file, streamed: Parquet by batches, CSV by lines, either of them gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.billing.bill import BillError

Value = object
"""Text, a number, a time, a mapping or nothing: what Parquet and CSV hold."""

_BATCH_ROWS = 2_000
_READ_BYTES = 1 << 20
_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number, and its values by the columns' names in lower case, since exports differ in case.

    `spelt` has the names as the file has them, for messages.
    """

    file: str
    number: int
    values: Mapping[str, Value]
    spelt: Mapping[str, str] = field(default_factory=dict)

    def text(self, *columns: str) -> str:
        """The first of these columns that is not empty, as text."""
        for column in columns:
            value = self.values.get(column)
            if value not in (None, ""):
                return str(value).strip()
        return ""

    def wrong(self, column: str, found: object, advice: str) -> BillError:
        """The error for a value that cannot be used."""
        return BillError(f"{self.file}:{self.number}: {self.spelt.get(column, column)}: found {found!r}; {advice}")


class BillFile:
    """A bill's file. Raises BillError for one that is missing, damaged, or no table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        with self._opened() as stream:
            self._is_parquet = stream.read(4) == _PARQUET
        self.columns = self._parquet_columns() if self._is_parquet else self._csv_columns()

    def rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        """All rows, in order, with the columns of these names (in lower case) as far as they are there."""
        yield from self._parquet_rows(wanted) if self._is_parquet else self._csv_rows(wanted)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb") as raw:
                zipped = raw.read(2) == _GZIP
                raw.seek(0)
                with gzip.open(raw) if zipped else raw as stream:
                    yield stream  # type: ignore[misc]  # GzipFile is a binary stream in all that is used here
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise BillError(f"{self.path}: the gzip file is damaged or not whole; fetch it again") from None
        except OSError as error:
            raise BillError(f"{self.path}: cannot be read: {error.strerror or error}") from None

    @contextmanager
    def _parquet(self) -> Iterator[pq.ParquetFile]:
        with self._opened() as stream:
            try:
                yield pq.ParquetFile(pa.PythonFile(stream, mode="r"), pre_buffer=False, buffer_size=_READ_BYTES)
            except (pa.ArrowException, ValueError, OSError) as error:
                # Arrow's own OSErrors have no number; those of the disk and of gzip are told apart by the caller.
                if isinstance(error, gzip.BadGzipFile) or getattr(error, "errno", None) is not None:
                    raise
                raise BillError(f"{self.path}: the Parquet file is damaged or not whole; fetch it again") from None

    def _parquet_columns(self) -> tuple[str, ...]:
        with self._parquet() as file:
            return tuple(file.schema_arrow.names)

    def _parquet_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        columns = [name for name in self.columns if name.lower() in wanted]
        number, spelt = 0, {name.lower(): name for name in columns}
        with self._parquet() as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                lists = {name.lower(): batch.column(name).to_pylist() for name in columns}
                for at in range(batch.num_rows):
                    number += 1
                    yield Row(self.name, number, {name: values[at] for name, values in lists.items()}, spelt)

    @contextmanager
    def _csv(self) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
        with self._opened() as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            try:
                rows = self._numbered(csv.reader(text, strict=True))
                _, header = next(rows, (1, []))
                yield [name.strip() for name in header], rows
            except UnicodeDecodeError:
                raise BillError(
                    f"{self.path}: is not UTF-8 text, nor Parquet; export it again as CSV (UTF-8)"
                ) from None

    def _numbered(self, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
        while True:
            number = getattr(reader, "line_num", 0) + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise BillError(
                    f"{self.name}:{number}: the line cannot be read ({error}); the file is damaged or not whole: "
                    "export it again"
                ) from None
            if row is None:
                return
            if row:
                yield number, row

    def _csv_columns(self) -> tuple[str, ...]:
        with self._csv() as (header, _):
            if not any(header):
                raise BillError(f"{self.path}: is empty; export the bill again")
            if len(header) == 1 and ";" in header[0]:
                raise BillError(
                    f"{self.name}:1: columns are separated by semicolons, as some spreadsheets write them; "
                    "take the file as it was exported, separated by commas"
                )
            return tuple(header)

    def _csv_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        places = [(at, name.lower()) for at, name in enumerate(self.columns) if name.lower() in wanted]
        width, spelt = len(self.columns), {name.lower(): name for name in self.columns}
        with self._csv() as (_, rows):
            for number, row in rows:
                if len(row) != width:
                    raise BillError(
                        f"{self.name}:{number}: found {len(row)} columns where the heading has {width}; the file is "
                        "damaged or not whole: export it again"
                    )
                yield Row(self.name, number, {name: row[at] for at, name in places}, spelt)
