"""What one shard holds of the documents that are to be forgotten, and what it holds when they are.

Records keep their ordinals, whatever becomes of their document: rows that got no answer may be asked again one day, and
all files of a shard know its records by their ordinals. So a record that is gone leaves an entry in the index that
belongs to nobody: without id, address, hash and fields.

Another document may say the very same. Then it was not asked itself, and has its answer through a record of the one
that is forgotten. It takes that record over, with its answer and what it has cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lowtide import ids
from lowtide.collecting.rows import asked_of
from lowtide.forgetting.rewriting import Records
from lowtide.forgetting.target import Target

_DOCUMENT = ("document_id", "document_uri", "document_modified", "content_sha256")


@dataclass(frozen=True, slots=True)
class Heir:
    """A request of another document that asked the same: its row in a table of repeated requests, and its operation."""

    twin: pa.Table
    op: int

    @property
    def name(self) -> tuple[str, int]:
        """Which request it is."""
        return str(self.twin["document_id"][0].as_py()), self.op


@dataclass(frozen=True, slots=True)
class Mine:
    """A record of a document that is to be forgotten: its ordinal and operation."""

    ordinal: int
    op: int
    check: str

    @property
    def record(self) -> bytes:
        return ids.record_id(self.ordinal, self.check).encode()


@dataclass
class Findings:
    """What a shard's index says of the documents: their rows, their records, and who takes records over."""

    index: pa.Table
    found: pa.ChunkedArray | pa.Array
    mine: Sequence[Mine]
    operations: int
    heirs: Mapping[int, Heir] = field(default_factory=dict)

    @classmethod
    def of(cls, index: pa.Table, target: Target, operations: int) -> Findings | None:
        """None if the shard has none of the documents."""
        found = target.found_in(index)
        if not found.any():
            return None
        mine = []
        rows = index.filter(pa.array(found))
        for first, mask, sha256 in zip(
            rows["first"].to_pylist(),
            asked_of(rows, operations).tolist(),
            rows["content_sha256"].to_pylist(),
            strict=True,
        ):
            if first >= 0:
                mine += [Mine(first + at, op, (sha256 or "")[:8]) for at, op in enumerate(_bits(mask, operations))]
        return cls(index, pa.array(found), mine, operations)

    @property
    def gone(self) -> frozenset[int]:
        """The ordinals that nobody takes over."""
        return frozenset(mine.ordinal for mine in self.mine if mine.ordinal not in self.heirs)

    @property
    def records(self) -> Records:
        """The record ids that are gone, and those that stay."""
        gone = frozenset(mine.record for mine in self.mine if mine.ordinal not in self.heirs)
        kept = [mine.record for mine in self.mine if mine.ordinal in self.heirs]
        others = self.index.filter(pc.invert(self.found))
        masks = asked_of(others, self.operations).tolist()
        for first, mask, sha256 in zip(
            others["first"].to_pylist(), masks, others["content_sha256"].to_pylist(), strict=True
        ):
            if first >= 0:
                check = (sha256 or "")[:8]
                kept += [ids.record_id(first + at, check).encode() for at in range(mask.bit_count())]
        return Records(gone, frozenset(kept), frozenset(record[-8:] for record in gone))

    def index_after(self, index: pa.Table) -> pa.Table | None:
        """The shard's index without the documents; None if they are not in it."""
        if not pc.any(self.found, min_count=0).as_py() or len(index) != len(self.index):
            return None
        if "asked" not in index.column_names:  # an earlier version's
            at = index.column_names.index("first") + 1
            index = index.add_column(at, "asked", pa.array(asked_of(index, self.operations)))
        kept = index.filter(pc.invert(self.found))
        own = [self._entry(index.schema, mine) for mine in self.mine]
        return pa.concat_tables([kept, *own]) if own else kept

    def _entry(self, schema: pa.Schema, mine: Mine) -> pa.Table:
        heir = self.heirs.get(mine.ordinal)
        blank = {"document_id": "", "document_uri": "", "content_sha256": ""}
        op = mine.op if heir is None else heir.op
        held: dict[str, object] = {"first": mine.ordinal, "asked": 1 << op}
        columns = []
        for column in schema:
            value = held.get(column.name)
            if value is None and heir is not None and column.name in heir.twin.column_names:
                value = heir.twin[column.name][0].as_py()
            elif value is None and heir is None:
                value = blank.get(column.name)
            columns.append(pa.array([value], column.type))
        return pa.table(columns, schema=schema)

    def rows_after(self, rows: pa.Table) -> pa.Table | None:
        """A file of the shard's rows without the documents; what others take over is in it under their names.

        By ordinal, and not by name: a file in which others have taken over already stays as it is.
        """
        names = self.index.filter(self.found)["document_id"].combine_chunks()
        mine = pc.is_in(rows["document_id"], value_set=names)
        if not pc.any(mine, min_count=0).as_py():
            return None
        parts = [rows.filter(pc.invert(mine))]
        own = rows.filter(mine)
        for at, ordinal in enumerate(own["ordinal"].to_pylist()):
            heir = self.heirs.get(ordinal)
            if heir is not None:
                parts.append(_handed_over(own.slice(at, 1), heir))
        after = pa.concat_tables(parts)
        return after.take(pc.sort_indices(after, [("document_id", "ascending"), ("op", "ascending")]))


def _bits(mask: int, operations: int) -> list[int]:
    return [op for op in range(operations) if mask >> op & 1]


def _handed_over(row: pa.Table, heir: Heir) -> pa.Table:
    """The row with the other document's name and fields in place of its own."""
    given: dict[str, object] = {"op": heir.op}
    given |= {name: heir.twin[name][0].as_py() for name in _DOCUMENT}
    given |= {
        name.removeprefix("field:"): heir.twin[name][0].as_py()
        for name in heir.twin.column_names
        if name.startswith("field:")
    }
    for at, column in enumerate(row.schema):
        if column.name in given:
            row = row.set_column(at, column, pa.array([given[column.name]], column.type))
    return row


def without_documents(target: Target, table: pa.Table) -> pa.Table | None:
    """The table without the rows of these documents; None if it has none."""
    found = target.found_in(table)
    return table.filter(pa.array(~found)) if found.any() else None


def without_ordinals(gone: frozenset[int], table: pa.Table) -> pa.Table | None:
    """The table without these ordinals; None if it has none of them."""
    found = np.isin(table["ordinal"].to_numpy(), list(gone))
    return table.filter(pa.array(~found)) if found.any() else None
