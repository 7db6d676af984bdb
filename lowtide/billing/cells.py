"""Values as cells of a CSV file that people open in a spreadsheet."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object) -> str:
    """Null is an empty cell, numbers are in plain notation, times in UTC to the second.

    Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers stay numbers.
    """
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case Decimal():
            plain = f"{value:f}"
            return plain.rstrip("0").rstrip(".") if "." in plain else plain
        case bool() | int() | float():
            return str(value)
        case _:
            text = str(value)
            return f"'{text}" if text.startswith(_FORMULA) else text
