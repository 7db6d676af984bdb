"""The JSON Schema of job files, for editors that complete and check while one types."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from lowtide.job.backends import BACKENDS, SpotEngine
from lowtide.job.model import OPERATIONS, JobFile, JobLimits, Schedule

# Where a number belongs, a text may stand that the environment turns into one.
_REFERENCE = {"type": "string", "pattern": r"\$\{"}


def job_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job file. Whatever `load_job` takes is valid under it.

    The reverse does not hold: it does not know the environment, the schema files, or which names must differ.
    """
    schema: dict[str, Any] = _tidied(JobFile.model_json_schema(by_alias=True))
    definitions = schema["$defs"]
    properties = schema["properties"]
    for key, kinds in (("operations", OPERATIONS), ("backends", BACKENDS)):
        for model in kinds.values():
            del definitions[model.__name__]["properties"]["kind"]
        properties[key]["items"] = {"oneOf": [_entry(kind, model) for kind, model in kinds.items()]}
    _spell_durations(properties, JobFile)
    for section in (JobLimits, Schedule, SpotEngine):
        _spell_durations(definitions[section.__name__]["properties"], section)
    for key in ("schedule", "budget", "limits"):
        properties[key] = {"anyOf": [properties[key], {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Lowtide job", **schema}


def spelled(duration: timedelta) -> str:
    """A duration as a job file writes it: `24h` where it is whole hours, else `120s`."""
    hours, rest = divmod(duration, timedelta(hours=1))
    return f"{round(duration.total_seconds())}s" if rest or not hours else f"{hours}h"


def _entry(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    options: dict[str, Any] = {"$ref": f"#/$defs/{model.__name__}"}
    if not any(field.is_required() for field in model.model_fields.values()):
        options = {"anyOf": [options, {"type": "null"}]}
    return {"type": "object", "properties": {kind: options}, "required": [kind], "additionalProperties": False}


def _spell_durations(properties: dict[str, Any], model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        if isinstance(field.default, timedelta):
            properties[name]["default"] = spelled(field.default)


def _tidied(part: Any, *, names: bool = False) -> Any:
    """Without pydantic's titles, which repeat the key; numbers may come from the environment."""
    if isinstance(part, Mapping):
        kept = {
            key: _tidied(value, names=not names and key in ("properties", "$defs"))
            for key, value in part.items()
            if names or key != "title"
        }
        if not names and kept.get("type") in ("integer", "number") and "const" not in kept:
            kinds = ("type", "minimum", "maximum")
            number = {key: kept.pop(key) for key in kinds if key in kept}
            kept["anyOf"] = [number, _REFERENCE]
        return kept
    return [_tidied(item) for item in part] if isinstance(part, list) else part
