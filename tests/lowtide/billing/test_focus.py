"""The ledger as rows of FOCUS: every charge once, at its price, under the names and types of the specification."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ledgers import at, entry, path_of, write_ledger
from support.standins import MemoryStore

from lowtide.billing.focus import SCHEMA, FocusRow, focus_rows
from lowtide.billing.focus_columns import COLUMNS, MANDATORY
from lowtide.billing.focus_files import check_focus, write_focus
from lowtide.billing.reading import Selection
from lowtide.billing.sums import sum_ledger
from lowtide.errors import LowtideError
from lowtide.money import steps

ALL = Selection()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def exported(store: MemoryStore, selection: Selection = ALL, **options: str) -> list[dict[str, object]]:
    """What a reader of the Parquet file sees, which our own check has nothing against."""
    out = io.BytesIO()
    written = write_focus(focus_rows(store, selection, **options), out, "parquet")  # type: ignore[arg-type]
    out.seek(0)
    assert list(check_focus(out, "focus.parquet")) == []
    out.seek(0)
    rows: list[dict[str, object]] = pq.read_table(out).to_pylist()
    assert written.rows == len(rows)
    return rows


def test_the_columns_are_those_of_focus_in_order_and_then_our_own() -> None:
    theirs = [name for name in SCHEMA.names if not name.startswith("x_")]
    assert SCHEMA.names[: len(theirs)] == theirs == sorted(theirs)
    assert set(MANDATORY) <= set(theirs) <= set(COLUMNS)
    assert len(COLUMNS) == 57
    assert {SCHEMA.field(name).type for name, kind in COLUMNS.items() if kind == "decimal" and name in theirs} == {
        pa.decimal128(38, 12)
    }
    assert SCHEMA.metadata[b"FocusVersion"] == b"1.2"


def test_a_row_says_what_was_bought_where_when_and_at_which_price(store: MemoryStore) -> None:
    write_ledger(store, [entry(realtime_amount=Decimal("0.002"), waste="expired", attempt=2)], path_of("run-1"))
    [row] = exported(store)
    amount = Decimal("0.001000000000")
    assert row == {
        "BilledCost": amount,
        "BillingAccountId": "AWS",
        "BillingAccountName": None,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": at(1, month=12),
        "BillingPeriodStart": at(1),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": "Input Tokens of amazon.nova-lite-v1:0 at bedrock, waste: expired",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": at(21),
        "ChargePeriodStart": at(20),
        "ConsumedQuantity": 1000,
        "ConsumedUnit": "Tokens",
        "ContractedCost": amount,
        "ContractedUnitPrice": Decimal("0.000001"),
        "EffectiveCost": amount,
        "InvoiceId": None,
        "InvoiceIssuerName": "AWS",
        "ListCost": amount,
        "ListUnitPrice": Decimal("0.000001"),
        "PricingCategory": "Standard",
        "PricingQuantity": 1000,
        "PricingUnit": "Tokens",
        "ProviderName": "AWS",
        "PublisherName": "AWS",
        "RegionId": "eu-west-1",
        "RegionName": "eu-west-1",
        "ResourceId": "arn:batch/1",
        "ResourceName": None,
        "ResourceType": "Batch Inference Job",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Amazon Bedrock",
        "ServiceSubcategory": "Generative AI",
        "SkuId": "bedrock/eu-west-1/amazon.nova-lite-v1:0/input",
        "SkuMeter": "Input Tokens",
        "SkuPriceDetails": '{"x_Model": "amazon.nova-lite-v1:0", "x_TokenType": "input"}',
        "SkuPriceId": "bedrock/eu-west-1/amazon.nova-lite-v1:0/input@nova batch",
        "Tags": '{"team": "support"}',
        "x_Attempt": 2,
        "x_BatchEnd": at(20, 4),
        "x_BatchStart": at(20, 1),
        "x_EntryId": row["x_EntryId"],
        "x_Job": "tickets",
        "x_OnDemandEquivalentCost": Decimal("0.002"),
        "x_PriceId": "nova batch",
        "x_PriceSource": "a list",
        "x_RunId": "run-1",
        "x_Shard": 1,
        "x_TokenType": "input",
        "x_WasteKind": "expired",
        "x_Window": "2026-11",
    }


def test_only_charges_are_exported_and_each_once(store: MemoryStore) -> None:
    kinds = ("estimate", "reserved", "actual", "released", "saved", "billed", "correction")
    write_ledger(store, [entry(kind, quantity=number + 1) for number, kind in enumerate(kinds)])
    assert [row["PricingQuantity"] for row in exported(store)] == [3]
    assert [row["PricingQuantity"] for row in exported(store, basis="billed")] == [6, 7]


def test_a_batch_over_the_end_of_a_month_belongs_to_the_day_on_which_it_began(store: MemoryStore) -> None:
    write_ledger(store, [entry(period_start=at(30, 23), period_end=at(1, 7, month=12))])
    [row] = exported(store)
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (at(30), at(1, month=12))
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == (at(1), at(1, month=12))
    assert (row["x_BatchStart"], row["x_BatchEnd"]) == (at(30, 23), at(1, 7, month=12))


def test_a_correction_of_a_month_that_is_over_is_a_correction(store: MemoryStore) -> None:
    write_ledger(store, [entry("correction", quantity=-5, at=at(3, month=12)), entry("correction", quantity=-7)])
    later, soon = exported(store, basis="billed")
    assert (later["ChargeClass"], later["BillingPeriodStart"]) == ("Correction", at(1, month=12))
    assert (later["ChargePeriodStart"], later["BilledCost"]) == (at(20), Decimal("-0.000005"))
    assert (soon["ChargeClass"], soon["BillingPeriodStart"], soon["ConsumedQuantity"]) == (None, at(1), -7)


def test_a_bill_that_is_rounded_keeps_its_cost_and_its_price(store: MemoryStore) -> None:
    price = Decimal("0.000000333333")
    write_ledger(store, [entry("billed", quantity=3, unit_price=price, amount=Decimal("0.000001"))])
    [row] = exported(store, basis="billed")
    assert (row["BilledCost"], row["EffectiveCost"]) == (Decimal("0.000001"), Decimal("0.000001"))
    assert row["ListCost"] == row["ContractedCost"] == Decimal("0.000000999999")


@pytest.mark.parametrize(
    "odd", [{"unit_price": None, "quantity": 0, "amount": Decimal(-1)}, {"unit_price": Decimal(-1), "quantity": 1}]
)
def test_an_amount_without_a_quantity_or_a_price_is_an_adjustment(
    store: MemoryStore, odd: Mapping[str, object]
) -> None:
    write_ledger(store, [entry("correction", **odd)])
    [row] = exported(store, basis="billed")
    assert (row["ChargeCategory"], row["PricingQuantity"], row["ListUnitPrice"]) == ("Adjustment", None, None)
    assert row["BilledCost"] == row["ListCost"] == row["EffectiveCost"] == -1


def test_machine_time_is_in_seconds_and_on_spot_its_price_moves(store: MemoryStore) -> None:
    write_ledger(store, [entry(backend="spot", token_type="compute_second", unit="second", quantity=90)])
    [row] = exported(store)
    assert (row["PricingUnit"], row["SkuMeter"], row["PricingCategory"]) == ("Seconds", "Compute Time", "Dynamic")


def test_what_is_not_known_is_null_and_not_empty(store: MemoryStore) -> None:
    write_ledger(store, [entry(region="", batch_id=None, tags={}, period_start=None, period_end=None)])
    [row] = exported(store)
    for name in ("RegionId", "RegionName", "ResourceId", "ResourceType", "Tags", "x_BatchStart"):
        assert row[name] is None


def test_a_provider_that_nobody_has_heard_of_is_called_as_the_ledger_does(store: MemoryStore) -> None:
    write_ledger(store, [entry(provider="acme", backend="acme-batch")])
    [row] = exported(store, account="4711")
    assert (row["ProviderName"], row["ServiceName"], row["BillingAccountId"]) == ("acme", "acme-batch", "4711")


def test_a_row_that_breaks_a_rule_stops_the_export_and_is_named(store: MemoryStore) -> None:
    write_ledger(store, [entry(), entry(currency="DOLLARS", entry_id="the-wrong-one")])
    rows = focus_rows(store, ALL)
    with pytest.raises(LowtideError, match=r"internal error: .* entry the-wrong-one: row 2: BillingCurrency\.code"):
        write_focus(rows, io.BytesIO(), "parquet")


def as_csv(store: MemoryStore) -> tuple[str, list[dict[str, str]]]:
    out = io.BytesIO()
    write_focus(focus_rows(store, ALL), out, "csv")
    out.seek(0)
    assert list(check_focus(out, "focus.csv")) == []
    text = out.getvalue().decode("utf-8")
    return text, list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_holds_the_same_as_parquet(store: MemoryStore) -> None:
    write_ledger(store, [entry(tags={"team": 'a "b", c', "ä": "\n"}), entry(quantity=0), entry(realtime_amount=1)])
    text, rows = as_csv(store)
    expected = exported(store)
    assert text.splitlines()[0] == ",".join(SCHEMA.names)
    for found, row in zip(rows, expected, strict=True):
        for name in SCHEMA.names:
            value = row[name]
            if isinstance(value, Decimal):
                assert Decimal(found[name]) == value
            elif value is None:
                assert found[name] == ""
            elif COLUMNS.get(name) == "time":
                assert found[name] == value.strftime("%Y-%m-%dT%H:%M:%SZ")  # type: ignore[attr-defined]
            elif isinstance(value, str):
                assert found[name] == value
    assert json.loads(rows[0]["Tags"]) == {"team": 'a "b", c', "ä": "\n"}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_starts_no_formula(store: MemoryStore, start: str) -> None:
    write_ledger(store, [entry(model=f"{start}HYPERLINK(1)", batch_id=f"{start}cmd", waste=f"{start}1+1")])
    _, [row] = as_csv(store)
    assert row["ResourceId"] == f"'{start}cmd"
    assert row["x_WasteKind"] == f"'{start}1+1"
    assert not any(value.startswith(start) for name, value in row.items() if COLUMNS.get(name) != "decimal")


def test_csv_keeps_negative_numbers_numbers(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=-3)])
    _, [row] = as_csv(store)
    assert (row["BilledCost"], row["PricingQuantity"], row["ListUnitPrice"]) == ("-0.000003", "-3", "0.000001")


amounts = st.tuples(st.integers(0, 10**14), st.integers(0, 10**14))


@given(st.lists(amounts, min_size=1, max_size=8))
def test_the_export_adds_up_to_the_ledger_and_price_times_quantity_is_cost(charges: list[tuple[int, int]]) -> None:
    store = MemoryStore()
    rows = [entry(unit_price=Decimal(price).scaleb(-12), quantity=quantity) for price, quantity in charges]
    write_ledger(store, rows)
    found: list[FocusRow] = list(exported(store))
    for row in found:
        quantity, price, cost = row["PricingQuantity"], row["ListUnitPrice"], row["ListCost"]
        assert isinstance(quantity, Decimal)
        assert isinstance(price, Decimal)
        assert isinstance(cost, Decimal)
        assert steps(price) * int(quantity) == steps(cost)
    [total] = sum_ledger(store, (), ALL).totals
    assert sum(steps(Decimal(str(row["BilledCost"]))) for row in found) == steps(total.amount)
