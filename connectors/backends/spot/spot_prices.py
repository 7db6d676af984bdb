"""What an EC2 Spot instance costs an hour, now and in the past: DescribeSpotPriceHistory, which goes back 90 days.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

import msgspec

from lowtide.connectors.backends.aws.failures import translated
from lowtide.connectors.backends.spot.aws import Aws, read
from lowtide.errors import Transient

_PERMISSION = "ec2:DescribeSpotPriceHistory to this identity"
# What has no network of its own is sold under the first name, and instances of old accounts under the second.
_PRODUCTS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")
_PAGE = 1000
_FRESH = timedelta(minutes=5)


class _Entry(msgspec.Struct, rename="pascal", frozen=True):
    availability_zone: str
    instance_type: str
    product_description: str
    spot_price: str
    timestamp: datetime


class _Page(msgspec.Struct, rename="pascal", frozen=True):
    spot_price_history: list[_Entry] = []
    next_token: str | None = None


@dataclass(frozen=True, slots=True)
class _History:
    """Changes of the price, the oldest first: all that were made between `since` and `until`, and the one before."""

    since: datetime
    until: datetime
    times: tuple[datetime, ...]
    prices: tuple[Decimal, ...]

    def course(self, begun: datetime, seconds: int) -> Iterator[tuple[int, Decimal]]:
        behind = bisect_right(self.times, begun)
        if not behind:
            return
        past, price = 0, self.prices[behind - 1]
        for time, new in zip(self.times[behind:], self.prices[behind:], strict=True):
            until = min(seconds, math.ceil((time - begun).total_seconds()))
            if new == price or until == past:
                price = new
                continue
            yield until - past, price
            past, price = until, new
        if past < seconds:
            yield seconds - past, price


class SpotPrices:
    """The Spot prices of one region, for Linux, in USD. What was asked once is kept. May be used by threads."""

    def __init__(self, aws: Aws, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._aws = aws
        self._clock = clock
        self._kept: dict[tuple[str, str], _History] = {}
        self._dearest: dict[str, tuple[datetime, Decimal | None]] = {}
        self._lock = threading.Lock()

    def usd_per_hour(self, instance_type: str, zone: str, at: datetime) -> Decimal | None:
        """The price in force at that time (aware) in an availability zone such as `us-east-1a`.

        That of the last change at or before it; None where AWS tells of none. Raises Transient or Terminal.
        """
        return next((price for _, price in self.course(instance_type, zone, at, 1)), None)

    def course(self, instance_type: str, zone: str, begun: datetime, seconds: int) -> list[tuple[int, Decimal]]:
        """So many seconds from `begun` (aware) on: how many of them, one after the other, were at which price.

        A second costs what was in force when it began. Empty where AWS tells of no price at `begun`. Raises as above.
        """
        history = self._history(instance_type, zone, begun, begun + timedelta(seconds=seconds - 1))
        return list(history.course(begun, seconds))

    def dearest_now(self, instance_type: str) -> Decimal | None:
        """What it costs at most, in whichever zone of the region it is started; None where it is not sold.

        Asked for every five minutes at most. Raises Transient or Terminal.
        """
        with self._lock:
            now = self._clock()
            asked, price = self._dearest.get(instance_type, (None, None))
            if asked is not None and now - asked < _FRESH:
                return price
            found = [entry for entry in self._changes(instance_type, None, now) if entry.timestamp <= now]
            latest: dict[str, _Entry] = {}
            for entry in sorted(found, key=lambda one: one.timestamp):
                latest[entry.availability_zone] = entry
            price = max((_price(entry) for entry in latest.values()), default=None)
            self._dearest[instance_type] = now, price
            return price

    def _history(self, instance_type: str, zone: str, begun: datetime, last: datetime) -> _History:
        with self._lock:
            kept, now = self._kept.get((instance_type, zone)), self._clock()
            if kept is not None and kept.since <= begun and (last <= kept.until or now - kept.until < _FRESH):
                return kept
            # By whole days: shards of one day ask for many times of it.
            since = begun.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            if kept is not None:
                since = min(since, kept.since)
            changes = sorted(self._changes(instance_type, zone, since), key=lambda one: one.timestamp)
            made = _History(since, now, tuple(one.timestamp for one in changes), tuple(_price(one) for one in changes))
            self._kept[instance_type, zone] = made
            return made

    def _changes(self, instance_type: str, zone: str | None, since: datetime) -> Iterator[_Entry]:
        """All changes since then, and of each zone the last one before: so AWS answers a time of start."""
        asked: dict[str, object] = {
            "InstanceTypes": [instance_type],
            "ProductDescriptions": list(_PRODUCTS),
            "StartTime": since,
            "MaxResults": _PAGE,
        }
        if zone is not None:
            asked["Filters"] = [{"Name": "availability-zone", "Values": [zone]}]
        while True:
            with translated(f"look up the Spot price of {instance_type!r}", _PERMISSION):
                answer = self._aws.client("ec2").describe_spot_price_history(**asked)
            page = read(answer, _Page, "its Spot prices")
            for entry in page.spot_price_history:
                if entry.instance_type == instance_type and zone in {None, entry.availability_zone}:
                    yield entry
            if not page.next_token:
                return
            asked["NextToken"] = page.next_token


def _price(entry: _Entry) -> Decimal:
    try:
        price = Decimal(entry.spot_price)
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0:
        raise Transient(
            f"AWS answered, and the Spot price of {entry.instance_type!r} in {entry.availability_zone!r} cannot be "
            f"read: {entry.spot_price[:40]!r}"
        )
    return price
