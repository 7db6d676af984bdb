"""Azure's cost and usage details, actual cost: CSV, or gzipped CSV, or Parquet.

Documented (Cost Management, "cost and usage details file schema" for Enterprise Agreement, Microsoft Customer Agreement
and pay-as-you-go): the columns, whose spelling differs in case (`MeterName`, `meterName`) and in a few names
(`BillingCurrencyCode`, `billingCurrency`, `Currency`), and that a row is a day of one meter of one resource. Known from
exports that others have published: dates are MM/DD/YYYY or ISO, tags are JSON with or without the outer braces, a
quantity counts units of `UnitOfMeasure` (`1K`, `1M`). Assumed: that OpenAI's models are told from the rest of Cognitive
Services by `OpenAI` in the meter's sub-category or the product's name, or by the category `Foundry Models`.
"""

from __future__ import annotations

from datetime import timedelta

from lowtide.billing.bill import BillLine, Place
from lowtide.connectors.bills import usage
from lowtide.connectors.bills.fields import in_dollars, moment, number, tags_in
from lowtide.connectors.bills.files import Row
from lowtide.connectors.bills.layout import Quantity, charged, line_of, tokens
from lowtide.connectors.bills.models import Names

_DAY = timedelta(days=1)
_DATES = ("date", "usagedate", "usagedatetime")
_QUANTITIES = ("quantity", "usagequantity")
_COSTS = ("costinbillingcurrency", "pretaxcost", "cost")
_CURRENCIES = ("billingcurrencycode", "billingcurrency", "currency")


class AzureCost:
    """`MeterName`, `UnitOfMeasure`, …"""

    name = "Azure cost export"
    required = frozenset({"metername", "metercategory", "metersubcategory", "unitofmeasure", "consumedservice"})
    one_of = (_DATES, _QUANTITIES, _COSTS, _CURRENCIES)
    optional = frozenset(
        {
            *_DATES,
            *_QUANTITIES,
            *_COSTS,
            *_CURRENCIES,
            "billingaccountid",
            "billingprofileid",
            "billingperiodstartdate",
            "subscriptionid",
            "subscriptionguid",
            "resourcelocation",
            "resourceid",
            "instanceid",
            "tags",
            "chargetype",
            "productname",
        }
    )

    def place(self, row: Row) -> Place:
        """Billing account, subscription and day."""
        day = moment(row, *_DATES)
        dated = row.text("billingperiodstartdate")
        month = moment(row, "billingperiodstartdate") if dated else day
        subscription = row.text("subscriptionid", "subscriptionguid")
        account = row.text("billingprofileid", "billingaccountid") or subscription
        return Place("azure", account, subscription, month.date().replace(day=1), day, day + _DAY)

    def line(self, row: Row, place: Place, names: Names) -> BillLine | None:
        """A line of OpenAI's models, or None."""
        words, category = row.text("metername"), row.text("metercategory")
        group = f"{row.text('metersubcategory')} {row.text('productname')}".lower()
        if "openai" not in group and category.lower() != "foundry models":
            return None
        kind = row.text("chargetype")
        what = charged(
            usage.of_azure(words),
            words,
            place,
            names,
            charge="" if kind.lower() in ("", "usage") else kind,
            amount=lambda: number(row, *_QUANTITIES),
            count=lambda amount: tokens(row, Quantity(amount, row.text("unitofmeasure"), "unitofmeasure"), names),
        )
        return line_of(
            row,
            place,
            what,
            service=category,
            region=row.text("resourcelocation"),
            cost=number(row, *_COSTS),
            currency=in_dollars(row, *(name for name in _CURRENCIES if name in row.values)),
            tags=tags_in(row, "tags"),
            operation=row.text("metersubcategory"),
            resource=row.text("resourceid", "instanceid"),
            description=row.text("productname"),
        )
