"""A shard in the making: its request lines, and a row for each of its documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from lowtide.schemas import MOMENT
from lowtide.sharding.strings import string_array

TOKEN_BYTES = 4
"""Bytes of UTF-8 to a token, for totals: off by 17 % for a single document in the median, far less for a sum."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the source a shard ends: so many whole documents of the file with this ordinal are in shards already."""

    file: int
    document: int


@dataclass(slots=True)
class BuiltShard:
    """One shard in the making, then done. `lines` are the request lines, `index` holds a row for each document.

    `ops` holds each line's operation. For each document, `asked` and `twins` hold operations as bits, `reused` the
    operation, source and ordinal of answers that are there already, `texts` the bytes of text in its lines, and `files`
    and `behind` the position behind it.
    """

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
    ops: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    twins: list[int] = field(default_factory=list)
    reused: list[tuple[tuple[int, int, int], ...]] = field(default_factory=list)
    reason: list[str | None] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)
    fields: list[list[str | None]] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)

    def columns(self) -> list[list[Any]]:
        """What there is an entry of for each document, and that does not depend on its place."""
        own: list[list[Any]] = [self.document_id, self.uri, self.modified, self.sha256, self.reason]
        return [*own, self.asked, self.twins, self.reused, self.texts, self.files, self.behind, *self.fields]

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

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the documents' text in all lines."""
        return sum(self.texts)

    def index(self, field_names: Sequence[str]) -> pa.Table:
        """Columns document_id, document_uri, document_modified, content_sha256, first, asked, reason, then the fields.

        `first` is the ordinal of the document's first record, -1 where it has none: it was not readable, and `reason`
        says why, or nothing is to be asked. `asked` are the operations that have a record, as bits.
        """
        columns: dict[str, pa.Array] = {
            "document_id": pa.array(self.document_id, pa.string()),
            "document_uri": string_array(self.uri),
            "document_modified": pa.array(self.modified, MOMENT),
            "content_sha256": pa.array(self.sha256, pa.string()),
            "first": pa.array(self.first, pa.int32()),
            "asked": pa.array(self.asked, pa.int64()),
            "reason": pa.array(self.reason, pa.string()),
        }
        for name, values in zip(field_names, self.fields, strict=True):
            columns[f"field:{name}"] = string_array(values)
        return pa.table(columns)
