"""The account of a root: what is counted, what is denied, and what a reader needs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from support.standins import MemoryStore

from lowtide.budget.account import Account, Payer, Release, Settle
from lowtide.budget.caps import Cap, job_caps, month_of, months_between
from lowtide.errors import CorruptJournal

WEEKLY = Payer("runs/weekly/2026-W47/0123456789abcdef", "weekly", {"team": "search"})
DAILY = Payer("runs/daily/all/fedcba9876543210", "daily", {"team": "ads"})
ALL = Cap("everything", Decimal(5), "lowtide.yaml:3")


def account(store: MemoryStore, owner: str = "me") -> Account:
    return Account(store, "2026-11", owner)


def test_what_is_reserved_and_what_is_spent_count_towards_the_cap() -> None:
    store = MemoryStore()
    mine, other = account(store), account(store, "other")
    assert mine.reserve(WEEKLY, "w1", Decimal(3), (ALL,), at=1.0) == ""
    why = other.reserve(DAILY, "d1", Decimal("2.01"), (ALL,), at=2.0)
    assert why == (
        "cap 'everything' of 5.00 USD a month (lowtide.yaml:3) has 2.00 left (0.00 spent, 3.00 reserved by run "
        "0123456789abcdef of job weekly, window 2026-W47; this shard may cost up to 2.01)"
    )
    mine.close(WEEKLY, [Settle("w1", Decimal("1.25"))], at=3.0)
    assert other.reserve(DAILY, "d1", Decimal("3.75"), (ALL,), at=4.0) == ""
    assert "is used up (1.25 spent, 3.75 reserved by run" in mine.reserve(WEEKLY, "w2", Decimal("0.01"), (ALL,), at=5.0)


def test_reserving_twice_is_one_reservation() -> None:
    books = account(MemoryStore())
    for _ in range(3):
        assert books.reserve(WEEKLY, "w1", Decimal(5), (ALL,), at=1.0) == ""
    assert books.state.room(ALL).reserved == 5


def test_what_is_settled_is_settled() -> None:
    books = account(MemoryStore())
    books.reserve(WEEKLY, "w1", Decimal(5), (ALL,), at=1.0)
    books.close(WEEKLY, [Settle("w1", Decimal(2))], at=2.0)
    books.close(WEEKLY, [Settle("w1", Decimal(3)), Release("w1")], at=3.0)
    assert books.reserve(WEEKLY, "w1", Decimal(1), (), at=4.0) == "attempt w1 is settled already"
    assert (books.state.room(ALL).spent, books.state.room(ALL).reserved, books.state.entry) == (2, 0, 2)


def test_a_released_attempt_may_be_reserved_again() -> None:
    books = account(MemoryStore())
    books.reserve(WEEKLY, "w1", Decimal(5), (ALL,), at=1.0)
    books.close(WEEKLY, [Release("w1")], at=2.0)
    assert books.state.room(ALL).left == 5
    assert books.reserve(WEEKLY, "w1", Decimal(4), (ALL,), at=3.0) == ""
    assert books.state.room(ALL).left == 1


def test_what_was_reserved_anew_since_it_was_looked_at_is_not_released() -> None:
    store = MemoryStore()
    mine, tidy = account(store), account(store, "tidy")
    mine.reserve(WEEKLY, "w1", Decimal(5), (ALL,), at=1.0)
    seen = tidy.refresh()
    mine.reserve(WEEKLY, "w1", Decimal(5), (ALL,), at=2.0)
    tidy.close(WEEKLY, [Release("w1")], at=3.0, seen=seen)
    assert list(account(store).refresh().open) == ["w1"]
    tidy.close(WEEKLY, [Release("w1")], at=4.0, seen=tidy.refresh())
    assert not account(store).refresh().open


def test_caps_count_their_own_jobs_and_tags_only() -> None:
    books = account(MemoryStore())
    team = Cap("search team", Decimal(1), "lowtide.yaml:4", tags={"team": "search"})
    own = job_caps("daily", Decimal("0.50"))
    assert books.reserve(WEEKLY, "w1", Decimal(1), (team, *own), at=1.0) == ""
    assert books.reserve(DAILY, "d1", Decimal("0.50"), (team, *own), at=1.0) == ""
    assert books.reserve(DAILY, "d2", Decimal("0.01"), (team, *own), at=1.0).startswith(
        "month_usd 0.50 USD of job daily is used up"
    )
    assert books.reserve(WEEKLY, "w2", Decimal("0.01"), (team, *own), at=1.0).startswith("cap 'search team'")


def test_a_cap_that_comes_later_counts_what_was_spent_before() -> None:
    books = account(MemoryStore())
    assert books.reserve(WEEKLY, "w1", Decimal(4), (), at=1.0) == ""
    books.close(WEEKLY, [Settle("w1", Decimal(4))], at=2.0)
    assert books.reserve(WEEKLY, "w2", Decimal(2), (ALL,), at=3.0)


def test_closing_what_was_never_reserved_keeps_what_it_cost() -> None:
    books = account(MemoryStore())
    books.close(WEEKLY, [Settle("w1/surplus", Decimal(2)), Settle("w2", Decimal(0)), Release("w3")], at=1.0)
    assert list(books.state.lines) == ["w1/surplus"]
    assert books.state.room(ALL).spent == 2


def test_a_late_reader_needs_few_entries() -> None:
    store = MemoryStore()
    books = Account(store, "2026-11", "me", snapshot_every=4)
    for number in range(10):
        books.reserve(WEEKLY, f"w{number}", Decimal("0.1"), (ALL,), at=1.0)
    for path in [path for path in store.objects if "/entries/" in path and path[-6] in "1234567"]:
        del store.objects[path]
    assert account(store).refresh() == books.state
    store.objects["budget/2026-11/snapshots/000008.json"] = b"{"
    store.objects["budget/2026-11/entries/000001.json"] = b'{"what": 1}'
    with pytest.raises(CorruptJournal, match=r"entries/000001\.json"):
        account(store).refresh()


def test_months_are_those_of_utc() -> None:
    last = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    assert (month_of(last), month_of(last + 1)) == ("2026-11", "2026-12")
    assert months_between(last, last + 40 * 86_400) == ["2026-11", "2026-12", "2027-01"]
    assert months_between(last, last) == ["2026-11"]
    assert months_between(last, last - 40 * 86_400) == ["2026-11"]
