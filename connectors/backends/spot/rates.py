"""What an hour of a worker costs: what the job file says of own machines, and on AWS the Spot price of the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

import msgspec

from lowtide.connectors.backends.spot.accounts import Charge
from lowtide.errors import Terminal, Transient

if TYPE_CHECKING:
    from lowtide.connectors.backends.spot.spot_prices import SpotPrices

_PICO = Decimal("0.000000000001")
_HOUR = Decimal(3600)


class Rates(Protocol):
    """Prices of workers."""

    def priced(self, charge: Charge) -> Iterable[Charge]:
        """The charge with what a second of it has cost then and there, and where that is from.

        In several, one behind the other, where the price has changed meanwhile. Raises Transient or Terminal.
        """

    def most_per_hour(self) -> Decimal | None:
        """USD that one worker costs an hour at most, by today's prices; None where nobody knows. Raises Transient."""


@dataclass(frozen=True, slots=True)
class OwnRates:
    """The same for every second."""

    usd_per_hour: Decimal

    def priced(self, charge: Charge) -> Iterator[Charge]:
        source = f"{self.usd_per_hour:f} USD an hour, by the job file" if self.usd_per_hour else "a machine of your own"
        yield _at(charge, self.usd_per_hour, source)

    def most_per_hour(self) -> Decimal | None:
        return self.usd_per_hour


@dataclass(frozen=True, slots=True)
class SpotRates:
    """Those of AWS. `instances` are the types that may be started."""

    prices: SpotPrices
    instances: tuple[str, ...]

    def priced(self, charge: Charge) -> Iterator[Charge]:
        begun, past = datetime.fromtimestamp(charge.at, UTC), 0
        if charge.instance_type and charge.zone:
            source = f"AWS Spot price of {charge.instance_type} in {charge.zone}"
            for seconds, price in self.prices.course(charge.instance_type, charge.zone, begun, charge.seconds):
                part = msgspec.structs.replace(charge, seconds=seconds, at=charge.at + past)
                yield _at(part, price, source)
                past += seconds
        if past:
            return
        dearest = self._dearest((charge.instance_type,) if charge.instance_type else self.instances)
        if dearest is None:
            raise Transient(
                f"AWS tells no Spot price of {charge.instance_type or 'the instance types of this backend'}, so what "
                "its time has cost is not known yet"
            )
        what = charge.instance_type or "the dearest of instances, for a worker that could not say what it ran on"
        yield _at(charge, dearest, f"AWS Spot price of {what} now: none is told of that time and zone")

    def most_per_hour(self) -> Decimal | None:
        for instance in self.instances:
            if self.prices.dearest_now(instance) is None:
                raise Terminal(f"AWS tells no Spot price of {instance!r} there: is it misspelt, or not sold?")
        return self._dearest(self.instances)

    def _dearest(self, instances: tuple[str, ...]) -> Decimal | None:
        found = [self.prices.dearest_now(instance) for instance in instances]
        return max((price for price in found if price is not None), default=None)


def per_second(usd_per_hour: Decimal) -> Decimal:
    """An hour's price for a second, rounded to 1e-12 USD."""
    return (usd_per_hour / _HOUR).quantize(_PICO)


def _at(charge: Charge, usd_per_hour: Decimal, source: str) -> Charge:
    return msgspec.structs.replace(charge, usd_per_second=per_second(usd_per_hour), source=source)
