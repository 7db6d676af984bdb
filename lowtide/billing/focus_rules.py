"""The rules of FOCUS 1.2, the FinOps Open Cost and Usage Specification, for a dataset of cost and usage.

Each rule names the section that it is from: a column's, `specification/columns/<column>.md` of the specification's
version 1.2, or an attribute's, `specification/attributes/<attribute>.md`. What it takes more than the dataset to decide
(is this what the invoice says?) is not checked, nor are commitments, capacity reservations and virtual currencies, of
which the ledger has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from functools import lru_cache

from lowtide.billing.focus_columns import (
    AI_CATEGORY,
    AI_SUBCATEGORIES,
    ALLOWED,
    COLUMNS,
    CURRENCIES,
    MANDATORY,
    NEVER_NULL,
    PRICED,
    VERSION,
)

Value = str | Decimal | datetime | None
Row = Mapping[str, Value]

_UNIT_PART = r"[A-Z][A-Za-z0-9]*"
_UNIT = re.compile(rf"(?:[1-9][0-9]* )?{_UNIT_PART}(?:-{_UNIT_PART})*(?:/(?:[1-9][0-9]* )?{_UNIT_PART})?")
_PLACEHOLDERS = frozenset({"", "null", "none", "n/a", "nan", "not applicable", "not available"})
_EXACT = Context(prec=200)
_CATEGORY, _CLASS = "ChargeCategory", "ChargeClass"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that does not hold: in a row, the first of which is 1, or in the whole dataset (None)."""

    rule: str
    says: str
    source: str
    row: int | None = None
    found: str = ""

    def __str__(self) -> str:
        place = "dataset" if self.row is None else f"row {self.row}"
        found = f"; found {self.found}" if self.found else ""
        return f"{place}: {self.rule}: {self.says}{found} (FOCUS {VERSION}, {self.source})"


@dataclass(frozen=True, slots=True)
class Rule:
    """What has to hold in a row that has these columns. Its name begins with the column whose section it is from."""

    name: str
    says: str
    columns: tuple[str, ...]
    broken: Callable[[Row], bool]
    attribute: str = ""

    @property
    def source(self) -> str:
        """The section of the specification."""
        return self.attribute or self.name.partition(".")[0]

    def violation(self, number: int, row: Row) -> Violation:
        """That it does not hold in this row."""
        found = ", ".join(f"{name}={shown(row[name])}" for name in self.columns)
        return Violation(self.name, self.says, self.source, number, found)


def shown(value: object) -> str:
    """A value in a message, cut if it is long."""
    text = "null" if value is None else value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _corrects(row: Row) -> bool:
    return row[_CLASS] == "Correction"


def _is_priced(row: Row) -> bool:
    return row[_CATEGORY] in ("Usage", "Purchase") and not _corrects(row)


def _never_null(name: str) -> Rule:
    return Rule(f"{name}.not-null", "is not null", (name,), lambda row: row[name] is None)


def _with_prices(name: str) -> Iterator[Rule]:
    columns = (name, _CATEGORY, _CLASS)
    says = "is not null for usage and purchases that are no corrections"
    yield Rule(f"{name}.not-null", says, columns, lambda row: row[name] is None and _is_priced(row))
    yield Rule(
        f"{name}.null", "is null for taxes", columns, lambda row: row[name] is not None and row[_CATEGORY] == "Tax"
    )


def _for_usage(name: str) -> Iterator[Rule]:
    columns = (name, _CATEGORY, _CLASS)
    yield Rule(
        f"{name}.not-null",
        "is not null for usage that is no correction",
        columns,
        lambda row: row[name] is None and row[_CATEGORY] == "Usage" and not _corrects(row),
    )
    yield Rule(
        f"{name}.null",
        "is null for all but usage",
        columns,
        lambda row: row[name] is not None and row[_CATEGORY] != "Usage",
    )


def _together(name: str, other: str) -> Rule:
    says = f"is null where {other} is, and nowhere else"
    return Rule(f"{name}.with", says, (name, other), lambda row: (row[name] is None) != (row[other] is None))


def _not_without(name: str, other: str) -> Rule:
    says = f"is null where {other} is"
    return Rule(f"{name}.without", says, (name, other), lambda row: row[name] is not None and row[other] is None)


def _fits(name: str, what: str, says: str, fits: Callable[[str], bool], attribute: str = "") -> Rule:
    """A rule for each value of a column of text."""
    return Rule(
        f"{name}.{what}", says, (name,), lambda row: row[name] is not None and not fits(str(row[name])), attribute
    )


def _allowed(name: str, allowed: tuple[str, ...]) -> Rule:
    return _fits(name, "allowed", f"is one of {', '.join(allowed)}", lambda text: text in allowed)


# The same few texts stand in all of the rows.
@lru_cache(4096)
def _has_value(text: str) -> bool:
    return text.strip().casefold() not in _PLACEHOLDERS


@lru_cache(64)
def _is_unit(text: str) -> bool:
    return _UNIT.fullmatch(text) is not None


@lru_cache(256)
def _is_key_value(text: str) -> bool:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        found = json.loads(text, object_pairs_hook=unique)
    except ValueError:
        return False
    return isinstance(found, dict) and not any(isinstance(value, dict | list) for value in found.values())


def _values() -> Iterator[Rule]:
    for name, allowed in ALLOWED.items():
        yield _allowed(name, allowed)
    yield Rule(
        "ServiceSubcategory.allowed",
        f"is, for {AI_CATEGORY} and for nothing else, one of {', '.join(AI_SUBCATEGORIES)}",
        ("ServiceSubcategory", "ServiceCategory"),
        lambda row: (
            row["ServiceSubcategory"] is not None
            and (row["ServiceCategory"] == AI_CATEGORY) != (row["ServiceSubcategory"] in AI_SUBCATEGORIES)
        ),
    )
    yield Rule(
        "ChargeFrequency.purchase",
        "is not Usage-Based for purchases",
        ("ChargeFrequency", _CATEGORY),
        lambda row: row["ChargeFrequency"] == "Usage-Based" and row[_CATEGORY] == "Purchase",
    )
    yield Rule(
        "ResourceName.duplicate",
        "does not repeat ResourceId",
        ("ResourceName", "ResourceId"),
        lambda row: row["ResourceName"] is not None and row["ResourceName"] == row["ResourceId"],
    )
    for name in ("BillingCurrency", "PricingCurrency"):
        yield _fits(name, "code", "is a currency of ISO 4217", CURRENCIES.__contains__, "Currency Format")
    for name in ("PricingUnit", "ConsumedUnit"):
        yield _fits(name, "format", "is a unit such as Tokens, 1000 Tokens or GB-Hours", _is_unit, "Unit Format")
    for name in ("Tags", "SkuPriceDetails"):
        says = "is a JSON object with unique keys, and no object or list in it"
        yield _fits(name, "format", says, _is_key_value, "Key-Value Format")
    for name, kind in COLUMNS.items():
        if kind == "text":
            says = "is null where there is no value, and no empty text or placeholder"
            yield _fits(name, "value", says, _has_value, "Null Handling")


def _of_cost(cost: str, price: str) -> Iterator[Rule]:
    yield Rule(f"{price}.negative", "is zero or more", (price,), lambda row: _below_zero(row[price]))
    yield Rule(
        f"{cost}.product",
        f"is {price} times PricingQuantity, unless it is a correction",
        (cost, price, "PricingQuantity", _CLASS),
        lambda row: not _corrects(row) and _differs(row[price], row["PricingQuantity"], row[cost]),
    )
    yield Rule(
        f"{cost}.unpriced",
        f"is BilledCost where there is no {price}, unless it is a tax or a correction",
        (cost, price, "BilledCost", _CATEGORY, _CLASS),
        lambda row: (
            row[price] is None and row[_CATEGORY] != "Tax" and not _corrects(row) and row[cost] != row["BilledCost"]
        ),
    )


def _below_zero(value: Value) -> bool:
    return isinstance(value, Decimal) and value < 0


def _differs(price: Value, quantity: Value, cost: Value) -> bool:
    if not (isinstance(price, Decimal) and isinstance(quantity, Decimal) and isinstance(cost, Decimal)):
        return False
    return _EXACT.multiply(price, quantity) != cost


def _period(start: str, end: str) -> Rule:
    says = f"is later than {start}: the start is part of the period, and the end is not"
    return Rule(f"{end}.after", says, (start, end), lambda row: not _in_order(row[start], row[end], strictly=True))


def _in_order(first: Value, second: Value, *, strictly: bool = False) -> bool:
    """Whether they are in order; a missing one is another rule's business."""
    if not (isinstance(first, datetime) and isinstance(second, datetime)):
        return True
    return first < second or (first == second and not strictly)


def _rules() -> Iterator[Rule]:
    yield from map(_never_null, NEVER_NULL)
    for name in PRICED:
        yield from _with_prices(name)
    yield from _for_usage("ConsumedQuantity")
    yield _together("PricingUnit", "PricingQuantity")
    yield _together("ConsumedUnit", "ConsumedQuantity")
    yield _together("ResourceType", "ResourceId")
    yield _together("RegionName", "RegionId")
    yield _together("SubAccountType", "SubAccountId")
    yield _not_without("ResourceName", "ResourceId")
    yield _not_without("SkuMeter", "SkuId")
    yield _not_without("SkuPriceDetails", "SkuPriceId")
    yield _not_without("SubAccountName", "SubAccountId")
    yield from _values()
    yield from _of_cost("ListCost", "ListUnitPrice")
    yield from _of_cost("ContractedCost", "ContractedUnitPrice")
    yield Rule(
        "EffectiveCost.unrelated",
        "is BilledCost for credits and adjustments",
        ("EffectiveCost", "BilledCost", _CATEGORY),
        lambda row: row[_CATEGORY] in ("Credit", "Adjustment") and row["EffectiveCost"] != row["BilledCost"],
    )
    yield _period("ChargePeriodStart", "ChargePeriodEnd")
    yield _period("BillingPeriodStart", "BillingPeriodEnd")
    yield Rule(
        "BillingPeriodStart.contains",
        "the charge's period lies within the billing period, unless it corrects an earlier one",
        ("BillingPeriodStart", "ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodEnd", _CLASS),
        lambda row: (
            not _corrects(row)
            and not (
                _in_order(row["BillingPeriodStart"], row["ChargePeriodStart"])
                and _in_order(row["ChargePeriodEnd"], row["BillingPeriodEnd"])
            )
        ),
    )


RULES: tuple[Rule, ...] = tuple(_rules())


class Checker:
    """Checks a dataset row by row. `dataset` are the violations that its columns make by their names alone."""

    def __init__(self, columns: Sequence[str]) -> None:
        there = set(columns)
        self.dataset = tuple(_of_columns(columns))
        self._rules = [rule for rule in RULES if there.issuperset(rule.columns)]
        self._sku_of: dict[str, str] = {}

    def check(self, number: int, row: Row, unreadable: frozenset[str] = frozenset()) -> Iterator[Violation]:
        """What is wrong with a row. Of columns that could not be read, nothing is said."""
        for rule in self._rules:
            if rule.broken(row) and unreadable.isdisjoint(rule.columns):
                yield rule.violation(number, row)
        price, sku = row.get("SkuPriceId"), row.get("SkuId")
        if isinstance(price, str) and isinstance(sku, str):
            first = self._sku_of.setdefault(price, sku)
            if first != sku:
                found = f"{shown(price)} of {shown(first)} and of {shown(sku)}"
                yield Violation("SkuPriceId.parent", "has one SkuId only", "SkuPriceId", number, found)


def _of_columns(columns: Sequence[str]) -> Iterator[Violation]:
    for name in MANDATORY:
        if name not in columns:
            yield Violation(f"{name}.present", "is a column of every dataset", name)
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1:
            yield Violation(f"{name}.once", "stands once", "Column Handling", None, f"{columns.count(name)} of them")
        if name not in COLUMNS and not name.startswith("x_"):
            says = f"begins with x_, as every column does that is not of FOCUS {VERSION}"
            yield Violation(f"{name}.custom", says, "Column Handling")
