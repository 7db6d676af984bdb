"""Which answers there are: the entries of one question, and the keys of the run so far."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lowtide.cache.buckets import Buckets
from lowtide.cache.entries import ENTRY_BYTES, places_of
from lowtide.cache.files import SourceNumbers, gather
from lowtide.cache.keys import Keys
from lowtide.cache.seen import Seen
from lowtide.cache.sorter import Sorter
from lowtide.cache.spool import Spool
from lowtide.protocols import Store

__all__ = ["CacheIndex", "Found", "Seen"]

_BLOCK = 1024
"""Keys that are looked up together: what is read for them stays in the processor's cache."""


_MOST_READ = 1 << 18
"""Entries that are read together: 6 MB."""


class Found(NamedTuple):
    """Where the answers are, one for each key; -1 in both where there is none. `source` counts `CacheIndex.sources`."""

    source: npt.NDArray[np.int32]
    ordinal: npt.NDArray[np.int32]


class CacheIndex:
    """The entries of one question, sorted in a file that has no name: in memory are 1.5 bytes of each. Read-only.

    `sources` are the paths that entries point to; `warnings` name the files that could not be used, and say why.
    """

    def __init__(self, entries: Spool, buckets: Buckets, sources: Sequence[str], warnings: Sequence[str]) -> None:
        self.sources = sources
        self.warnings = warnings
        self._entries = entries
        self._buckets = buckets

    @classmethod
    def open(cls, store: Store, question: str, folder: Path) -> CacheIndex:
        """Bring the question's entries to local disk, under `folder`: 24 bytes each, twice that while it opens.

        A file that cannot be read is passed over: its answers will be asked for again. Raises Transient, and
        StoreError where the files cannot be listed: that nothing can be known now is no reason to buy again.
        """
        sources = SourceNumbers()
        entries = Spool(folder)
        with tempfile.TemporaryDirectory(dir=folder) as aside, Sorter(Path(aside)) as sorter:
            gathered = gather(store, question, sorter, sources, Path(aside))
            buckets = Buckets(len(sorter))
            for piece in sorter.sorted(sources.ranks()):
                buckets.add(piece)
                entries.append(piece)
        buckets.close()
        return cls(entries, buckets, sources.names, gathered.warnings)

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._entries)

    def find(self, keys: Keys) -> Found:
        """Where the answers to these keys are. Both halves of a key count."""
        found = Found(np.full(len(keys), -1, np.int32), np.full(len(keys), -1, np.int32))
        if len(self):
            for start in range(0, len(keys), _BLOCK):
                self._find(keys[start : start + _BLOCK], start, found)
        return found

    def _find(self, keys: Keys, start: int, found: Found) -> None:
        high, low = keys[:, 0], keys[:, 1]
        bucket = self._buckets.of(high)
        wanted = np.flatnonzero(self._buckets.may_hold(bucket, low))
        if not len(wanted):
            return
        first, number = self._buckets.extents(bucket[wanted])
        if len(keys) > 1 and int(number.sum()) > _MOST_READ:
            # Hashes do not crowd by chance, but whoever writes many documents can pick some that do.
            self._find(keys[: len(keys) // 2], start, found)
            self._find(keys[len(keys) // 2 :], start + len(keys) // 2, found)
            return
        entries = self._entries.read(first.tolist(), (number * ENTRY_BYTES).tolist())
        same = np.flatnonzero(entries[:, 0] == np.repeat(high[wanted], number))
        at = wanted[np.searchsorted(np.cumsum(number), same, side="right")]
        both = entries[same, 1] == low[at]
        places = places_of(entries[same[both]])
        found.source[start + at[both]] = places.source
        found.ordinal[start + at[both]] = places.ordinal
