"""Logs for people and for programs: a line each, with the run and the shard that it is about.

Nothing of a document is logged, and no secret: of an error that is not ours only its kind and place are told, since its
message may hold anything, and what looks like a credential is struck out wherever it stands.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TextIO

from lowtide.errors import ConfigError, LowtideError

Format = Literal["text", "json"]

ENVIRONMENT = "LOWTIDE_LOG"
"""The variable that says how: `json`, or `text`, which is the default."""

_LOGGER = "lowtide"
_FIELDS = ("job", "window", "run", "shard")
_about: ContextVar[Mapping[str, str | int]] = ContextVar("lowtide_log_about", default=MappingProxyType({}))
_SECRETS = re.compile(
    r"(?i)(?P<kept>\b(?:sig|signature|x-amz-[a-z-]+|accountkey|sharedaccesskey|api[-_]?key|password|secret|token"
    r"|authorization)[\"']?\s*[=:]\s*[\"']?(?:bearer\s+|basic\s+)?|bearer\s+|//[^/\s:@]*:(?=[^/\s@]+@))"
    r"(?P<secret>[^\s&;,@'\"]+)|\b(?:sk-[A-Za-z0-9_-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b"
)


@contextmanager
def about(**what: str | int) -> Iterator[None]:
    """Whatever is logged inside, in this thread or task, is about this `job`, `window`, `run` or `shard`."""
    before = _about.set({**_about.get(), **what})
    try:
        yield
    finally:
        _about.reset(before)


def configure(
    format: Format | None = None,
    *,
    level: int = logging.INFO,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Log what Lowtide has to say to `stream`, standard error by default, and to nobody else. May be called again.

    Without `format`, `LOWTIDE_LOG` says which. Raises ConfigError for another one than text and json.
    """
    wanted = format or environ.get(ENVIRONMENT, "").strip().lower() or "text"
    if wanted not in ("text", "json"):
        raise ConfigError(f"{ENVIRONMENT}: found {wanted!r}; expected text or json")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if wanted == "json" else TextFormatter())
    logger = logging.getLogger(_LOGGER)
    for before in list(logger.handlers):
        if isinstance(before.formatter, JsonFormatter | TextFormatter):
            logger.removeHandler(before)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then what it is about, and the error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _error(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """The same as a line for people."""

    def format(self, record: logging.LogRecord) -> str:
        named = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname.lower():<7} {record.name}: {_message(record)}"
        line = " ".join(line.split("\n")) + (f" [{named}]" if named else "")
        if record.exc_info and record.exc_info[1] is not None:
            error = _error(record.exc_info[1])
            line += f" ({error['kind']} at {error['at']})"
        return line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    return _SECRETS.sub(lambda found: f"{found['kept'] or ''}***", record.getMessage())


def _fields(record: logging.LogRecord) -> dict[str, str | int]:
    """What the line is about: by its own `extra`, or by what is being done."""
    given = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
    known = {**_about.get(), **given}
    return {name: known[name] for name in _FIELDS if name in known}


def _error(error: BaseException) -> dict[str, str]:
    """The error's kind and place; its message only if it is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    told = {"kind": type(error).__name__, "at": at}
    if isinstance(error, LowtideError):
        told["message"] = _SECRETS.sub(lambda found: f"{found['kept'] or ''}***", str(error))
    return told
