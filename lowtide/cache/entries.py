"""Entries of the cache as columns of numbers: a key, and the place of the answer to it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lowtide.cache.keys import Keys

Entries: TypeAlias = npt.NDArray[np.uint64]
"""Shape (n, 3): both halves of the key, then the place: the source's number and, in the lower half, the ordinal."""

ENTRY_BYTES = 24

_HALF, _LOWER = np.uint64(32), np.uint64(0xFFFFFFFF)


class Places(NamedTuple):
    """Where answers lie: the number of a source, and an ordinal in it."""

    source: npt.NDArray[np.int32]
    ordinal: npt.NDArray[np.int32]


def no_entries() -> Entries:
    """None at all."""
    return np.empty((0, 3), np.uint64)


def entries_of(keys: Keys, places: Places) -> Entries:
    """Keys and places side by side. Raises ValueError for places below zero, and for columns of different lengths."""
    source, ordinal = places
    if len(keys) and min(source.min(), ordinal.min()) < 0:
        raise ValueError(f"no answer lies in source {source.min()} at {ordinal.min()}: both count from 0")
    entries = np.empty((len(keys), 3), np.uint64)
    entries[:, :2] = keys
    entries[:, 2] = np.asarray(source, np.uint64) << _HALF | np.asarray(ordinal, np.uint64)
    return entries


def places_of(entries: Entries) -> Places:
    """The places of entries."""
    place = entries[:, 2]
    return Places((place >> _HALF).astype(np.int32), (place & _LOWER).astype(np.int32))


def in_order(entries: Entries, ranks: npt.NDArray[np.int64] | None = None) -> Entries:
    """Entries by key: of equal keys the last one only, or the last of those whose source has the highest of `ranks`."""
    high = entries[:, 0]
    if bool((high[1:] > high[:-1]).all()):
        return entries
    order = np.argsort(high, kind="stable")
    ordered = high[order]
    if not bool((ordered[1:] == ordered[:-1]).any()):
        return entries[order]
    within = () if ranks is None else (ranks[places_of(entries).source],)
    entries = entries[np.lexsort((*within, entries[:, 1], high))]
    last = np.ones(len(entries), np.bool_)
    last[:-1] = (entries[1:, 0] != entries[:-1, 0]) | (entries[1:, 1] != entries[:-1, 1])
    return entries[last]
