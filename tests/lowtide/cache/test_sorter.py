"""Sorting with little memory, beside a dictionary."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.cache.entries import Places, entries_of, places_of
from lowtide.cache.sorter import Sorter

HALF = st.sampled_from([0, 1, 2**56 - 1, 2**56, 2**63, 2**64 - 1])
ENTRY = st.tuples(HALF, HALF, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))


@settings(deadline=None)
@given(st.lists(st.lists(ENTRY, max_size=12), max_size=8), st.integers(1, 40))
def test_entries_come_back_by_key_and_of_equal_keys_the_last(
    added: list[list[tuple[int, int, int, int]]], held: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, Sorter(Path(folder), held=held) as sorter:
        for rows in added:
            high, low, source, ordinal = np.array(rows, np.uint64).reshape(-1, 4).T
            places = Places(source.astype(np.int32), ordinal.astype(np.int32))
            sorter.add(entries_of(np.stack([high, low], axis=1), places))
        total = len(sorter)
        entries = np.concatenate(list(sorter.sorted()))

    found = [
        (int(high), int(low), int(source), int(ordinal))
        for (high, low, _), source, ordinal in zip(entries, *places_of(entries), strict=True)
    ]
    last = {(high, low): (source, ordinal) for rows in added for high, low, source, ordinal in rows}
    assert total == sum(map(len, added))
    assert found == sorted((*key, *place) for key, place in last.items())
