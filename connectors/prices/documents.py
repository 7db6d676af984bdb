"""Price lists as they come: JSON in which anything may be missing."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from hashlib import sha256

from lowtide.errors import ConfigError


def document(data: bytes, name: str) -> object:
    """JSON whose numbers are Decimal, as written. Raises ConfigError that names the file."""
    try:
        parsed: object = json.loads(data, parse_float=Decimal, parse_int=Decimal)
    except ValueError as error:
        raise ConfigError(f"{name}: is no JSON: {error}") from None
    return parsed


def rows(value: object) -> dict[str, dict[str, object]]:
    """The objects within an object, by their names; nothing where there is none."""
    if not isinstance(value, dict):
        return {}
    return {str(key): each for key, each in value.items() if isinstance(each, dict)}


def text(row: dict[str, object], field: str) -> str:
    """A text field, or "" where there is no text."""
    value = row.get(field)
    return value if isinstance(value, str) else ""


def fingerprint(data: bytes) -> str:
    """A short name for the content of a file."""
    return f"sha256 {sha256(data).hexdigest()[:12]}"


def since(made: date, stated: str) -> date:
    """The first day of a price that a provider dates: that day when it is still to come, and else the book's own.

    That it was the price on the days between is not claimed. Raises ValueError for what is no date.
    """
    return max(made, date.fromisoformat(stated[:10]))
