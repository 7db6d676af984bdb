"""FOCUS 1.0 to 1.2 cost and usage, as AWS and Azure export it: Parquet or CSV.

Documented: the columns of the FinOps Open Cost and Usage Specification; AWS's own (`x_UsageType`, `x_Operation`,
`x_ServiceCode`: Data Exports user guide) and Azure's (`x_SkuMeterName`, `x_SkuMeterSubcategory`, `x_PricingBlockSize`,
`x_PricingUnitDescription`: "FOCUS cost and usage details file schema", by which PricingQuantity is the quantity divided
by the block size). Assumed: that in AWS's 1.2, which has no `x_UsageType`, `SkuMeter` holds the usage type, or
`ChargeDescription` begins with it.

Costs are `BilledCost`, the basis of the invoice.
"""

from __future__ import annotations

import re
from decimal import Decimal

from lowtide.billing.bill import BillLine, Place
from lowtide.connectors.bills import usage
from lowtide.connectors.bills.fields import in_dollars, moment, number, tags_in, tokens_of, whole_tokens
from lowtide.connectors.bills.files import Row
from lowtide.connectors.bills.layout import Quantity, charged, line_of, tokens
from lowtide.connectors.bills.models import Names

_BEDROCK = re.compile(r"amazon\s?bedrock", re.IGNORECASE)
_PROVIDERS = (("aws", "aws"), ("amazon", "aws"), ("microsoft", "azure"), ("azure", "azure"))


class Focus:
    """`BilledCost`, `ChargePeriodStart`, …"""

    name = "FOCUS"
    required = frozenset(
        {
            "billedcost",
            "billingcurrency",
            "billingaccountid",
            "billingperiodstart",
            "chargecategory",
            "chargeperiodstart",
            "chargeperiodend",
            "pricingquantity",
            "pricingunit",
            "providername",
            "servicename",
        }
    )
    optional = frozenset(
        {
            "subaccountid",
            "consumedquantity",
            "consumedunit",
            "chargedescription",
            "regionid",
            "resourceid",
            "skumeter",
            "tags",
            "x_usagetype",
            "x_operation",
            "x_servicecode",
            "x_skumetername",
            "x_skumetercategory",
            "x_skumetersubcategory",
            "x_pricingblocksize",
            "x_pricingunitdescription",
        }
    )

    def place(self, row: Row) -> Place:
        """Provider, billing account, sub-account and charge period."""
        named = row.text("providername")
        provider = next((ours for word, ours in _PROVIDERS if word in named.lower()), named.lower())
        return Place(
            provider,
            row.text("billingaccountid"),
            row.text("subaccountid"),
            moment(row, "billingperiodstart").date().replace(day=1),
            moment(row, "chargeperiodstart"),
            moment(row, "chargeperiodend"),
        )

    def line(self, row: Row, place: Place, names: Names) -> BillLine | None:
        """A line of Bedrock or of Azure OpenAI, or None."""
        words = _words(row, place.provider)
        if words is None:
            return None
        description, service = row.text("chargedescription"), row.text("servicename")
        category = row.text("chargecategory")
        what = charged(
            usage.of_aws(words, service) if place.provider == "aws" else usage.of_azure(words),
            words,
            place,
            names,
            charge="" if category.lower() == "usage" else category or "not usage",
            amount=lambda: number(row, "pricingquantity"),
            count=lambda priced: _tokens(row, priced, names),
        )
        return line_of(
            row,
            place,
            what,
            service=service,
            region=row.text("regionid"),
            cost=number(row, "billedcost"),
            currency=in_dollars(row, "billingcurrency"),
            tags=tags_in(row, "tags"),
            operation=row.text("x_operation"),
            resource=row.text("resourceid"),
            description=description,
        )


def _words(row: Row, provider: str) -> str | None:
    """What the provider calls the usage; None if the row is for another service."""
    description = row.text("chargedescription")
    if provider == "aws":
        said = f"{row.text('servicename')} {row.text('x_servicecode')} {description}"
        if not _BEDROCK.search(said):
            return None
        return row.text("x_usagetype", "skumeter") or description.partition(" ")[0]
    if provider == "azure":
        group = f"{row.text('x_skumetersubcategory')} {row.text('servicename')} {description}".lower()
        if "openai" not in group and row.text("x_skumetercategory").lower() != "foundry models":
            return None
        return row.text("skumeter", "x_skumetername") or description
    return None


def _tokens(row: Row, quantity: Decimal, names: Names) -> int:
    """The tokens of a row: from what was consumed, or priced, in a unit that says so.

    Azure may count plain `Units`, with the block (`1K`) apart. Two columns then have to say the same: what was consumed
    is what was priced, times the block.
    """
    priced = Quantity(quantity, row.text("pricingunit"), "pricingunit")
    used_unit = row.text("consumedunit")
    has_used = row.values.get("consumedquantity") not in (None, "")
    if has_used and tokens_of(used_unit) and "token" in used_unit.lower():
        return tokens(row, Quantity(number(row, "consumedquantity"), used_unit, "consumedunit"), names)
    if tokens_of(priced.unit) or names.unit(priced.unit):
        return tokens(row, priced, names)
    block = tokens_of(row.text("x_pricingunitdescription"))
    if has_used and block and number(row, "x_pricingblocksize") == block:
        used = number(row, "consumedquantity")
        if abs(used - priced.amount * block) <= max(Decimal(1), used * Decimal("1e-9")):
            return whole_tokens(used, 1)
    return tokens(row, priced, names)
