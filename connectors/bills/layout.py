"""What the layouts have in common: one row to one line, or to nothing if it is for another service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from lowtide.billing.bill import BillLine, Place
from lowtide.connectors.bills.fields import tokens_of, whole_tokens
from lowtide.connectors.bills.files import Row
from lowtide.connectors.bills.models import Names
from lowtide.connectors.bills.usage import Usage


class Layout(Protocol):
    """One kind of export. Column names are in lower case."""

    @property
    def name(self) -> str:
        """As a person would call it."""

    @property
    def required(self) -> frozenset[str]:
        """The columns without which no line can be understood."""

    @property
    def optional(self) -> frozenset[str]:
        """Columns that are used where they are there."""

    def place(self, row: Row) -> Place:
        """Where the row belongs. Raises BillError."""

    def line(self, row: Row, place: Place, names: Names) -> BillLine | None:
        """The row as a line; None if it is for another service. Raises BillError."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity with its unit, as a bill has it, and the column that the unit is from."""

    amount: Decimal
    unit: str
    column: str


def tokens(row: Row, quantity: Quantity, names: Names, *, per: int | None = None) -> int:
    """The quantity in tokens; `per` is what the unit is known to stand for. Raises BillError if it is not known."""
    per = names.unit(quantity.unit) or per or tokens_of(quantity.unit)
    if per is None:
        raise row.wrong(
            quantity.column,
            quantity.unit,
            "this unit says nothing of tokens: if you know how many tokens one is, pass --map FILE with "
            f"units: {{{quantity.unit or 'UNIT'!r}: NUMBER}}",
        )
    return whole_tokens(quantity.amount, per)


@dataclass(frozen=True, slots=True)
class Charged:
    """What a row charges for, and how many tokens of it; `charge` and `unknown` are as in `BillLine`."""

    usage: Usage
    model: str
    words: str
    charge: str
    quantity: int = 0
    unknown: str = ""


def charged(
    usage: Usage,
    words: str,
    place: Place,
    names: Names,
    *,
    charge: str,
    amount: Callable[[], Decimal],
    count: Callable[[Decimal], int],
) -> Charged:
    """The usage of a row, with its model and its tokens.

    `amount` reads the quantity in the bill's unit, and `count` makes tokens of it. Neither is asked of a charge that is
    not for usage, and the second not of an amount that cannot be compared with the ledger. Raises BillError.
    """
    model = names.model(place.provider, usage.name, words)
    if charge:
        return Charged(usage, model, words, charge)
    quantity = amount()
    unknown = _doubt(usage, model, words, quantity)
    return Charged(usage, model, words, charge, 0 if unknown else count(quantity), unknown)


def line_of(
    row: Row,
    place: Place,
    what: Charged,
    *,
    service: str,
    region: str,
    cost: Decimal,
    currency: str,
    tags: Mapping[str, str],
    operation: str = "",
    resource: str = "",
    description: str = "",
) -> BillLine:
    """The row as a line of its place."""
    return BillLine(
        file=row.file,
        row=row.number,
        provider=place.provider,
        account=place.account,
        sub_account=place.sub_account,
        billing_month=place.month,
        service=service,
        start=place.start,
        end=place.end,
        region=region or what.usage.region,
        model=what.model,
        token_type=what.usage.token_type,
        mode=what.usage.mode,
        quantity=what.quantity,
        cost=cost,
        currency=currency,
        tags=tags,
        words=what.words,
        operation=operation,
        resource=resource,
        description=description,
        charge=what.charge,
        unknown=what.unknown,
    )


def _doubt(usage: Usage, model: str, words: str, quantity: Decimal) -> str:
    """Why a line of usage cannot be compared with the ledger; "" if it can."""
    if not usage.token_type:
        return "no kind of token in its name"
    if not model:
        return f"no model known by {usage.name!r}; if it is yours, pass --map FILE with models: {{{words!r}: MODEL}}"
    if quantity < 0:
        return "a quantity below zero: it takes back what another line says"
    return ""
