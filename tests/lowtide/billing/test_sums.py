"""What the ledgers of a root add up to: exactly, and every entry once."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ledgers import at, entry, path_of, write_ledger
from support.standins import MemoryStore

from lowtide.billing.reading import Selection
from lowtide.billing.sums import KEYS, Line, Sums, sum_ledger
from lowtide.errors import ConfigError

ALL = Selection()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def by(store: MemoryStore, *keys: str, selection: Selection = ALL) -> dict[tuple[str | None, ...], Line]:
    return {line.keys: line for line in sum_ledger(store, keys, selection).lines}


def total(store: MemoryStore, selection: Selection = ALL) -> Line:
    [line] = sum_ledger(store, (), selection).totals
    return line


def test_only_what_providers_processed_is_the_amount(store: MemoryStore) -> None:
    kinds = ("estimate", "reserved", "actual", "released", "saved", "billed", "correction")
    write_ledger(store, [entry(kind, quantity=10**place) for place, kind in enumerate(kinds)])
    found = total(store)
    assert (found.tokens["input"], found.amount) == (100, Decimal("0.0001"))
    assert (found.saved_cache_tokens, found.saved_cache) == (10_000, Decimal("0.01"))
    assert found.billed == Decimal("1.1")
    assert found.entries == 4


def test_tokens_stand_by_type_and_machine_time_apart(store: MemoryStore) -> None:
    types = ("input", "cached_input", "cache_write", "output", "reasoning")
    rows = [entry(token_type=name, quantity=2**place) for place, name in enumerate(types)]
    rows.append(entry(token_type="compute_second", unit="second", quantity=90, unit_price=Decimal("0.01")))
    write_ledger(store, rows)
    found = total(store)
    assert found.tokens == {"input": 1, "cached_input": 2, "cache_write": 4, "output": 8, "reasoning": 16}
    assert (found.seconds, found.amount) == (90, Decimal("0.900031"))


def test_waste_is_part_of_the_amount_and_told_apart(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=5), entry(quantity=3, waste="retried"), entry(quantity=2, waste="expired")])
    found = total(store)
    assert (found.amount, found.waste, found.waste_tokens) == (Decimal("0.00001"), Decimal("0.000005"), 5)
    parts = by(store, "waste")
    assert {keys[0]: line.amount for keys, line in parts.items()} == {
        "expired": Decimal("0.000002"),
        "retried": Decimal("0.000003"),
        None: Decimal("0.000005"),
    }


def test_saving_against_real_time_is_of_what_is_known(store: MemoryStore) -> None:
    rows = [entry(quantity=10, realtime_amount=Decimal("0.00002")), entry(quantity=90)]
    write_ledger(store, rows)
    found = total(store)
    assert (found.realtime, found.saved_realtime) == (Decimal("0.00002"), Decimal("0.00001"))
    assert found.realtime_unknown == 1


def test_where_nothing_is_known_of_real_time_nothing_is_said(store: MemoryStore) -> None:
    write_ledger(store, [entry()])
    found = total(store)
    assert (found.realtime, found.saved_realtime, found.realtime_unknown) == (None, None, 1)


def test_drift_is_of_the_runs_whose_bill_was_compared(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=1_000), entry(quantity=500, model="other")], path_of("run-1"))
    write_ledger(store, [entry("billed", quantity=1_600)], path_of("run-1.billed-2026-11"))
    write_ledger(store, [entry(quantity=7_000, run_id="run-2")], path_of("run-2"))
    found = total(store)
    assert (found.amount, found.billed, found.drift) == (Decimal("0.0085"), Decimal("0.0016"), Decimal("0.0001"))
    runs = by(store, "run")
    assert runs["run-1",].drift == Decimal("0.0001")
    assert (runs["run-2",].billed, runs["run-2",].drift) == (None, None)


def test_a_bill_that_was_restated_counts_as_it_is_now(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=100), entry("billed", quantity=95), entry("correction", quantity=5)])
    found = total(store)
    assert (found.amount, found.billed, found.drift) == (Decimal("0.0001"), Decimal("0.0001"), Decimal(0))


def test_sums_go_by_every_key(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=1), entry(quantity=2, period_start=at(21))], path_of("run-1"))
    other = {"run_id": "run-2", "model": "gpt-5-mini", "backend": "azure-batch", "token_type": "output"}
    write_ledger(store, [entry(quantity=4, tags={"team": "legal"}, **other)], path_of("run-2", "mails", "2026-W47"))
    quantities = {
        "day": {"2026-11-20": 5, "2026-11-21": 2},
        "job": {"mails": 4, "tickets": 3},
        "model": {"amazon.nova-lite-v1:0": 3, "gpt-5-mini": 4},
        "backend": {"azure-batch": 4, "bedrock": 3},
        "window": {"2026-11": 3, "2026-W47": 4},
        "run": {"run-1": 3, "run-2": 4},
        "kind": {"actual": 7},
        "waste": {None: 7},
        "token": {"input": 3, "output": 4},
    }
    assert set(quantities) == set(KEYS)
    quantities["tag:team"] = {"legal": 4, "support": 3}
    quantities["tag:cost centre"] = {None: 7}
    for key, expected in quantities.items():
        assert {keys[0]: sum(line.tokens.values()) for keys, line in by(store, key).items()} == expected


def test_days_are_those_of_utc_up_to_the_last_microsecond(store: MemoryStore) -> None:
    last = at(20, 23).replace(minute=59, second=59, microsecond=999_999)
    write_ledger(store, [entry(quantity=1, period_start=last), entry(quantity=2, period_start=at(21))])
    assert {keys: line.tokens["input"] for keys, line in by(store, "day").items()} == {
        ("2026-11-20",): 1,
        ("2026-11-21",): 2,
    }


def test_kinds_side_by_side_have_each_their_own_amount_and_the_total_is_the_bill(store: MemoryStore) -> None:
    write_ledger(store, [entry("estimate", quantity=9), entry(quantity=4), entry("saved", quantity=2)])
    found = sum_ledger(store, ("kind",), ALL)
    assert [(line.keys[0], line.amount) for line in found.lines] == [
        ("actual", Decimal("0.000004")),
        ("estimate", Decimal("0.000009")),
        ("saved", Decimal("0.000002")),
    ]
    assert [line.amount for line in found.totals] == [Decimal("0.000004")]


def test_two_currencies_are_never_added(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=1), entry(quantity=2, currency="EUR")])
    found = sum_ledger(store, ("job",), ALL)
    for lines in (found.lines, found.totals):
        assert [(line.currency, line.amount) for line in lines] == [
            ("EUR", Decimal("0.000002")),
            ("USD", Decimal("0.000001")),
        ]


def test_tokens_without_a_price_are_counted_apart(store: MemoryStore) -> None:
    unpriced = {"price_id": "nova batch: no price", "unit_price": Decimal(0)}
    write_ledger(store, [entry(quantity=5), entry(quantity=3, **unpriced)])
    assert total(store).unpriced_tokens == 3


def test_an_empty_root_and_an_empty_selection_are_told_apart(store: MemoryStore) -> None:
    assert sum_ledger(store, ("day",), ALL) == Sums(("day",), (), (), 0)
    write_ledger(store, [entry()])
    assert sum_ledger(store, ("day",), Selection(since=at(1, month=12))) == Sums(("day",), (), (), 1)


@pytest.mark.parametrize("key", ["week", "tag:", "", "Day"])
def test_a_key_that_there_is_not_is_an_error_that_lists_the_others(store: MemoryStore, key: str) -> None:
    with pytest.raises(ConfigError, match=r"--by: found .*; expected one of day, job, model, .*, or tag:NAME"):
        sum_ledger(store, (key,), ALL)


rows = st.lists(
    st.builds(
        lambda kind, model, waste, price, quantity, run: entry(
            kind, model=model, waste=waste, unit_price=Decimal(price).scaleb(-12), quantity=quantity, run_id=run
        ),
        st.sampled_from(["actual", "actual", "saved", "estimate"]),
        st.sampled_from(["a", "b", None]),
        st.sampled_from([None, "expired"]),
        st.integers(0, 10**12),
        st.integers(-(10**12), 10**12),
        st.sampled_from(["run-1", "run-2"]),
    ),
    min_size=1,
    max_size=30,
)


@given(st.lists(rows, min_size=1, max_size=3))
def test_every_entry_is_in_one_line_and_nothing_is_rounded(files: list[list[dict[str, object]]]) -> None:
    store = MemoryStore()
    expected: dict[tuple[object, object], Fraction] = defaultdict(Fraction)
    for number, file in enumerate(files):
        write_ledger(store, file, path_of(f"run-{number}"))
        for row in file:
            if row["kind"] == "actual":
                expected[row["model"], row["waste"]] += Fraction(str(row["amount"]))
    found = sum_ledger(store, ("model", "waste"), ALL)
    amounts = {line.keys: Fraction(str(line.amount)) for line in found.lines}
    assert {keys: amount for keys, amount in amounts.items() if amount} == {k: a for k, a in expected.items() if a}
    assert sum(Fraction(str(line.amount)) for line in found.totals) == sum(expected.values())
