"""One value valid under a JSON Schema, made from a document: what an emulated model answers where one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

_DEPTH = 12
_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
    "duration": "P1D",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What values are made from: the document, its beginning, and the hash of all that was asked."""

    digest: bytes
    text: str
    beginning: str
    language: str = ""
    label: str = ""

    @property
    def confidence(self) -> float:
        """Between 0.5 and 0.99."""
        return (50 + self.digest[4] % 50) / 100

    @property
    def translation(self) -> str:
        """The document after the mark of the language asked for, so that it differs from the original."""
        return f"[{self.language or 'en'}] {self.text.strip() or self.beginning}"

    def pick(self, path: str, count: int) -> int:
        """A number below `count`, the same for the same question and place."""
        return (int.from_bytes(self.digest[5:9], "big") + sum(path.encode(errors="replace"))) % count


def instance(schema: Mapping[str, Any], source: Source) -> object:
    """A value valid under `schema`: every keyword for structure, ranges, lengths, enum, const and format is heeded.

    `pattern`, `not` and conditional keywords are not: a schema that needs them gets an answer that does not fit, as
    models sometimes give.
    """
    return _value(schema, schema, source, "", _DEPTH)


def _value(schema: object, root: Mapping[str, Any], source: Source, path: str, depth: int) -> object:
    if not isinstance(schema, Mapping):
        return source.beginning if schema is True else None
    schema = _resolved(schema, root, depth)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        choices = schema["enum"]
        return source.label if source.label in choices else choices[source.pick(path, len(choices))]
    match _kind(schema):
        case "object":
            return _object(schema, root, source, path, depth)
        case "array":
            return _array(schema, root, source, path, depth)
        case "integer":
            return int(_number(schema, source, path, whole=True))
        case "number":
            return source.confidence if path.endswith(".confidence") else _number(schema, source, path, whole=False)
        case "boolean":
            return source.pick(path, 2) == 0
        case "null":
            return None
        case _:
            return _string(schema, source, path)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
    """The schema with its reference followed, its `allOf` merged, and the first of its alternatives taken."""
    for _ in range(depth):
        if isinstance(schema.get("$ref"), str):
            target = _referenced(schema["$ref"], root)
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
            continue
        parts = schema.get("allOf")
        if isinstance(parts, list) and parts:
            merged = {key: value for key, value in schema.items() if key != "allOf"}
            for part in parts:
                merged = _merged(merged, _resolved(part, root, depth - 1) if isinstance(part, Mapping) else {})
            schema = merged
            continue
        options = schema.get("anyOf") or schema.get("oneOf")
        if not (isinstance(options, list) and options):
            return schema
        real = [option for option in options if isinstance(option, Mapping) and option.get("type") != "null"]
        rest = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
        schema = _merged(rest, real[0] if real else {"type": "null"})
    return schema


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**first, **second}
    merged["properties"] = {**first.get("properties", {}), **second.get("properties", {})}
    merged["required"] = [*first.get("required", []), *second.get("required", [])]
    return {key: value for key, value in merged.items() if value not in ({}, [])}


def _referenced(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: object = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _object(
    schema: Mapping[str, Any], root: Mapping[str, Any], source: Source, path: str, depth: int
) -> dict[str, object]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", []))
    # Optional properties are left out below a certain depth, so that a schema that holds itself comes to an end.
    names = [name for name in properties if name in required or depth > _DEPTH - 4]
    names += [name for name in schema.get("required", []) if name not in properties]
    if depth <= 0:
        return {}
    return {name: _value(properties.get(name, True), root, source, f"{path}.{name}", depth - 1) for name in names}


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], source: Source, path: str, depth: int) -> list[object]:
    if depth <= 0:
        return []
    first = schema.get("prefixItems", [])
    values = [_value(item, root, source, f"{path}[{n}]", depth - 1) for n, item in enumerate(first)]
    wanted = max(int(schema.get("minItems", 1)), len(values))
    wanted = min(wanted, int(schema.get("maxItems", wanted)))
    while len(values) < wanted:
        item = _value(schema.get("items", {"type": "string"}), root, source, f"{path}[{len(values)}]", depth - 1)
        if schema.get("uniqueItems") and item in values:
            if not isinstance(item, str | int | float):
                break
            item = f"{item} {len(values)}" if isinstance(item, str) else item + len(values)
        values.append(item)
    return values[:wanted] if wanted else []


def _number(schema: Mapping[str, Any], source: Source, path: str, *, whole: bool) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    # A value between the bounds satisfies the exclusive ones as well.
    if low is not None and high is not None:
        middle = (low + high) / 2
        value = float(round(middle)) if whole else middle
    elif low is not None:
        value = float(int(low) + 1 + source.pick(path, 100))
    elif high is not None:
        value = float(int(high) - 1 - source.pick(path, 100))
    else:
        value = float(source.pick(path, 1_000))
    step = schema.get("multipleOf")
    if step:
        value = value // step * step
        if low is not None and value < low:
            value += step
    return value


def _string(schema: Mapping[str, Any], source: Source, path: str) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    name = path.rpartition(".")[2]
    match name:
        case "translation":
            text = source.translation
        case "source_language" | "language":
            text = "en"
        case "label":
            text = source.label or source.beginning
        case _:
            words = source.text.split(maxsplit=64)[:64]
            start = source.pick(path, max(1, len(words) - 4))
            text = source.beginning if name == "summary" or not words else " ".join(words[start : start + 4])
    text = text.ljust(int(schema.get("minLength", 0)), ".")
    return text[: int(schema.get("maxLength", len(text)))]
