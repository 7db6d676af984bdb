"""JSON for people and programs: amounts as text of plain digits, `0.000000075` and never `7.5E-8`."""

from __future__ import annotations

from decimal import Decimal

import msgspec


def plain_json(value: object) -> bytes:
    """What msgspec makes of a value, indented. Amounts are read back as the exact Decimals that they were."""
    return msgspec.json.format(msgspec.json.encode(_plain(msgspec.to_builtins(value, builtin_types=(Decimal,)))))


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
