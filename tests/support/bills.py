"""Bills in the layouts that providers export, with all of their published columns, made from what was used.

Column lists: AWS Data Exports user guide, "Cost and Usage Report (CUR) 2.0" and "FOCUS 1.2 with AWS columns" (1.0 has
`x_UsageType` besides); Microsoft Cost Management, "cost and usage details file schema" for Enterprise Agreement
(2024-08-01), Microsoft Customer Agreement (2023-12-01-preview) and pay-as-you-go (2019-11-01), and "FOCUS cost and
usage details file schema" (1.2-preview).
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

ACCOUNT, PAYER = "123456789012", "999999999999"
SUBSCRIPTION, PROFILE = "11111111-2222-3333-4444-555555555555", "ABCD-EFGH-IJK-LMN"


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CUR_COLUMNS = _names("""
bill_bill_type bill_billing_entity bill_billing_period_end_date bill_billing_period_start_date bill_invoice_id
bill_invoicing_entity bill_payer_account_id bill_payer_account_name cost_category discount discount_bundled_discount
discount_total_discount identity_line_item_id identity_time_interval line_item_availability_zone line_item_blended_cost
line_item_blended_rate line_item_currency_code line_item_iam_principal line_item_legal_entity
line_item_line_item_description line_item_line_item_type line_item_net_unblended_cost line_item_net_unblended_rate
line_item_normalization_factor line_item_normalized_usage_amount line_item_operation line_item_product_code
line_item_resource_id line_item_tax_type line_item_unblended_cost line_item_unblended_rate line_item_usage_account_id
line_item_usage_account_name line_item_usage_amount line_item_usage_end_date line_item_usage_start_date
line_item_usage_type pricing_currency pricing_lease_contract_length pricing_offering_class
pricing_public_on_demand_cost pricing_public_on_demand_rate pricing_purchase_option pricing_rate_code pricing_rate_id
pricing_term pricing_unit product product_comment product_fee_code product_fee_description product_from_location
product_from_location_type product_from_region_code product_instance_family product_instance_type product_instanceSKU
product_location product_location_type product_operation product_pricing_unit product_product_family product_region_code
product_servicecode product_sku product_to_location product_to_location_type product_to_region_code product_usagetype
reservation_amortized_upfront_cost_for_usage reservation_effective_cost reservation_reservation_a_r_n resource_tags
savings_plan_savings_plan_a_r_n savings_plan_savings_plan_effective_cost split_line_item_parent_resource_id tags
""")
FOCUS_COLUMNS = _names("""
AvailabilityZone BilledCost BillingAccountId BillingAccountName BillingAccountType BillingCurrency BillingPeriodEnd
BillingPeriodStart CapacityReservationId CapacityReservationStatus ChargeCategory ChargeClass ChargeDescription
ChargeFrequency ChargePeriodEnd ChargePeriodStart CommitmentDiscountCategory CommitmentDiscountId CommitmentDiscountName
CommitmentDiscountQuantity CommitmentDiscountStatus CommitmentDiscountType CommitmentDiscountUnit ConsumedQuantity
ConsumedUnit ContractedCost ContractedUnitPrice EffectiveCost InvoiceId InvoiceIssuerName ListCost ListUnitPrice
PricingCategory PricingCurrency PricingQuantity PricingUnit ProviderName PublisherName RegionId RegionName ResourceId
ResourceName ResourceType ServiceCategory ServiceName ServiceSubcategory SkuId SkuMeter SkuPriceDetails SkuPriceId
SubAccountId SubAccountName SubAccountType Tags
""")
FOCUS_AWS = ("x_Discounts", "x_Operation", "x_ServiceCode")
FOCUS_AZURE = _names("""
x_BilledCostInUsd x_BillingProfileId x_EffectiveUnitPrice x_PricingBlockSize x_PricingUnitDescription
x_ResourceGroupName x_SkuDetails x_SkuMeterCategory x_SkuMeterId x_SkuMeterName x_SkuMeterSubcategory x_SkuRegion
x_SkuTier
""")
AZURE_EA = _names("""
InvoiceSectionName AccountName AccountOwnerId SubscriptionId SubscriptionName ResourceGroup ResourceLocation Date
ProductName MeterCategory MeterSubCategory MeterId MeterName MeterRegion UnitOfMeasure Quantity EffectivePrice
CostInBillingCurrency CostCenter ConsumedService ResourceId Tags OfferId AdditionalInfo ServiceInfo1 ServiceInfo2
ResourceName ReservationId ReservationName UnitPrice ProductOrderId ProductOrderName Term PublisherType PublisherName
ChargeType Frequency PricingModel AvailabilityZone BillingAccountId BillingAccountName BillingCurrencyCode
BillingPeriodStartDate BillingPeriodEndDate BillingProfileId BillingProfileName InvoiceSectionId IsAzureCreditEligible
PartNumber PayGPrice PlanName ServiceFamily CostAllocationRuleName benefitId benefitName AccountId
ResourceLocationNormalized
""")
AZURE_MCA = _names("""
invoiceId previousInvoiceId billingAccountId billingAccountName billingProfileId billingProfileName invoiceSectionId
invoiceSectionName resellerName resellerMpnId costCenter billingPeriodEndDate billingPeriodStartDate
servicePeriodEndDate servicePeriodStartDate date
serviceFamily productOrderId productOrderName consumedService meterId meterName
meterCategory meterSubCategory meterRegion ProductId ProductName SubscriptionId subscriptionName publisherType
publisherId publisherName resourceGroupName ResourceId resourceLocation location effectivePrice quantity unitOfMeasure
chargeType billingCurrency pricingCurrency costInBillingCurrency costInPricingCurrency costInUsd
paygCostInBillingCurrency paygCostInUsd exchangeRatePricingToBilling exchangeRateDate isAzureCreditEligible serviceInfo1
serviceInfo2 additionalInfo tags PayGPrice frequency term reservationId reservationName pricingModel unitPrice
costAllocationRuleName benefitId benefitName provider
""")
AZURE_PAYG = _names("""
SubscriptionGuid ResourceGroup ResourceLocation UsageDateTime MeterCategory MeterSubCategory MeterId MeterName
MeterRegion UsageQuantity ResourceRate PreTaxCost ConsumedService ResourceType InstanceId Tags OfferId AdditionalInfo
ServiceInfo1 ServiceInfo2 ServiceName ServiceTier Currency UnitOfMeasure
""")

_AWS_REGIONS = {"us-east-1": "USE1", "eu-west-1": "EUW1"}
_AWS_NAMES = {"amazon.nova-lite-v1:0": "NovaLite", "amazon.nova-micro-v1:0": "NovaMicro"}
_AWS_TYPES = {
    "input": "input-tokens",
    "output": "output-tokens",
    "cached_input": "cache-read-input-token-count",
    "cache_write": "cache-write-input-token-count",
}
_AZURE_NAMES = {"gpt-4o-mini": "gpt-4o-mini-0718", "gpt-4o": "gpt-4o-0806", "gpt-4.1": "gpt 4.1"}
_AZURE_TYPES = {"input": "Inp", "output": "Outp", "cached_input": "cached Inp", "cache_write": "Cd Wr"}
_MAPS = {"product", "resource_tags", "tags", "cost_category", "discount"}
_DOUBLES = {"line_item_usage_amount", "line_item_unblended_cost", "line_item_blended_cost"}
_DATES = {
    "bill_billing_period_end_date",
    "bill_billing_period_start_date",
    "line_item_usage_end_date",
    "line_item_usage_start_date",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargePeriodEnd",
    "ChargePeriodStart",
}
_FOCUS_DOUBLES = {
    "BilledCost",
    "EffectiveCost",
    "ConsumedQuantity",
    "PricingQuantity",
    "x_PricingBlockSize",
    "ListUnitPrice",
}


@dataclass(frozen=True)
class Used:
    """What a provider has measured: so many tokens of one kind in some hours, and what it charges for them."""

    provider: str
    region: str
    model: str
    token_type: str
    mode: str
    start: datetime
    quantity: int
    cost: Decimal
    tags: Mapping[str, str] = field(default_factory=dict)
    hours: int = 24
    resource: str = ""

    @property
    def end(self) -> datetime:
        return self.start + timedelta(hours=self.hours)

    @property
    def month(self) -> datetime:
        return self.start.replace(day=1, hour=0)

    @property
    def next_month(self) -> datetime:
        return (self.month + timedelta(days=32)).replace(day=1)


def used_of(ledger: Iterable[Mapping[str, Any]], *, tags: bool = False, on: str = "period_start") -> list[Used]:
    """What a provider would bill for these ledger rows, by day, kind of token and model: all that was processed."""
    sums: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, Decimal(0)])
    for row in ledger:
        if row["kind"] == "actual" and row["token_type"] != "compute_second":
            day = row[on].astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            kind = "output" if row["token_type"] == "reasoning" else row["token_type"]
            mode = "on_demand" if row["batch_id"].startswith("ondemand/") else "batch"
            said = tuple(sorted(dict(row["tags"]).items())) if tags else ()
            found = sums[row["provider"], row["region"], row["model"], kind, mode, day, said]
            found[0] += row["quantity"]
            found[1] += row["amount"]
    return [
        Used(provider, region, model, kind, mode, day, quantity, cost, dict(said))
        for (provider, region, model, kind, mode, day, said), (quantity, cost) in sorted(sums.items(), key=str)
        if quantity
    ]


def usage_type(used: Used) -> str:
    """As Bedrock calls it: `USE1-NovaLite-input-tokens-batch`."""
    batch = "-batch" if used.mode == "batch" else ""
    return f"{_AWS_REGIONS[used.region]}-{_AWS_NAMES[used.model]}-{_AWS_TYPES[used.token_type]}{batch}"


def meter(used: Used) -> str:
    """As Azure calls it: `gpt-4o-mini-0718-Batch-Inp-glbl Tokens`."""
    batch = "Batch-" if used.mode == "batch" else ""
    return f"{_AZURE_NAMES[used.model]}-{batch}{_AZURE_TYPES[used.token_type]}-glbl Tokens"


def cur_rows(used: Sequence[Used]) -> list[dict[str, Any]]:
    """Rows of CUR 2.0: a line of another service, then these, then a tax."""
    rows = [_cur_row(one) for one in used]
    day = used[0] if used else Used("aws", "us-east-1", "amazon.nova-lite-v1:0", "input", "batch", NOW, 0, Decimal(0))
    other = {**_cur_row(day), "line_item_product_code": "AmazonS3", "line_item_usage_type": "USE1-TimedStorage-ByteHrs"}
    other |= {"product_servicecode": "AmazonS3", "product": {"product_name": "Amazon Simple Storage Service"}}
    other |= {"pricing_unit": "GB-Mo", "line_item_line_item_description": "storage", "line_item_unblended_cost": 0.25}
    tax = {**_cur_row(day), "line_item_line_item_type": "Tax", "line_item_usage_amount": 1.0, "pricing_unit": None}
    tax |= {"line_item_unblended_cost": 0.07, "line_item_usage_type": "", "resource_tags": {}}
    return [other, *rows, tax]


NOW = datetime(2026, 11, 20, tzinfo=UTC)


def _cur_row(used: Used) -> dict[str, Any]:
    words = usage_type(used)
    return {
        "bill_billing_entity": "AWS",
        "bill_bill_type": "Anniversary",
        "bill_billing_period_start_date": used.month,
        "bill_billing_period_end_date": used.next_month,
        "bill_payer_account_id": PAYER,
        "identity_time_interval": f"{used.start:%Y-%m-%dT%H:%M:%SZ}/{used.end:%Y-%m-%dT%H:%M:%SZ}",
        "line_item_currency_code": "USD",
        "line_item_line_item_description": f"Bedrock {words}",
        "line_item_line_item_type": "Usage",
        "line_item_operation": "InvokeModelInference",
        "line_item_product_code": "AmazonBedrock",
        "line_item_resource_id": used.resource or None,
        "line_item_unblended_cost": float(used.cost.quantize(Decimal("1e-10"))),
        "line_item_unblended_rate": "0.0000750000",
        "line_item_usage_account_id": ACCOUNT,
        "line_item_usage_amount": float(Decimal(used.quantity) / 1000),
        "line_item_usage_start_date": used.start,
        "line_item_usage_end_date": used.end,
        "line_item_usage_type": words,
        "pricing_unit": "1K tokens",
        "product": {"product_name": "Amazon Bedrock", "region": used.region},
        "product_servicecode": "AmazonBedrock",
        "product_region_code": used.region,
        "resource_tags": {f"user_{name}": value for name, value in used.tags.items()},
    }


def write_cur(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """As Data Exports does: Parquet with maps, times in milliseconds and doubles; CSV by the file's name."""
    if path.name.endswith((".csv", ".csv.gz")):
        return write_csv(path, CUR_COLUMNS, [{**row, **_flat(row)} for row in rows])
    fields = [
        pa.field(
            name,
            pa.map_(pa.string(), pa.string())
            if name in _MAPS
            else pa.float64()
            if name in _DOUBLES
            else pa.timestamp("ms")
            if name in _DATES
            else pa.string(),
        )
        for name in CUR_COLUMNS
    ]
    return _write_parquet(path, rows, pa.schema(fields))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    maps = {name: orjson.dumps(row[name]).decode() for name in _MAPS if row.get(name) is not None}
    return {**maps, **{name: f"{row[name]:%Y-%m-%dT%H:%M:%S.000Z}" for name in _DATES if row.get(name) is not None}}


def focus_rows(used: Sequence[Used]) -> list[dict[str, Any]]:
    """Rows of FOCUS 1.2, as AWS or Azure write them."""
    return [_focus_aws(one) if one.provider == "aws" else _focus_azure(one) for one in used]


def _focus(used: Used) -> dict[str, Any]:
    return {
        "BilledCost": used.cost,
        "EffectiveCost": used.cost,
        "BillingCurrency": "USD",
        "BillingPeriodStart": used.month,
        "BillingPeriodEnd": used.next_month,
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": used.start,
        "ChargePeriodEnd": used.end,
        "PricingCategory": "Standard",
        "ServiceCategory": "AI and Machine Learning",
        "RegionId": used.region,
        "ResourceId": used.resource or None,
    }


def _focus_aws(used: Used) -> dict[str, Any]:
    return {
        **_focus(used),
        "BillingAccountId": PAYER,
        "SubAccountId": ACCOUNT,
        "ProviderName": "Amazon Web Services",
        "ServiceName": "Amazon Bedrock",
        "SkuMeter": usage_type(used),
        "ChargeDescription": f"$0.000075 per 1K {used.token_type} tokens",
        "ConsumedQuantity": Decimal(used.quantity) / 1000,
        "ConsumedUnit": "1K tokens",
        "PricingQuantity": Decimal(used.quantity) / 1000,
        "PricingUnit": "1K tokens",
        "Tags": {f"user:{name}": value for name, value in used.tags.items()},
        "x_ServiceCode": "AmazonBedrock",
        "x_Operation": "InvokeModelInference",
    }


def _focus_azure(used: Used) -> dict[str, Any]:
    return {
        **_focus(used),
        "BillingAccountId": PROFILE,
        "SubAccountId": SUBSCRIPTION,
        "ProviderName": "Microsoft",
        "ServiceName": "Azure OpenAI",
        "SkuMeter": meter(used),
        "ChargeDescription": f"Azure OpenAI - {meter(used)}",
        "ConsumedQuantity": Decimal(used.quantity),
        "ConsumedUnit": "Units",
        "PricingQuantity": Decimal(used.quantity) / 1000,
        "PricingUnit": "Units",
        "Tags": dict(used.tags),
        "x_PricingBlockSize": Decimal(1000),
        "x_PricingUnitDescription": "1K",
        "x_SkuMeterCategory": "Cognitive Services",
        "x_SkuMeterSubcategory": "Azure OpenAI",
        "x_SkuMeterName": meter(used),
    }


def write_focus(path: Path, rows: Sequence[Mapping[str, Any]], *, doubles: bool = True) -> Path:
    """Parquet with AWS's types (doubles, maps), or Azure's (decimals, JSON text); CSV by the file's name."""
    own = FOCUS_AWS if rows and rows[0]["ProviderName"].startswith("Amazon") else FOCUS_AZURE
    columns = [*FOCUS_COLUMNS, *own, *(["x_UsageType"] if any("x_UsageType" in row for row in rows) else [])]
    if path.name.endswith((".csv", ".csv.gz")):
        texts = [{**row, "Tags": orjson.dumps(row["Tags"]).decode()} for row in rows]
        dated = [
            {**row, **{name: f"{row[name]:%Y-%m-%dT%H:%M:%SZ}" for name in _DATES if name in row}} for row in texts
        ]
        return write_csv(path, columns, dated)
    number = pa.float64() if doubles else pa.decimal128(38, 18)
    made = [
        {
            **row,
            **{
                name: float(row[name]) if doubles else row[name] for name in _FOCUS_DOUBLES if row.get(name) is not None
            },
            "Tags": row["Tags"] if doubles else orjson.dumps(row["Tags"]).decode(),
        }
        for row in rows
    ]
    fields = [
        pa.field(
            name,
            number
            if name in _FOCUS_DOUBLES
            else pa.timestamp("ms")
            if name in _DATES
            else pa.map_(pa.string(), pa.string())
            if name == "Tags" and doubles
            else pa.string(),
        )
        for name in columns
    ]
    return _write_parquet(path, made, pa.schema(fields))


def azure_rows(used: Sequence[Used], columns: Sequence[str] = AZURE_EA) -> list[dict[str, str]]:
    """Rows of an actual-cost export: a line of another service, then these."""
    rows = [_azure_row(one) for one in used]
    if rows:
        speech = {"metername": "S1 Speech To Text", "metersubcategory": "Speech", "productname": "Azure Speech - S1"}
        rows.insert(0, {**rows[0], **speech, "unitofmeasure": "1 Hour"})
    return [{name: row.get(name.lower(), "") for name in columns} for row in rows]


def _azure_row(used: Used) -> dict[str, str]:
    quantity, cost = f"{Decimal(used.quantity) / 1000:f}", f"{used.cost:f}"
    tags = ",".join(f'"{name}": "{value}"' for name, value in used.tags.items())
    resource = used.resource or (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.CognitiveServices/accounts/tides"
    )
    return {
        "billingaccountid": "12345",
        "billingprofileid": PROFILE,
        "subscriptionid": SUBSCRIPTION,
        "subscriptionguid": SUBSCRIPTION,
        "resourcegroup": "rg",
        "resourcelocation": used.region or "Unassigned",
        "date": f"{used.start:%m/%d/%Y}",
        "usagedatetime": f"{used.start:%Y-%m-%d}",
        "billingperiodstartdate": f"{used.month:%m/%d/%Y}",
        "billingperiodenddate": f"{used.next_month - timedelta(days=1):%m/%d/%Y}",
        "productname": f"Azure OpenAI - {meter(used)} - US East",
        "metercategory": "Cognitive Services",
        "metersubcategory": "Azure OpenAI",
        "metername": meter(used),
        "unitofmeasure": "1K",
        "quantity": quantity,
        "usagequantity": quantity,
        "costinbillingcurrency": cost,
        "costinpricingcurrency": cost,
        "costinusd": cost,
        "pretaxcost": cost,
        "billingcurrencycode": "USD",
        "billingcurrency": "USD",
        "currency": "USD",
        "consumedservice": "Microsoft.CognitiveServices",
        "resourceid": resource,
        "instanceid": resource,
        "tags": tags,
        "chargetype": "Usage",
        "frequency": "UsageBased",
        "pricingmodel": "OnDemand",
    }


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, bom: bool = False) -> Path:
    """A CSV file; gzipped if its name says so, with a byte order mark if asked, as Azure's have."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows(rows)
    data = (b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> Path:
    plain = [
        {name: value.replace(tzinfo=None) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows
    ]
    made = [
        {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}
        for row in plain
    ]
    pq.write_table(pa.Table.from_pylist(made, schema=schema), path, compression="snappy")
    return path
