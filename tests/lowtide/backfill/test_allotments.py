"""Money for the runs of a backfill, in an account of its own."""

from __future__ import annotations

from decimal import Decimal

from support.standins import MemoryStore

from lowtide.backfill.allotments import Allotment, Allotments

RUN, OTHER = "runs/tides/2026-W01/0123456789abcdef", "runs/tides/2026-W02/fedcba9876543210"


def allotments(store: MemoryStore, cap: str) -> Allotments:
    return Allotments(store, "b1", "tides", {}, "me", cap=Decimal(cap), clock=lambda: 1_800_000_000.0)


def test_a_run_that_is_opened_again_may_spend_beyond_what_it_has_spent_thousands_included() -> None:
    store = MemoryStore()
    found = allotments(store, "5000")
    assert found.allot(RUN, most=Decimal(1500), least=Decimal(1), spent=Decimal(0)) is not None
    found.settle(RUN, Decimal("1234.5"))
    again = found.allot(RUN, most=Decimal(100), least=Decimal(1), spent=Decimal("1234.5"))
    assert again == Allotment(RUN, Decimal(100), Decimal("1234.5"))
    assert again.run_usd == Decimal("1334.5")
    assert [line.before for line in allotments(store, "5000").lines()] == [Decimal(0), Decimal("1234.5")]


def test_what_is_spent_and_allotted_never_passes_the_cap() -> None:
    found = allotments(MemoryStore(), "10")
    assert found.allot(RUN, most=Decimal(8), least=Decimal(1), spent=Decimal(0)) == Allotment(
        RUN, Decimal(8), Decimal(0)
    )
    assert found.allot(OTHER, most=Decimal(8), least=Decimal(3), spent=Decimal(0)) is None
    assert found.allot(OTHER, most=Decimal(8), least=Decimal(2), spent=Decimal(0)) == Allotment(
        OTHER, Decimal(2), Decimal(0)
    )
    found.settle(RUN, Decimal(1))
    assert (found.spent, found.left) == (Decimal(1), Decimal(7))
