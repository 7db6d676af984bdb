"""Parquet, inside the worker: the columns that are needed, as batches of strings of bounded size."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.connectors.formats.limits import MIB, ReadLimits, Unreadable, megabytes, names
from lowtide.connectors.formats.protocol import ReadRows

BATCH_ROWS = 1_000
_BATCH_BYTES = 8 * MIB
_READ_BYTES = MIB
# A column chunk is read through a buffer of this size. Without one a whole chunk is held, and memory follows the
# writer's row groups; with `pre_buffer` it follows the file.
_THRIFT_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class RowBatch:
    """`columns` are strings: the text, the key if there is one, then the fields, under the names c0, c1, …"""

    start: int
    columns: pa.RecordBatch
    reasons: dict[int, str]


def read_parquet(source: io.RawIOBase, request: ReadRows, limits: ReadLimits) -> Iterator[RowBatch]:
    """All rows, in order. Raises Unreadable, before the first row or between two batches."""
    try:
        file = pq.ParquetFile(
            pa.PythonFile(source, mode="r"),
            pre_buffer=False,
            buffer_size=_READ_BYTES,
            thrift_string_size_limit=_THRIFT_BYTES,
            thrift_container_size_limit=_THRIFT_BYTES,
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        raise Unreadable(
            "not a Parquet file that can be opened: truncated, or damaged; copy or write it again"
        ) from None
    wanted = _wanted(file.schema_arrow, request)
    start = 0
    # Threads of the decoder would each hold a batch, and the second core belongs to the reader of these rows.
    batches = file.iter_batches(_batch_rows(file), columns=sorted(set(wanted) - {""}), use_threads=False)
    try:
        for batch in batches:
            for part in _parts(batch):
                yield _as_strings(part, wanted, start, limits)
                start += part.num_rows
    except MemoryError:
        needs = f"row {start} on needs more than the worker's {megabytes(limits.memory_bytes)}"
        raise Unreadable(f"{needs}: write the file with smaller row groups") from None
    except (pa.ArrowException, OSError, ValueError):
        raise Unreadable(f"damaged from row {start} on: what follows was not read; write the file again") from None


def _wanted(schema: pa.Schema, request: ReadRows) -> list[str]:
    """The names of the columns, "" for a field that the file does not have. Raises Unreadable."""
    for column in (request.text, request.id):
        if column is not None and column not in schema.names:
            raise Unreadable(f"no column {column!r}; the file has: {names(schema.names)}")
    twice = next((name for name in (request.text, request.id) if name and schema.names.count(name) > 1), None)
    if twice:
        raise Unreadable(f"column {twice!r} occurs twice: rename one")
    kind = schema.field(request.text).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not _is_text(kind):
        raise Unreadable(f"column {request.text!r} holds {str(kind)[:40]}, not text: name another by `text`")
    fields = [name if schema.names.count(name) == 1 else "" for name in request.fields]
    return [request.text, *([] if request.id is None else [request.id]), *fields]


def _is_text(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)


def _batch_rows(file: pq.ParquetFile) -> int:
    """Rows whose bytes, by what the file says of itself, make a batch of moderate size."""
    metadata = file.metadata
    row_bytes = 1
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        row_bytes = max(row_bytes, group.total_byte_size // max(group.num_rows, 1))
    return max(1, min(BATCH_ROWS, _BATCH_BYTES // row_bytes))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of about _BATCH_BYTES: dictionaries make rows larger than the file says."""
    rows = max(1, batch.num_rows * _BATCH_BYTES // max(batch.nbytes, 1))
    if rows >= batch.num_rows:
        yield batch
        return
    for at in range(0, batch.num_rows, rows):
        yield batch.slice(at, rows)


def _as_strings(batch: pa.RecordBatch, wanted: Sequence[str], start: int, limits: ReadLimits) -> RowBatch:
    reasons: dict[int, str] = {}
    columns = [
        pa.nulls(batch.num_rows, pa.string())
        if name == ""
        else _strings(batch.column(name), reasons if at == 0 else None)
        for at, name in enumerate(wanted)
    ]
    return RowBatch(start, pa.record_batch(columns, names=[f"c{at}" for at in range(len(columns))]), reasons)


def _strings(column: pa.Array, reasons: dict[int, str] | None) -> pa.Array:
    """The column as valid UTF-8. Values that are not: skipped with a reason where `reasons` is given, else mended."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.string())
    if not _is_text(kind):
        return pa.array([_spelled(value) for value in column.to_pylist()], pa.string())
    try:
        text = column.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowInvalid:
        return _mended(column, reasons)
    return text


def _mended(column: pa.Array, reasons: dict[int, str] | None) -> pa.Array:
    values: list[str | None] = []
    for at, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
        try:
            values.append(None if value is None else value.decode())
        except UnicodeDecodeError as error:
            if reasons is not None:
                reasons[at] = f"invalid UTF-8 at byte {error.start} of the text: write the column as UTF-8"
            values.append(value.decode("utf-8", "replace") if reasons is None else None)
    return pa.array(values, pa.string())


def _spelled(value: object) -> str | None:
    """A value of another type as text: numbers and nested values in their JSON spelling, times in ISO 8601."""
    match value:
        case None:
            return None
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case _:
            return orjson.dumps(value, default=_plain).decode()


def _plain(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
