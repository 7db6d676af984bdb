"""Converse and InvokeModel on demand: the same models, answered at once and billed at the other tier."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence

import orjson

from lowtide.emulators.answers import Answered
from lowtide.emulators.app import App, guarded
from lowtide.emulators.bedrock import answering
from lowtide.emulators.bedrock.answering import Modelled
from lowtide.emulators.bedrock.bodies import Asked, BadBody
from lowtide.emulators.bedrock.models import named, short_id
from lowtide.emulators.bedrock.settings import Settings
from lowtide.emulators.bedrock.wire import ACCOUNT, Caller, caller, error
from lowtide.emulators.bill import Charge, request_hash
from lowtide.emulators.faults import Fault
from lowtide.emulators.web import Request, Response, Route

_MINUTE = 60.0
_TOO_MANY = "Too many requests, please wait before trying again."


class Runtime:
    """The routes under /model."""

    def __init__(self, app: App, settings: Callable[[], Settings]) -> None:
        self._app, self._settings = app, settings
        self._lock = threading.Lock()
        self._recent: dict[str, deque[float]] = {}

    def routes(self) -> Sequence[Route]:
        """Converse and InvokeModel, without their streaming forms."""
        return [
            Route("POST", "/model/{model}/converse", self._converse),
            Route("POST", "/model/{model}/invoke", self._invoke),
        ]

    def reset(self) -> None:
        """Forget how often each model was called."""
        with self._lock:
            self._recent.clear()

    def _converse(self, request: Request) -> Response:
        return self._call(request, "Converse", converse=True)

    def _invoke(self, request: Request) -> Response:
        return self._call(request, "InvokeModel", converse=False)

    def _call(self, request: Request, operation: str, *, converse: bool) -> Response:
        self._app.calls.count("bedrock", operation)
        settings = self._settings()
        known = caller(request, "bedrock:InvokeModel", settings.denied)
        model_id = request.params["model"]
        found = named(model_id, settings.models, settings.profiles)
        if found is None:
            return error("ValidationException", "The provided model identifier is invalid.")
        by = Modelled(found.model, model_id, converse)
        try:
            body = request.json()
            asked = answering.read(body, by, settings, batch=False)
        except orjson.JSONDecodeError:
            return error("ValidationException", "Malformed input request: the body is not JSON.")
        except BadBody as problem:
            return error("ValidationException", str(problem))
        if not self._within_limit(found.model.id, settings.on_demand_per_minute):
            return error("ThrottlingException", _TOO_MANY)

        def work(do: str = "") -> Response:
            given = answering.answer(asked, self._app.tokens, do)
            self._bill(known, by, request_hash(body), given)
            return _answered(asked, given, by)

        return guarded(
            self._app,
            "converse",
            work,
            _refused,
            lambda fault: _refused(fault) if fault.do == "poison" else work(fault.do),
            service="bedrock",
            operation=operation,
            model=found.model.id,
            text=asked.user,
            record=request_hash(body),
        )

    def _bill(self, known: Caller, by: Modelled, request_sha256: str, given: Answered) -> None:
        self._app.bill.record(
            Charge(
                service="bedrock",
                account=f"{ACCOUNT}:{known.region}",
                model=short_id(by.model_id),
                tier="on_demand",
                batch_id="",
                record_id="",
                request_sha256=request_sha256,
                input_tokens=given.input_tokens,
                cached_tokens=given.cached_tokens,
                output_tokens=given.output_tokens,
                reasoning_tokens=given.reasoning_tokens,
            )
        )

    def _within_limit(self, model: str, per_minute: int | None) -> bool:
        if per_minute is None:
            return True
        now = self._app.clock.now()
        with self._lock:
            recent = self._recent.setdefault(model, deque())
            while recent and recent[0] <= now - _MINUTE:
                recent.popleft()
            if len(recent) >= per_minute:
                return False
            recent.append(now)
        return True


def _answered(asked: Asked, given: Answered, by: Modelled) -> Response:
    request_id = secrets.token_hex(16)
    headers = {
        "x-amzn-RequestId": request_id,
        "X-Amzn-Bedrock-Input-Token-Count": str(given.input_tokens),
        "X-Amzn-Bedrock-Output-Token-Count": str(given.output_tokens),
    }
    return Response.of(answering.write(asked, given, by, request_id, null_members=False), headers=headers)


def _refused(fault: Fault) -> Response:
    match fault.do:
        case "throttle" | "quota":
            return error("ThrottlingException", fault.message or _TOO_MANY)
        case "not_found":
            return error("ResourceNotFoundException", fault.message or "Could not find the requested model.")
        case "poison":
            return error("ValidationException", fault.message or "The model could not process this request.")
    return error("InternalServerException", fault.message or "An internal error occurred. Try again.")
