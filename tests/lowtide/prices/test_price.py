"""A price is exact, to a millionth of a millionth of a dollar, or it is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.errors import ConfigError
from lowtide.prices import LOCAL, Price

prices = st.integers(0, 10**13).map(lambda pico: Decimal(pico).scaleb(-12))


@given(st.dictionaries(st.sampled_from(["input", "output", "cached_input"]), prices), st.integers(0, 10**12))
def test_an_amount_is_tokens_times_price_to_the_last_decimal(per_unit: dict[str, Decimal], quantity: int) -> None:
    price = Price("p", "test", per_unit)
    exact = sum(int(each.scaleb(12)) * quantity for each in per_unit.values())
    assert int(price.amount(dict.fromkeys(per_unit, quantity)).scaleb(12)) == exact
    assert sum(price.pico(kind) * quantity for kind in per_unit) == exact


@pytest.mark.parametrize(
    "each",
    ["-1", "-0.000000000001", "0.0000000000001", "1e-13", "0.1234567890123", "NaN", "sNaN", "Infinity", "-Infinity"],
)
def test_a_price_that_the_ledger_could_not_hold_is_refused(each: str) -> None:
    with pytest.raises(ConfigError, match="input costs"):
        Price("p", "test", {"input": Decimal(each)})


def test_what_has_no_price_costs_nothing() -> None:
    assert LOCAL.amount({"input": 10**9, "output": 1}) == 0
    assert Price("p", "test", {"input": Decimal(1)}).unit("output") == 0
