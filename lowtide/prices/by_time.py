"""What tokens come to where machines are paid by the hour: for plans and reservations. The ledger goes by the clock."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from lowtide.prices.price import Price

_HOUR = Decimal(3600)
_STEP = Decimal(1).scaleb(-12)


LEAST_SECONDS = 600
"""Seconds of a worker that are reserved for a batch at least: as long as one request may take.

A pace is that of many requests at a time. A few take longer by it, and so do the waiting and the ending of a worker.
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens that one machine gets through in a second, read and written ones together, and how that is known."""

    tokens_per_second: float
    source: str


_PUBLISHED = {
    "g6": Pace(
        2_140,
        "first guess: Qwen2.5-7B in bf16 on one L4, published 2026 at "
        "nicolas-richard.github.io/posts/how-much-can-two-nvidia-l4s-serve.html",
    ),
    "g5": Pace(
        1_320,
        "first guess: Llama-3-8B in bf16, half of what two A10G did, published 2024 at "
        "github.com/arc53/llm-price-compass/issues/6",
    ),
}


def guess(machine: str) -> Pace | None:
    """A published figure for machines of this family, of models of 7 to 8 billion parameters; None if none is known."""
    return _PUBLISHED.get(machine.partition(".")[0])


def price_by_time(
    usd_per_hour: Decimal,
    pace: Pace | None,
    *,
    price_id: str,
    source: str,
    boot_seconds: float,
    longest_start: float = 0.0,
) -> Price:
    """What tokens come to on a machine at this price, input and output alike, rounded up to steps of 1e-12 USD.

    A machine is expected to be ready after `boot_seconds`, and may take `longest_start` seconds. Without a pace it must
    cost nothing.
    """
    each = Decimal(0)
    if pace is not None:
        each = (usd_per_hour / _HOUR / Decimal(pace.tokens_per_second)).quantize(_STEP, ROUND_CEILING)
        source = f"{source}; {pace.tokens_per_second:,.0f} tokens a second: {pace.source}"
    second = per_second(usd_per_hour)
    kinds = ("input", "cached_input", "output", "reasoning")
    speed = pace.tokens_per_second if pace else 0.0
    return Price(
        price_id,
        source,
        dict.fromkeys(kinds, each),
        by_time=True,
        fixed=second * round(boot_seconds),
        tokens_per_second=speed,
        least=second * LEAST_SECONDS,
        start=second * round(max(boot_seconds, longest_start)),
    )


def per_second(usd_per_hour: Decimal) -> Decimal:
    """The price of a second, rounded up to steps of 1e-12 USD."""
    return (usd_per_hour / _HOUR).quantize(_STEP, ROUND_CEILING)
