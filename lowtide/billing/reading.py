"""All ledger files of a root, read batch by batch: what the runs wrote, and what reconciliation wrote beside them.

A root may hold years of them, so no file is ever held as a whole, and only the columns that are asked for are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowtide.errors import StoreError
from lowtide.protocols import Store
from lowtide.schemas import LEDGER, MOMENT

FOLDER = "tables/ledger/"
WHEN = "when"
"""A column that stands in no file: when an entry counts, `period_start`, or `at` where it has none."""

UNPRICED = ": no price"
"""How the id of a price ends that nobody has given."""

BATCH_ROWS = 16_384
_PATH = re.compile(r"tables/ledger/job=(?P<job>[^/]+)/window=(?P<window>[^/]+)/[^/]+\.parquet")
_REQUIRED = ("at", "kind", "quantity", "amount")
"""Columns that every version of the table has had. One that is newer than a file is null in its rows."""


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """One file of the ledger. `job` and `window` stand in its path, and in none of its rows."""

    path: str
    job: str
    window: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Entries of these jobs (or of all), that count from `since` on and before `until`, with all of these tags."""

    jobs: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entries:
    """Some entries of one file: `rows` has the columns that were asked for, by their names in `schemas.LEDGER`."""

    file: LedgerFile
    rows: pa.Table


def is_priced(price_id: str, amount: Decimal) -> bool:
    """Whether an amount reckoned with this price says anything: without a price, 0 does not."""
    return bool(amount) or not price_id.endswith(UNPRICED)


def ledger_files(store: Store, jobs: frozenset[str] = frozenset()) -> Iterator[LedgerFile]:
    """The ledger files of these jobs, or of all, in the order of their paths."""
    prefixes = [f"{FOLDER}job={job}/" for job in sorted(jobs)] or [FOLDER]
    for prefix in prefixes:
        for info in store.list(prefix):
            found = _PATH.fullmatch(info.path)
            if found:
                yield LedgerFile(info.path, found["job"], found["window"])


def read_entries(store: Store, columns: Sequence[str], selection: Selection) -> Iterator[Entries]:
    """The selected entries, file by file. Raises StoreError, which names the file, for one that is broken."""
    for file in ledger_files(store, selection.jobs):
        for rows in _read(store, file, columns, selection):
            if len(rows):
                yield Entries(file, rows)


def _read(store: Store, file: LedgerFile, columns: Sequence[str], selection: Selection) -> Iterator[pa.Table]:
    timed = WHEN in columns or selection.since is not None or selection.until is not None
    wanted = dict.fromkeys(name for name in columns if name != WHEN)
    wanted |= dict.fromkeys(("at", "period_start") if timed else ()) | dict.fromkeys(["tags"] if selection.tags else ())
    uri = store.uri_of(file.path)
    try:
        with store.open(file.path) as source:
            # Without reading ahead, and with a buffer, columns come page by page and never as a whole.
            parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
            there = set(parquet.schema_arrow.names)
            missing = [name for name in _REQUIRED if name not in there]
            if missing:
                raise StoreError(f"{uri}: this is no ledger: it has no column {missing[0]!r}", uri)
            present = [name for name in wanted if name in there] or ["kind"]
            for batch in parquet.iter_batches(BATCH_ROWS, columns=present, use_threads=False):
                rows = _typed(batch, list(wanted), uri)
                if timed:
                    rows = rows.append_column(WHEN, pc.coalesce(rows["period_start"], rows["at"]))
                yield _selected(rows, selection).select(list(columns))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{uri}: the ledger cannot be read ({type(error).__name__}: {error})", uri) from error


def _typed(batch: pa.RecordBatch, wanted: Sequence[str], uri: str) -> pa.Table:
    """The columns with the types of the table; null where the file is older than a column."""
    found = {}
    for name in wanted:
        kind = LEDGER.field(name).type
        if name not in batch.schema.names:
            found[name] = pa.nulls(len(batch), kind)
            continue
        try:
            found[name] = batch[name].cast(kind)
        except pa.ArrowException as error:
            raise StoreError(
                f"{uri}: column {name!r} is {batch[name].type}, and {kind} was expected ({error})", uri
            ) from error
    return pa.table(found)


def _selected(rows: pa.Table, selection: Selection) -> pa.Table:
    if selection.since is not None:
        rows = rows.filter(pc.greater_equal(rows[WHEN], pa.scalar(selection.since, MOMENT)))
    if selection.until is not None:
        rows = rows.filter(pc.less(rows[WHEN], pa.scalar(selection.until, MOMENT)))
    for name, value in selection.tags.items():
        rows = rows.filter(pc.equal(tag_values(rows["tags"], name), value))
    return rows


def tag_values(tags: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The value of one tag in each row, null where it has none."""
    return pc.map_lookup(tags, pa.scalar(name, pa.string()), "first")
