"""The account of a root: what the runs of all jobs have reserved and spent in a month, so that caps hold for all.

    budget/2026-11/entries/000001.json      who reserved, settled or released what, written with put-if-absent
    budget/2026-11/snapshots/000256.json    the state after that entry, so that a reader need not start at the beginning

Entry N is written by whoever has read all entries before it, and has found that the caps hold. Of two who want to write
it one loses, reads what the other wrote, and reckons again. So what is reserved plus spent never passes a cap, whatever
happens at the same time.

A reservation's id is its attempt's token: reserving twice is one reservation. Each is in the month in which it was
made, and so is what is spent on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from lowtide.budget.caps import Cap, Holder, Room
from lowtide.entries import SNAPSHOT_EVERY, Entries
from lowtide.errors import NotFound
from lowtide.protocols import Store

FOLDER = "budget/"


class Reserve(msgspec.Struct, frozen=True, tag_field="change", tag="reserve"):
    """An attempt is about to be submitted, and may cost up to `usd`."""

    id: str
    usd: Decimal


class Settle(msgspec.Struct, frozen=True, tag_field="change", tag="settle"):
    """The provider bills `usd` for an attempt, and nothing more will come."""

    id: str
    usd: Decimal


class Release(msgspec.Struct, frozen=True, tag_field="change", tag="release"):
    """An attempt was not submitted, and its money is free for others."""

    id: str


Change = Reserve | Settle | Release


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one file of the account holds: changes for one run, `run` being its path in the root."""

    at: float
    owner: str
    run: str
    job: str
    tags: dict[str, str]
    changes: tuple[Change, ...]


class Spender(msgspec.Struct, frozen=True):
    """Whose run it is, as far as caps ask."""

    job: str
    tags: dict[str, str]


class Line(msgspec.Struct, frozen=True):
    """One attempt: what is reserved for it, or once it is `settled` what it has cost. `entry` changed it last."""

    run: str
    reserved: Decimal
    spent: Decimal
    entry: int
    settled: bool = False


class AccountState(msgspec.Struct, frozen=True):
    """A month after entry `entry`: lines by attempt, and the runs that they belong to."""

    entry: int = 0
    spenders: dict[str, Spender] = msgspec.field(default_factory=dict)
    lines: dict[str, Line] = msgspec.field(default_factory=dict)

    @property
    def open(self) -> dict[str, Line]:
        """Reservations that are neither settled nor released."""
        return {name: line for name, line in self.lines.items() if not line.settled}

    def room(self, cap: Cap, *, without: str = "") -> Room:
        """What the cap has left, the reservation `without` not counted."""
        spent = Decimal(0)
        reserved: defaultdict[str, Decimal] = defaultdict(Decimal)
        covered = {run for run, spender in self.spenders.items() if cap.covers(spender.job, spender.tags)}
        for name, line in self.lines.items():
            if line.run in covered and name != without:
                spent += line.spent
                if line.reserved:
                    reserved[line.run] += line.reserved
        holders = sorted((Holder(run, usd) for run, usd in reserved.items()), key=lambda holder: -holder.usd)
        return Room(cap.label, cap.usd, spent, sum(reserved.values(), Decimal(0)), tuple(holders))


def fold(state: AccountState, entries: Iterable[tuple[int, Entry]]) -> AccountState:
    """The state after more entries. Pure: `state` is not changed. What is settled stays as it is."""
    spenders, lines, number = dict(state.spenders), dict(state.lines), state.entry
    for number, entry in entries:
        spenders.setdefault(entry.run, Spender(entry.job, entry.tags))
        for change in entry.changes:
            known = lines.get(change.id)
            if known is not None and known.settled:
                continue
            match change:
                case Reserve(name, usd):
                    lines[name] = Line(entry.run, usd, Decimal(0), number)
                case Settle(name, usd):
                    lines[name] = Line(entry.run, Decimal(0), usd, number, settled=True)
                case Release(name):
                    lines.pop(name, None)
    return AccountState(number, spenders, lines)


@dataclass(frozen=True, slots=True)
class Payer:
    """The run in whose name something is written: its path in the root, and what caps ask of it."""

    run: str
    job: str
    tags: Mapping[str, str]


class Account:
    """One month of a root's account, as far as this process has read it. Not for use by two threads at once."""

    def __init__(self, store: Store, month: str, owner: str, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self.month = month
        self._entries = Entries(
            store,
            f"{FOLDER}{month}/entries/",
            f"{FOLDER}{month}/snapshots/",
            entry=Entry,
            state=AccountState,
            called="an entry of an account",
            snapshot_every=snapshot_every,
        )
        self._owner = owner
        self._read = False
        self._state = AccountState()

    @property
    def state(self) -> AccountState:
        """The month as it was last read; read now if it never was."""
        return self._state if self._read else self.refresh()

    def refresh(self) -> AccountState:
        """Read what others have written. Raises CorruptJournal for an entry that this version does not know."""
        if not self._read:
            self._state = self._entries.newest_snapshot() or AccountState()
        # Numbers have no gaps, since who writes one has read the one before. So a look at the next one says it all.
        self._state = fold(self._state, self._unread())
        self._read = True
        return self._state

    def reserve(self, payer: Payer, attempt: str, usd: Decimal, caps: Sequence[Cap], *, at: float) -> str:
        """Reserve money for an attempt, once for every time that it is submitted; "", or why it may not be.

        Holds for all caps that cover the payer, whatever other processes do meanwhile. An attempt that has money
        reserved already has it reserved anew: so nobody who has seen the old reservation can take it away any more.
        """
        covering = [cap for cap in caps if cap.covers(payer.job, payer.tags)]

        def refusal(state: AccountState) -> str:
            line = state.lines.get(attempt)
            if line is not None and line.settled:
                return f"attempt {attempt} is settled already"
            rooms = (state.room(cap, without=attempt) for cap in covering)
            return next((room.refusal(usd) for room in rooms if usd > room.left), "")

        self.refresh()
        while not (why := refusal(self._state)):
            if self._append(payer, (Reserve(attempt, usd),), at):
                return ""
        return why

    def close(
        self, payer: Payer, changes: Sequence[Settle | Release], *, at: float, seen: AccountState | None = None
    ) -> None:
        """Settle and release. What is closed already is passed over, and nothing is written for it.

        With `seen`, also passed over is what somebody has changed since that state was read.
        """
        while due := [change for change in changes if self._is_due(change, seen)]:
            if self._append(payer, due, at):
                return

    def _is_due(self, change: Settle | Release, seen: AccountState | None) -> bool:
        line = self.state.lines.get(change.id)
        if seen is not None and line != seen.lines.get(change.id):
            return False
        if line is None:
            # What cost nothing and reserved nothing is nobody's business.
            return isinstance(change, Settle) and bool(change.usd)
        return not line.settled

    def _append(self, payer: Payer, changes: Sequence[Change], at: float) -> bool:
        """Write the next entry; False, with the state read again, if somebody else has."""
        number = self._state.entry + 1
        entry = Entry(at, self._owner, payer.run, payer.job, dict(payer.tags), tuple(changes))
        if not self._entries.put(number, entry):
            self.refresh()
            return False
        self._state = fold(self._state, [(number, entry)])
        self._entries.keep_snapshot(number, self._state)
        return True

    def _unread(self) -> Iterator[tuple[int, Entry]]:
        number = self._state.entry + 1
        while True:
            try:
                entry = self._entries.read(self._entries.path(number))
            except NotFound:
                return
            yield number, entry
            number += 1
