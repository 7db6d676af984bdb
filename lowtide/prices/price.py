"""What a token costs. Money is Decimal, in USD, and never a float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from lowtide.errors import ConfigError

PICO = Decimal(10) ** 12
"""Amounts are kept in steps of 1e-12 USD: the scale of decimal128(38,12)."""


@dataclass(frozen=True)
class Price:
    """What one backend charges: USD for one unit of each token type. A type that is absent is not charged.

    `on_demand` is what the same backend charges for requests outside a batch; by default, the same. With `by_time` the
    bill goes by machine time, each batch at a price of its own: then `per_unit` is what tokens come to at a pace that
    was measured or guessed, `tokens_per_second`, good for plans and reservations, and `fixed` what a machine is
    expected to cost before its first answer. For a batch at least `least` is reserved, whatever its tokens come to, and
    `start` beside that where a machine may be started for it. Raises ConfigError for a price that is below zero, no
    finite number, or finer than 1e-12 USD: the ledger could not hold it exactly.
    """

    price_id: str
    source: str
    per_unit: Mapping[str, Decimal] = field(default_factory=dict)
    on_demand: Price | None = None
    by_time: bool = False
    fixed: Decimal = Decimal(0)
    tokens_per_second: float = 0.0
    least: Decimal = Decimal(0)
    start: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        for token_type, price in self.per_unit.items():
            if not price.is_finite() or price < 0 or price * PICO != (price * PICO).to_integral_value():
                raise ConfigError(
                    f"price {self.price_id!r}: {token_type} costs {price} USD a unit; "
                    "a price is zero or more, in steps of 0.000000000001"
                )

    def of(self, *, on_demand: bool) -> Price:
        """The price of what is asked on demand, or of what is asked in batches."""
        return self.on_demand or self if on_demand else self

    def unit(self, token_type: str) -> Decimal:
        """USD for one unit."""
        return self.per_unit.get(token_type, Decimal(0))

    def pico(self, token_type: str) -> int:
        """The same in whole steps of 1e-12 USD, for columns of integers."""
        return int(self.unit(token_type) * PICO)

    def at_most(self, size: int, records: int, longest: int, *, starting: bool) -> Decimal:
        """USD that a batch may cost: every byte a token, every answer as long as the `longest`, and a start if any."""
        asked = max(self.unit("input"), self.unit("cached_input"))
        answered = max(self.unit("output"), self.unit("reasoning"))
        tokens = asked * size + answered * records * longest
        return max(tokens, self.least) + (self.start if starting else Decimal(0))

    def amount(self, quantities: Mapping[str, int]) -> Decimal:
        """USD for so many units of each type."""
        return sum((self.unit(kind) * quantity for kind, quantity in quantities.items()), Decimal(0))


LOCAL = Price("local", "runs on your own machine")
"""The price of the `local` backend: nothing."""
