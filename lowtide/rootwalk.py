"""What lies directly below a folder of a root, and which runs there are, without a look at all that is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lowtide.protocols import Store

_BEHIND = "\U0010fffd"
"""Sorts behind whatever else a path may go on with."""
_RUN_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where a run lies: its job, its window, and its id."""

    job: str
    window: str
    run_id: str

    @property
    def prefix(self) -> str:
        """The run's path in the root."""
        return f"runs/{self.job}/{self.window}/{self.run_id}"


def folders(store: Store, prefix: str) -> Iterator[str]:
    """The names of the folders directly below `prefix`, which ends with a slash; a listing or two for each."""
    after = ""
    while info := next(store.list(prefix, after=after), None):
        name, slash, _ = info.path[len(prefix) :].partition("/")
        if slash:
            yield name
            after = f"{prefix}{name}/{_BEHIND}"
        else:
            after = info.path


def run_places(store: Store) -> Iterator[RunPlace]:
    """Every run of the root, whatever became of it."""
    for job in folders(store, "runs/"):
        for window in folders(store, f"runs/{job}/"):
            for name in folders(store, f"runs/{job}/{window}/"):
                if _RUN_ID.fullmatch(name):
                    yield RunPlace(job, window, name)
