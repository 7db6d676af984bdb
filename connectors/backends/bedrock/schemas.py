"""Which JSON Schemas Bedrock can hold an answer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# "Get validated JSON results from models" in Bedrock's user guide: no recursion, no bounds of numbers and lengths,
# every object closed. More than ten optional properties were reported to be refused (release notes of Vercel's AI SDK).
_KEYWORDS = frozenset({
    "$schema", "title", "description", "type", "properties", "required", "additionalProperties", "items", "enum",
    "const", "anyOf", "allOf", "default", "examples",
})  # fmt: skip
_MOST_OPTIONAL = 10


def fits_native(schema: Mapping[str, Any]) -> bool:
    """Whether the schema keeps to what structured output is documented to take.

    One that does not would fail every row, so it stays in the prompt, where it is anyway.
    """
    return schema.get("type") == "object" and _fits(schema) and _optional(schema) <= _MOST_OPTIONAL


def _fits(schema: object) -> bool:
    if not isinstance(schema, Mapping) or not schema.keys() <= _KEYWORDS:
        return False
    kind = schema.get("type")
    if isinstance(kind, list) and "object" in kind:
        return False
    if kind == "object" and (schema.get("additionalProperties") is not False or "properties" not in schema):
        return False
    if kind != "object" and "additionalProperties" in schema:
        return False
    return all(_fits(inner) for inner in _inner(schema))


def _inner(schema: Mapping[str, Any]) -> list[object]:
    properties = schema.get("properties", {})
    found = list(properties.values()) if isinstance(properties, Mapping) else [None]
    found += [schema["items"]] if "items" in schema else []
    return found + [inner for key in ("anyOf", "allOf") for inner in schema.get(key, [])]


def _optional(schema: object) -> int:
    if not isinstance(schema, Mapping):
        return 0
    own = len(schema.get("properties", {})) - len(schema.get("required", []))
    return max(own, 0) + sum(_optional(inner) for inner in _inner(schema))
