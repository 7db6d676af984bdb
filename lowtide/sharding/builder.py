"""Cut a stream of documents into shards: files of request lines inside a backend's limits, each with its index.

A document's requests are neighbours in one shard, one for each operation, in the job's order. So the ordinal of a
record says which document of the index and which operation it belongs to, and the join back is arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide import ids
from lowtide.operations import Operation
from lowtide.protocols import Backend
from lowtide.records import DocumentBatch
from lowtide.sharding.balancing import Balance
from lowtide.sharding.lines import LineFormat, LineTemplate, line_template
from lowtide.sharding.prepared import Prepared, Preparer
from lowtide.sharding.reuse import Known
from lowtide.sharding.shard import TOKEN_BYTES, BuiltShard, Position

_DOCUMENTS = 4
"""Documents to a shard for each record that it may hold: some cannot be read, and some need not be asked."""

_STRETCH = 256
"""Documents that are prepared together: many enough that columns pay, and few enough for the processor's cache."""


class ShardBuilder:
    """Builds one run's shards. Holds one shard at a time, so memory depends on the shard's limits only.

    Two, where the backend wants a minimum of records.
    """

    def __init__(
        self,
        backend: Backend,
        operations: Sequence[Operation],
        *,
        salt: bytes,
        shard_records: int,
        field_names: Sequence[str] = (),
        known: Known | None = None,
    ) -> None:
        """`known` says which requests need not be asked; without it, all are."""
        limits = backend.limits
        self._operations = len(operations)
        self._records = max(min(shard_records, limits.records), self._operations)
        self._bytes = limits.bytes
        if limits.tokens is not None:
            self._bytes = min(self._bytes, limits.tokens * TOKEN_BYTES + TOKEN_BYTES - 1)
        self._fields = tuple(field_names)
        templates = [line_template(backend, operation) for operation in operations]
        used = {slot for template in templates for slot in template.slots}
        self._balance: Balance | None = None
        if limits.minimum_records > 1:
            offsets = [_id_offset(template, backend) for template in templates]
            most = 2 * _DOCUMENTS * max(self._records, limits.minimum_records)
            self._balance = Balance(limits.minimum_records, limits.records, most, self._bytes, offsets)
        self._formats = tuple(LineFormat.of(template) for template in templates)
        self._preparer = Preparer(
            formats=self._formats,
            fields=tuple(name for name in self._fields if name in used),
            salt=salt,
            request_bytes=min(limits.request_bytes, self._bytes // self._operations),
            known=known,
        )

    def build(
        self, batches: Iterable[DocumentBatch], *, first_number: int, start: Position, uris: Iterator[str]
    ) -> Iterator[BuiltShard]:
        """Shards, in order. `batches` start at the first document of file number `start.file`, whose address `uris`
        gives first; `start.document` documents of that file are passed over. A shard is the caller's until the next.
        """
        shards = self._cut(batches, first_number, start, uris)
        return self._balance.balanced(shards) if self._balance else shards

    def _cut(
        self, batches: Iterable[DocumentBatch], first_number: int, start: Position, uris: Iterator[str]
    ) -> Iterator[BuiltShard]:
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
                    count = shard.documents - len(shard.files)
                    files, documents = cursor.places(at + done - count, at + done)
                    shard.files += files
                    shard.behind += documents
                at += done
        if shard.documents:
            yield shard

    def _new(self, number: int, start: Position) -> BuiltShard:
        return BuiltShard(number, start, start, fields=[[] for _ in self._fields])

    def _room(self, shard: BuiltShard) -> int:
        """How many documents more the shard takes, if all of them can be read."""
        return min((self._records - shard.records) // self._operations, _DOCUMENTS * self._records - shard.documents)

    def _add(self, shard: BuiltShard, batch: DocumentBatch, stretch: Prepared, start: int, stop: int) -> None:
        made = stretch.lines(self._formats, start, stop, shard.records)
        shard.first += made.firsts
        shard.lines += made.lines
        shard.ops += made.ops
        shard.size += sum(map(len, made.lines))
        known = stretch.known(start, stop)
        shard.asked += known.asked
        shard.twins += known.twins
        shard.reused += known.reused
        shard.texts += known.texts
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

    def places(self, start: int, stop: int) -> tuple[list[int], list[int]]:
        """The positions behind these documents of the batch, as files and as documents."""
        return self._files[start:stop], self._documents[start:stop]

    def behind(self, at: int) -> Position:
        """The position behind this document of the batch."""
        return Position(self._files[at], self._documents[at])


def _id_offset(template: LineTemplate, backend: Backend) -> int:
    """Where the record id stands in the operation's line."""
    if template.slots[0] != "record_id" or template.slots.count("record_id") != 1:
        raise TypeError(f"backend {backend.name!r} wants a minimum of records, and lines that begin with the record id")
    return len(template.literals[0])


def write_index(table: pa.Table, out: BinaryIO) -> None:
    """Store a shard's index."""
    pq.write_table(table, out, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False)
