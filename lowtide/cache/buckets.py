"""Where in a sorted file of entries a key must be, if it is there: what an index keeps in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lowtide.cache.entries import ENTRY_BYTES, Entries

_PER_BUCKET = 8
_HALF = np.uint64(32)
_ONE, _SIX, _TWELVE, _SIX_BITS = np.uint64(1), np.uint64(6), np.uint64(12), np.uint64(63)


class Extents(NamedTuple):
    """Parts of the file: the bytes at which they start, and how many entries they have."""

    first: npt.NDArray[np.int64]
    entries: npt.NDArray[np.int64]


class Buckets:
    """Equal ranges of the key's first half, of about eight entries each: where they start, and a filter of 64 bits.

    1.5 bytes an entry. Of the keys that are not there, 4 % pass the filter.
    """

    def __init__(self, entries: int) -> None:
        """Room for about so many entries."""
        number = entries // _PER_BUCKET + 1
        self._number = np.uint64(number)
        self._starts = np.zeros(number + 1, np.uint32)
        self._filters = np.zeros(number, np.uint64)

    def add(self, entries: Entries) -> None:
        """Count the next entries of the file."""
        if not len(entries):
            return
        bucket = self.of(entries[:, 0])
        first = np.concatenate([[0], np.flatnonzero(bucket[1:] != bucket[:-1]) + 1])
        self._starts[bucket[first] + 1] += np.diff(first, append=len(bucket)).astype(np.uint32)
        self._filters[bucket[first]] |= np.bitwise_or.reduceat(_bits(entries[:, 1]), first)

    def close(self) -> None:
        """All were added: counts become places."""
        np.cumsum(self._starts, out=self._starts)

    def of(self, high: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The bucket of each key."""
        return ((high >> _HALF) * self._number >> _HALF).astype(np.int64)

    def may_hold(self, bucket: npt.NDArray[np.int64], low: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """False for keys that are not there."""
        bits = _bits(low)
        passed: npt.NDArray[np.bool_] = (self._filters[bucket] & bits) == bits
        return passed

    def extents(self, bucket: npt.NDArray[np.int64]) -> Extents:
        """Where the entries of buckets are."""
        first = self._starts[bucket].astype(np.int64)
        return Extents(first * ENTRY_BYTES, self._starts[bucket + 1] - first)


def _bits(low: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The three bits that a key sets in its bucket's filter, by the last 18 bits of its second half."""
    bits: npt.NDArray[np.uint64] = _ONE << (low & _SIX_BITS)
    bits |= _ONE << (low >> _SIX & _SIX_BITS)
    bits |= _ONE << (low >> _TWELVE & _SIX_BITS)
    return bits
