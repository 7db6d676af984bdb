"""A JSON Schema in the form that structured outputs take: strict where the schema keeps strict mode's rules.

The rules are those that OpenAI and Azure both document; where they differ, the narrower one holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_KNOWN = {
    "$defs", "$ref", "additionalProperties", "anyOf", "const", "definitions", "description", "enum", "items",
    "properties", "required", "title", "type",
}  # fmt: skip
# Of no meaning to a model, and not on the list of what strict mode takes.
_LEFT_OUT = {"$schema", "$comment", "$id"}
_PROPERTIES = 100
_LEVELS = 5
_ENUM_VALUES = 500
_ENUM_CHARACTERS = 7_500
_NAME = re.compile(r"[^A-Za-z0-9_-]")


def response_schema(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """`name`, `strict` and `schema`, as they stand in `json_schema` of a chat and in `format` of a response."""
    bare = {key: value for key, value in schema.items() if key not in _LEFT_OUT}
    strict = is_strict(bare)
    return {"name": _NAME.sub("_", name)[:64] or "answer", "strict": strict, "schema": bare if strict else schema}


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether strict mode takes the schema: an object all of whose properties are required and no others allowed, and
    so on down, with no keyword that strict mode does not know.
    """
    if schema.get("type") != "object" or "anyOf" in schema:
        return False
    parts = list(_parts(schema, 1))
    properties = sum(len(part.get("properties") or {}) for _, part in parts)
    enums = [part["enum"] for _, part in parts if isinstance(part.get("enum"), list)]
    return (
        all(_keeps_the_rules(part) for _, part in parts)
        and max(level for level, part in parts if _is_object(part)) <= _LEVELS
        and properties <= _PROPERTIES
        and sum(map(len, enums)) <= _ENUM_VALUES
        and all(sum(len(str(value)) for value in enum) <= _ENUM_CHARACTERS for enum in enums)
    )


def _keeps_the_rules(part: Mapping[str, Any]) -> bool:
    if not part.keys() <= _KNOWN or part.get("broken"):
        return False
    if not _is_object(part):
        return True
    properties, required = part.get("properties"), part.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return False
    return part.get("additionalProperties") is False and set(properties) == set(required)


def _is_object(part: Mapping[str, Any]) -> bool:
    kinds = part.get("type")
    return kinds == "object" or (isinstance(kinds, list) and "object" in kinds) or "properties" in part


def _parts(schema: object, level: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every schema inside a schema, with the level of objects that it is on. `{"broken": True}` for what is none."""
    if not isinstance(schema, Mapping):
        yield level, {"broken": True}
        return
    yield level, schema
    for key in ("properties", "$defs", "definitions"):
        inner = schema.get(key, {})
        below = level + 1 if key == "properties" else level
        for part in inner.values() if isinstance(inner, Mapping) else ():
            yield from _parts(part, below)
    if "items" in schema:
        yield from _parts(schema["items"], level)
    options = schema.get("anyOf", [])
    for part in options if isinstance(options, list) else [None]:
        yield from _parts(part, level)
