"""Looks at the engine that workers of this machine would ask, without starting it."""

from __future__ import annotations

import os
import shutil
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from lowtide.records import Finding
from lowtide_worker.keys import NAMES, WANTS_KEY, BadKey, engine_key, headers
from lowtide_worker.layout import Engine, base_of

_SECONDS = 5.0
_OK = 200
_MODELS = "/v1/models"


def examine_engine(engine: Engine, model: str, *, here: bool) -> Finding:
    """The engine as a worker will find it; whether it answers, or can be started, only where workers run `here`."""
    if engine.url:
        return _running(engine) if here else Finding("engine", True, engine.url)
    command = " ".join(engine.command).replace("{model}", model)
    program = engine.command[0]
    if here and shutil.which(program) is None:
        return Finding("engine", False, f"{command}: there is no program {program!r}; name it by its whole path")
    return Finding("engine", True, command)


def _running(engine: Engine) -> Finding:
    base = base_of(engine.url)
    url = base + engine.health
    try:
        key = engine_key(os.environ)
        status = _status(url, key)
        # Engines tell everybody how they are; whom they answer, most of them tell here.
        if status == _OK and (refused := _status(base + _MODELS, key)) in WANTS_KEY:
            url, status = base + _MODELS, refused
    except BadKey as error:
        return Finding("engine", False, str(error))
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        return Finding("engine", False, f"GET {url}: {reason}; start the engine, or mend engine.url and engine.health")
    answers = f"GET {url} answers {status}"
    if status == _OK:
        return Finding("engine", True, answers)
    what = f"look at the API key in {NAMES[0]}" if status in WANTS_KEY else "look at engine.health"
    return Finding("engine", False, f"{answers}; {what}")


def _status(url: str, key: str) -> int:
    """As a worker asks: by no proxy, and its key goes nowhere else."""
    request = Request(url, headers=headers(key))  # noqa: S310 - the job file takes http and https alone
    try:
        with build_opener(ProxyHandler({}), _Here).open(request, timeout=_SECONDS) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


class _Here(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
