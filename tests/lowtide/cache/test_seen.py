"""The keys of a run so far, beside a set of Python."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.cache.index import Seen
from lowtide.cache.keys import Keys

HALF = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
KEY = st.tuples(HALF, HALF)


def keys_from(rows: list[tuple[int, int]]) -> Keys:
    return np.array(rows, np.uint64).reshape(-1, 2)


def in_a_set(before: set[tuple[int, ...]], keys: Keys) -> list[bool]:
    found = []
    for key in map(tuple, keys.tolist()):
        found.append(key in before)
        before.add(key)
    return found


@settings(deadline=None)
@given(st.lists(st.lists(KEY, max_size=200), max_size=8))
def test_few_different_keys_are_told_as_a_set_tells_them(calls: list[list[tuple[int, int]]]) -> None:
    """Many with an equal first half, an equal second half, or none but zeros."""
    seen, before = Seen(), set[tuple[int, ...]]()

    for call in calls:
        assert seen.take(keys_from(call)).tolist() == in_a_set(before, keys_from(call))

    assert len(seen) == len(before)


@pytest.mark.parametrize(("size", "calls"), [(1, 3000), (256, 400), (40_000, 4)])
def test_many_keys_are_told_as_a_set_tells_them(size: int, calls: int) -> None:
    """About a third of them came before, in this call or long ago, and the table grows several times."""
    chance = np.random.default_rng(size)
    pool = chance.integers(0, 2**64, (size * calls, 2), dtype=np.uint64)
    pool[::7, 0] = pool[0, 0]
    seen, before = Seen(), set[tuple[int, ...]]()

    for _ in range(calls):
        keys = pool[chance.integers(0, len(pool), size)]
        assert seen.take(keys).tolist() == in_a_set(before, keys)

    assert len(seen) == len(before)


def test_keys_that_were_added_came_before() -> None:
    keys = np.random.default_rng(1).integers(0, 2**64, (500, 2), dtype=np.uint64)
    seen = Seen()

    seen.add(keys[:300])

    assert np.flatnonzero(seen.take(keys)).tolist() == list(range(300))


def test_keys_given_away_may_be_changed_by_their_owner() -> None:
    keys = keys_from([(1, 1), (2, 2)])
    seen = Seen()
    seen.add(keys)

    keys[:] = 9

    assert seen.take(keys_from([(1, 1), (2, 2), (9, 9)])).tolist() == [True, True, False]


def test_a_key_costs_less_than_thirty_bytes() -> None:
    chance = np.random.default_rng(1)
    tracemalloc.start()
    try:
        seen = Seen()
        for _ in range(100):
            seen.take(chance.integers(0, 2**64, (5_000, 2), dtype=np.uint64))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert len(seen) == 500_000
    assert held / len(seen) < 30
