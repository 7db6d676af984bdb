"""Files of FOCUS 1.2: written only if they keep its rules, and read to see whether they do."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.billing.cells import cell
from lowtide.billing.focus import SCHEMA, FocusRow
from lowtide.billing.focus_columns import COLUMNS, Kind
from lowtide.billing.focus_rules import Checker, Value, Violation, shown
from lowtide.billing.reading import UNPRICED
from lowtide.errors import ConfigError, LowtideError

Form = Literal["parquet", "csv"]

_BATCH = 4_096
_WRITTEN = tuple(name for name in SCHEMA.names if name in COLUMNS)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:E-?[0-9]+)?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_SAYS: Mapping[Kind, str] = {
    "text": "is text",
    "json": "is text that holds JSON, or a map",
    "decimal": "is a number with decimals; floating point cannot hold money exactly",
    "time": "is a time in UTC, as text 2026-11-20T00:00:00Z",
}
_SECTION: Mapping[Kind, str] = {
    "text": "String Handling",
    "json": "Key-Value Format",
    "decimal": "Numeric Format",
    "time": "Date/Time Format",
}


@dataclass(frozen=True, slots=True)
class Written:
    """What an export holds. `unpriced` rows have no known price, so that their cost of 0 says nothing."""

    rows: int
    unpriced: int


def write_focus(rows: Iterable[FocusRow], out: BinaryIO, form: Form) -> Written:
    """Write the rows, each checked before. Raises LowtideError, with the file half written, for one that is wrong."""
    count = unpriced = 0

    def counted() -> Iterator[FocusRow]:
        nonlocal count, unpriced
        for row in _checked(rows):
            count += 1
            unpriced += str(row["x_PriceId"] or "").endswith(UNPRICED) and not row["BilledCost"]
            yield row

    if form == "parquet":
        _write_parquet(counted(), out)
    else:
        _write_csv(counted(), out)
    return Written(count, unpriced)


def _checked(rows: Iterable[FocusRow]) -> Iterator[FocusRow]:
    checker = Checker(SCHEMA.names)
    for violation in checker.dataset:
        raise LowtideError(f"internal error: the export breaks a rule: {violation}")
    for number, row in enumerate(rows, start=1):
        for violation in checker.check(number, {name: _value(row.get(name)) for name in _WRITTEN}):
            raise LowtideError(f"internal error: the export breaks a rule; entry {row['x_EntryId']}: {violation}")
        yield row


def _value(value: object) -> Value:
    if value is None or isinstance(value, (str, Decimal, datetime)):
        return value
    return Decimal(value) if isinstance(value, int) else None


def _write_parquet(rows: Iterator[FocusRow], out: BinaryIO) -> None:
    with pq.ParquetWriter(out, SCHEMA, compression="zstd") as writer:
        while batch := list(islice(rows, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def _write_csv(rows: Iterator[FocusRow], out: BinaryIO) -> None:
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text)
        writer.writerow(SCHEMA.names)
        writer.writerows([cell(row.get(name)) for name in SCHEMA.names] for row in rows)
        text.flush()
    finally:
        # Or the stream would be closed with this wrapper.
        text.detach()


def check_focus(source: BinaryIO, name: str) -> Iterator[Violation]:
    """Every rule that a file (`name.parquet` or `name.csv`) breaks, and where. Raises ConfigError for another file."""
    if name.casefold().endswith(".csv"):
        yield from _check_csv(source, name)
    elif name.casefold().endswith(".parquet"):
        yield from _check_parquet(source, name)
    else:
        raise ConfigError(f"{name}: a file of FOCUS rows ends in .parquet or .csv")


def _check_parquet(source: BinaryIO, name: str) -> Iterator[Violation]:
    try:
        parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
        schema = parquet.schema_arrow
        wrong = {field.name for field in schema if not _is_of(field.type, COLUMNS.get(field.name))}
        checker = Checker(schema.names)
        yield from checker.dataset
        for column in sorted(wrong):
            yield _wrong_type(column, None, str(schema.field(column).type))
        known = [column for column in COLUMNS if column in schema.names]
        number = 0
        for batch in parquet.iter_batches(_BATCH, columns=known, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                values = {column: None if column in wrong else _plain(row[column]) for column in known}
                yield from _check(checker, number, values, wrong)
    except pa.ArrowException as error:
        raise ConfigError(f"{name}: cannot be read as Parquet ({error})") from error


def _check_csv(source: BinaryIO, name: str) -> Iterator[Violation]:
    text = io.TextIOWrapper(source, encoding="utf-8-sig", newline="")
    try:
        rows = csv.reader(text, strict=True)
        header = next(rows, [])
        checker = Checker(header)
        yield from checker.dataset
        for number, cells in enumerate(rows, start=1):
            if len(cells) != len(header):
                found = f"{len(cells)} cells under {len(header)} columns"
                yield Violation("row.cells", "has a cell for each column", "Column Handling", number, found)
                continue
            # An empty cell is all that CSV has for null.
            values: dict[str, Value] = {column: found or None for column, found in zip(header, cells, strict=True)}
            yield from _check(checker, number, values, set())
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read as CSV in UTF-8 ({error})") from error
    finally:
        text.detach()


def _check(checker: Checker, number: int, row: Mapping[str, Value], wrong: set[str]) -> Iterator[Violation]:
    """What is wrong with a row of values that may still be in their spelling as text."""
    values: dict[str, Value] = {}
    unreadable = set(wrong)
    for column, value in row.items():
        kind = COLUMNS.get(column)
        if kind is None:
            continue
        try:
            values[column] = _read(value, kind)
        except ValueError:
            values[column] = None
            unreadable.add(column)
            yield _wrong_type(column, number, shown(value))
    yield from checker.check(number, values, frozenset(unreadable))


def _read(value: Value, kind: Kind) -> Value:
    """What a text stands for; a value that is none stays as it is. Raises ValueError."""
    if not isinstance(value, str) or kind in ("text", "json"):
        return value
    if kind == "decimal":
        if not _NUMBER.fullmatch(value):
            raise ValueError("no number")
        return Decimal(value)
    if not _TIME.fullmatch(value):
        raise ValueError("no time")
    return datetime.fromisoformat(value)


def _wrong_type(column: str, row: int | None, found: str) -> Violation:
    kind = COLUMNS[column]
    return Violation(f"{column}.type", _SAYS[kind], _SECTION[kind], row, found)


def _plain(value: object) -> Value:
    """A value of a Parquet file as the rules know it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, list):
        # A map, as pairs; written out pair by pair, so that a key that stands twice still does.
        return "{" + ", ".join(f"{json.dumps(str(key))}: {json.dumps(each)}" for key, each in value) + "}"
    return _value(value)


def _is_of(kind: pa.DataType, wanted: Kind | None) -> bool:
    """Whether a column of this type holds what FOCUS wants there."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if wanted is None or pa.types.is_null(kind):
        return True
    if wanted == "decimal":
        return bool(pa.types.is_decimal(kind) or pa.types.is_integer(kind))
    if wanted == "time" and pa.types.is_timestamp(kind):
        return kind.tz in ("UTC", "+00:00", "Z", "Etc/UTC")
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or (wanted == "json" and pa.types.is_map(kind)))
