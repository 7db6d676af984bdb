"""The ledger: what the provider has processed, to the token, at the price that was agreed, to the last decimal."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide import events as e
from lowtide.ledger import entries, ledger_table, moment, spent
from lowtide.plan import RunPlan, list_inputs, make_plan
from lowtide.prices import Price
from lowtide.schemas import LEDGER
from lowtide.states import RunState, fold

PRICE = Price(
    "p1",
    "a list of 2026-11",
    {
        "input": Decimal("0.000000123457"),
        "output": Decimal("0.000003333333"),
        "cached_input": Decimal("0.000000000001"),
        "compute_second": Decimal("0.000277777778"),
    },
)

tallies = st.lists(
    st.builds(
        e.Tally,
        st.sampled_from(["input", "output", "cached_input", "reasoning"]),
        st.integers(1, 10**12),
        st.sampled_from(["", "expired", "invalid", "duplicate", "retried"]),
    ),
    max_size=6,
    unique_by=lambda tally: (tally.token_type, tally.waste),
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> RunPlan:
    documents = ListedDocuments({"a": "some text", "b": "more of it"})
    work = work_on(MemoryStore(), StandInBackend(Provider()), documents, price=PRICE)
    inputs = list_inputs(documents, tmp_path_factory.mktemp("plan") / "inputs.parquet")
    return replace_tags(make_plan(work, inputs, 1000.0), {"team": "support"})


def replace_tags(plan: RunPlan, tags: dict[str, str]) -> RunPlan:
    return msgspec.structs.replace(plan, tags=tags)


def state_with(*attempts: list[e.Tally], compute: int = 0, collected: bool = True) -> RunState:
    """One shard for each attempt."""
    happened: list[e.AnyEvent] = []
    for shard, counted in enumerate(attempts, start=1):
        happened += [
            e.ShardBuilt(
                at=1.0,
                shard=shard,
                documents=1,
                records=1,
                size=9,
                requests="r",
                index="i",
                file=0,
                document=1,
                owner="o",
            ),
            e.Submitting(
                at=2.0, shard=shard, attempt=1, token="t", owner="o", expires=9.0, reserved=Decimal("0.100000000001")
            ),
            e.Submitted(at=3.5, shard=shard, attempt=1, batch_id=f"b{shard}"),
            e.Ended(
                at=4.5, shard=shard, attempt=1, outcome="completed", provider_state="Ended", compute_seconds=compute
            ),
        ]
        if collected:
            happened += [
                e.Collected(at=5.5, shard=shard, attempt=1, remaining=0, counts={}, tallies=tuple(counted)),
                e.Settled(at=5.5, shard=shard, rows="rows", counts={}),
            ]
    return fold(RunState(), [(1, tuple(happened))])


def pico(amount: Decimal) -> int:
    return int(amount * 10**12)


@given(st.lists(tallies, min_size=1, max_size=4))
def test_amounts_are_tokens_times_price_to_the_last_decimal(plan: RunPlan, attempts: list[list[e.Tally]]) -> None:
    state = state_with(*attempts)
    rows = ledger_table(plan, state, PRICE).to_pylist()
    exact = 0
    for row in rows:
        assert isinstance(row["amount"], Decimal)
        if row["kind"] == "actual":
            assert pico(row["amount"]) == row["quantity"] * PRICE.pico(row["token_type"])
            exact += row["quantity"] * PRICE.pico(row["token_type"])
        assert row["amount"] == row["unit_price"] * row["quantity"]
    assert pico(spent(state, PRICE)) == exact


@given(st.lists(tallies, min_size=1, max_size=4))
def test_the_sum_over_actual_rows_is_what_was_counted(plan: RunPlan, attempts: list[list[e.Tally]]) -> None:
    counted, written = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for attempt in attempts:
        for tally in attempt:
            counted[tally.token_type, tally.waste] += tally.quantity
    for row in ledger_table(plan, state_with(*attempts), PRICE).to_pylist():
        if row["kind"] == "actual":
            written[row["token_type"], row["waste"] or ""] += row["quantity"]
    assert written == counted


@given(st.lists(tallies, min_size=1, max_size=4), st.integers(0, 100))
def test_every_line_has_a_name_of_its_own_that_it_keeps(
    plan: RunPlan, attempts: list[list[e.Tally]], compute: int
) -> None:
    state = state_with(*attempts, compute=compute)
    names = ledger_table(plan, state, PRICE)["entry_id"].to_pylist()
    assert len(set(names)) == len(names)
    assert ledger_table(plan, state, PRICE)["entry_id"].to_pylist() == names


def test_the_same_run_under_another_root_has_other_lines(plan: RunPlan) -> None:
    state = state_with([e.Tally("input", 1)])
    elsewhere = msgspec.structs.replace(plan, nonce="another")
    here = set(ledger_table(plan, state, PRICE)["entry_id"].to_pylist())
    assert here.isdisjoint(ledger_table(elsewhere, state, PRICE)["entry_id"].to_pylist())


def test_what_was_reserved_is_released_when_it_is_collected(plan: RunPlan) -> None:
    def amounts(collected: bool) -> dict[str, Decimal]:
        table = ledger_table(plan, state_with([e.Tally("input", 7)], collected=collected), PRICE)
        return {row["kind"]: row["amount"] for row in table.to_pylist() if row["kind"] in ("reserved", "released")}

    assert amounts(collected=False) == {"reserved": Decimal("0.100000000001")}
    assert amounts(collected=True) == dict.fromkeys(("reserved", "released"), Decimal("0.100000000001"))


def test_machine_time_is_a_line_of_its_own(plan: RunPlan) -> None:
    state = state_with([e.Tally("input", 7)], compute=90)
    lines = [line for line in entries(plan, state, PRICE) if line.unit == "second"]
    assert [(line.quantity, line.amount) for line in lines] == [(90, Decimal("0.025000000020"))]
    assert spent(state, PRICE) == Decimal("0.025000000020") + 7 * PRICE.unit("input")


def test_an_attempt_that_is_not_collected_has_cost_nothing_yet(plan: RunPlan) -> None:
    assert spent(state_with([e.Tally("input", 7)], compute=90, collected=False), PRICE) == 0


def test_a_type_without_a_price_is_counted_at_no_cost(plan: RunPlan) -> None:
    row = ledger_table(plan, state_with([e.Tally("reasoning", 5)]), PRICE).to_pylist()[-2]
    assert (row["token_type"], row["quantity"], row["amount"]) == ("reasoning", 5, 0)


def test_the_estimate_is_the_plans(plan: RunPlan) -> None:
    rows = ledger_table(plan, RunState(), PRICE).to_pylist()
    assert [(row["kind"], row["token_type"], row["quantity"]) for row in rows] == [
        ("estimate", "input", plan.input_tokens),
        ("estimate", "output", plan.output_tokens),
    ]
    assert sum(row["amount"] for row in rows) == plan.cost_usd


def test_a_line_says_where_it_comes_from(plan: RunPlan) -> None:
    table = ledger_table(plan, state_with([e.Tally("input", 7, "expired")]), PRICE)
    assert table.schema.equals(LEDGER)
    assert table.schema.field("amount").type == pa.decimal128(38, 12)
    row = next(row for row in table.to_pylist() if row["kind"] == "actual")
    said = {
        name: row[name] for name in ("waste", "scope", "shard", "attempt", "backend", "provider", "batch_id", "unit")
    }
    assert said == {
        "waste": "expired",
        "scope": "shard",
        "shard": 1,
        "attempt": 1,
        "backend": "stand-in",
        "provider": "nobody",
        "batch_id": "b1",
        "unit": "token",
    }
    assert (row["at"], row["period_start"], row["period_end"]) == (moment(5.5), moment(3.5), moment(4.5))
    assert (row["price_id"], row["price_source"], row["currency"]) == ("p1", "a list of 2026-11", "USD")
    assert row["tags"] == [("team", "support")]


def test_a_time_that_has_not_come_is_null() -> None:
    assert moment(0.0) is None
