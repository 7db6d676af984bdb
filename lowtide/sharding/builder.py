"""Cut a stream of documents into shards: files of request lines inside a backend's limits, each with its index.

A document's requests are neighbours in one shard, one for each operation, in the job's order. So the ordinal of a
record says which document of the index and which operation it belongs to, and the join back is arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide import ids
from lowtide.operations import Operation
from lowtide.protocols import Backend
from lowtide.records import DocumentBatch
from lowtide.schemas import MOMENT
from lowtide.sharding.lines import LineFormat, line_template
from lowtide.sharding.prepared import Prepared, Preparer
from lowtide.sharding.strings import string_array

TOKEN_BYTES = 4
"""Bytes of UTF-8 to a token, for totals: off by 17 % for a single document in the median, far less for a sum."""

_STRETCH = 256
"""Documents that are prepared together: many enough that columns pay, and few enough for the processor's cache."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the source a shard ends: so many whole documents of the file with this ordinal are in shards already."""

    file: int
    document: int


@dataclass(slots=True)
class BuiltShard:
    """One shard in the making, then done. `lines` are the request lines, `index` holds a row for each document."""

    number: int
    start: Position
    end: Position
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    document_id: list[str] = field(default_factory=list)
    uri: list[str] = field(default_factory=list)
    modified: list[datetime | None] = field(default_factory=list)
    sha256: list[str | None] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    reason: list[str | None] = field(default_factory=list)
    fields: list[list[str | None]] = field(default_factory=list)

    @property
    def documents(self) -> int:
        return len(self.document_id)

    @property
    def records(self) -> int:
        return len(self.lines)

    @property
    def tokens(self) -> int:
        """Input tokens, estimated from the size."""
        return self.size // TOKEN_BYTES

    def index(self, field_names: Sequence[str]) -> pa.Table:
        """Columns document_id, document_uri, document_modified, content_sha256, first, reason, then the fields.

        `first` is the ordinal of the document's first record, -1 where it was not readable and `reason` says why.
        """
        columns: dict[str, pa.Array] = {
            "document_id": pa.array(self.document_id, pa.string()),
            "document_uri": string_array(self.uri),
            "document_modified": pa.array(self.modified, MOMENT),
            "content_sha256": pa.array(self.sha256, pa.string()),
            "first": pa.array(self.first, pa.int32()),
            "reason": pa.array(self.reason, pa.string()),
        }
        for name, values in zip(field_names, self.fields, strict=True):
            columns[f"field:{name}"] = string_array(values)
        return pa.table(columns)


class ShardBuilder:
    """Builds one run's shards. Holds one shard at a time, so memory depends on the shard's limits only."""

    def __init__(
        self,
        backend: Backend,
        operations: Sequence[Operation],
        *,
        salt: bytes,
        shard_records: int,
        field_names: Sequence[str] = (),
    ) -> None:
        limits = backend.limits
        self._operations = len(operations)
        self._records = max(min(shard_records, limits.records), self._operations)
        self._bytes = limits.bytes
        if limits.tokens is not None:
            self._bytes = min(self._bytes, limits.tokens * TOKEN_BYTES + TOKEN_BYTES - 1)
        self._fields = tuple(field_names)
        templates = [line_template(backend, operation) for operation in operations]
        used = {slot for template in templates for slot in template.slots}
        self._formats = tuple(LineFormat.of(template) for template in templates)
        self._preparer = Preparer(
            formats=self._formats,
            fields=tuple(name for name in self._fields if name in used),
            salt=salt,
            request_bytes=min(limits.request_bytes, self._bytes // self._operations),
        )

    def build(
        self, batches: Iterable[DocumentBatch], *, first_number: int, start: Position, uris: Iterator[str]
    ) -> Iterator[BuiltShard]:
        """Shards, in order. `batches` start at the first document of file number `start.file`, whose address `uris`
        gives first; `start.document` documents of that file are passed over. A shard is the caller's until the next.
        """
        cursor = _Cursor(start, uris)
        shard = self._new(first_number, start)
        for batch in batches:
            at = cursor.follow(batch.uris)
            while at < len(batch):
                stretch = self._preparer.prepare(batch, at, min(at + _STRETCH, len(batch)))
                done = 0
                while done < len(stretch):
                    taken = min(self._room(shard), stretch.fitting(done, self._bytes - shard.size), len(stretch) - done)
                    if not taken and shard.documents:
                        yield shard
                        shard = self._new(shard.number + 1, shard.end)
                        continue
                    self._add(shard, batch, stretch, done, done + max(taken, 1))
                    done += max(taken, 1)
                    shard.end = cursor.behind(at + done - 1)
                at += done
        if shard.documents:
            yield shard

    def _new(self, number: int, start: Position) -> BuiltShard:
        return BuiltShard(number, start, start, fields=[[] for _ in self._fields])

    def _room(self, shard: BuiltShard) -> int:
        """How many documents more the shard takes, if all of them can be read."""
        return min((self._records - shard.records) // self._operations, 4 * self._records - shard.documents)

    def _add(self, shard: BuiltShard, batch: DocumentBatch, stretch: Prepared, start: int, stop: int) -> None:
        lines = stretch.lines(self._formats, start, stop, shard.records)
        shard.first += stretch.firsts(start, stop, shard.records, self._operations)
        shard.lines += lines
        shard.size += sum(map(len, lines))
        shard.sha256 += stretch.sha256[start:stop]
        shard.reason += stretch.reasons[start:stop]
        here = slice(stretch.start + start, stretch.start + stop)
        shard.document_id += map(ids.document_id, batch.uris[here], batch.keys[here])
        shard.uri += batch.uris[here]
        shard.modified += batch.modified[here]
        for name, values in zip(self._fields, shard.fields, strict=True):
            values.extend(batch.fields[name][here])


class _Cursor:
    """Follows the documents through the files that they come from, one batch after the other."""

    def __init__(self, start: Position, uris: Iterator[str]) -> None:
        self._uris = uris
        self._uri = ""
        self._skip = start
        self._file = start.file - 1
        self._document = 0
        self._files: list[int] = []
        self._documents: list[int] = []

    def follow(self, uris: Sequence[str]) -> int:
        """Take the next batch; returns how many of its first documents are in shards already."""
        self._files, self._documents = [], []
        for uri, group in groupby(uris):
            while uri != self._uri:
                self._uri = next(self._uris)
                self._file += 1
                self._document = 0
            count = sum(1 for _ in group)
            self._files += [self._file] * count
            self._documents += range(self._document + 1, self._document + count + 1)
            self._document += count
        skip = self._skip
        if not self._files or self._files[0] > skip.file:
            return 0
        places = zip(self._files, self._documents, strict=True)
        return sum(file == skip.file and document <= skip.document for file, document in places)

    def behind(self, at: int) -> Position:
        """The position behind this document of the batch."""
        return Position(self._files[at], self._documents[at])


def write_index(table: pa.Table, out: BinaryIO) -> None:
    """Store a shard's index."""
    pq.write_table(table, out, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False)
