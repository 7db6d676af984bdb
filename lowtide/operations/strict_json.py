"""JSON as its standard says: no key twice, no NaN, no number that a reader downstream would change."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import orjson

Fault = Literal["syntax", "duplicate", "number", "depth", "unicode"]


class StrictJsonError(ValueError):
    """What is wrong with a JSON text. `key` is the one that stands twice, `line` where the syntax breaks (from 1)."""

    def __init__(self, fault: Fault, message: str, *, key: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.fault = fault
        self.key = key
        self.line = line


def loads(text: str) -> Any:
    """The value of a JSON text. Raises StrictJsonError, whose message holds nothing of the text."""
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise StrictJsonError("syntax", error.msg, line=error.lineno) from None
    except RecursionError:
        raise StrictJsonError("depth", "is nested too deeply") from None


def dumps(value: object) -> str:
    """Compact JSON, keys in the order given, floats in their shortest spelling. Raises StrictJsonError."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError) as error:
        # orjson has one error for all; what json lets through and orjson does not is depth, or half a surrogate pair.
        fault: Fault = "depth" if "ecursion" in str(error) else "unicode"
        message = "is nested too deeply" if fault == "depth" else "holds half a surrogate pair"
        raise StrictJsonError(fault, message) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise StrictJsonError("duplicate", "has a key twice in one object", key=key)
            seen.add(key)
    return unique


def _constant(text: str) -> float:
    raise StrictJsonError("number", f"holds {text}, which JSON does not know")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise StrictJsonError("number", "holds a number beyond the range of 64 bits")
    return number


def _integer(text: str) -> int:
    # Python itself refuses to read integers of thousands of digits, with an error of its own.
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**63:
        raise StrictJsonError("number", "holds a number beyond the range of 64 bits")
    return number
