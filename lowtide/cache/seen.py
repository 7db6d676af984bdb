"""The keys of a run so far, so that what is asked twice is bought once."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from lowtide.cache.keys import Keys

_BLOCK = 1 << 14
_FEWEST_SLOTS = 1 << 12
_FEW = 32
_FULL, _GROWTH = 0.6, 1.5
_HALF, _WORD = np.uint64(32), np.uint64(0xFFFFFFFF)
_STEP, _LEAST_STEP = np.uint64(33), np.uint64((1 << 32) // _FEWEST_SLOTS | 1)
"""Steps go through 32 bits, which stand for the whole table: by one slot at least, and by half of them at most."""


class Seen:
    """A set of keys: 16 to 18 bytes for each, and 7 to 10 for finding it.

    A hash table of positions in an array of the keys. Where to look, first and next, is told by a key's two halves,
    turned by numbers that every process draws anew: nobody can write documents whose keys get in each other's way.
    """

    def __init__(self) -> None:
        self._keys = np.empty((0, 2), np.uint64)
        self._count = 0
        self._slots = np.zeros(_FEWEST_SLOTS, np.int32)
        self._turn = (np.uint64(secrets.randbits(64) | 1), np.uint64(secrets.randbits(64) | 1))

    def __len__(self) -> int:
        """How many different keys there are."""
        return self._count

    def take(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Remember the keys; True for each that came before, in an earlier call or earlier in these."""
        before = np.empty(len(keys), np.bool_)
        for start in range(0, len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            self._make_room(len(block))
            before[start : start + len(block)] = self._take(block)
        return before

    def add(self, keys: Keys) -> None:
        """Remember the keys."""
        self.take(keys)

    def _take(self, block: Keys) -> npt.NDArray[np.bool_]:
        count = self._count
        self._keys[count : count + len(block)] = block
        where = self._placed(count, len(block))
        new = np.flatnonzero(where >= 0)
        if len(new) < len(block):
            # Close the gaps: the array has room for different keys only.
            self._keys[count : count + len(new)] = block[new]
            self._slots[where[new]] = np.arange(count + 1, count + 1 + len(new))
        self._count += len(new)
        return where < 0

    def _placed(self, start: int, number: int) -> npt.NDArray[np.int64]:
        """Give slots to keys of the array; the slot of each, or -1 if an equal one has a slot already."""
        size = np.uint64(len(self._slots))
        where = np.full(number, -1, np.int64)
        keys = self._keys[start : start + number]
        place = keys[:, 0] * self._turn[0] >> _HALF
        step = keys[:, 1] * self._turn[1] >> _STEP | _LEAST_STEP
        # A slot holds the key's position plus one, so that zero is an empty one.
        mine = np.arange(start + 1, start + 1 + number, dtype=np.int32)
        while len(mine) > _FEW:
            slot = (place * size >> _HALF).astype(np.int64)
            held = self._slots[slot]
            free = np.flatnonzero(held == 0)
            if len(free):
                # Of several values for one slot the last one stays: backwards, that is the first of equal keys.
                self._slots[slot[free][::-1]] = mine[free][::-1]
                held[free] = self._slots[slot[free]]
            own = np.flatnonzero(held == mine)
            where[mine[own] - (start + 1)] = slot[own]
            there = self._keys.take(held - 1, axis=0)
            other = np.flatnonzero((there[:, 0] != keys[:, 0]) | (there[:, 1] != keys[:, 1]))
            keys, mine, step = keys.take(other, axis=0), mine[other], step[other]
            place = (place[other] + step) & _WORD
        for (high, low), first, by, one in zip(
            keys.tolist(), place.tolist(), step.tolist(), mine.tolist(), strict=True
        ):
            where[one - (start + 1)] = self._placed_alone(high, low, first, by, one)
        return where

    def _placed_alone(self, high: int, low: int, place: int, step: int, number: int) -> int:
        """The same for one key; for a few of them quicker than round after round of all."""
        slots, keys = self._slots.data, self._keys.data
        size = len(slots)
        while True:
            slot = place * size >> 32
            held = slots[slot]
            if not held:
                slots[slot] = number
                return slot
            if keys[held - 1, 0] == high and keys[held - 1, 1] == low:
                return -1
            place = (place + step) & 0xFFFFFFFF

    def _make_room(self, more: int) -> None:
        needed = self._count + more
        if needed > len(self._keys):
            # In place, and a little at a time: a second array would double what the process needs at its worst.
            self._keys.resize((needed + needed // 8, 2), refcheck=False)
        if needed > _FULL * len(self._slots):
            self._slots = np.zeros(0, np.int32)
            self._slots = np.zeros(int(_GROWTH * needed / _FULL), np.int32)
            for start in range(0, self._count, _BLOCK):
                self._placed(start, min(_BLOCK, self._count - start))
