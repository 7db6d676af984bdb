"""The ledgers of a root as a dataset of FOCUS 1.2, for the tools that know the bills of clouds.

Either what was processed (entries of kind `actual`), or what was billed for it (`billed` and `correction`): together
they would be every charge twice. What was planned, reserved or saved is no charge. What FOCUS 1.2 says of a column
stands under its name in `specification/columns/`, and decides as follows.

- ChargePeriod: the day (UTC) on which the batch was submitted, since `lowtide ledger --by day` counts so; its start is
  part of it and its end is not. BillingPeriod: the month that holds it. Tokens are billed when they are processed, and
  no provider tells that of single records; the batch's own times are in x_BatchStart and x_BatchEnd.
- ListUnitPrice: what a unit costs in a batch. A batch is a SKU of its own with a list price of its own, and no discount
  on another one; so what it spares against real time shows in x_OnDemandEquivalentCost alone. ContractedUnitPrice: the
  same, as nothing else is known of contracts. ListCost and ContractedCost are this price times PricingQuantity.
  BilledCost and EffectiveCost: the amount; what a bill says may be rounded, so that it is not just that product.
- ChargeClass: Correction, if an entry corrects a month that is over when it is written; it belongs to the billing
  period in which it is written. A correction within its month is no Correction for FOCUS.
- ChargeCategory: Usage; Adjustment for an amount that has no quantity, or would have a price below zero.
- SkuId: what was metered, whatever it costs. SkuPriceId: the same at one price. Details of both in SkuPriceDetails.
- ResourceId: the batch. It has no display name, and so no ResourceName.
- InvoiceId: null, since no invoice is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from lowtide import __version__
from lowtide.billing.focus_columns import COLUMNS, VERSION
from lowtide.billing.reading import WHEN, Entries, Selection, read_entries
from lowtide.errors import LowtideError
from lowtide.money import product
from lowtide.protocols import Store
from lowtide.schemas import MOMENT, MONEY
from lowtide.windows import month_after

_READ = (
    WHEN, "entry_id", "at", "run_id", "kind", "waste", "shard", "attempt", "backend", "provider", "region", "model",
    "batch_id", "token_type", "quantity", "unit", "unit_price", "amount", "currency", "price_id", "price_source",
    "realtime_amount", "period_start", "period_end", "tags",
)  # fmt: skip
Basis = Literal["actual", "billed"]
_KINDS: Mapping[Basis, tuple[str, ...]] = {"actual": ("actual",), "billed": ("billed", "correction")}

_LEFT_OUT = (
    "AvailabilityZone", "BillingAccountType", "CapacityReservationId", "CapacityReservationStatus",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit", "PricingCurrency",
    "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice",
    "SubAccountId", "SubAccountName", "SubAccountType",
)  # fmt: skip
"""Columns for what the ledger knows nothing of: a dataset has them where a provider supports the like."""

_TYPES: Mapping[str, pa.DataType] = {"text": pa.string(), "json": pa.string(), "decimal": MONEY, "time": MOMENT}

SCHEMA = pa.schema(
    [
        *((name, _TYPES[kind]) for name, kind in COLUMNS.items() if name not in _LEFT_OUT),
        ("x_Attempt", pa.int32()),
        ("x_BatchEnd", MOMENT),
        ("x_BatchStart", MOMENT),
        ("x_EntryId", pa.string()),
        ("x_Job", pa.string()),
        ("x_OnDemandEquivalentCost", MONEY),
        ("x_PriceId", pa.string()),
        ("x_PriceSource", pa.string()),
        ("x_RunId", pa.string()),
        ("x_Shard", pa.int32()),
        ("x_TokenType", pa.string()),
        ("x_WasteKind", pa.string()),
        ("x_Window", pa.string()),
    ],
    metadata={"FocusVersion": VERSION, "DataGenerator": f"Lowtide {__version__}"},
)
"""The columns of an export: those of FOCUS, then our own."""

_PROVIDERS = {"aws": "AWS", "azure": "Microsoft", "openai": "OpenAI", "local": "Local", "own": "Own machines"}
_SERVICES = {
    "bedrock": "Amazon Bedrock",
    "azure-batch": "Azure OpenAI",
    "openai-batch": "OpenAI API",
    "local": "Local models",
    "spot": "Open models by machine time",
}
_METERS = {
    "input": "Input Tokens",
    "cached_input": "Cached Input Tokens",
    "cache_write": "Cache Write Tokens",
    "output": "Output Tokens",
    "reasoning": "Reasoning Tokens",
    "compute_second": "Compute Time",
}
_UNITS = {"token": "Tokens", "second": "Seconds"}

FocusRow = dict[str, object]


def focus_rows(store: Store, selection: Selection, *, basis: Basis = "actual", account: str = "") -> Iterator[FocusRow]:
    """A row for each selected entry that is a charge. `account` is the provider's billing account, if it is known."""
    kinds = pa.array(_KINDS[basis])
    for entries in read_entries(store, _READ, selection):
        for entry in entries.rows.filter(pc.is_in(entries.rows["kind"], kinds)).to_pylist():
            yield _row(entry, entries, account)


def _row(entry: Mapping[str, object], entries: Entries, account: str) -> FocusRow:
    def text(name: str) -> str:
        return str(entry[name] or "")

    when, amount = entry[WHEN], entry["amount"]
    if not isinstance(when, datetime) or not isinstance(amount, Decimal):
        raise LowtideError(f"{entries.file.path}: entry {text('entry_id')} has no time, or no amount")
    token_type, backend, region, provider = text("token_type"), text("backend"), text("region"), text("provider")
    meter = _METERS.get(token_type, token_type.replace("_", " ").title())
    sku = "/".join(part for part in (backend, region, text("model"), token_type) if part)
    vendor = _PROVIDERS.get(provider, provider or backend)
    waste = f", waste: {text('waste')}" if entry["waste"] else ""
    return {
        **_charge(entry, when, amount),
        "BillingAccountId": account or vendor,
        "BillingCurrency": text("currency") or "USD",
        "ChargeDescription": f"{meter} of {text('model')} at {backend}{waste}",
        "ChargeFrequency": "Usage-Based",
        "InvoiceIssuerName": vendor,
        "ProviderName": vendor,
        "PublisherName": vendor,
        "RegionId": region or None,
        "RegionName": region or None,
        "ResourceId": text("batch_id") or None,
        "ResourceType": "Batch Inference Job" if entry["batch_id"] else None,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": _SERVICES.get(backend, backend or vendor),
        "ServiceSubcategory": "Generative AI",
        "SkuId": sku,
        "SkuMeter": meter or None,
        "SkuPriceDetails": _json((("x_Model", text("model")), ("x_TokenType", token_type))),
        "SkuPriceId": f"{sku}@{text('price_id')}",
        "Tags": _json(_pairs(entry["tags"])),
        "x_Attempt": entry["attempt"],
        "x_BatchEnd": entry["period_end"],
        "x_BatchStart": entry["period_start"],
        "x_EntryId": entry["entry_id"],
        "x_Job": entries.file.job,
        "x_OnDemandEquivalentCost": entry["realtime_amount"],
        "x_PriceId": entry["price_id"],
        "x_PriceSource": entry["price_source"],
        "x_RunId": entry["run_id"],
        "x_Shard": entry["shard"],
        "x_TokenType": entry["token_type"],
        "x_WasteKind": entry["waste"],
        "x_Window": entries.file.window,
    }


def _charge(entry: Mapping[str, object], when: datetime, amount: Decimal) -> FocusRow:
    """What kind of charge it is, when, how much of what, and what it costs."""
    price, quantity, written = entry["unit_price"], entry["quantity"], entry["at"]
    day = when.replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    corrects = False
    if entry["kind"] == "correction" and isinstance(written, datetime) and written >= month_after(month):
        month, corrects = written.replace(day=1, hour=0, minute=0, second=0, microsecond=0), True
    priced: FocusRow = {"ContractedCost": amount, "ListCost": amount, "ChargeCategory": "Adjustment"}
    if isinstance(price, Decimal) and isinstance(quantity, int) and price >= 0:
        cost, unit = product(price, quantity), str(entry["unit"])
        unit = _UNITS.get(unit, f"{unit.title()}s")
        priced = {
            "ChargeCategory": "Usage",
            "ConsumedQuantity": quantity,
            "ConsumedUnit": unit,
            "ContractedCost": cost,
            "ContractedUnitPrice": price,
            "ListCost": cost,
            "ListUnitPrice": price,
            "PricingQuantity": quantity,
            "PricingUnit": unit,
        }
    return {
        **priced,
        "BilledCost": amount,
        "BillingPeriodEnd": month_after(month),
        "BillingPeriodStart": month,
        "ChargeClass": "Correction" if corrects else None,
        "ChargePeriodEnd": day + timedelta(days=1),
        "ChargePeriodStart": day,
        "EffectiveCost": amount,
        "PricingCategory": "Dynamic" if entry["backend"] == "spot" else "Standard",
    }


def _json(values: Iterable[tuple[str, str]]) -> str | None:
    return _dumped(tuple((name, value) for name, value in values if value))


@lru_cache(256)
def _dumped(pairs: tuple[tuple[str, str], ...]) -> str | None:
    return json.dumps(dict(pairs), ensure_ascii=False) if pairs else None


def _pairs(tags: object) -> Iterator[tuple[str, str]]:
    for name, value in tags if isinstance(tags, list) else ():
        yield str(name), str(value or "")
