"""The cheapest backend that is done by the deadline; and in words, why it is none of the others."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.standins import SMALL, Provider, StandInBackend

from lowtide.billing.reading import UNPRICED
from lowtide.plan import Candidate, PlannedOption, Range
from lowtide.planning.choosing import Demand, Moments, choose, option, shards_of, span, unable
from lowtide.prices import Price
from lowtide.prices.by_time import Pace, price_by_time
from lowtide.records import Limits

HOUR = 3600.0
NOW = 1_800_000_000.0
MOMENTS = Moments(NOW, 60.0, NOW + 24 * HOUR)
TEN_TO_ONE = Demand(1000, 0, 0, 1_000_000, Range(90, 100, 110), Range(5, 10, 20), "counted")


def price(usd: str, realtime: str | None = None) -> Price:
    def of(amount: str, name: str, on_demand: Price | None = None) -> Price:
        return Price(name, "made up", {"input": Decimal(amount), "output": 2 * Decimal(amount)}, on_demand)

    return of(usd, "batch", None if realtime is None else of(realtime, "on demand"))


def candidate(usd: str = "0.01", realtime: str | None = "0.02", **limits: object) -> Candidate:
    return Candidate(StandInBackend(Provider(), limits=replace(SMALL, **limits)), price(usd, realtime))  # type: ignore[arg-type]


def planned(name: str, usd: str, hours: float, *, fits: bool | None = None) -> PlannedOption:
    made = option(candidate(), TEN_TO_ONE, MOMENTS, 100)
    finish = NOW + hours * HOUR
    fits = MOMENTS.fits(finish) if fits is None else fits
    values = {field: getattr(made, field) for field in made.__struct_fields__}
    return PlannedOption(
        **values | {"backend": name, "cost_usd": Decimal(usd), "finish": finish, "fits_deadline": fits}
    )


def test_cost_is_reckoned_at_both_ends_and_in_real_time_in_decimals() -> None:
    found = option(candidate(), TEN_TO_ONE, MOMENTS, 100)
    assert (found.cost_low_usd, found.cost_usd, found.cost_high_usd) == (
        Decimal("1.00"),
        Decimal("1.20"),
        Decimal("1.50"),
    )
    assert found.realtime_usd == Decimal("2.40")
    assert option(candidate(realtime=None), TEN_TO_ONE, MOMENTS, 100).realtime_usd is None


def machines(usd_per_hour: str, pace: float, records: int = 1000) -> Candidate:
    """A backend whose machines are paid by the hour."""
    limits = replace(SMALL, records=records, machines=4, boot_seconds=600.0)
    found = price_by_time(
        Decimal(usd_per_hour), Pace(pace, "yours"), price_id="g6.xlarge", source="spot", boot_seconds=600.0
    )
    return Candidate(StandInBackend(Provider(), limits=limits), found)


def test_machines_cost_their_boot_whatever_they_are_asked_and_take_as_long_as_their_tokens() -> None:
    demand = replace(TEN_TO_ONE, input=Range(90_000, 360_000, 500_000), output=Range(0, 0, 0))
    found = option(machines("0.36", 100), demand, MOMENTS, 500)
    assert found.fixed_usd == 2 * Decimal("0.06")
    assert found.cost_usd == Decimal("0.36") + found.fixed_usd
    assert found.finish == NOW + 60 + 600 + 360_000 / (100 * 2)
    assert "2 machines" in found.finish_basis
    nothing = option(machines("0.36", 100), replace(demand, requests=0, input=Range(0, 0, 0)), MOMENTS, 500)
    assert nothing.cost_usd == 0


@pytest.mark.parametrize(("allowed", "working"), [(None, 4), (9, 4), (3, 3), (1, 1), (0, 1)])
def test_no_more_machines_are_reckoned_with_than_a_cap_on_them_allows(allowed: int | None, working: int) -> None:
    demand = replace(TEN_TO_ONE, input=Range(90_000, 360_000, 500_000), output=Range(0, 0, 0))
    found = option(replace(machines("0.36", 100), machines=allowed), demand, MOMENTS, 100)
    assert found.fixed_usd == working * Decimal("0.06")
    assert found.finish == NOW + 60 + 600 + 360_000 / (100 * working)


def test_a_backend_whose_price_nobody_knows_is_compared_with_none() -> None:
    found = replace(machines("0", 100).price, price_id=f"machines of your own{UNPRICED}")
    unknown = option(replace(machines("0", 100), price=found), TEN_TO_ONE, MOMENTS, 100)
    choice = choose([option(candidate(), TEN_TO_ONE, MOMENTS, 1000), unknown], MOMENTS)
    other, best = choice.options
    assert best.chosen
    assert best.break_even == ""
    assert other.why_not == "1.20 USD; what stand-in costs is not known, and counts as nothing"
    free = option(replace(candidate("0"), price=price("0")), TEN_TO_ONE, MOMENTS, 1000)
    assert choose([unknown, free], MOMENTS).options[1].why_not.startswith("0.00 USD; what stand-in costs")
    later = msgspec.structs.replace(unknown, finish=free.finish + HOUR)
    assert choose([free, later], MOMENTS).options[1].why_not == "what it costs is not known, and it is done 1 h later"


@given(st.integers(50, 5000), st.sampled_from(["0.000002", "0.0000011", "0.0000005"]))
def test_the_break_even_is_where_the_cheaper_of_the_two_changes(requests: int, usd: str) -> None:
    def both(number: int) -> tuple[PlannedOption, PlannedOption]:
        tokens = Range(1000 * number, 1000 * number, 1000 * number)
        demand = replace(TEN_TO_ONE, requests=number, input=tokens, output=Range(0, 0, 0))
        pair = (
            option(machines("0.36", 100, 10**7), demand, MOMENTS, 10**7),
            option(candidate(usd), demand, MOMENTS, 10**7),
        )
        return choose(pair, Moments(NOW, 60.0, NOW + 10**9)).options  # type: ignore[return-value]

    spot, batch = both(requests)
    assert not batch.break_even
    if "never" in spot.break_even:
        assert spot.cost_usd > batch.cost_usd
        assert Decimal(usd) <= Decimal("0.000001")
        return
    turn = int(spot.break_even.split("about ")[1].split(" ")[0].replace(",", ""))
    for number, cheaper in ((turn + 1, True), (turn - 2, False)):
        spot, batch = both(number)
        assert (spot.cost_usd < batch.cost_usd) == cheaper


def test_too_few_requests_for_a_batch_are_priced_on_demand_and_take_seconds_each() -> None:
    found = option(candidate(minimum_records=1001), TEN_TO_ONE, MOMENTS, 100)
    assert found.on_demand
    assert (found.price_id, found.cost_usd) == ("on demand", found.realtime_usd)
    assert found.finish == NOW + 60 + 5 * 1000
    assert found.quota == "too few for a batch of 1001: on demand"
    assert not option(candidate(minimum_records=1000), TEN_TO_ONE, MOMENTS, 100).on_demand


@pytest.mark.parametrize(
    ("limits", "shard_records", "shards"),
    [
        ({}, 100, 10),
        ({}, 10_000, 1),
        ({"records": 300}, 10_000, 4),
        ({"bytes": 300_000}, 10_000, 4),
        ({"tokens": 50_000}, 10_000, 5),
    ],
    ids=["the job's", "one", "records", "bytes", "tokens"],
)
def test_shards_follow_every_limit(limits: dict[str, int], shard_records: int, shards: int) -> None:
    assert shards_of(TEN_TO_ONE, replace(SMALL, **limits), shard_records) == shards  # type: ignore[arg-type]


def test_batches_that_do_not_fit_at_once_take_as_many_rounds() -> None:
    found = option(candidate(live_batches=4, turnaround_seconds=HOUR), TEN_TO_ONE, MOMENTS, 100)
    assert found.shards == 10
    assert found.quota == "4 at a time: 3 rounds"
    assert found.finish == NOW + 60 + 3 * HOUR
    assert found.finish_basis == "promised within 1 h a batch"


def test_earlier_runs_tell_more_than_a_promise() -> None:
    known = replace(TEN_TO_ONE, wave_seconds=600.0, runs=3)
    found = option(candidate(live_batches=4), known, MOMENTS, 100)
    assert found.finish == NOW + 60 + 3 * 600
    assert found.finish_basis == "as slow as the slowest of 3 earlier runs"
    paced = candidate(records_per_second=10.0)
    assert option(paced, TEN_TO_ONE, MOMENTS, 100).finish == NOW + 60 + 100
    slower = replace(TEN_TO_ONE, records_per_second=2.0, runs=1)
    assert option(paced, slower, MOMENTS, 100).finish == NOW + 60 + 500


def test_nothing_to_ask_costs_nothing_and_is_done_at_once() -> None:
    nothing = replace(TEN_TO_ONE, requests=0, size=0, input=Range(0, 0, 0), output=Range(0, 0, 0))
    found = option(candidate(minimum_records=100), nothing, MOMENTS, 100)
    assert (found.cost_high_usd, found.shards, found.on_demand, found.finish) == (0, 0, False, NOW + 60)


def test_what_is_promised_within_a_day_fits_into_a_day() -> None:
    found = option(candidate(turnaround_seconds=24 * HOUR), TEN_TO_ONE, MOMENTS, 10_000)
    assert found.finish > MOMENTS.deadline
    assert found.fits_deadline
    assert not MOMENTS.fits(MOMENTS.deadline + 0.02 * 24 * HOUR)


def test_the_cheapest_that_is_done_in_time_is_chosen_and_the_others_say_why_not() -> None:
    refused = unable(candidate(), ["operation 'fr': it cannot translate"])
    choice = choose([planned("a", "1.42", 2), planned("b", "1", 20), planned("c", "0.1", 30), refused], MOMENTS)
    assert choice.option.backend == "b"
    assert not choice.late
    assert [found.chosen for found in choice.options] == [False, True, False, False]
    assert [found.why_not for found in choice.options] == [
        "0.42 USD more",
        "",
        "done 6 h after the deadline",
        "cannot do operation 'fr': it cannot translate",
    ]


def test_of_equal_costs_the_earlier_is_chosen_and_then_the_first_in_the_job_file() -> None:
    earlier = choose([planned("a", "1", 5), planned("b", "1", 2)], MOMENTS)
    assert earlier.option.backend == "b"
    assert earlier.options[0].why_not == "costs the same, done 3 h later"
    first = choose([planned("a", "1", 2), planned("b", "1.0", 2)], MOMENTS)
    assert first.option.backend == "a"
    assert first.options[1].why_not == "costs the same; the job file names the other one first"


def test_where_none_is_done_in_time_the_first_to_be_done_is_chosen_whatever_it_costs() -> None:
    choice = choose([planned("a", "1", 50), planned("b", "9", 30)], MOMENTS)
    assert choice.late
    assert choice.option.backend == "b"
    assert choice.options[0].why_not == "done 20 h later"


def test_nobody_who_can_do_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="no backend"):
        choose([unable(candidate(), ["x"])], MOMENTS)


OPTIONS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50), st.booleans()), min_size=1, max_size=5).filter(
    lambda found: any(able for *_, able in found)
)


@given(OPTIONS)
def test_no_other_backend_is_both_in_time_and_cheaper(drawn: list[tuple[int, int, bool]]) -> None:
    options = [
        planned(f"b{at}", str(usd), hours) if able else unable(candidate(), ["x"])
        for at, (usd, hours, able) in enumerate(drawn)
    ]
    choice = choose(options, MOMENTS)
    chosen = choice.option
    assert [found.chosen for found in choice.options].count(True) == 1
    assert all(bool(found.why_not) != found.chosen for found in choice.options)
    for found in choice.options:
        if not found.finish or found.chosen:
            continue
        if chosen.fits_deadline:
            assert not found.fits_deadline or found.cost_usd >= chosen.cost_usd
        else:
            assert not found.fits_deadline
            assert found.finish >= chosen.finish
    assert choice.late is not any(found.fits_deadline for found in choice.options)


@given(
    st.integers(1, 10**6),
    st.integers(1, 10**9),
    st.builds(
        Limits,
        records=st.integers(1, 10**5),
        bytes=st.integers(1, 10**9),
        request_bytes=st.just(1),
        live_batches=st.integers(1, 100),
        tokens=st.none() | st.integers(1, 10**8),
    ),
    st.integers(1, 10**5),
)
def test_so_many_shards_hold_everything(requests: int, size: int, limits: Limits, shard_records: int) -> None:
    shards = shards_of(replace(TEN_TO_ONE, requests=requests, size=size), limits, shard_records)
    assert shards * min(limits.records, shard_records) >= requests
    assert shards * limits.bytes >= size
    assert limits.tokens is None or shards * limits.tokens * 4 >= size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "less than a second"),
        (40, "40 s"),
        (90, "1.5 min"),
        (3600, "1 h"),
        (40 * 3600, "40 h"),
        (9 * 86400, "9 days"),
    ],
)
def test_a_length_of_time_is_a_word_or_two(seconds: float, said: str) -> None:
    assert span(seconds) == said
