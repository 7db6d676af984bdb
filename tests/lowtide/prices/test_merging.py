"""New prices end old ones on their own first day; no day loses its price, and none gets two."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from lowtide.prices.entries import Entry, encode, problems
from lowtide.prices.merging import chained, differences, merge

DAY = date(2026, 11, 21)
LATER = DAY + timedelta(days=7)


def entry(price: str = "0.1", first: date = DAY, last: date | None = None, kind: str = "input") -> Entry:
    return Entry("aws", "nova", "r", "batch", kind, price, first, "a list", last)  # type: ignore[arg-type]


def price_on(entries: Sequence[Entry], day: date, kind: str = "input") -> str | None:
    return next((each.usd for each in entries if each.token_type == kind and each.holds(day)), None)


def test_a_changed_price_ends_the_old_one_and_keeps_it() -> None:
    merged = merge([entry("0.1")], [entry("0.2", LATER)])

    assert merged.entries == (entry("0.1", DAY, LATER), entry("0.2", LATER))
    assert [(each.before, each.after) for each in merged.changed] == [(entry("0.1"), entry("0.2", LATER))]
    assert merged.changed[0].percent == 100


def test_the_same_price_again_changes_nothing() -> None:
    merged = merge([entry("0.10")], [entry("0.1", LATER)])

    assert (merged.entries, merged.unchanged) == ((entry("0.10"),), 1)


def test_an_end_that_a_source_states_is_kept_and_one_that_it_takes_back_is_not() -> None:
    ended = merge([entry("0.1")], [entry("0.1", LATER, LATER + timedelta(days=9))])
    goes_on = merge(ended.entries, [entry("0.1", LATER)])

    assert ended.entries == (entry("0.1", DAY, LATER + timedelta(days=9)),)
    assert goes_on.entries == (entry("0.1"),)


def test_a_price_that_is_corrected_on_its_first_day_is_replaced() -> None:
    assert merge([entry("0.1")], [entry("0.2")]).entries == (entry("0.2"),)


def test_what_is_not_stated_again_stays() -> None:
    merged = merge([entry("0.1"), entry("0.3", kind="output")], [entry("0.2", LATER)])

    assert price_on(merged.entries, LATER, "output") == "0.3"


def test_a_price_that_is_known_to_come_is_not_lost() -> None:
    to_come = LATER + timedelta(days=30)
    merged = merge([entry("0.1", DAY, to_come), entry("0.5", to_come)], [entry("0.2", LATER)])

    assert [price_on(merged.entries, day) for day in (DAY, LATER, to_come)] == ["0.1", "0.2", "0.5"]


def test_prices_from_different_days_on_each_end_where_the_next_begins() -> None:
    assert chained([entry("0.2", LATER), entry("0.1")]) == [entry("0.1", DAY, LATER), entry("0.2", LATER)]


days = st.integers(0, 12).map(lambda number: DAY + timedelta(days=number))
amounts = st.sampled_from(["0.1", "0.2", "0.3"])


@st.composite
def spans(draw: st.DrawFn) -> list[Entry]:
    """Prices of one thing that never overlap, with gaps between some, and an end or none."""
    marks = sorted(draw(st.sets(days, max_size=6)))
    ends = [*marks[1:], None] if marks else []
    pairs = [(first, last) for first, last in zip(marks, ends, strict=True) if draw(st.booleans())]
    return [entry(draw(amounts), first, last) for first, last in pairs]


@given(spans(), st.lists(st.tuples(days, amounts), max_size=4, unique_by=lambda each: each[0]))
def test_merging_keeps_every_day_s_price_but_those_that_are_stated_anew(
    old: list[Entry], statements: list[tuple[date, str]]
) -> None:
    known = old
    for first, price in sorted(statements):
        merged = merge(known, [entry(price, first)]).entries
        assert problems(encode(DAY, [], merged), "b") == []
        assert price_on(merged, first) == price
        for number in range(14):
            day = DAY + timedelta(days=number)
            if day < first:
                assert price_on(merged, day) == price_on(known, day)
        known = list(merged)


@given(spans(), st.tuples(days, amounts))
def test_merging_the_same_again_changes_nothing(old: list[Entry], statement: tuple[date, str]) -> None:
    once = merge(old, [entry(statement[1], statement[0])])
    again = merge(once.entries, [entry(statement[1], statement[0])])

    assert again.entries == once.entries
    assert (again.added, again.changed) == ((), ())


def test_books_differ_in_the_prices_that_stand_last() -> None:
    old = [entry("0.1"), entry("0.3", kind="output")]
    new = [entry("0.1", DAY, LATER), entry("0.15", LATER), entry("0.9", kind="reasoning")]
    found = {(each.after or each.before).token_type: each for each in differences(old, new)}  # type: ignore[union-attr]

    assert set(found) == {"input", "output", "reasoning"}
    assert found["input"].percent == Decimal(50)
    assert found["output"].after is None
    assert found["reasoning"].before is None
    assert differences(new, new) == []
