"""Replacing one file by itself without some of its rows or lines: in one step, and only if nobody has changed it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.collecting.outcomes import split_lines
from lowtide.collecting.rows import BATCH_ROWS
from lowtide.errors import NotFound, Transient
from lowtide.forgetting.touched import Touched
from lowtide.protocols import Store
from lowtide.sharding.builder import write_index

_TRIES = 20
_CHUNK = 1 << 20
_WHOLE_JSON = 1 << 20
_RECORD = re.compile(rb"r[0-9]{7}x[0-9a-f]{8}")
_NAMES = ("custom_id", "recordId", "record_id", "id")
"""Where lines of requests and answers say which record they are: OpenAI and Azure, Bedrock, and our own."""
_CHECK = len("r0000000x")

Make = Callable[[BinaryIO, Path], int]
"""Writes what is left of an open file to a local one; returns how many entries it has left out, 0 for none."""


@dataclass
class Rewriter:
    """Rewrites files of a store, or with `dry` only counts what that would take out. Spools in `folder`."""

    store: Store
    folder: Path
    dry: bool = False
    touched: Touched = field(default_factory=Touched)

    def rewrite(self, kind: str, path: str, make: Make) -> int:
        """Put what `make` leaves in the file's place. Raises Transient if others change the file time and again."""
        for _ in range(_TRIES):
            info = self.store.info(path)
            if info is None:
                return 0
            local = self.folder / "rewritten"
            try:
                with self.store.open(path) as source:
                    left_out = make(source, local)
            except NotFound:
                return 0
            if not left_out or self.dry or self.store.replace(path, local, expected=info.etag):
                self.touched.add(kind, left_out)
                return left_out
        raise Transient(f"{self.store.uri_of(path)}: others write this file all the time; run the same command again")

    def delete(self, kind: str, path: str) -> None:
        """Remove a whole file."""
        if not self.dry:
            self.store.delete(path)
        self.touched.add(kind, 1)


@dataclass(frozen=True, slots=True)
class Records:
    """Record ids of a shard: those that are `gone`, and those that stay. `checks` are the ends of those that are gone.

    What a provider says under an id that nobody has is known by its end, the start of its document's hash.
    """

    gone: frozenset[bytes]
    kept: frozenset[bytes]
    checks: frozenset[bytes]

    def is_gone(self, record: bytes) -> bool:
        """Whether the record is one of those, or nobody's with the hash of one."""
        return record in self.gone or (record not in self.kept and record[_CHECK:] in self.checks)


def without_records(records: Records, *, blank: bool) -> Make:
    """Leave out the lines of the records that are gone; with `blank` leave an empty line in their place.

    Also left out is a broken line that names no record: nobody can say whose text it holds.
    """

    def make(source: BinaryIO, local: Path) -> int:
        if _is_one_json(source):
            return 0
        left_out = 0
        with local.open("wb") as out:
            for line in split_lines(iter(lambda: source.read(_CHUNK), b"")):
                if line and _is_meant(line, records):
                    left_out += 1
                    if blank:
                        out.write(b"\n")
                else:
                    out.write(line + b"\n")
        return left_out

    return make


def _is_meant(line: bytes, records: Records) -> bool:
    found = _RECORD.findall(line)
    if found and not any(map(records.is_gone, found)):
        return False
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return True
    if not found or not isinstance(said, dict):
        return bool(found)
    # Any text may hold what looks like a record's id: what counts is where a line says its own.
    named = [value.encode() for name in _NAMES if isinstance(value := said.get(name), str)]
    own = [record for record in named if _RECORD.fullmatch(record)]
    return any(map(records.is_gone, own or found))


def _is_one_json(source: BinaryIO) -> bool:
    """Whether the file is one JSON value over several lines, such as a manifest, and names no record."""
    head = source.read(_WHOLE_JSON)
    source.seek(0)
    return len(head) < _WHOLE_JSON and not _RECORD.search(head) and _is_json(head)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def row_groups(source: BinaryIO, columns: Sequence[str]) -> Iterator[pa.Table]:
    """These columns of a Parquet file, one row group at a time."""
    file = pq.ParquetFile(source, pre_buffer=False)
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, columns=columns, use_threads=False)


def read_parquet(source: BinaryIO, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, or these columns of it.

    Not by `read_table`: whatever it is told, it starts threads, and a process that has them may hang when it forks.
    """
    return pq.ParquetFile(source, pre_buffer=False).read(columns=columns, use_threads=False)


def read_arrow(source: BinaryIO) -> pa.Table:
    """A whole Arrow file, without threads as well: those that look ahead are started for anything but bytes at hand."""
    data = pa.BufferReader(source.read())
    return pa.ipc.open_file(data, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()


def parquet_without(found_in: Callable[[pa.Table], npt.NDArray[np.bool_]], names: list[str]) -> Make:
    """Leave out the rows that `found_in` finds by the columns `names`, row group by row group.

    All else stays as it was written: the order, the groups, metadata, dictionaries and statistics.
    """

    def make(source: BinaryIO, local: Path) -> int:
        file = pq.ParquetFile(source, pre_buffer=False)
        groups = range(file.num_row_groups)
        found = [found_in(file.read_row_group(group, columns=names, use_threads=False)) for group in groups]
        left_out = sum(int(mask.sum()) for mask in found)
        if not left_out:
            return 0
        with _writer_like(file, local) as writer:
            for group, mask in zip(groups, found, strict=True):
                rows = file.read_row_group(group, use_threads=False)
                kept = rows.filter(pa.array(~mask)) if mask.any() else rows
                if len(kept):
                    writer.write_table(kept, row_group_size=len(kept))
        return left_out

    return make


def _writer_like(file: pq.ParquetFile, local: Path) -> pq.ParquetWriter:
    """A writer with the settings that the file was written with."""
    group = file.metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    return pq.ParquetWriter(
        local,
        file.schema_arrow,
        compression=columns[0].compression.lower(),
        use_dictionary=[column.path_in_schema for column in columns if column.has_dictionary_page],
        write_statistics=[column.path_in_schema for column in columns if column.is_stats_set],
    )


def arrow_changed(change: Callable[[pa.Table], pa.Table | None], *, compression: str | None = None) -> Make:
    """Put what `change` makes of the table of an Arrow file in its place; None where it changes nothing.

    What is left out is the difference in rows, or 1 where others took their place.
    """

    def make(source: BinaryIO, local: Path) -> int:
        table = read_arrow(source)
        changed = change(table)
        if changed is None:
            return 0
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with local.open("wb") as out, pa.ipc.new_file(out, table.schema, options=options) as writer:
            writer.write_table(changed.cast(table.schema), max_chunksize=BATCH_ROWS)
        return max(len(table) - len(changed), 1)

    return make


def parquet_changed(change: Callable[[pa.Table], pa.Table | None]) -> Make:
    """The same for an index, or another table of a shard in Parquet."""

    def make(source: BinaryIO, local: Path) -> int:
        table = read_parquet(source)
        changed = change(table)
        if changed is None:
            return 0
        with local.open("wb") as out:
            write_index(changed, out)
        return max(len(table) - len(changed), 1)

    return make
