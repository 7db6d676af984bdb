"""The user's own JSON Schemas: read, checked, and turned into reasons that never repeat an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs

from lowtide.errors import ConfigError
from lowtide.operations import strict_json

_LARGEST = 256 * 1024
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def load_schema(source: str | Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The JSON Schema in a file, named from the folder `base`, or the one given; checked either way.

    Raises ConfigError: no such file, no JSON, a key twice, no valid schema, no object at its top, or a `$ref` that
    leaves it. Nothing is ever fetched.
    """
    if isinstance(source, str):
        schema, where = _read(source, base / Path(source).expanduser()), f"{source!r}"
    else:
        schema, where = dict(source), "a schema"
    if not isinstance(schema, dict):
        raise ConfigError(f"found {where}, which is no JSON object; expected a JSON Schema")
    outside = next(_outside_references(schema), None)
    if outside is not None:
        allowed = "expected references inside the schema, such as #/$defs/name"
        raise ConfigError(f"found {where} with a $ref to {outside[:60]!r}; {allowed}")
    if schema.get("type") != "object":
        raise ConfigError(f'found {where} without "type": "object" at its top; expected an answer that is one object')
    compile_schema(schema, where)
    return schema


def compile_schema(schema: Mapping[str, Any], where: str = "a schema") -> jsonschema_rs.Validator:
    """A validator that also checks formats such as `date`, by the draft that `$schema` names. Raises ConfigError."""
    try:
        return jsonschema_rs.validator_for(dict(schema), validate_formats=True, offline=True)
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        at = f" at {place.lstrip('.')}" if place else ""
        raise ConfigError(f"found {where}, which is no valid JSON Schema{at}: {error.message[:200]}") from None
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        raise ConfigError(f"found {where}, which is no valid JSON Schema: {str(error)[:200]}") from None


def property_names(schema: object) -> Iterator[str]:
    """Every name that a schema gives to a property: the only ones that may be repeated in a reason."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            yield from properties
        required = schema.get("required")
        if isinstance(required, list):
            yield from (name for name in required if isinstance(name, str))
        for value in schema.values():
            yield from property_names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from property_names(value)


def _read(name: str, path: Path) -> object:
    try:
        data = path.read_bytes() if path.stat().st_size <= _LARGEST else None
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or "cannot be read"
        raise ConfigError(f"found {name!r}, {what}: {path}; expected the path of a JSON Schema file") from None
    if data is None:
        raise ConfigError(f"found {name!r}, a file over {_LARGEST // 1024} KiB; expected a JSON Schema")
    try:
        return strict_json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"found {name!r}, which is not UTF-8 text; expected a JSON Schema") from None
    except strict_json.StrictJsonError as error:
        where = f" on its line {error.line}" if error.line else f" ({error.key[:60]!r})" if error.key else ""
        raise ConfigError(f"found {name!r}, which is no valid JSON: {error}{where}; expected a JSON Schema") from None


def _outside_references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
                yield value
            else:
                yield from _outside_references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _outside_references(value)
