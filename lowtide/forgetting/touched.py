"""What was found and removed, by kind of file. Counts only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

KINDS = ("requests", "raw", "answers", "rows", "index", "inputs", "leftovers", "runs", "cache", "results")
"""`leftovers` are files of a run that its journal does not name, left by a process that died; `runs` are whole runs
that were cancelled before anything was asked."""


@dataclass
class Touched:
    """Files, and the lines, rows or entries in them, by kind."""

    files: Counter[str] = field(default_factory=Counter)
    entries: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, entries: int) -> None:
        """Count one file, if anything in it is meant."""
        if entries:
            self.files[kind] += 1
            self.entries[kind] += entries

    def update(self, other: Touched) -> None:
        """Take in what another pass has found."""
        self.files.update(other.files)
        self.entries.update(other.entries)

    def __bool__(self) -> bool:
        return bool(self.files)

    def counts(self) -> dict[str, dict[str, int]]:
        """By kind, in a fixed order, for records and for people."""
        return {kind: {"files": self.files[kind], "entries": self.entries[kind]} for kind in KINDS if self.files[kind]}
