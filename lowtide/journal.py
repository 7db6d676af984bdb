"""The journal of a run: numbered entries, each written with put-if-absent, so that exactly one writer owns each.

    journal/000001.json     one entry: who wrote it, and one or more events that happen together or not at all
    snapshots/000256.json   the state after that entry, so that a reader need not start at the beginning

Losing a race is normal: the loser reads what happened, and writes its events behind that if they still fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from lowtide.errors import CorruptJournal
from lowtide.events import AnyEvent
from lowtide.protocols import Store
from lowtide.states import IllegalEvent, RunState, apply, fold

SNAPSHOT_EVERY = 256


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
        self._entries = f"{prefix}/journal/"
        self._snapshots = f"{prefix}/snapshots/"
        self._owner = owner
        self._snapshot_every = snapshot_every
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Entry)
        self._state_decoder = msgspec.json.Decoder(RunState)
        self.state = RunState()

    def refresh(self) -> RunState:
        """Read what others have written. Raises CorruptJournal if an entry is missing, unreadable or out of place."""
        if not self.state.entry:
            self._load_snapshot()
        found: list[tuple[int, tuple[AnyEvent, ...]]] = []
        number = self.state.entry + 1
        for info in self._store.list(self._entries, after=self._path(self.state.entry)):
            # A folder that is listed while others write may show a later entry, and not yet an earlier one.
            while info.path != self._path(number) and self._store.info(self._path(number)) is not None:
                found.append((number, self._read(self._path(number))))
                number += 1
            if info.path != self._path(number):
                raise CorruptJournal(f"{info.uri}: expected entry {number} here; the journal has a gap or a stray file")
            found.append((number, self._read(info.path)))
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
            entry = self._encoder.encode(Entry(self._owner, tuple(events)))
            if self._store.put_if_absent(self._path(number), entry):
                self.state = after
                if number % self._snapshot_every == 0:
                    self._store.write(f"{self._snapshots}{number:06d}.json", self._encoder.encode(after))
                return after
            self.refresh()

    def history(self) -> Sequence[tuple[int, Entry]]:
        """Every entry, from the first one on."""
        paths = [info.path for info in self._store.list(self._entries)]
        return [(number, self._decode(path)) for number, path in enumerate(paths, start=1)]

    def _path(self, number: int) -> str:
        return f"{self._entries}{number:06d}.json"

    def _load_snapshot(self) -> None:
        newest = ""
        for info in self._store.list(self._snapshots):
            newest = info.path
        if newest:
            try:
                self.state = self._state_decoder.decode(self._store.read(newest))
            except msgspec.DecodeError:
                # A snapshot is a convenience: one that this version cannot read costs time, not truth.
                self.state = RunState()

    def _read(self, path: str) -> tuple[AnyEvent, ...]:
        return self._decode(path).events

    def _decode(self, path: str) -> Entry:
        try:
            return self._decoder.decode(self._store.read(path))
        except msgspec.DecodeError as error:
            raise CorruptJournal(
                f"{self._store.uri_of(path)}: not a journal entry that this version knows: {error}"
            ) from error
