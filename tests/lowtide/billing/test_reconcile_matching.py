"""Matching as a pure function: whatever the days and quantities, equal bills have no drift and nothing gets lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lowtide.billing.bill import BillLine
from lowtide.billing.matching import Comparison, Span, Spent, match

FIRST = date(2026, 11, 1)
SPAN = Span(FIRST, FIRST + timedelta(days=29))
PRICE = Decimal("0.000000075")


def spent(number: int, start: int, days: int, quantity: int, **changes: object) -> Spent:
    """A batch's entry: `start` and `days` in days of November."""
    made = Spent(
        entry_id=f"e{number:04}",
        job="j",
        window="w",
        run_id="r",
        waste="",
        shard=number,
        attempt=1,
        backend="bedrock",
        provider="aws",
        region="us-east-1",
        model="amazon.nova-lite-v1:0",
        batch_id=f"b{number}",
        token_type="input",
        mode="batch",
        quantity=quantity,
        unit_price=PRICE,
        start=FIRST + timedelta(days=start),
        end=FIRST + timedelta(days=start + days),
        tags={},
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # by name, in tests


def line(row: int, day: int, quantity: int, **changes: object) -> BillLine:
    """A line of so many input tokens of Nova Lite, on a day of November."""
    start = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC) + timedelta(days=day)
    made = BillLine(
        file="bill.csv",
        row=row,
        provider="aws",
        account="1",
        sub_account="2",
        billing_month=FIRST,
        service="AmazonBedrock",
        start=start,
        end=start + timedelta(days=1),
        region="us-east-1",
        model="amazon.nova-lite",
        token_type="input",
        mode="batch",
        quantity=quantity,
        cost=PRICE * quantity,
        currency="USD",
        tags={},
        words="USE1-NovaLite-input-tokens-batch",
        operation="",
        resource="",
        description="",
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # by name, in tests


batches = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 3), st.integers(1, 10**7)), min_size=1, max_size=12)


def ledger_of(drawn: list[tuple[int, int, int]]) -> list[Spent]:
    return [spent(number, *batch) for number, batch in enumerate(drawn)]


def by_day(charged: list[tuple[int, int]]) -> list[BillLine]:
    """One line for each day."""
    days: dict[int, int] = {}
    for day, quantity in charged:
        days[day] = days.get(day, 0) + quantity
    return [line(row, day, quantity) for row, (day, quantity) in enumerate(sorted(days.items()), start=2) if quantity]


def drifted(found: list[Comparison]) -> list[Comparison]:
    return [each for each in found if each.kind != "equal"]


@given(batches, st.data())
def test_what_is_billed_over_the_days_of_its_batches_is_equal(
    drawn: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    charged = []
    for start, days, quantity in drawn:
        left = quantity
        for day in range(start, start + days + 1):
            part = data.draw(st.integers(0, left))
            charged.append((day, part))
            left -= part
        charged.append((start + days + 1, left))
    assert drifted(match(by_day(charged), ledger_of(drawn), SPAN)) == []


@given(batches, st.data())
def test_the_line_that_was_changed_is_the_one_that_is_named(
    drawn: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    lines = by_day([(start, quantity) for start, _, quantity in drawn])
    at = data.draw(st.integers(0, len(lines) - 1))
    change = data.draw(st.integers(1 - lines[at].quantity, 10**7))
    assume(change)
    lines[at] = replace(lines[at], quantity=lines[at].quantity + change, cost=lines[at].cost + PRICE * change)
    [found] = drifted(match(lines, ledger_of(drawn), SPAN))
    assert (found.kind, found.line, found.tokens, found.usd) == ("changed", lines[at], change, PRICE * change)


@given(batches, st.data())
def test_a_day_that_is_missing_is_the_one_that_is_named(drawn: list[tuple[int, int, int]], data: st.DataObject) -> None:
    lines = by_day([(start, quantity) for start, _, quantity in drawn])
    lost = lines.pop(data.draw(st.integers(0, len(lines) - 1)))
    found = drifted(match(lines, ledger_of(drawn), SPAN))
    assert {each.kind for each in found} == {"missing"}
    assert {share.spent.start for each in found for share in each.shares} == {lost.first_day}
    assert sum(each.tokens for each in found) == -lost.quantity


@given(batches, st.integers(1, 10**7))
def test_a_line_of_a_model_that_was_not_used_is_extra(drawn: list[tuple[int, int, int]], quantity: int) -> None:
    lines = by_day([(start, quantity) for start, _, quantity in drawn])
    lines.append(line(99, 3, quantity, model="amazon.nova-pro"))
    [found] = drifted(match(lines, ledger_of(drawn), SPAN))
    assert (found.kind, found.line, found.tokens) == ("extra", lines[-1], quantity)


charges = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 10**7)), max_size=12)
regions, modes = st.sampled_from(["us-east-1", "us-west-2", ""]), st.sampled_from(["batch", "on_demand", ""])
tags = st.dictionaries(st.sampled_from(["team", "project"]), st.sampled_from(["a", "b"]))


@settings(max_examples=200)
@given(batches, charges, st.data())
def test_whatever_a_bill_says_nothing_is_lost_and_nothing_counts_twice(
    drawn: list[tuple[int, int, int]], charged: list[tuple[int, int]], data: st.DataObject
) -> None:
    lines = [
        line(row, day, quantity, region=data.draw(regions), mode=data.draw(modes), tags=data.draw(tags))
        for row, (day, quantity) in enumerate(charged)
    ]
    ledger = [replace(each, region=data.draw(regions), tags=data.draw(tags)) for each in ledger_of(drawn)]

    found = match(lines, ledger, SPAN)

    assert [each.line for each in found if each.line] == lines
    matched: dict[str, int] = {}
    for each in found:
        for share in each.shares:
            assert share.quantity > 0
            matched[share.spent.entry_id] = matched.get(share.spent.entry_id, 0) + share.quantity
            if each.line:
                assert each.line.region in ("", share.spent.region) or not share.spent.region
                assert each.line.mode in ("", share.spent.mode)
                assert all(share.spent.tags.get(name, value) == value for name, value in each.line.tags.items())
                assert share.spent.start <= each.line.first_day <= share.spent.end + timedelta(days=1)
    assert matched == {each.entry_id: each.quantity for each in ledger}
    billed = sum(each.quantity for each in lines)
    assert sum(each.tokens for each in found) == billed - sum(each.quantity for each in ledger)
    assert match(list(reversed(lines)), list(reversed(ledger)), SPAN) == found


def test_batches_of_one_day_with_lines_of_their_own_are_told_apart() -> None:
    ledger = [spent(1, 4, 0, 100), spent(2, 4, 0, 70), spent(3, 4, 0, 30)]
    lines = [line(2, 4, 100, resource="x"), line(3, 4, 71, resource="y"), line(4, 4, 30, resource="z")]
    [found] = drifted(match(lines, ledger, SPAN))
    assert (found.kind, found.tokens) == ("changed", 1)
    assert found.line == lines[1]
    assert [share.spent.shard for share in found.shares] == [2]


def test_lines_with_tags_choose_before_lines_without() -> None:
    ledger = [spent(1, 4, 0, 100, tags={"team": "a"}), spent(2, 4, 0, 50)]
    lines = [line(2, 4, 50), line(3, 4, 100, tags={"user_team": "a"})]
    assert drifted(match(lines, ledger, SPAN)) == []


def test_reasoning_is_billed_as_output_and_waste_as_what_it_was() -> None:
    ledger = [
        spent(1, 4, 0, 60, token_type="output"),
        spent(1, 4, 0, 30, token_type="reasoning", entry_id="r"),
        spent(1, 4, 0, 10, token_type="output", waste="lost", entry_id="w"),
    ]
    [found] = match([line(2, 4, 100, token_type="output")], ledger, SPAN)
    assert (found.kind, sorted(share.quantity for share in found.shares)) == ("equal", [10, 30, 60])


def test_a_profile_of_ones_own_is_known_by_its_arn() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    lines = [line(2, 4, 100), line(3, 4, 9, resource=arn)]
    found = match(lines, [spent(1, 4, 0, 100), spent(2, 4, 0, 9, model=arn)], SPAN)
    assert drifted(found) == []
    assert [share.spent.model for share in found[1].shares] == [arn]


def test_batches_of_another_account_are_not_for_this_line() -> None:
    ledger = [spent(1, 4, 0, 100, account="3")]
    assert [each.kind for each in match([line(2, 4, 100)], ledger, SPAN)] == ["extra", "missing"]


def test_rounding_in_the_bill_is_no_other_price() -> None:
    rounded = line(2, 4, 100, cost=PRICE * 100 + Decimal("0.0000000009"))
    dearer = line(2, 4, 100, cost=PRICE * 100 + Decimal("0.0000000011"))
    assert [each.kind for each in match([rounded], [spent(1, 4, 0, 100)], SPAN)] == ["equal"]
    assert [each.kind for each in match([dearer], [spent(1, 4, 0, 100)], SPAN)] == ["price"]
