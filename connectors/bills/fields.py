"""Numbers, times, units and tags as bills write them. What is not understood is an error, never a guess."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

import orjson

from lowtide.connectors.bills.files import Row

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_AMERICAN = re.compile(r"(\d\d?)/(\d\d?)/(\d{4})(?: 0?0:00(?::00)?)?")
_UNIT = re.compile(
    r"(?P<count>\d+)?\s*(?P<scale>k|m|thousand|million)?\s*(?P<word>(?:input |output )?tokens?)?", re.IGNORECASE
)
_SCALES = {"": 1, "k": 1_000, "thousand": 1_000, "m": 1_000_000, "million": 1_000_000}


def number(row: Row, *columns: str) -> Decimal:
    """The number in the first of these columns that the file has. Decimal all the way; doubles by their shortest form.

    Raises BillError.
    """
    column = next((name for name in columns if name in row.values), columns[0])
    value = row.values.get(column)
    if isinstance(value, bool) or value is None or value == "":
        raise row.wrong(column, value, "a number is needed: export the bill again, with this column")
    if isinstance(value, Decimal | int):
        return Decimal(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise row.wrong(column, value, "a number is needed")
        return Decimal(repr(value))
    text = str(value).strip()
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    advice = "a number is needed, with a point for decimals and nothing between thousands"
    if "," in text:
        advice += ": take the file as it was exported, not as a spreadsheet has saved it"
    raise row.wrong(column, text, advice)


def moment(row: Row, *columns: str) -> datetime:
    """The time in the first of these columns that the file has, in UTC.

    ISO 8601 as AWS and FOCUS write it, or MM/DD/YYYY as Azure's cost files do. A time without a zone is UTC. Raises
    BillError.
    """
    column = next((name for name in columns if name in row.values), columns[0])
    value = row.values.get(column)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    text = str(value or "").strip()
    try:
        if found := _AMERICAN.fullmatch(text):
            month, day, year = map(int, found.groups())
            return datetime(year, month, day, tzinfo=UTC)
        read = datetime.fromisoformat(text)
    except ValueError:
        raise row.wrong(
            column, text, "a day is needed, as 2026-11-20, 2026-11-20T00:00:00Z or 11/20/2026 (month first)"
        ) from None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def in_dollars(row: Row, *columns: str) -> str:
    """`USD`, after a look at the currency. Raises BillError for any other."""
    currency = row.text(*columns)
    if currency.upper() != "USD":
        raise row.wrong(columns[0], currency, "the ledger is in USD and nothing is converted: export the bill in USD")
    return "USD"


def tokens_of(unit: str) -> int | None:
    """How many tokens the unit stands for: `1K tokens`, `1M`, `1000 Tokens`, `Tokens`; None if it does not say so."""
    found = _UNIT.fullmatch(unit.strip())
    if found is None or not (found["word"] or (found["count"] and found["scale"])):
        return None
    return int(found["count"] or 1) * _SCALES[(found["scale"] or "").lower()]


def whole_tokens(quantity: Decimal, per: Decimal | int) -> int:
    """So many units in whole tokens: what is left of them after the provider's own rounding is rounded off."""
    return int((quantity * per).to_integral_value())


def tags_in(row: Row, *columns: str) -> dict[str, str]:
    """Tags as a map, as JSON, or as JSON without its braces, which is how some Azure exports write them."""
    found: dict[str, str] = {}
    for column in columns:
        value = row.values.get(column)
        if isinstance(value, str):
            text = value.strip()
            if not text:
                continue
            try:
                value = orjson.loads(text if text.startswith("{") else "{" + text.rstrip(",") + "}")
            except orjson.JSONDecodeError:
                raise row.wrong(column, text[:60], "tags are needed as JSON: export the bill again") from None
        if isinstance(value, Mapping):
            found |= {str(name): _said(what) for name, what in value.items()}
        elif isinstance(value, list | tuple):
            found |= {str(name): _said(what) for name, what in value}
    return found


def _said(value: object) -> str:
    return "" if value is None else str(value)
