"""What is wrong with a job file, and how it is said: where, what was found, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lowtide.errors import ConfigError
from lowtide.job.secrets import hide

FieldPath: TypeAlias = "tuple[str | int, ...]"

_LONGEST = 60
_MOST = 50
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `line` starts at 1; 0, or an empty `path`, where no line or field is to blame."""

    line: int
    path: FieldPath
    message: str


def dotted(path: FieldPath) -> str:
    """`operations[1].classify.labels`; keys that are no plain names stand in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part) and hide(part) == part and len(part) <= _LONGEST:
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text


def shown(value: object) -> str:
    """A value as it looks in the file, on one line, shortened, with anything that looks like a credential hidden."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            # Hidden first: half a credential would no longer look like one.
            return repr(_short(hide(value)))
        case Mapping():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def config_error(file: str, problems: Iterable[Problem]) -> ConfigError:
    """All problems in one error, a line each, in the order of the file."""
    lines: dict[str, None] = {}
    for problem in sorted(problems, key=lambda problem: problem.line):
        field = f" {dotted(problem.path)}:" if problem.path else ""
        place = f"{file}:{problem.line}" if problem.line else file
        lines[f"{place}:{field} {problem.message}"] = None
    told = list(lines)[:_MOST]
    if len(lines) > _MOST:
        told.append(f"{file}: and {len(lines) - _MOST} more")
    return ConfigError("\n".join(told))
