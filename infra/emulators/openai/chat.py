"""Synchronous calls: chat completions, responses, and the list of models."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from lowtide.emulators.faults import Fault
from lowtide.emulators.openai import shapes
from lowtide.emulators.openai.call import Call
from lowtide.emulators.openai.errors import BadRequest, RowError, not_found, refusal, throttled
from lowtide.emulators.openai.questions import Question, read_question
from lowtide.emulators.openai.rows import Asker, answer_question
from lowtide.emulators.openai.rules import AZURE, MODELS, OPENAI, Api
from lowtide.emulators.openai.state import Pace
from lowtide.emulators.web import Refused, Response


def completion(call: Call) -> Response:
    """POST /chat/completions, and /deployments/{deployment}/chat/completions on Azure."""
    return _answer(call, "chat")


def response(call: Call) -> Response:
    """POST /responses."""
    return _answer(call, "responses")


def _answer(call: Call, api: Api) -> Response:
    body = dict(call.json())
    if "deployment" in call.request.params:
        body["model"] = call.request.params["deployment"]
    asker = _asker(call, body.get("model"))
    try:
        answer = _asked(call, api, asker, body)
    except Refused as refused:
        answer = refused.response
    other = _spillover(call, asker)
    if other is None or not _spills(answer):
        return answer
    return _spilled(call, api, asker, other, body)


def _asked(call: Call, api: Api, asker: Asker, body: Mapping[str, Any]) -> Response:
    try:
        question = read_question(api, body, asker.model)
    except BadRequest as bad:
        raise refusal(bad.error) from bad
    return call.guarded(
        "chat",
        lambda: _answered(call, asker, body, question, None),
        lambda fault: _answered(call, asker, body, question, fault),
        text=f"{question.system}\n{question.user}",
        model=asker.model,
        deployment=asker.deployment,
    )


def _spillover(call: Call, asker: Asker) -> str | None:
    """The deployment that answers where the first cannot: its own property, or else what the request says."""
    if call.mode is not AZURE:
        return None
    own = call.settings.deployments_of(call.account.resource)[asker.deployment]
    return own.spillover or call.request.header("x-ms-spillover-deployment") or None


def _spills(answer: Response) -> bool:
    too_long = answer.status == 400 and isinstance(answer.body, bytes) and b"context_length_exceeded" in answer.body
    return answer.status in {429, 500, 503} or too_long


def _spilled(call: Call, api: Api, first: Asker, other: str, body: Mapping[str, Any]) -> Response:
    answer = _asked(call, api, _asker(call, other), {**body, "model": other})
    told = {"x-ms-spillover-from-deployment": first.deployment, "x-ms-deployment-name": other}
    return Response(answer.status, answer.body, {**answer.headers, **told}, answer.length)


def _asker(call: Call, name: object) -> Asker:
    if not isinstance(name, str) or not name:
        raise call.bad("you must provide a model parameter", "model")
    if call.mode is OPENAI:
        if name not in call.settings.models:
            raise not_found(call.mode, "model", name)
        return Asker(call.app, call.mode, call.account.key, name, name)
    deployment = call.settings.deployments_of(call.account.resource).get(name)
    if deployment is None:
        message = "The API deployment for this resource does not exist."
        raise refusal(RowError(404, message, code="DeploymentNotFound"))
    if deployment.is_batch:
        message = f"The chatCompletion operation does not work with the specified model, {deployment.model}."
        raise call.bad(message, "model", "OperationNotSupported")
    return Asker(call.app, call.mode, call.account.key, name, deployment.model)


def _answered(call: Call, asker: Asker, body: Mapping[str, Any], question: Question, fault: Fault | None) -> Response:
    pace = _pace(call, asker)
    outcome = answer_question(asker, question, fault)
    if outcome.answered is None:
        raise refusal(outcome.error or RowError(500, ""))
    if pace is not None:
        pace.level += outcome.answered.input_tokens + outcome.answered.output_tokens
    asker.charge(body, outcome.answered, "")
    key = uuid.uuid4().hex[:24]
    reply = shapes.Reply(outcome.answered, key, int(asker.app.clock.now()), asker.model, refusal=outcome.refusal)
    return Response.of(shapes.body(question.api, asker.mode, reply), headers={"x-request-id": f"req_{key}"})


def _pace(call: Call, asker: Asker) -> Pace | None:
    """The pace of a deployment with a limit. Raises Refused, 429, where it is used up."""
    if call.mode is OPENAI:
        return None
    per_minute = call.settings.deployments_of(call.account.resource)[asker.deployment].tokens_per_minute
    if per_minute is None:
        return None
    with call.lock:
        pace = call.account.paces.setdefault(asker.deployment, Pace())
        wait = pace.wait(call.now, per_minute)
    if wait > 0:
        raise throttled(call.mode, wait)
    return pace


def models(call: Call) -> Response:
    """GET /models: OpenAI's models, or on Azure the base models that can be deployed."""
    names = sorted(MODELS) if call.mode is AZURE else call.settings.models
    return Response.of({"object": "list", "data": [_model(name) for name in names]})


def model(call: Call) -> Response:
    """GET /models/{id}."""
    name = call.request.params["id"]
    if name not in (MODELS if call.mode is AZURE else call.settings.models):
        raise not_found(call.mode, "model", name)
    return Response.of(_model(name))


def _model(name: str) -> Mapping[str, object]:
    return {"id": name, "object": "model", "created": 1_715_367_049, "owned_by": "system"}
