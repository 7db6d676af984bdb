"""AWS Cost and Usage Report 2.0, as Data Exports writes it: Parquet, or CSV with gzip.

Documented (Data Exports user guide, "Cost and Usage Report (CUR) 2.0", and Bedrock user guide, "Understanding your
Amazon Bedrock Cost and Usage Report data"): the columns, the maps `product` and `resource_tags` (and `tags`, whose keys
begin with `resourceTags/` or `iamPrincipal/`), one line for each kind of token, and the usage types by pattern. Known
from exports that others have published: `pricing_unit` is `1K tokens`, or `1M tokens`; for Marketplace models `Units`,
with `Million Input Tokens` in the description. Assumed: that `product_servicecode` begins with `AmazonBedrock` also
where `line_item_product_code` is that of a Marketplace product.

Costs are `line_item_unblended_cost`: what was charged, before credits, taxes and private discounts.
"""

from __future__ import annotations

import re
from decimal import Decimal

from lowtide.billing.bill import BillLine, Place
from lowtide.connectors.bills import usage
from lowtide.connectors.bills.fields import in_dollars, moment, number, tags_in
from lowtide.connectors.bills.files import Row
from lowtide.connectors.bills.layout import Quantity, charged, line_of, tokens
from lowtide.connectors.bills.models import Names

_RESOURCE = "resourcetags/"
_USAGE = frozenset({"usage", "discountedusage", "savingsplancoveredusage"})
_BEDROCK = re.compile(r"amazon\s?bedrock", re.IGNORECASE)
_SCALED = re.compile(r"\b(thousand|million) [a-z ]*tokens?", re.IGNORECASE)
_SCALES = {"thousand": 1_000, "million": 1_000_000}


class AwsCur:
    """`line_item_…`"""

    name = "AWS CUR 2.0"
    required = frozenset(
        {
            "line_item_usage_start_date",
            "line_item_usage_end_date",
            "line_item_line_item_type",
            "line_item_product_code",
            "line_item_usage_type",
            "line_item_usage_amount",
            "line_item_unblended_cost",
            "line_item_currency_code",
            "pricing_unit",
        }
    )
    optional = frozenset(
        {
            "bill_payer_account_id",
            "bill_billing_period_start_date",
            "line_item_usage_account_id",
            "line_item_operation",
            "line_item_resource_id",
            "line_item_line_item_description",
            "product",
            "product_servicecode",
            "product_region_code",
            "resource_tags",
            "tags",
        }
    )

    def place(self, row: Row) -> Place:
        """Payer, account, and the time of the usage."""
        start = moment(row, "line_item_usage_start_date")
        end = moment(row, "line_item_usage_end_date")
        dated = row.text("bill_billing_period_start_date")
        month = moment(row, "bill_billing_period_start_date") if dated else start
        account = row.text("line_item_usage_account_id")
        return Place(
            "aws", row.text("bill_payer_account_id") or account, account, month.date().replace(day=1), start, end
        )

    def line(self, row: Row, place: Place, names: Names) -> BillLine | None:
        """A line of Bedrock's, or None."""
        code, words = row.text("line_item_product_code"), row.text("line_item_usage_type")
        description = row.text("line_item_line_item_description")
        product = tags_in(row, "product").get("product_name", "")
        said = f"{code} {row.text('product_servicecode')} {product} {description}"
        if not _BEDROCK.search(said):
            return None
        kind = row.text("line_item_line_item_type")
        what = charged(
            usage.of_aws(words, product),
            words,
            place,
            names,
            charge="" if kind.lower() in _USAGE else kind or "not usage",
            amount=lambda: number(row, "line_item_usage_amount"),
            count=lambda amount: _tokens(row, amount, names),
        )
        return line_of(
            row,
            place,
            what,
            service=code,
            region=row.text("product_region_code"),
            cost=number(row, "line_item_unblended_cost"),
            currency=in_dollars(row, "line_item_currency_code"),
            tags=_tags(row),
            operation=row.text("line_item_operation"),
            resource=row.text("line_item_resource_id"),
            description=description,
        )


def _tags(row: Row) -> dict[str, str]:
    """The resource's tags. Those of the caller and of the account say nothing of the batch."""
    others = tags_in(row, "tags")
    named = {name: value for name, value in others.items() if name.lower().startswith(_RESOURCE)}
    return {**tags_in(row, "resource_tags"), **named}


def _tokens(row: Row, amount: Decimal, names: Names) -> int:
    unit = row.text("pricing_unit")
    scaled = _SCALED.search(row.text("line_item_line_item_description"))
    per = _SCALES[scaled[1].lower()] if scaled and unit.lower() == "units" else None
    return tokens(row, Quantity(amount, unit, "pricing_unit"), names, per=per)
