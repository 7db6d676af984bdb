"""Numbered entries in a store, each written with put-if-absent, so that exactly one writer owns each; and snapshots.

    FOLDER/000001.json      an entry
    SNAPSHOTS/000256.json   the state after that entry, so that a reader need not start at the beginning

What entries mean, and what whoever loses the race for a number does then, is for those who keep them to say.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from lowtide.errors import CorruptJournal
from lowtide.protocols import Store

E = TypeVar("E")
S = TypeVar("S")

SNAPSHOT_EVERY = 256


class Entries(Generic[E, S]):
    """Entries of one type under a `folder`, and the states that they lead to under `snapshots`, all as JSON.

    Keeps none of them in memory. `called` is what messages call an entry.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        snapshots: str,
        *,
        entry: type[E],
        state: type[S],
        called: str,
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        self.folder = folder
        self._store = store
        self._snapshots = snapshots
        self._called = called
        self._snapshot_every = snapshot_every
        self._encoder = msgspec.json.Encoder()
        self._entry_decoder = msgspec.json.Decoder(entry)
        self._state_decoder = msgspec.json.Decoder(state)

    def path(self, number: int) -> str:
        """Where an entry lies."""
        return f"{self.folder}{number:06d}.json"

    def put(self, number: int, entry: E) -> bool:
        """Write an entry; False if that number is somebody else's."""
        return self._store.put_if_absent(self.path(number), self._encoder.encode(entry))

    def read(self, path: str) -> E:
        """One entry. Raises NotFound, and CorruptJournal for one that this version does not know."""
        try:
            return self._entry_decoder.decode(self._store.read(path))
        except msgspec.DecodeError as error:
            raise CorruptJournal(
                f"{self._store.uri_of(path)}: not {self._called} that this version knows: {error}"
            ) from error

    def keep_snapshot(self, number: int, state: S) -> None:
        """Write the state after entry `number`, if its turn has come: for every 256th entry, unless told otherwise."""
        if number % self._snapshot_every == 0:
            self._store.write(f"{self._snapshots}{number:06d}.json", self._encoder.encode(state))

    def newest_snapshot(self) -> S | None:
        """The last state that was kept, after a listing; None if there is none, or it cannot be read."""
        newest = ""
        for info in self._store.list(self._snapshots):
            newest = info.path
        if not newest:
            return None
        try:
            return self._state_decoder.decode(self._store.read(newest))
        except msgspec.DecodeError:
            # A snapshot is a convenience: one that this version cannot read costs time, not truth.
            return None
