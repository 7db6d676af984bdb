"""The rules of FOCUS: each is broken on purpose, and is the one that is named."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.ledgers import at, entry, write_ledger
from support.standins import MemoryStore

from lowtide.billing.cells import cell
from lowtide.billing.focus import SCHEMA, focus_rows
from lowtide.billing.focus_columns import COLUMNS, MANDATORY, NEVER_NULL, PRICED
from lowtide.billing.focus_files import check_focus
from lowtide.billing.focus_rules import RULES, Checker, Value, Violation
from lowtide.billing.reading import Selection
from lowtide.errors import ConfigError

Row = dict[str, Value]


@pytest.fixture(scope="module")
def usage() -> Row:
    """A row that keeps all rules, with every column of FOCUS, so that every rule looks at it."""
    store = MemoryStore()
    write_ledger(store, [entry()])
    [row] = focus_rows(store, Selection())
    found: Row = dict.fromkeys(COLUMNS)
    for name, value in row.items():
        if name in COLUMNS:
            found[name] = Decimal(value) if isinstance(value, int) else value  # type: ignore[assignment]
    return found | {"PricingCurrency": "USD"}


TAX: Row = {**dict.fromkeys(PRICED), "ChargeCategory": "Tax", "PricingUnit": None, "ConsumedQuantity": None}
TAX |= {"ConsumedUnit": None, "SkuMeter": None, "SkuPriceDetails": None}
CREDIT: Row = {**TAX, "ChargeCategory": "Credit", "PricingCategory": None}
SOME: Mapping[str, Value] = {
    "PricingQuantity": Decimal(1),
    "ListUnitPrice": Decimal(1),
    "ContractedUnitPrice": Decimal(1),
    "PricingCategory": "Standard",
    "SkuId": "a",
    "SkuPriceId": "a",
}


def test_a_good_row_breaks_no_rule(usage: Row) -> None:
    for row in (usage, usage | TAX, usage | CREDIT):
        assert list(Checker(list(COLUMNS)).check(1, row)) == []


def changes() -> list[tuple[str, Row]]:
    """For each rule a row that breaks it."""
    never: list[tuple[str, Row]] = [(f"{name}.not-null", {name: None}) for name in NEVER_NULL]
    priced: list[tuple[str, Row]] = [(f"{name}.not-null", {name: None}) for name in PRICED]
    taxed = [(f"{name}.null", {**TAX, name: SOME[name]}) for name in PRICED]
    values: list[tuple[str, Row]] = [
        (f"{name}.value", {name: text}) for name, kind in COLUMNS.items() for text in ("", " ", "N/A") if kind == "text"
    ]
    later = at(1, month=12) + timedelta(days=40)
    return [
        *never,
        *priced,
        *taxed,
        *values,
        ("ConsumedQuantity.not-null", {"ConsumedQuantity": None}),
        ("ConsumedQuantity.null", {**CREDIT, "ConsumedQuantity": Decimal(1), "ConsumedUnit": "Tokens"}),
        ("PricingUnit.with", {"PricingUnit": None}),
        ("PricingUnit.with", {**TAX, "PricingUnit": "Tokens"}),
        ("ConsumedUnit.with", {"ConsumedUnit": None}),
        ("ResourceType.with", {"ResourceType": None}),
        ("ResourceType.with", {"ResourceId": None}),
        ("RegionName.with", {"RegionName": None}),
        ("RegionName.with", {"RegionId": None}),
        ("SubAccountType.with", {"SubAccountType": "Project"}),
        ("ResourceName.without", {"ResourceName": "mine", "ResourceId": None, "ResourceType": None}),
        ("SkuMeter.without", {**TAX, "SkuMeter": "Input Tokens"}),
        ("SkuPriceDetails.without", {**TAX, "SkuPriceDetails": "{}"}),
        ("SubAccountName.without", {"SubAccountName": "mine"}),
        ("ChargeCategory.allowed", {"ChargeCategory": "usage"}),
        ("ChargeClass.allowed", {"ChargeClass": "Refund"}),
        ("ChargeFrequency.allowed", {"ChargeFrequency": "Daily"}),
        ("PricingCategory.allowed", {"PricingCategory": "On-Demand"}),
        ("ServiceCategory.allowed", {"ServiceCategory": "AI"}),
        ("ServiceSubcategory.allowed", {"ServiceSubcategory": "Virtual Machines"}),
        ("ServiceSubcategory.allowed", {"ServiceCategory": "Compute"}),
        ("ChargeFrequency.purchase", {"ChargeCategory": "Purchase", "ConsumedQuantity": None, "ConsumedUnit": None}),
        ("ResourceName.duplicate", {"ResourceName": "arn:batch/1"}),
        ("BillingCurrency.code", {"BillingCurrency": "usd"}),
        ("BillingCurrency.code", {"BillingCurrency": "BTC"}),
        ("PricingCurrency.code", {"PricingCurrency": "Credits"}),
        ("PricingUnit.format", {"PricingUnit": "tokens"}),
        ("PricingUnit.format", {"PricingUnit": "1000Tokens"}),
        ("ConsumedUnit.format", {"ConsumedUnit": "Tokens per Hour"}),
        ("Tags.format", {"Tags": "team=support"}),
        ("Tags.format", {"Tags": '["team"]'}),
        ("Tags.format", {"Tags": '{"team": {"name": "support"}}'}),
        ("Tags.format", {"Tags": '{"team": "a", "team": "b"}'}),
        ("SkuPriceDetails.format", {"SkuPriceDetails": '{"x_Models": ["a"]}'}),
        ("ListUnitPrice.negative", {"ListUnitPrice": Decimal(-1), "ListCost": Decimal(-1000)}),
        ("ContractedUnitPrice.negative", {"ContractedUnitPrice": Decimal(-1), "ContractedCost": Decimal(-1000)}),
        ("ListCost.product", {"ListCost": Decimal("0.001000000001")}),
        ("ListCost.product", {"ListUnitPrice": Decimal("0.000001000001")}),
        ("ContractedCost.product", {"ContractedCost": Decimal(0)}),
        ("ListCost.unpriced", {**CREDIT, "ListCost": Decimal(5)}),
        ("ContractedCost.unpriced", {**CREDIT, "ContractedCost": Decimal(5)}),
        ("EffectiveCost.unrelated", {**CREDIT, "EffectiveCost": Decimal(5)}),
        ("ChargePeriodEnd.after", {"ChargePeriodEnd": at(20)}),
        ("BillingPeriodEnd.after", {"BillingPeriodStart": later, "BillingPeriodEnd": later}),
        ("BillingPeriodStart.contains", {"ChargePeriodEnd": later}),
        ("BillingPeriodStart.contains", {"BillingPeriodStart": at(20, 1)}),
    ]  # fmt: skip


@pytest.mark.parametrize(("rule", "change"), changes(), ids=lambda part: part if isinstance(part, str) else "")
def test_a_rule_that_is_broken_is_named_with_its_row(usage: Row, rule: str, change: Row) -> None:
    found = list(Checker(list(COLUMNS)).check(7, usage | change))
    named = [violation for violation in found if violation.rule == rule]
    assert named, [str(violation) for violation in found]
    assert str(named[0]).startswith(f"row 7: {rule}: ")
    assert "(FOCUS 1.2, " in str(named[0])


def test_there_is_a_broken_row_for_every_rule() -> None:
    assert {rule.name for rule in RULES} == {rule for rule, _ in changes()}


def test_a_correction_of_an_earlier_month_need_not_add_up(usage: Row) -> None:
    odd: Row = {"ListCost": Decimal(3), "BillingPeriodStart": at(1, month=12), "BillingPeriodEnd": at(31, month=12)}
    missing: Row = {"ListUnitPrice": None, "PricingQuantity": None, "PricingUnit": None}
    for change in (odd, odd | missing):
        assert list(Checker(list(COLUMNS)).check(1, usage | change)) != []
        assert list(Checker(list(COLUMNS)).check(1, usage | change | {"ChargeClass": "Correction"})) == []


def test_a_price_has_one_sku_in_the_whole_dataset(usage: Row) -> None:
    checker = Checker(list(COLUMNS))
    assert list(checker.check(1, usage)) == []
    [found] = checker.check(2, usage | {"SkuId": "another"})
    assert (found.rule, found.row, found.source) == ("SkuPriceId.parent", 2, "SkuPriceId")
    assert "and of another" in found.found


@pytest.mark.parametrize("name", MANDATORY)
def test_a_mandatory_column_that_is_missing_is_named(name: str) -> None:
    [found] = Checker([column for column in COLUMNS if column != name]).dataset
    assert (found.rule, found.row) == (f"{name}.present", None)


def test_a_column_of_nobody_and_one_that_stands_twice_are_named() -> None:
    found = Checker([*COLUMNS, "Cost", "x_Cost", "SkuId"]).dataset
    assert {violation.rule for violation in found} == {"Cost.custom", "SkuId.once"}


# Files


def parquet(table: pa.Table) -> io.BytesIO:
    out = io.BytesIO()
    pq.write_table(table, out)
    out.seek(0)
    return out


def checked(table: pa.Table) -> list[Violation]:
    return list(check_focus(parquet(table), "bill.parquet"))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    store = MemoryStore()
    write_ledger(store, [entry(), entry(quantity=2, token_type="output")])
    return pa.Table.from_pylist(list(focus_rows(store, Selection())), schema=SCHEMA)


def replaced(table: pa.Table, name: str, values: list[object], kind: pa.DataType) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, kind))


def test_money_as_floating_point_is_named_once_and_the_rest_is_checked(table: pa.Table) -> None:
    wrong = replaced(table, "ListCost", [0.001, 0.000002], pa.float64())
    wrong = replaced(wrong, "ChargeFrequency", ["Usage-Based", "Daily"], pa.string())
    assert [(found.rule, found.row) for found in checked(wrong)] == [
        ("ListCost.type", None),
        ("ChargeFrequency.allowed", 2),
    ]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "Europe/Berlin"), pa.int64()])
def test_a_time_without_utc_is_named(table: pa.Table, kind: pa.DataType) -> None:
    wrong = replaced(table, "ChargePeriodStart", [0, 0], kind)
    assert [(found.rule, found.row) for found in checked(wrong)] == [("ChargePeriodStart.type", None)]


def test_empty_text_is_no_null(table: pa.Table) -> None:
    wrong = replaced(table, "InvoiceId", ["", None], pa.string())
    assert [(found.rule, found.row) for found in checked(wrong)] == [("InvoiceId.value", 1)]


def test_other_spellings_of_the_same_types_are_right(table: pa.Table) -> None:
    other = replaced(table, "PricingQuantity", [1000, 2], pa.int64())
    other = replaced(other, "BillingPeriodStart", ["2026-11-01T00:00:00Z"] * 2, pa.string())
    tags = pa.array([[("team", "a")], None], pa.map_(pa.string(), pa.string()))
    other = other.set_column(other.schema.get_field_index("Tags"), "Tags", tags)
    other = other.set_column(0, "BilledCost", other["BilledCost"].cast(pa.decimal128(38, 20), safe=False))
    assert checked(other) == []


def test_a_key_that_stands_twice_in_a_map_is_named(table: pa.Table) -> None:
    tags = pa.array([[("team", "a"), ("team", "b")], None], pa.map_(pa.string(), pa.string()))
    wrong = table.set_column(table.schema.get_field_index("Tags"), "Tags", tags)
    assert [(found.rule, found.row) for found in checked(wrong)] == [("Tags.format", 1)]


def as_csv(table: pa.Table, **changes: str) -> io.BytesIO:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(table.schema.names)
    for row in table.to_pylist():
        writer.writerow([changes.get(name, cell(value)) for name, value in row.items()])
    return io.BytesIO(text.getvalue().encode("utf-8-sig"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ListCost", "$1"),
        ("ListCost", "1,000"),
        ("ListCost", "+1"),
        ("ListCost", "1/2"),
        ("ListCost", "1e5"),
        ("ListCost", "NaN"),
        ("ChargePeriodStart", "2026-11-20"),
        ("ChargePeriodStart", "2026-11-20T00:00:00+01:00"),
        ("ChargePeriodStart", "2026-13-20T00:00:00Z"),
    ],
)
def test_a_cell_that_is_no_number_or_time_is_named(table: pa.Table, name: str, value: str) -> None:
    found = list(check_focus(as_csv(table.slice(0, 1), **{name: value}), "bill.csv"))
    assert [(violation.rule, violation.row, violation.found) for violation in found] == [(f"{name}.type", 1, value)]


def test_csv_is_checked_by_the_same_rules(table: pa.Table) -> None:
    assert list(check_focus(as_csv(table), "BILL.CSV")) == []
    found = list(check_focus(as_csv(table, ChargeFrequency="Daily", InvoiceIssuerName=""), "bill.csv"))
    assert {(violation.rule, violation.row) for violation in found} == {
        (rule, row) for rule in ("ChargeFrequency.allowed", "InvoiceIssuerName.not-null") for row in (1, 2)
    }


def test_scientific_notation_is_a_number(table: pa.Table) -> None:
    one = table.slice(0, 1)
    assert list(check_focus(as_csv(one, ListCost="1E-3"), "bill.csv")) == []
    assert [found.rule for found in check_focus(as_csv(one, ListCost="1E-4"), "bill.csv")] == ["ListCost.product"]


def test_a_row_with_too_few_cells_is_named(table: pa.Table) -> None:
    data = as_csv(table).getvalue() + b"just,three,cells\r\n"
    [found] = check_focus(io.BytesIO(data), "bill.csv")
    assert (found.rule, found.row) == ("row.cells", 3)


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.parquet", b"no parquet"), ("a.csv", b"\xff\xfe\x00"), ("a.csv", b'a,b\n"open'), ("a.xlsx", b"")],
)
def test_a_file_that_cannot_be_read_is_named(name: str, data: bytes) -> None:
    with pytest.raises(ConfigError, match=name):
        list(check_focus(io.BytesIO(data), name))
