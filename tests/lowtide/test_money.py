"""Money is shared out and multiplied to the last step, whatever its size."""

from __future__ import annotations

from decimal import Decimal, Inexact
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lowtide.money import allocate, amount_of, exact, product, rough, steps, total

totals = st.one_of(st.integers(-(10**6), 10**6), st.integers(-(2**62), 2**62))
weights = st.one_of(
    st.lists(st.integers(0, 5), min_size=1, max_size=40),
    st.lists(st.integers(0, 10**10), min_size=1, max_size=40),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=12),
)


def shared(size: int, by: list[int]) -> list[int]:
    found: list[int] = allocate(size, np.array(by, dtype=np.int64)).tolist()
    return found


@given(totals, weights)
@example(2**62, [2**62] * 5)
@example(10**13, [3, 3, 3, 10**9])
@example(-7, [1, 1, 1])
@example(2**53 + 1, [1])
@example(1 << 55, [1 << 40, 1])
def test_shares_are_the_whole_and_each_is_its_part_but_for_one_step(size: int, by: list[int]) -> None:
    shares = shared(size, by)
    parts = by if any(by) else [1] * len(by)
    assert sum(shares) == size
    for share, part in zip(shares, parts, strict=True):
        assert abs(share - Fraction(size * part, sum(parts))) < 1


@given(st.integers(0, 2**62), weights)
@example(2**62, [2**61, 2**61 - 1, 1])
def test_what_is_left_over_goes_to_the_largest_remainders_and_then_to_the_first(size: int, by: list[int]) -> None:
    shares = shared(size, by)
    parts = by if any(by) else [1] * len(by)
    whole = sum(parts)
    raised = [share - size * part // whole for share, part in zip(shares, parts, strict=True)]
    remainders = [size * part % whole for part in parts]
    order = sorted(range(len(by)), key=lambda place: (-remainders[place], place))
    assert [raised[place] for place in order] == sorted(raised, reverse=True)
    assert set(raised) <= {0, 1}


@given(totals, weights)
def test_who_weighs_more_never_gets_less(size: int, by: list[int]) -> None:
    shares = shared(abs(size), by)
    for one, share in zip(by, shares, strict=True):
        assert all(share >= other for weight, other in zip(by, shares, strict=True) if weight < one)


@given(totals, weights)
def test_a_correction_is_shared_out_like_what_it_takes_back(size: int, by: list[int]) -> None:
    assert shared(-size, by) == [-share for share in shared(size, by)]


def test_without_weights_the_shares_are_equal_and_the_first_take_the_rest() -> None:
    assert shared(8, [0, 0, 0]) == [3, 3, 2]
    assert shared(-8, [0, 0, 0]) == [-3, -3, -2]


def test_a_document_that_weighs_nothing_costs_nothing() -> None:
    assert shared(100, [0, 1, 0, 2]) == [0, 33, 0, 67]


def test_a_hundred_thousand_documents_are_quick_and_exact() -> None:
    by = np.arange(100_000, dtype=np.int64) * 12_345_679
    size = 987_654_321_987_654_321
    shares = allocate(size, by)
    assert sum(shares.tolist()) == size


def test_a_total_beyond_64_bits_is_shared_out_among_many() -> None:
    shares = allocate(2**69 + 5, np.ones(2**20, dtype=np.int64))
    assert shares[:6].tolist() == [2**49 + 1] * 5 + [2**49]
    assert sum(shares.tolist()) == 2**69 + 5


def test_nobody_to_take_it_is_an_error() -> None:
    assert shared(0, []) == []
    with pytest.raises(ValueError, match="5 cannot be shared out"):
        shared(5, [])
    with pytest.raises(ValueError, match="weight -1 is below 0"):
        shared(5, [3, -1])


def test_a_share_that_no_column_could_hold_is_an_error() -> None:
    assert shared(2**64, [1, 1, 1, 1]) == [2**62] * 4
    with pytest.raises(OverflowError):
        shared(2**64, [1])


@given(st.integers(-(10**37), 10**37))
def test_steps_and_amounts_are_the_same_thing(count: int) -> None:
    assert steps(amount_of(count)) == count
    assert amount_of(count).as_tuple().exponent == -12


@given(st.integers(0, 10**20), st.integers(-(2**63), 2**63 - 1))
def test_a_product_is_never_rounded(price: int, quantity: int) -> None:
    assert steps(product(amount_of(price), quantity)) == price * quantity


@given(st.lists(st.integers(-(10**37), 10**37), max_size=9))
def test_a_sum_is_never_rounded(counts: list[int]) -> None:
    assert steps(total(map(amount_of, counts))) == sum(counts)


def test_an_amount_finer_than_the_tables_hold_is_an_error() -> None:
    with pytest.raises(Inexact):
        steps(Decimal("0.0000000000001"))


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "0.00"),
        ("5", "5.00"),
        ("4.8", "4.80"),
        ("1E+3", "1,000.00"),
        ("1234.500000000000", "1,234.50"),
        ("0.000000000001", "0.000000000001"),
    ],
)
def test_exact_money_hides_nothing(usd: str, text: str) -> None:
    assert exact(Decimal(usd)) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "0.00"),
        ("1234.5678", "1,234.57"),
        ("0.0062", "0.0062"),
        ("0.00001234", "0.0000123"),
        ("-0.5", "-0.50"),
        ("0.99999", "1.00"),
    ],
)
def test_money_to_read_has_the_digits_that_it_needs(usd: str, text: str) -> None:
    assert rough(Decimal(usd)) == text


def test_a_sum_keeps_every_digit_of_the_tables() -> None:
    large, small = Decimal("99999999999999999999999999.0"), Decimal("0.000000000001")
    assert str(total((large, small))) == "99999999999999999999999999.000000000001"
