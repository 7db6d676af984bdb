"""The files of the cache: Parquet, sorted by key, one for each run and question until they are made one.

`cache/<question>/<name>-<digest>.parquet`, where the digest is that of the entries: what lies under a path never
changes. So a path that was read may be deleted, once its entries lie elsewhere, without looking at it again.

Each file says of its sources when they were asked for. Of two answers to the same request the one that was asked for
later counts, whenever the files were written: a run that is wound down late is not newer for that.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.cache.entries import Entries, Places, entries_of, no_entries, places_of
from lowtide.cache.keys import Keys
from lowtide.cache.sorter import Sorter
from lowtide.errors import NotFound, StoreError
from lowtide.protocols import Store
from lowtide.records import FileInfo

MADE_OF_OTHERS = "compacted-"
"""What the names of files begin with that were made of others; those of runs do not."""

_VERSION = b"1"
_ASKED_AT = "lowtide.asked_at"
"""The key in a file's metadata of seconds since the epoch by source, in JSON. Without it, all count as asked at 0."""
_SOURCES = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = [
    pa.field("key", pa.binary(16), nullable=False),
    pa.field("source", _SOURCES, nullable=False),
    pa.field("ordinal", pa.int32(), nullable=False),
]
_GROUP_ROWS = 1 << 17
_ROUNDS = 20
"""Listings until what a busy cache has gained meanwhile is left for the next time."""


def prefix_of(question: str) -> str:
    """Where the files of a question lie in the root."""
    return f"cache/{question}/"


class BrokenIndex(ValueError):
    """A file holds no entries of this question, or not all that it once held; says why."""


class SourceNumbers:
    """Numbers for the sources of entries, from several files, and when their answers were asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.asked: list[float] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str, asked_at: float = 0.0) -> int:
        """The number of a source, a new one if it is new. Of several times the latest counts."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
            self.asked.append(asked_at)
        self.asked[number] = max(self.asked[number], asked_at)
        return number

    def ranks(self) -> npt.NDArray[np.int64]:
        """By number: the higher, the later it was asked for; the same for those that were asked for at once."""
        return np.unique(np.array(self.asked, np.float64), return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Written:
    """A new file on disk: how many entries it has, and their digest."""

    entries: int
    digest: str


def write_file(path: Path, question: str, pieces: Iterable[Entries], sources: SourceNumbers) -> Written:
    """Write sorted entries whose sources are numbered as in `sources` to a local file."""
    digest = hashlib.sha256(question.encode())
    for source in sources.names:
        digest.update(b"%d:%b" % (len(source.encode()), source.encode()))
    schema = pa.schema(_COLUMNS, metadata={"lowtide.cache": _VERSION, "lowtide.question": question})
    names = pa.array(sources.names, pa.string())
    used = np.zeros(len(names), np.bool_)
    count = 0
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=["source"],
        # Hashes in order share their first bytes only, which lie side by side in this encoding.
        column_encoding={"key": "BYTE_STREAM_SPLIT", "ordinal": "BYTE_STREAM_SPLIT"},
        dictionary_pagesize_limit=1 << 30,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for group in _grouped(pieces):
            digest.update(group.data)
            count += len(group)
            used[places_of(group).source] = True
            writer.write_table(_table(group, names, schema), row_group_size=_GROUP_ROWS)
        asked = {sources.names[number]: sources.asked[number] for number in np.flatnonzero(used)}
        writer.add_key_value_metadata({_ASKED_AT: orjson.dumps(asked).decode()})
    return Written(count, digest.hexdigest()[:12])


def _grouped(pieces: Iterable[Entries]) -> Iterator[Entries]:
    """The entries in as few pieces as row groups need."""
    held: list[Entries] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= _GROUP_ROWS:
            group = np.concatenate(held)
            full = len(group) - len(group) % _GROUP_ROWS
            yield from (group[at : at + _GROUP_ROWS] for at in range(0, full, _GROUP_ROWS))
            held = [group[full:].copy()]
    rest = np.concatenate([no_entries(), *held])
    if len(rest):
        yield rest


def _table(entries: Entries, names: pa.Array, schema: pa.Schema) -> pa.Table:
    keys = pa.py_buffer(entries[:, :2].astype(">u8").tobytes())
    places = places_of(entries)
    # Sources of which no entry is left would otherwise stay for ever.
    used = np.bincount(places.source, minlength=len(names)) > 0
    numbers = (np.cumsum(used) - 1).astype(np.int32)[places.source]
    return pa.table(
        [
            pa.Array.from_buffers(pa.binary(16), len(entries), [None, keys]),
            pa.DictionaryArray.from_arrays(pa.array(numbers), names.filter(pa.array(used))),
            pa.array(places.ordinal),
        ],
        schema=schema,
    )


def read_file(path: Path, question: str, sources: SourceNumbers) -> Iterator[Entries]:
    """The entries of a local file, a row group at a time. Raises BrokenIndex, before or between them."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(b"lowtide.cache") != _VERSION:
                raise BrokenIndex("it is no cache file of this version of Lowtide")
            if metadata.get(b"lowtide.question") != question.encode():
                raise BrokenIndex("it belongs to another question")
            if not file.schema_arrow.equals(pa.schema(_COLUMNS)):
                raise BrokenIndex("it has other columns than a cache file")
            asked: dict[str, float] = orjson.loads((file.metadata.metadata or {}).get(_ASKED_AT.encode(), b"{}"))
            rows = 0
            for number in range(file.num_row_groups):
                entries = _entries(file.read_row_group(number, use_threads=False), sources, asked)
                rows += len(entries)
                yield entries
            if rows != file.metadata.num_rows:
                raise BrokenIndex(f"it holds {rows:,} entries, and {file.metadata.num_rows:,} were written")
    except BrokenIndex:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # Not the message: what a broken file makes it say may hold anything.
        raise BrokenIndex(f"it cannot be read as Parquet ({type(error).__name__})") from error


def _entries(table: pa.Table, sources: SourceNumbers, asked: Mapping[str, float]) -> Entries:
    found = [no_entries()]
    for batch in table.to_batches():
        if any(column.null_count for column in batch.columns):
            raise BrokenIndex("it has empty cells")
        held = np.frombuffer(batch["key"].buffers()[1], ">u8").reshape(-1, 2)
        keys: Keys = held[batch["key"].offset :][: len(batch)].astype(np.uint64)
        named = [sources.number(name, float(asked.get(name, 0))) for name in batch["source"].dictionary.to_pylist()]
        which = cast(npt.NDArray[np.int32], batch["source"].indices.to_numpy())
        ordinal = cast(npt.NDArray[np.int32], batch["ordinal"].to_numpy())
        found.append(entries_of(keys, Places(np.array(named, np.int32)[which], ordinal)))
    return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was read: the files whose entries were all taken, the other ones, and a line about each of those."""

    files: Sequence[FileInfo]
    broken: Sequence[FileInfo]
    warnings: Sequence[str]


def gather(store: Store, question: str, sorter: Sorter, sources: SourceNumbers, folder: Path) -> Gathered:
    """Add the entries of all of the question's files, older files first.

    The files may be made one meanwhile, and then those that were listed are gone: they are listed until a listing
    shows nothing new. Even an empty one is asked for again, since a store may list a folder at the moment of change.
    Raises Transient, and StoreError where the files cannot be listed: that nothing is known is no reason to buy again.
    """
    known: set[str] = set()
    files: list[FileInfo] = []
    broken: list[FileInfo] = []
    warnings: list[str] = []
    spool = folder / "listed.parquet"
    for number in range(_ROUNDS):
        listed = [info for info in store.list(prefix_of(question)) if info.path.endswith(".parquet")]
        new = [info for info in listed if info.path not in known]
        if not new and number:
            break
        for info in sorted(new, key=_age):
            known.add(info.path)
            try:
                _fetch(store, info, spool)
                for entries in read_file(spool, question, sources):
                    sorter.add(entries)
                files.append(info)
            except NotFound:
                continue
            except (StoreError, BrokenIndex) as error:
                broken.append(info)
                warnings.append(f"the cache file {info.uri!r} is passed over: {error}; it may be deleted")
    return Gathered(files, broken, warnings)


def _age(info: FileInfo) -> tuple[bool, datetime, str]:
    """Older files first. One made of others is as old as the oldest of them: it was written later than it is."""
    made = info.path.rpartition("/")[2].startswith(MADE_OF_OTHERS)
    return not made, info.modified, info.path


def _fetch(store: Store, info: FileInfo, spool: Path) -> None:
    with store.open(info.path) as source, spool.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
