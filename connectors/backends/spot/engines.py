"""Looks at the engine that workers of this machine would ask, without starting it."""

from __future__ import annotations

import os
import shutil
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from lowtide.records import Finding
from lowtide_worker.keys import NAMES, WANTS_KEY, engine_key, headers
from lowtide_worker.layout import Engine

_SECONDS = 5.0


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
    url = engine.url.rstrip("/").removesuffix("/v1").rstrip("/") + engine.health
    try:
        request = Request(url, headers=headers(engine_key(os.environ)))  # noqa: S310 - the job file takes http(s) alone
    except ValueError as error:
        return Finding("engine", False, str(error))
    try:
        # As a worker asks: by no proxy, and its key goes nowhere else.
        with build_opener(ProxyHandler({}), _Here).open(request, timeout=_SECONDS) as answer:
            return Finding("engine", answer.status == 200, f"GET {url} answers {answer.status}")
    except HTTPError as error:
        what = f"look at the API key in {NAMES[0]}" if error.code in WANTS_KEY else "look at engine.health"
        return Finding("engine", False, f"GET {url} answers {error.code}; {what}")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        return Finding("engine", False, f"GET {url}: {reason}; start the engine, or mend engine.url and engine.health")


class _Here(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
