"""The ledger: what the provider has processed, to the token, at the price that was agreed, to the last decimal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide import events as e
from lowtide.inputs import list_inputs
from lowtide.ledger import entries, ledger_table, moment, realtime, saved, spent
from lowtide.money import steps
from lowtide.plan import RunPlan, make_plan
from lowtide.prices import Price
from lowtide.records import Compute
from lowtide.schemas import LEDGER
from lowtide.shards import Phase, ShardState
from lowtide.states import RunState, apply, fold

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

TWO_PRICES = Price(
    "p1 batch",
    "a list of 2026-11",
    PRICE.per_unit,
    Price("p1", "a list of 2026-11", {name: 2 * price + Decimal("1e-12") for name, price in PRICE.per_unit.items()}),
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


def collected(*, on_demand: bool, surplus: bool = False) -> RunState:
    """One attempt, with tokens that were kept and tokens that were not."""
    counted = (e.Tally("input", 7), e.Tally("input", 3, "retried"), e.Tally("output", 2))
    state = walked(
        lambda shard: [
            e.Submitting(at=2.0, shard=1, attempt=1, token="t", owner="o", expires=9.0, on_demand=on_demand),
            e.Submitted(at=3.0, shard=1, attempt=1, batch_id="b1"),
            e.Ended(at=4.0, shard=1, attempt=1, outcome="completed", provider_state="Ended"),
            e.Collected(at=5.0, shard=1, attempt=1, remaining=0, counts={}, tallies=counted),
        ]
    )
    if surplus:
        happened = (
            e.Surplus(at=6.0, shard=1, attempt=1, batch_id="beside", on_demand=on_demand),
            e.Drained(at=7.0, batch_id="beside", outcome="cancelled", tallies=(e.Tally("input", 5, "duplicate"),)),
        )
        state = apply(state, 2, happened)
    return state


def walked(then: Callable[[int], list[e.AnyEvent]], **built: object) -> RunState:
    first = msgspec.convert(
        {
            "at": 1.0, "shard": 1, "documents": 1, "records": 1, "size": 9, "requests": "r", "index": "i", "file": 0,
            "document": 1, "owner": "o", **built,
        },
        e.ShardBuilt,
        strict=False,
    )  # fmt: skip
    return fold(RunState(), [(1, (first, *then(1)))])


def test_what_was_bought_says_what_it_would_have_cost_on_demand(plan: RunPlan) -> None:
    state = collected(on_demand=False, surplus=True)
    rows = [row for row in ledger_table(plan, state, TWO_PRICES).to_pylist() if row["kind"] == "actual"]
    assert {row["waste"] for row in rows} == {None, "retried", "duplicate"}
    for row in rows:
        each = TWO_PRICES.of(on_demand=True).unit(row["token_type"])
        assert (
            row["realtime_amount"] == each * row["quantity"] == 2 * row["amount"] + row["quantity"] * Decimal("1e-12")
        )
    assert realtime(state, TWO_PRICES) == sum(row["realtime_amount"] for row in rows)


@pytest.mark.parametrize("price", [PRICE, TWO_PRICES])
def test_what_was_asked_on_demand_would_have_cost_the_same(plan: RunPlan, price: Price) -> None:
    state = collected(on_demand=True)
    rows = [row for row in ledger_table(plan, state, price).to_pylist() if row["kind"] == "actual"]
    assert rows
    assert all(row["realtime_amount"] == row["amount"] for row in rows)
    assert {row["unit_price"] for row in rows} == {price.of(on_demand=True).unit(name) for name in ("input", "output")}
    assert realtime(state, price) == spent(state, price)


def test_without_a_price_on_demand_nobody_knows_what_was_spared(plan: RunPlan) -> None:
    state = collected(on_demand=False)
    assert {row["realtime_amount"] for row in ledger_table(plan, state, PRICE).to_pylist()} == {None}
    assert realtime(state, PRICE) is None


def test_only_what_was_bought_is_compared_with_real_time(plan: RunPlan) -> None:
    state = state_with([e.Tally("input", 7)])
    for row in ledger_table(plan, state, TWO_PRICES).to_pylist():
        assert (row["realtime_amount"] is not None) == (row["kind"] == "actual")


def test_answers_that_are_there_already_are_saved_and_not_spent(plan: RunPlan) -> None:
    had_cost = [{"token_type": "input", "quantity": 11}, {"token_type": "output", "quantity": 5}]
    had_cost.append({"token_type": "input", "quantity": 4, "waste": "retried"})
    state = walked(lambda shard: [], records=0, reused=2, reused_rows="rows", saved=had_cost)
    lines = [row for row in ledger_table(plan, state, TWO_PRICES).to_pylist() if row["kind"] == "saved"]
    assert [(row["scope"], row["shard"], row["attempt"], row["batch_id"]) for row in lines] == [
        ("shard", 1, None, None)
    ] * 2
    assert [(row["token_type"], row["quantity"], row["waste"]) for row in lines] == [
        ("input", 15, None),
        ("output", 5, None),
    ]
    assert [row["amount"] for row in lines] == [15 * PRICE.unit("input"), 5 * PRICE.unit("output")]
    assert saved(state, TWO_PRICES) == sum(row["amount"] for row in lines)
    assert spent(state, TWO_PRICES) == 0


PARTS = st.builds(
    Compute,
    st.integers(1, 10_000),
    st.sampled_from([Decimal("0.0001"), Decimal("0.0002")]),
    st.sampled_from(["", "boot", "idle", "preempted"]),
    st.sampled_from(["g6.xlarge", ""]),
    st.sampled_from(["eu-west-1a", "eu-west-1b"]),
    st.sampled_from(["told", "guessed"]),
)


@example(parts=[Compute(60, Decimal(1), "boot"), Compute(90, Decimal(1))], counted=[], surplus=True)
@given(parts=st.lists(PARTS, max_size=6), counted=tallies, surplus=st.booleans())
def test_machine_time_keeps_its_sum_and_each_line_has_a_name_of_its_own(
    plan: RunPlan, parts: list[Compute], counted: list[e.Tally], *, surplus: bool
) -> None:
    state = state_with(counted)
    attempt = msgspec.structs.replace(state.attempts["1-1"], compute=tuple(parts), surplus=surplus)
    state = msgspec.structs.replace(state, attempts={"1-1": attempt})
    rows = [row for row in ledger_table(plan, state, PRICE).to_pylist() if row["kind"] == "actual"]
    assert len({row["entry_id"] for row in rows}) == len(rows)
    seconds = [row for row in rows if row["unit"] == "second"]
    assert sum(row["amount"] for row in seconds) == sum((part.usd for part in parts), Decimal(0))
    assert all(row["quantity"] > 0 for row in seconds)
    if surplus:
        assert {row["waste"] for row in seconds} <= {"duplicate"}
    for kind in () if surplus else ("boot", "idle", "preempted"):
        lost = sum(part.seconds for part in parts if part.waste == kind)
        assert sum(row["quantity"] for row in seconds if row["waste"] == kind) == lost


def test_an_amount_of_thirty_digits_is_not_rounded(plan: RunPlan) -> None:
    price = Price("dear", "made up", {"input": Decimal("123456789.123456789012")})
    state = state_with([e.Tally("input", 999_999_999_999_999)])
    row = next(row for row in ledger_table(plan, state, price).to_pylist() if row["kind"] == "actual")
    assert steps(row["amount"]) == 123456789123456789012 * 999_999_999_999_999
    assert spent(state, price) == row["amount"]


class Walk:
    """A run that grows at random, event by event, by all the ways that a journal can."""

    def __init__(self, draw: st.DataObject) -> None:
        self.state = RunState()
        self._draw = draw.draw
        self._entry = 0
        self._batches = 0

    def _counted(self, waste: str | None = None) -> tuple[e.Tally, ...]:
        found = self._draw(tallies)
        return tuple(
            found if waste is None else {t.token_type: e.Tally(t.token_type, t.quantity, waste) for t in found}.values()
        )

    def step(self) -> None:
        """One more entry of the journal."""
        self._entry += 1
        self.state = apply(self.state, self._entry, [self._event(float(self._entry))])

    def _event(self, at: float) -> e.AnyEvent:
        shards = list(self.state.shards.values())
        chosen = self._draw(st.sampled_from([None, None, *shards]))
        if chosen is None and not self.state.build_finished and len(shards) < 3:
            return e.ShardBuilt(
                at=at, shard=len(shards) + 1, documents=1, records=1, size=9, requests="r", index="i", file=0,
                document=1, owner="o", saved=self._counted(""),
            )  # fmt: skip
        if chosen is None:
            open_surplus = [attempt.batch_id for attempt in self.state.surplus]
            if open_surplus and self._draw(st.booleans()):
                return e.Drained(
                    at=at, batch_id=open_surplus[0], outcome="cancelled", tallies=self._counted("duplicate"),
                    compute_seconds=self._draw(st.integers(0, 9)), region="elsewhere",
                )  # fmt: skip
            if not shards or self._draw(st.booleans()):
                return e.Reopened(at=at, attempts=1, everything=self._draw(st.booleans()))
            shard = self._draw(st.sampled_from(shards))
            return e.Surplus(at=at, shard=shard.number, attempt=shard.attempt, batch_id=self._batch_id())
        return self._of_shard(chosen, at)

    def _of_shard(self, shard: ShardState, at: float) -> e.AnyEvent:
        number, attempt, draw = shard.number, shard.attempt, self._draw
        match shard.phase:
            case Phase.BUILT:
                reserved = draw(st.sampled_from([Decimal(0), Decimal("0.5")]))
                return e.Submitting(
                    at=at, shard=number, attempt=attempt, token="t", owner="o", expires=at + 9, reserved=reserved,
                    on_demand=draw(st.booleans()),
                )  # fmt: skip
            case Phase.SUBMITTING:
                if draw(st.booleans()):
                    return e.Refused(at=at, shard=number, attempt=attempt, reason="no room")
                beside = [b.batch_id for b in self.state.surplus if (b.shard, b.attempt) == (number, attempt)]
                known = beside[0] if beside and draw(st.booleans()) else self._batch_id()
                return e.Submitted(at=at, shard=number, attempt=attempt, batch_id=known)
            case Phase.SUBMITTED:
                return e.Ended(
                    at=at, shard=number, attempt=attempt, outcome="expired", provider_state="Expired",
                    compute_seconds=draw(st.integers(0, 9)), region=draw(st.sampled_from(["", "elsewhere"])),
                )  # fmt: skip
            case Phase.ENDED:
                return e.Collected(
                    at=at, shard=number, attempt=attempt, remaining=1, counts={}, tallies=self._counted()
                )
            case Phase.COLLECTED if draw(st.booleans()):
                return e.Settled(at=at, shard=number, rows="rows", counts={})
            case _:
                return e.Retrying(at=at, shard=number, attempt=attempt + 1, requests="r", records=1, size=9)

    def _batch_id(self) -> str:
        self._batches += 1
        return f"b{self._batches}"


@given(st.data(), st.sampled_from([PRICE, TWO_PRICES]))
def test_a_line_that_is_there_stays_as_it_is_while_the_run_goes_on(
    plan: RunPlan, data: st.DataObject, price: Price
) -> None:
    walk = Walk(data)
    before: dict[str, object] = {}
    for _ in range(data.draw(st.integers(1, 40))):
        walk.step()
        rows = ledger_table(plan, walk.state, price).to_pylist()
        now = {row["entry_id"]: row for row in rows}
        assert len(now) == len(rows)
        assert {name: now.get(name) for name in before} == before
        before = now
