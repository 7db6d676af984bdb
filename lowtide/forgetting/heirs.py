"""Who takes over the records of a document that is forgotten: others that have said the very same in the same run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lowtide.forgetting.shards import Heir, Mine
from lowtide.forgetting.target import Target

Key = tuple[int, int, int]
"""Both halves of what a request is known by, and the first operation of the run that asks the same."""


class Keyed(NamedTuple):
    """A record, and what its request is known by."""

    ordinal: int
    key: Key


def keys_of(mine: Sequence[Mine], rows: pa.Table, questions: Sequence[str]) -> Iterator[Keyed]:
    """What these records of a shard are known by, as its rows say. `questions` are those of the run's operations."""
    if "key_hi" not in rows.column_names:  # an earlier version's, which knew no repeated requests
        return
    ops = {record.ordinal: record.op for record in mine}
    rows = rows.select(["ordinal", "key_hi", "key_lo"])
    rows = rows.filter(pa.array(np.isin(rows["ordinal"].to_numpy(), list(ops))))
    for ordinal, high, low in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        yield Keyed(ordinal, (high, low, questions.index(questions[ops[ordinal]])))


def find_heirs(tables: Iterable[pa.Table], target: Target, wanted: Collection[Key]) -> dict[Key, Heir]:
    """Of the repeated requests of other documents that ask one of these: for each the one that sorts first."""
    heirs: dict[Key, Heir] = {}
    halves = np.array([high for high, _, _ in wanted], np.uint64)
    for table in tables:
        alike = np.isin(table["key_hi"].to_numpy(), halves) & ~target.found_in(table)
        others = table.filter(pa.array(alike))
        columns = (others[name].to_pylist() for name in ("key_hi", "key_lo", "asks", "op"))
        for at, (high, low, asks, op) in enumerate(zip(*columns, strict=True)):
            heir, key = Heir(others.slice(at, 1), op), (high, low, asks)
            if key in wanted and (key not in heirs or heir.name < heirs[key].name):
                heirs[key] = heir
    return heirs
