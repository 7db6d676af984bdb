"""Entries on local disk, out of the process's memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path

import numpy as np

from lowtide.cache.entries import ENTRY_BYTES, Entries


class Spool:
    """A file of entries that has no name, so that it is gone with this object, or with the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor, name = tempfile.mkstemp(dir=folder)
        # Also when nobody closes it: an index lives as long as whoever looks things up in it.
        self.close = weakref.finalize(self, os.close, self._descriptor)
        Path(name).unlink()
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def append(self, entries: Entries) -> None:
        """Write entries behind those that are there. Raises OSError where the disk is full."""
        data = memoryview(entries.tobytes())
        while data:
            data = data[os.write(self._descriptor, data) :]
        self._entries += len(entries)

    def read(self, firsts: Iterable[int], lengths: Iterable[int]) -> Entries:
        """The extents that start at these bytes and are so many bytes long, one behind the other.

        Mapping the file would be as quick, and its pages would count as memory of the process.
        """
        return np.frombuffer(b"".join(map(os.pread, repeat(self._descriptor), lengths, firsts)), np.uint64).reshape(
            -1, ENTRY_BYTES // 8
        )
