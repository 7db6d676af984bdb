"""Reading a job file: every error with its file, line and field, what was found, and what is allowed."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lowtide.job import values
from lowtide.job.backends import BACKENDS
from lowtide.job.checks import check_job
from lowtide.job.interpolation import Interpolated, interpolate, literal_secrets
from lowtide.job.model import OPERATIONS, Budget, Job, JobFile, JobLimits, OutputSpec, Schedule, Source
from lowtide.job.nodes import LARGEST, Node, read_nodes
from lowtide.job.problems import FieldPath, Problem, config_error, shown

_SECTIONS: Mapping[str, type[BaseModel]] = {
    "source": Source,
    "schedule": Schedule,
    "budget": Budget,
    "limits": JobLimits,
    "output": OutputSpec,
}
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# pydantic's kinds of errors, in the words of somebody who writes YAML.
_ALLOWED = {
    "expected": "{what}",
    "string_type": "text (quote numbers, true and false)",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_PARAMETER = 5
"""Parts of the path of an inference parameter: `backends[0].bedrock.parameters.temperature`."""
_UNKNOWN = "unknown key"
_SAMPLE_HINT = "`lowtide init` writes a sample"


def load_job(path: Path | str, *, environ: Mapping[str, str] = os.environ) -> Job:
    """The job in a YAML file, with `${NAME}` taken from `environ`.

    Raises one ConfigError for everything that is wrong, a line each: `file:line: field: what was found; what is
    allowed`. No secret is in it. Relative paths in the job start from the file's folder, and `~` is the user's home.
    """
    file = str(path)
    text = _read(Path(path).expanduser(), file)
    root, problems = read_nodes(text, file)
    if root is None:
        raise config_error(file, [Problem(1, (), f"the file is empty; expected a job ({_SAMPLE_HINT})")])
    if not isinstance(root.value, Mapping):
        found = shown(root.plain())
        raise config_error(file, [Problem(root.line, (), f"found {found}; expected a mapping ({_SAMPLE_HINT})")])
    secrets = literal_secrets(root)
    filled, unset = interpolate(root, environ)
    problems += secrets + unset
    place = Path(path).expanduser().resolve()
    base = place.parent
    said = {problem.path for problem in problems}
    try:
        job = JobFile.model_validate(filled.plain())
    except ValidationError as error:
        problems += [
            problem
            for problem in _translate(error, filled)
            if problem.path not in said or problem.message.startswith(_UNKNOWN)
        ]
    else:
        problems += [
            Problem(filled.line_of(field), field, message)
            for field, message in check_job(job, base)
            if field not in said
        ]
        if not problems:
            return _located(job, place)
    raise config_error(file, problems) from None


def _read(path: Path, file: str) -> str:
    try:
        if path.is_dir():
            raise config_error(file, [Problem(0, (), f"is a folder; expected a job file ({_SAMPLE_HINT})")])
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise config_error(
            file, [Problem(0, (), f"there is no such file; expected a job file ({_SAMPLE_HINT})")]
        ) from None
    except OSError as error:
        raise config_error(file, [Problem(0, (), f"cannot be read: {error.strerror}")]) from None
    if len(data) > LARGEST:
        raise config_error(file, [Problem(1, (), f"found more than {LARGEST // 1024} KiB; expected a job file")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"found the byte 0x{data[error.start]:02x}, which is no UTF-8; expected a text file in UTF-8"
        raise config_error(file, [Problem(line, (), message)]) from None


def _located(job: JobFile, place: Path) -> Job:
    """The job with its paths made absolute; addresses with a scheme stay as they are."""
    base = place.parent
    parts: dict[str, Any] = {name: getattr(job, name) for name in JobFile.model_fields}
    parts["source"] = job.source.model_copy(update={"uri": _absolute(job.source.uri, base, is_pattern=True)})
    parts["output"] = job.output.model_copy(update={"root": _absolute(job.output.root, base)})
    return Job.model_construct(**parts, base=base, file=place)


def _absolute(address: str, base: Path, *, is_pattern: bool = False) -> str:
    if _HAS_SCHEME.match(address):
        return address
    path = Path(address).expanduser()
    whole = os.path.normpath(base / path)
    if is_pattern and glob.has_magic(str(base)) and not path.is_absolute() and not Path(whole).exists():
        # The folder's own brackets and stars are letters; only what the user wrote is a pattern.
        return os.path.normpath(Path(glob.escape(str(base))) / path)
    return whole


def _translate(error: ValidationError, root: Node) -> Iterable[Problem]:
    unfit: set[FieldPath] = set()
    for fault in error.errors(include_url=False, include_context=True):
        location = tuple(part for part in fault["loc"] if part != "[key]")
        path = _with_kind(location, root)
        if path[:1] == ("backends",) and path[3:4] == ("parameters",) and len(path) > _PARAMETER:
            # One error for each type that it might be, the type behind the key.
            path = path[:_PARAMETER]
            if path not in unfit:
                found = shown(_value_at(root, path)[1])
                yield Problem(root.line_of(path), path, f"found {found}; expected text, a number, true or false")
            unfit.add(path)
            continue
        is_there, value = _value_at(root, path)
        message = _message(fault["type"], fault.get("ctx", {}), fault["msg"], path, value if is_there else ...)
        yield Problem(root.line_of(path), path, message)


def _with_kind(location: FieldPath, root: Node) -> FieldPath:
    """The place in the file: pydantic leaves out the kind where there is only one to choose from."""
    match location:
        case ("backends", int(number), rest, *_) if rest not in BACKENDS:
            entry = _value_at(root, location[:2])[1]
            kind = next(iter(entry), "") if isinstance(entry, Mapping) else ""
            return ("backends", number, kind, *location[2:])
        case _:
            return location


def _value_at(root: Node, path: FieldPath) -> tuple[bool, object]:
    value: object = root.plain()
    for part in path:
        match value, part:
            case dict() as mapping, str() if part in mapping:
                value = mapping[part]
            case list() as items, int() if part < len(items):
                value = items[part]
            case _:
                return False, None
    return True, value


def _message(kind: str, context: Mapping[str, Any], text: str, path: FieldPath, value: object) -> str:
    if kind == "extra_forbidden":
        return f"{_UNKNOWN}; {values.closest(str(path[-1]), _keys_at(path[:-1]))}"
    allowed = _allowed(kind, context, text)
    if kind == "missing":
        return f"missing; expected {_description(path)}"
    if context.get("found"):
        return f"found {context['found']}; expected {allowed}"
    if value is ...:
        return f"expected {allowed}"
    if isinstance(value, Interpolated):
        return f"found {shown(value.written)} (its value is not shown); expected {allowed}"
    return f"found {shown(value)}; expected {allowed}"


def _allowed(kind: str, context: Mapping[str, Any], text: str) -> str:
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind in _ALLOWED:
        return _ALLOWED[kind].format_map(context)
    return text.removeprefix("Input should be ").removeprefix("Value error, ")


def _model_at(path: FieldPath) -> type[BaseModel] | None:
    match path:
        case ():
            return JobFile
        case (str(section),):
            return _SECTIONS.get(section)
        case ("operations", int(), str(kind)):
            return OPERATIONS.get(kind)
        case ("backends", int(), str(kind)):
            return BACKENDS.get(kind)
        case ("backends", int(), str(_), str(_), *_):
            *outer, key = (part for at, part in enumerate(path) if at < 3 or isinstance(part, str))
            return _nested(_model_at(tuple(outer)), str(key))
        case _:
            return None


def _nested(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The model of a section inside a section, or of the entries of a list of them."""
    field = model.model_fields.get(key) if model else None
    candidates: list[Any] = [field.annotation] if field else []
    while candidates:
        candidate = candidates.pop()
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
        candidates += get_args(candidate)
    return None


def _keys_at(path: FieldPath) -> list[str]:
    model = _model_at(path)
    fields = model.model_fields.items() if model else ()
    return [field.alias or name for name, field in fields if name != "kind"]


def _description(path: FieldPath) -> str:
    model = _model_at(path[:-1])
    for name, field in model.model_fields.items() if model else ():
        if path[-1] == (field.alias or name):
            nested = _model_at(path)
            text = field.description or (nested.__doc__ if nested else "") or "a value"
            text = text[0].lower() + text[1:].rstrip(".")
            return f"USD {text}" if field.annotation is Decimal and text.startswith("for ") else text
    return "a value"
