"""Sorts any number of entries in memory that does not depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from lowtide.cache.entries import ENTRY_BYTES, Entries, in_order, no_entries
from lowtide.cache.spool import Spool

_HELD = 1 << 18
"""Entries that are held in memory before they are put aside: 6 MB."""

_RANGES = 256
"""Ranges of keys that are sorted one by one. Keys are hashes, so that each range holds about as many as another."""

_TOP_BYTE = np.uint64(56)


class Sorter:
    """Takes entries in any order, and gives them back by key: of equal keys the one that was added last.

    Holds 6 MB of them, and one of 256 ranges of keys while it gives them back; the rest waits on disk.
    """

    def __init__(self, folder: Path, *, held: int = _HELD) -> None:
        self._aside = Spool(folder)
        self._most = held
        self._held: list[Entries] = []
        self._holds = 0
        self._bounds: list[npt.NDArray[np.int64]] = []

    def __enter__(self) -> Sorter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aside.close()

    def __len__(self) -> int:
        """How many entries were added, those with equal keys included."""
        return self._holds + len(self._aside)

    def add(self, entries: Entries) -> None:
        """Take entries; they are newer than all before them."""
        self._held.append(entries)
        self._holds += len(entries)
        if self._holds >= self._most:
            self._put_aside()

    def sorted(self, ranks: npt.NDArray[np.int64] | None = None) -> Iterator[Entries]:
        """All entries in pieces, every piece behind the one before it. Nothing can be added any more.

        With `ranks`, one for each source's number, of equal keys the last one of the highest rank is kept.
        """
        if not self._bounds:
            yield in_order(np.concatenate([no_entries(), *self._held]), ranks)
            return
        self._put_aside()
        for number in range(_RANGES):
            firsts = [int(bounds[number]) for bounds in self._bounds]
            lengths = [int(bounds[number + 1] - bounds[number]) for bounds in self._bounds]
            yield in_order(self._aside.read(firsts, lengths), ranks)

    def _put_aside(self) -> None:
        """Write what is held behind what was written before, range by range, and keep where each range starts."""
        entries = np.concatenate([no_entries(), *self._held])
        ranges = (entries[:, 0] >> _TOP_BYTE).astype(np.uint8)
        before = np.concatenate([[0], np.cumsum(np.bincount(ranges, minlength=_RANGES))])
        self._bounds.append((len(self._aside) + before) * ENTRY_BYTES)
        self._aside.append(entries[np.argsort(ranges, kind="stable")])
        self._held, self._holds = [], 0
