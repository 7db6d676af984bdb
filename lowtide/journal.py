"""The journal of a run: numbered entries, each written with put-if-absent, so that exactly one writer owns each.

    journal/000001.json     one entry: who wrote it, and one or more events that happen together or not at all
    snapshots/000256.json   the state after that entry, so that a reader need not start at the beginning

Losing a race is normal: the loser reads what happened, and writes its events behind that if they still fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from lowtide.entries import SNAPSHOT_EVERY, Entries
from lowtide.errors import CorruptJournal
from lowtide.events import AnyEvent
from lowtide.protocols import Store
from lowtide.states import IllegalEvent, RunState, apply, fold


class Entry(msgspec.Struct, frozen=True):
    """What one journal file holds."""

    owner: str
    events: tuple[AnyEvent, ...]


class Superseded(Exception):
    """Somebody else was faster, and what we wanted to write no longer fits. The state has been read again."""


class Journal:
    """One run's journal, and the state it has led to. Not for use by two threads at once.

    `prefix` is the run's path in the store. Reading is incremental: `refresh` fetches only entries not yet seen.
    """

    def __init__(self, store: Store, prefix: str, owner: str, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self._store = store
        self._entries = Entries(
            store,
            f"{prefix}/journal/",
            f"{prefix}/snapshots/",
            entry=Entry,
            state=RunState,
            called="a journal entry",
            snapshot_every=snapshot_every,
        )
        self._owner = owner
        self.state = RunState()

    def refresh(self) -> RunState:
        """Read what others have written. Raises CorruptJournal if an entry is missing, unreadable or out of place."""
        if not self.state.entry:
            self.state = self._entries.newest_snapshot() or RunState()
        found: list[tuple[int, tuple[AnyEvent, ...]]] = []
        number, entries = self.state.entry + 1, self._entries
        for info in self._store.list(entries.folder, after=entries.path(self.state.entry)):
            # A folder that is listed while others write may show a later entry, and not yet an earlier one.
            while info.path != entries.path(number) and self._store.info(entries.path(number)) is not None:
                found.append((number, entries.read(entries.path(number)).events))
                number += 1
            if info.path != entries.path(number):
                raise CorruptJournal(f"{info.uri}: expected entry {number} here; the journal has a gap or a stray file")
            found.append((number, entries.read(info.path).events))
            number += 1
        if found:
            self.state = fold(self.state, found)
        return self.state

    def append(self, *events: AnyEvent, guard: Callable[[RunState], bool] | None = None) -> RunState:
        """Write events that happen together, behind everything that has been written.

        Raises Superseded if others have written something behind which they no longer fit, or `guard` is false for.
        """
        while True:
            number = self.state.entry + 1
            try:
                after = apply(self.state, number, events)
            except IllegalEvent as error:
                raise Superseded(str(error)) from error
            if guard is not None and not guard(self.state):
                raise Superseded("the guard no longer holds")
            if self._entries.put(number, Entry(self._owner, tuple(events))):
                self.state = after
                self._entries.keep_snapshot(number, after)
                return after
            self.refresh()

    def history(self) -> Sequence[tuple[int, Entry]]:
        """Every entry, from the first one on."""
        paths = [info.path for info in self._store.list(self._entries.folder)]
        return [(number, self._entries.read(path)) for number, path in enumerate(paths, start=1)]
