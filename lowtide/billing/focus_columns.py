"""The columns of FOCUS 1.2, the FinOps Open Cost and Usage Specification, and the values that some of them may have.

From `specification/columns/` of the specification's version 1.2; the currencies are those of ISO 4217.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Kind = Literal["text", "decimal", "time", "json"]

VERSION = "1.2"

_DECIMALS = """BilledCost CommitmentDiscountQuantity ConsumedQuantity ContractedCost ContractedUnitPrice EffectiveCost
ListCost ListUnitPrice PricingCurrencyContractedUnitPrice PricingCurrencyEffectiveCost PricingCurrencyListUnitPrice
PricingQuantity"""
_TIMES = "BillingPeriodEnd BillingPeriodStart ChargePeriodEnd ChargePeriodStart"
_TEXTS = """AvailabilityZone BillingAccountId BillingAccountName BillingAccountType BillingCurrency
CapacityReservationId CapacityReservationStatus ChargeCategory ChargeClass ChargeDescription ChargeFrequency
CommitmentDiscountCategory CommitmentDiscountId CommitmentDiscountName CommitmentDiscountStatus CommitmentDiscountType
CommitmentDiscountUnit ConsumedUnit InvoiceId InvoiceIssuerName PricingCategory PricingCurrency PricingUnit ProviderName
PublisherName RegionId RegionName ResourceId ResourceName ResourceType ServiceCategory ServiceName ServiceSubcategory
SkuId SkuMeter SkuPriceId SubAccountId SubAccountName SubAccountType"""
_MANDATORY = """BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart
ChargeCategory ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost
InvoiceIssuerName ListCost PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName"""
_CURRENCIES = """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD
CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG
HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK
MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND
VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"""


def _kinds() -> dict[str, Kind]:
    found: dict[str, Kind] = dict.fromkeys(_DECIMALS.split(), "decimal")
    found |= dict.fromkeys(_TIMES.split(), "time")
    found |= dict.fromkeys(_TEXTS.split(), "text")
    found |= dict.fromkeys(("SkuPriceDetails", "Tags"), "json")
    return dict(sorted(found.items()))


COLUMNS: Mapping[str, Kind] = _kinds()
"""All columns, and what is in them."""

MANDATORY = tuple(_MANDATORY.split())
"""The columns that every dataset has: those whose feature level is Mandatory."""

NEVER_NULL = (
    *(name for name in MANDATORY if name not in (
        "BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit"
    )),
    "ChargeFrequency",
    "PricingCurrency",
    "ServiceSubcategory",
)  # fmt: skip
"""Columns that have a value in every row, if they are there."""

PRICED = ("PricingQuantity", "ListUnitPrice", "ContractedUnitPrice", "PricingCategory", "SkuId", "SkuPriceId")
"""Columns that are not null for usage and purchases, unless they are corrections, and null for taxes."""

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "ChargeCategory": ("Usage", "Purchase", "Tax", "Credit", "Adjustment"),
    "ChargeClass": ("Correction",),
    "ChargeFrequency": ("One-Time", "Recurring", "Usage-Based"),
    "PricingCategory": ("Standard", "Dynamic", "Committed", "Other"),
    "ServiceCategory": (
        "AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools",
        "Identity", "Integration", "Internet of Things", "Management and Governance", "Media", "Migration", "Mobile",
        "Multicloud", "Networking", "Other", "Security", "Storage", "Web",
    ),
}  # fmt: skip

AI_CATEGORY = "AI and Machine Learning"
AI_SUBCATEGORIES = (
    "AI Platforms", "Bots", "Generative AI", "Machine Learning", "Natural Language Processing",
    "Other (AI and Machine Learning)",
)  # fmt: skip

CURRENCIES = frozenset(_CURRENCIES.split())
