"""Backends whose machines are paid by the hour: the ledger goes by the clock, and documents share what it says."""

from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal

import msgspec
import pyarrow.parquet as pq
import pytest
from support.engine_support import finish, ledger, results
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, ok, work_on

from lowtide.budget.account import Account
from lowtide.budget.caps import month_of
from lowtide.engine import Run, open_run
from lowtide.engine.spending import highest_price
from lowtide.ledger import spent
from lowtide.plan import PlannedPrice
from lowtide.planning.experience import read_experience
from lowtide.prices.by_time import LEAST_SECONDS, Pace, guess, price_by_time
from lowtide.records import BatchStatus, Compute
from lowtide.summary import summarize

PRICE = price_by_time(Decimal("0.36"), Pace(100, "measured"), price_id="g6.xlarge", source="spot", boot_seconds=60)
SECOND = Decimal("0.000083")
WORK = Compute(90, SECOND, "", "g6.xlarge", "eu-west-1b", "history")
LOST = [
    Compute(7, SECOND, "preempted", "g6.xlarge", "eu-west-1b", "history"),
    Compute(60, SECOND, "boot", "g6.xlarge", "eu-west-1b", "history"),
    Compute(60, SECOND * 2, "boot", "g5.xlarge", "eu-west-1a", "history"),
]


class ByTheHour(StandInBackend):
    """A stand-in that tells machine time at the end of each batch."""

    def poll(self, batch_id: str) -> BatchStatus:
        parts = (WORK, *LOST) if batch_id == "b1" else (WORK, WORK)
        return replace(super().poll(batch_id), compute=parts)


def run_of(store: MemoryStore, provider: Provider, **more: object) -> Run:
    documents = ListedDocuments({f"d{number}": f"text {number}" for number in range(6)})
    run = open_run(work_on(store, ByTheHour(provider), documents, shard_records=3, price=PRICE, **more))  # type: ignore[arg-type]
    assert finish(run).done
    return run


def uneven(request: dict[str, str], nth: int) -> list[dict[str, object]]:
    return [{**ok(request), "input_tokens": 10 * (1 + int(request["text"][-1]))}]


def test_the_ledger_holds_the_seconds_at_their_own_prices_and_tokens_cost_nothing() -> None:
    store = MemoryStore()
    run = run_of(store, Provider())
    rows = [row for row in ledger(store, run).to_pylist() if row["kind"] == "actual"]
    assert len({row["entry_id"] for row in rows}) == len(rows)
    assert {row["amount"] for row in rows if row["unit"] == "token"} == {0}
    assert sum(row["quantity"] for row in rows if row["token_type"] == "input") == 60
    seconds = [row for row in rows if row["token_type"] == "compute_second"]
    told = {(row["waste"], row["price_id"], row["region"]): row["quantity"] for row in seconds if row["shard"] == 1}
    assert told == {
        (None, "g6.xlarge", "eu-west-1b"): 90,
        ("preempted", "g6.xlarge", "eu-west-1b"): 7,
        ("boot", "g6.xlarge", "eu-west-1b"): 60,
        ("boot", "g5.xlarge", "eu-west-1a"): 60,
    }
    assert [row["quantity"] for row in seconds if row["shard"] == 2] == [180]
    assert all(row["amount"] == row["unit_price"] * row["quantity"] for row in rows)
    assert spent(run.state, PRICE) == sum(row["amount"] for row in rows) == SECOND * (90 + 67 + 120 + 180)


def test_documents_bear_all_of_it_by_their_tokens() -> None:
    store = MemoryStore()
    run = run_of(store, Provider(uneven))
    rows = {row["document_uri"]: row for row in results(store)}
    assert sum(row["cost_usd"] for row in rows.values()) == spent(run.state, PRICE)
    tokens = {uri: row["input_tokens"] + row["output_tokens"] for uri, row in rows.items()}
    each = sorted((row["cost_usd"] / tokens[uri]).quantize(Decimal("0.000000001")) for uri, row in rows.items())
    assert len(set(each)) == 2, "one price for a token in each shard"


def test_the_account_is_settled_with_what_the_clock_says() -> None:
    store = MemoryStore()
    run = run_of(store, Provider(), run_usd=Decimal(5))
    month = month_of(next(iter(run.state.attempts.values())).submitted_at)
    account = Account(store, month, "test")
    account.refresh()
    lines = account.state.lines.values()
    assert all(line.settled for line in lines)
    assert sum(line.spent for line in lines) == spent(run.state, PRICE)


@pytest.mark.parametrize(
    ("machines", "attempt", "alone", "start"),
    [(0, 1, False, 0), (2, 1, False, 60), (0, 2, False, 60), (0, 1, True, 60)],
    ids=["others are out", "one of the first", "another try", "alone"],
)
def test_what_is_reserved_is_never_less_than_a_request_takes_and_holds_the_start_of_a_machine(
    *, machines: int, attempt: int, alone: bool, start: int
) -> None:
    """The few tokens of six documents would come to next to nothing."""
    backend = ByTheHour(Provider())
    backend.limits = replace(backend.limits, machines=machines)
    documents = ListedDocuments({f"d{number}": f"text {number}" for number in range(6)})
    run = open_run(work_on(MemoryStore(), backend, documents, shard_records=3, price=PRICE))
    assert finish(run).done
    second = msgspec.structs.replace(run.state.shards[2], attempt=attempt)
    assert highest_price(second, run.context, alone=alone) == Decimal("0.0001") * (LEAST_SECONDS + start)
    many = msgspec.structs.replace(second, size=10_000_000)
    assert highest_price(many, run.context, alone=alone) >= 10 + Decimal("0.0001") * start


def test_where_the_cap_is_less_than_that_nothing_is_sent() -> None:
    provider = Provider()
    run = run_of(MemoryStore(), provider, run_usd=Decimal("0.0599"))
    assert not provider.batches
    assert {shard.given_up for shard in run.state.shards.values()} == {"budget"}


def test_a_plan_keeps_what_is_reserved() -> None:
    assert PlannedPrice.of(PRICE).price() == PRICE
    assert msgspec.json.decode(msgspec.json.encode(PlannedPrice.of(PRICE)), type=PlannedPrice).price() == PRICE


def of_tokens(request: dict[str, str], nth: int) -> list[dict[str, object]]:
    """Of each shard's three answers, the first is of no use."""
    good = ok(request)
    return [{**good, "text": "this is no JSON"} if request["text"][-1] in "03" else good]


def test_the_time_of_answers_that_are_of_no_use_is_waste() -> None:
    store = MemoryStore()
    run = run_of(store, Provider(of_tokens), attempts=1)
    rows = [row for row in ledger(store, run).to_pylist() if row["kind"] == "actual"]
    assert len({row["entry_id"] for row in rows}) == len(rows)
    seconds = {(row["shard"], row["waste"]): row["quantity"] for row in rows if row["token_type"] == "compute_second"}
    assert (seconds[1, "invalid"], seconds[1, None]) == (30, 60)
    assert (seconds[2, "invalid"], seconds[2, None]) == (60, 120)
    assert sum(row["amount"] for row in rows) == spent(run.state, PRICE) == SECOND * (90 + 67 + 120 + 180)


def test_the_runs_table_tells_the_pace_that_a_plan_goes_by() -> None:
    store = MemoryStore()
    run_of(store, Provider())
    [path] = [path for path in store.objects if path.startswith("tables/runs/")]
    [row] = pq.read_table(io.BytesIO(store.objects[path]), partitioning=None).to_pylist()
    assert (row["compute_seconds"], row["compute_waste_seconds"], row["machine"]) == (270, 127, "g6.xlarge")
    experience = read_experience(store, "test").at("stand-in", "echo-1")
    pace = experience.pace(["g6.xlarge", "g5.xlarge"])
    assert pace is not None
    assert pace.tokens_per_second == pytest.approx(72 / 270)
    assert "g6.xlarge" in pace.source
    assert experience.pace(["p5.48xlarge"]) is None


def test_a_price_by_the_hour_is_that_of_its_tokens_and_never_too_low() -> None:
    assert PRICE.unit("input") == PRICE.unit("output") == Decimal("0.000001")
    assert PRICE.fixed == Decimal("0.006")
    odd = price_by_time(Decimal("0.1"), Pace(7, "yours"), price_id="x", source="spot", boot_seconds=0)
    assert odd.unit("input") * 7 * 3600 >= Decimal("0.1")
    free = price_by_time(Decimal(0), None, price_id="own", source="own machines", boot_seconds=60)
    assert not any(free.per_unit.values())
    assert "first guess" in (guess("g6.xlarge") or Pace(0, "")).source
    assert guess("p4d.24xlarge") is None


def test_a_summary_tells_what_machines_were_paid_for_in_vain() -> None:
    summary = summarize(run_of(MemoryStore(), Provider()))
    assert (summary.machine_seconds, summary.wasted_seconds) == (90 + 127 + 180, 127)
    assert summary.wasted_usd == SECOND * (67 + 120)
    assert summary.cost_usd == SECOND * (90 + 67 + 120 + 180)
    assert (summary.wasted_tokens, summary.compute_seconds) == (0, 0)
