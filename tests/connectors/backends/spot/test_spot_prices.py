from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from botocore.stub import ANY, Stubber
from servers import aws

from lowtide.connectors.backends.spot.aws import Aws, connect
from lowtide.connectors.backends.spot.spot_prices import SpotPrices
from lowtide.errors import Terminal, Transient

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ZONE = "us-east-1a"


def entry(at: datetime, price: str, zone: str = ZONE, instance: str = "g6.xlarge") -> dict[str, object]:
    """As EC2 answers it."""
    return {
        "AvailabilityZone": zone,
        "AvailabilityZoneId": "use1-az1",
        "InstanceType": instance,
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": price,
        "Timestamp": at,
    }


class Desk:
    """EC2 with answers laid out beforehand, by botocore's own stubber: moto knows one price, of 2006."""

    def __init__(self) -> None:
        self.aws: Aws = connect("us-east-1", aws.environ("http://127.0.0.1:9"))
        self.stub = Stubber(cast("Any", self.aws.client("ec2")))
        self.now = NOON
        self.prices = SpotPrices(self.aws, clock=lambda: self.now)

    def answers(self, entries: Sequence[dict[str, object]], token: str = "", **asked: object) -> None:
        expected = {
            "InstanceTypes": ["g6.xlarge"],
            "ProductDescriptions": ANY,
            "StartTime": ANY,
            "MaxResults": ANY,
            "Filters": ANY,
            **asked,
        }
        self.stub.add_response(
            "describe_spot_price_history",
            {"SpotPriceHistory": list(entries), "NextToken": token},
            {name: value for name, value in expected.items() if value is not None},
        )


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    with made.stub:
        yield made
    made.stub.assert_no_pending_responses()


def test_moto_knows_one_price_since_2006(moto_url: str) -> None:
    prices = SpotPrices(connect("us-east-1", aws.environ(moto_url)))
    assert prices.usd_per_hour("g6.xlarge", ZONE, NOON) == Decimal("0.00001")
    assert prices.usd_per_hour("g6.xlarge", ZONE, datetime(2005, 1, 1, tzinfo=UTC)) is None
    assert prices.usd_per_hour("g6.xlarge", "us-east-1z", NOON) is None
    assert prices.dearest_now("g6.xlarge") == Decimal("0.00001")
    assert prices.dearest_now("z9.xlarge") is None


def test_the_price_in_force_is_that_of_the_last_change_at_or_before(desk: Desk) -> None:
    first, second = NOON - timedelta(hours=3), NOON - timedelta(hours=1)
    desk.answers([entry(second, "0.402300"), entry(first, "0.391700")])

    def price(at: datetime) -> Decimal | None:
        return desk.prices.usd_per_hour("g6.xlarge", ZONE, at)

    assert price(first) == Decimal("0.391700")
    assert price(second - timedelta(seconds=1)) == Decimal("0.391700")
    assert price(second) == Decimal("0.402300")
    assert price(NOON) == Decimal("0.402300")
    assert price(first - timedelta(seconds=1)) is None


def test_the_seconds_of_a_stretch_are_told_by_the_price_that_was_in_force_when_each_began(desk: Desk) -> None:
    changes = [(10.5, "0.5"), (20, "0.5"), (40, "0.6"), (40.2, "0.7"), (40.9, "0.8"), (100, "0.9")]
    desk.answers(
        [entry(NOON - timedelta(hours=1), "0.4"), *(entry(NOON + timedelta(seconds=s), p) for s, p in changes)]
    )
    desk.now = NOON + timedelta(hours=1)

    def course(after: float, seconds: int) -> list[tuple[int, str]]:
        begun = NOON + timedelta(seconds=after)
        return [(count, str(price)) for count, price in desk.prices.course("g6.xlarge", ZONE, begun, seconds)]

    assert course(0, 1) == [(1, "0.4")]
    assert course(0, 11) == [(11, "0.4")]
    assert course(0, 60) == [(11, "0.4"), (29, "0.5"), (1, "0.6"), (19, "0.8")]
    assert course(40.5, 100) == [(1, "0.7"), (59, "0.8"), (40, "0.9")]
    assert course(100, 3600) == [(3600, "0.9")]
    assert course(-7200, 3600) == []


def test_a_price_is_taken_to_the_last_digit(desk: Desk) -> None:
    desk.answers([entry(NOON, "0.1000000000000000055511151231257827")])
    assert str(desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON)) == "0.1000000000000000055511151231257827"


def test_every_page_is_read_empty_ones_included(desk: Desk) -> None:
    desk.answers([entry(NOON, "0.5")], token="two")
    desk.answers([], token="three", NextToken="two")
    desk.answers([entry(NOON - timedelta(hours=2), "0.4")], NextToken="three")
    assert desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON - timedelta(hours=1)) == Decimal("0.4")


def test_what_was_asked_once_is_not_asked_again_until_time_has_passed(desk: Desk) -> None:
    desk.answers([entry(NOON - timedelta(hours=5), "0.5")])
    for minutes in (0, 60, 240):
        assert desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON - timedelta(minutes=minutes)) == Decimal("0.5")
    desk.now = NOON + timedelta(hours=1)
    assert desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON) == Decimal("0.5")
    desk.answers([entry(NOON + timedelta(minutes=30), "0.6"), entry(NOON - timedelta(hours=5), "0.5")])
    assert desk.prices.usd_per_hour("g6.xlarge", ZONE, desk.now) == Decimal("0.6")


def test_an_earlier_day_is_asked_for_from_its_beginning(desk: Desk) -> None:
    desk.answers([entry(NOON, "0.5")], StartTime=NOON.replace(hour=0))
    desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON)
    day = (NOON - timedelta(days=2)).replace(hour=0)
    desk.answers([entry(day - timedelta(hours=1), "0.3"), entry(NOON, "0.5")], StartTime=day)
    assert desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON - timedelta(days=2)) == Decimal("0.3")
    assert desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON) == Decimal("0.5")


def test_other_zones_and_types_are_other_prices(desk: Desk) -> None:
    desk.answers([entry(NOON, "0.9", zone="us-east-1b"), entry(NOON, "0.8", instance="g5.xlarge"), entry(NOON, "0.5")])
    assert desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON) == Decimal("0.5")


def test_the_dearest_zone_counts_and_only_what_it_costs_now(desk: Desk) -> None:
    desk.answers(
        [
            entry(NOON - timedelta(days=1), "9.9"),
            entry(NOON - timedelta(hours=1), "0.5"),
            entry(NOON - timedelta(hours=1), "0.7", zone="us-east-1b"),
        ],
        Filters=None,
    )
    assert desk.prices.dearest_now("g6.xlarge") == Decimal("0.7")
    desk.now = NOON + timedelta(minutes=4)
    assert desk.prices.dearest_now("g6.xlarge") == Decimal("0.7")
    desk.now = NOON + timedelta(minutes=6)
    desk.answers([entry(NOON + timedelta(minutes=5), "0.8")], Filters=None)
    assert desk.prices.dearest_now("g6.xlarge") == Decimal("0.8")


@pytest.mark.parametrize("price", ["", "free", "NaN", "-1", "Infinity"])
def test_a_price_that_is_none_is_not_taken_for_one(desk: Desk, price: str) -> None:
    desk.answers([entry(NOON, price)])
    with pytest.raises(Transient, match="cannot be read"):
        desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON)


def test_a_missing_permission_is_named(desk: Desk) -> None:
    desk.stub.add_client_error("describe_spot_price_history", "UnauthorizedOperation", "no", 403)
    with pytest.raises(Terminal, match="ec2:DescribeSpotPriceHistory"):
        desk.prices.usd_per_hour("g6.xlarge", ZONE, NOON)
