"""A process that writes to one cache, or keeps its files few: writer.py ROOT SPOOL write|compact|kill NUMBER.

`write` writes so many runs of 20 answers each, one for each line of its input, and prints the number of each that is
done; `compact` makes one file of what is there, again and again, until its input ends; `kill` does that once, and dies
at point NUMBER of it.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np

from lowtide.cache.storage import compact, write_entries
from lowtide.connectors.stores.local import LocalStore

SIZE = 20


class Mortal(LocalStore):
    """Dies after so many changes."""

    left = 0

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        replaced = super().replace(path, source, expected=expected)
        self._count()
        return replaced

    def delete(self, path: str) -> None:
        super().delete(path)
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            os._exit(9)


def write(root: str, spool: Path, number: int) -> None:
    store = LocalStore(Path(root), sync="none")
    for run in range(number):
        sys.stdin.readline()
        name = f"{os.getpid()}-{run}"
        keys = np.random.default_rng([os.getpid(), run]).integers(0, 1 << 64, (SIZE, 2), dtype=np.uint64)
        write_entries(store, "q", name, [(f"rows/{name}", keys, np.arange(SIZE, dtype=np.int32))], spool)
        print(os.getpid(), run, flush=True)


def keep_few(root: str, spool: Path) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    store, done = LocalStore(Path(root), sync="none"), 0
    print("ready", flush=True)
    while not ended.is_set():
        done += compact(store, "q", spool, most_files=2)
    print(done, flush=True)


if __name__ == "__main__":
    root, spool, what, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    if what == "write":
        write(root, spool, number)
    elif what == "compact":
        keep_few(root, spool)
    else:
        mortal = Mortal(Path(root), sync="none")
        mortal.left = number
        compact(mortal, "q", spool, most_files=1)
