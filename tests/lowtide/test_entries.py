"""Numbered entries in a store: where they lie and how they are written, for journals and accounts that exist."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from support.standins import MemoryStore

from lowtide import events as e
from lowtide.budget.account import Account, AccountState, Line, Payer, Settle, Spender
from lowtide.entries import Entries
from lowtide.errors import CorruptJournal, NotFound
from lowtide.journal import Journal

RUN = "runs/weekly/2026-W47/0123456789abcdef"
PAYER = Payer(RUN, "weekly", {"team": "search"})


class Note(msgspec.Struct, frozen=True):
    text: str


class Sum(msgspec.Struct, frozen=True):
    entry: int


def notes(store: MemoryStore, *, snapshot_every: int = 256) -> Entries[Note, Sum]:
    return Entries(
        store,
        "x/entries/",
        "x/snapshots/",
        entry=Note,
        state=Sum,
        called="a note",
        snapshot_every=snapshot_every,
    )


def test_a_number_is_given_out_once() -> None:
    kept = notes(MemoryStore())
    assert kept.put(1, Note("first"))
    assert not kept.put(1, Note("second"))
    assert kept.read(kept.path(1)) == Note("first")


def test_what_cannot_be_read_is_named() -> None:
    store = MemoryStore()
    kept = notes(store)
    with pytest.raises(NotFound):
        kept.read(kept.path(1))
    store.write("x/entries/000001.json", b'{"other": 1}')
    with pytest.raises(CorruptJournal, match=r"memory://store/x/entries/000001\.json: not a note that this version"):
        kept.read(kept.path(1))


def test_states_are_kept_in_their_turn_and_the_last_one_is_read() -> None:
    store = MemoryStore()
    kept = notes(store, snapshot_every=4)
    assert kept.newest_snapshot() is None
    for number in range(1, 14):
        kept.keep_snapshot(number, Sum(number))
    assert list(store.objects) == [f"x/snapshots/{number:06d}.json" for number in (4, 8, 12)]
    assert kept.newest_snapshot() == Sum(12)
    store.write("x/snapshots/000012.json", b"[")
    assert kept.newest_snapshot() is None


def test_a_journal_is_written_as_ever() -> None:
    store = MemoryStore()
    journal = Journal(store, RUN, "me", snapshot_every=1)
    journal.append(e.Requested(at=1.5), e.CancelRequested(at=2.0))
    assert list(store.objects) == [f"{RUN}/journal/000001.json", f"{RUN}/snapshots/000001.json"]
    assert store.objects[f"{RUN}/journal/000001.json"] == (
        b'{"owner":"me","events":[{"event":"requested","at":1.5},{"event":"cancel_requested","at":2.0}]}'
    )
    assert Journal(store, RUN, "reader").refresh() == journal.state


def test_an_account_is_written_as_ever() -> None:
    store = MemoryStore()
    books = Account(store, "2026-11", "me", snapshot_every=2)
    books.reserve(PAYER, "a1", Decimal("0.25"), (), at=1.5)
    books.close(PAYER, [Settle("a1", Decimal("0.10"))], at=2.0)
    whose = b'"owner":"me","run":"%s","job":"weekly","tags":{"team":"search"}' % RUN.encode()
    assert store.objects == {
        "budget/2026-11/entries/000001.json": b'{"at":1.5,%s,"changes":[{"change":"reserve","id":"a1","usd":"0.25"}]}'
        % whose,
        "budget/2026-11/entries/000002.json": b'{"at":2.0,%s,"changes":[{"change":"settle","id":"a1","usd":"0.10"}]}'
        % whose,
        "budget/2026-11/snapshots/000002.json": (
            b'{"entry":2,"spenders":{"%s":{"job":"weekly","tags":{"team":"search"}}},"lines":{"a1":{"run":"%s",'
            b'"reserved":"0","spent":"0.10","entry":2,"settled":true}}}'
        )
        % (RUN.encode(), RUN.encode()),
    }
    assert Account(store, "2026-11", "reader").refresh() == AccountState(
        2,
        {RUN: Spender("weekly", {"team": "search"})},
        {"a1": Line(RUN, Decimal(0), Decimal("0.10"), 2, settled=True)},
    )
