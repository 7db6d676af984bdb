"""Cut a stream of documents into shards: files of request lines inside a backend's limits, each with its index.

A document's requests are neighbours in one shard, one for each operation, in the job's order. So the ordinal of a
record says which document of the index and which operation it belongs to, and the join back is arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide import ids
from lowtide.operations import Operation
from lowtide.protocols import Backend
from lowtide.records import DocumentBatch
from lowtide.schemas import MOMENT
from lowtide.sharding.lines import Splicer, escape, line_template, splicer

TOKEN_BYTES = 4
"""Bytes of UTF-8 to a token, for totals: off by 17 % for a single document in the median, far less for a sum."""


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
    tokens: int = 0
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

    def index(self, field_names: Sequence[str]) -> pa.Table:
        """Columns document_id, document_uri, document_modified, content_sha256, first, reason, then the fields.

        `first` is the ordinal of the document's first record, -1 where it was not readable and `reason` says why.
        """
        columns: dict[str, pa.Array] = {
            "document_id": pa.array(self.document_id, pa.string()),
            "document_uri": pa.array(self.uri, pa.string()),
            "document_modified": pa.array(self.modified, MOMENT),
            "content_sha256": pa.array(self.sha256, pa.string()),
            "first": pa.array(self.first, pa.int32()),
            "reason": pa.array(self.reason, pa.string()),
        }
        for name, values in zip(field_names, self.fields, strict=True):
            columns[f"field:{name}"] = pa.array(values, pa.string())
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
        self._tokens = limits.tokens
        self._request_bytes = min(limits.request_bytes, limits.bytes // self._operations)
        self._salt = salt
        self._fields = tuple(field_names)
        templates = [line_template(backend, operation) for operation in operations]
        used = {slot for template in templates for slot in template.slots}
        self._used_fields = tuple(name for name in self._fields if name in used)
        self._uses_marker = "marker" in used
        order = ("record_id", "text", "marker", *self._used_fields)
        self._splicers: list[Splicer] = [splicer(template, order) for template in templates]

    def build(
        self, batches: Iterable[DocumentBatch], *, first_number: int, start: Position, uris: Iterator[str]
    ) -> Iterator[BuiltShard]:
        """Shards, in order. `batches` start at the first document of file number `start.file`, whose address `uris` gives
        first; `start.document` documents of that file are passed over. The shard is the caller's until the next one.
        """
        position = _Cursor(start, uris)
        shard = self._new(first_number, start)
        for batch in batches:
            for at in range(len(batch)):
                if position.passes_over(batch.uris[at]):
                    continue
                lines, reason, sha256 = self._lines(batch, at, shard.records)
                size = sum(map(len, lines))
                if shard.documents and self._overflows(shard, len(lines), size):
                    shard.end = position.before
                    yield shard
                    shard = self._new(shard.number + 1, shard.end)
                    lines, reason, sha256 = self._lines(batch, at, 0)
                self._add(shard, batch, at, lines, size, reason, sha256)
        shard.end = position.now
        if shard.documents:
            yield shard

    def _new(self, number: int, start: Position) -> BuiltShard:
        return BuiltShard(number, start, start, fields=[[] for _ in self._fields])

    def _overflows(self, shard: BuiltShard, records: int, size: int) -> bool:
        return (
            shard.records + records > self._records
            or shard.documents >= 4 * self._records
            or shard.size + size > self._bytes
            or (self._tokens is not None and shard.tokens + size // TOKEN_BYTES > self._tokens)
        )

    def _lines(self, batch: DocumentBatch, at: int, ordinal: int) -> tuple[list[bytes], str | None, str | None]:
        """The document's request lines, why there are none, and its content's hash."""
        reason = batch.reasons[at]
        if reason is not None:
            return [], reason, None
        text = batch.texts[at]
        try:
            escaped = escape(text)
        except TypeError:
            return [], "the text holds half a surrogate pair, which UTF-8 cannot carry", None
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        marker = hashlib.sha256(self._salt + sha256.encode()).hexdigest()[:16].encode() if self._uses_marker else b""
        values = [b"", escaped, marker]
        for name in self._used_fields:
            values.append(escape(_one_line(batch.fields[name][at])))
        check = sha256[:8]
        lines = []
        for offset, splice in enumerate(self._splicers):
            values[0] = b"r%07dx%s" % (ordinal + offset, check.encode())
            line = splice(values)
            if len(line) > self._request_bytes:
                found = f"{len(line):,} bytes as a request, and the backend takes {self._request_bytes:,}"
                return [], f"the document is too long: {found}; split it before it is read", sha256
            lines.append(line)
        return lines, None, sha256

    def _add(
        self,
        shard: BuiltShard,
        batch: DocumentBatch,
        at: int,
        lines: list[bytes],
        size: int,
        reason: str | None,
        sha256: str | None,
    ) -> None:
        shard.first.append(shard.records if lines else -1)
        shard.lines += lines
        shard.size += size
        shard.tokens += size // TOKEN_BYTES
        shard.document_id.append(ids.document_id(batch.uris[at], batch.keys[at]))
        shard.uri.append(batch.uris[at])
        shard.modified.append(batch.modified[at])
        shard.sha256.append(sha256)
        shard.reason.append(reason)
        for name, values in zip(self._fields, shard.fields, strict=True):
            values.append(batch.fields[name][at])


class _Cursor:
    """Follows the documents through the files that they come from."""

    def __init__(self, start: Position, uris: Iterator[str]) -> None:
        self._uris = uris
        self._file = start.file - 1
        self._uri = ""
        self._document = 0
        self._skip = start
        self.before = start
        self.now = start

    def passes_over(self, uri: str) -> bool:
        """Take the next document; whether it is in a shard already."""
        while uri != self._uri:
            self._uri = next(self._uris)
            self._file += 1
            self._document = 0
        self.before = self.now
        self._document += 1
        self.now = Position(self._file, self._document)
        return self._file == self._skip.file and self._document <= self._skip.document


def _one_line(value: str | None) -> str:
    """A field's value as it goes into a prompt: on one line, so that it cannot pose as part of the prompt's structure."""
    return " ".join(value.split()) if value else ""


def write_index(table: pa.Table, out: BinaryIO) -> None:
    """Store a shard's index."""
    pq.write_table(table, out, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False)
