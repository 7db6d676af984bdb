"""One request of a batch: answered, rejected, or struck by a fault, and the line that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from lowtide.emulators import answers
from lowtide.emulators.answers import Answered
from lowtide.emulators.app import App
from lowtide.emulators.bill import Charge, request_hash
from lowtide.emulators.faults import Fault
from lowtide.emulators.openai import shapes
from lowtide.emulators.openai.errors import BadRequest, RowError
from lowtide.emulators.openai.questions import Question, read_question
from lowtide.emulators.openai.rules import MODELS, Api, Mode

EXPIRED = "This request could not be executed before the completion window expired."
_LINE = orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose request it is: what the bill, the faults and the answers have to know."""

    app: App
    mode: Mode
    account: str
    deployment: str
    model: str
    batch_id: str = ""
    name: str = ""

    def charge(self, body: Mapping[str, Any], answered: Answered, record_id: str) -> None:
        """Put a processed request on the bill."""
        self.app.bill.record(
            Charge(
                service=self.mode.name,
                account=self.account,
                model=self.model,
                tier="batch" if self.batch_id else "on_demand",
                batch_id=self.batch_id,
                record_id=record_id,
                # A deployment's name is no part of the question: asked of two deployments, it was still asked twice.
                request_sha256=request_hash({**body, "model": self.model}),
                input_tokens=answered.input_tokens,
                cached_tokens=answered.cached_tokens,
                output_tokens=answered.output_tokens,
                reasoning_tokens=answered.reasoning_tokens,
            )
        )

    def fault(self, point: str, question: Question, record: str | None = None) -> Fault | None:
        """What the plan has for this request."""
        facts: dict[str, object] = {"record": record, "batch": self.batch_id} if record is not None else {}
        return self.app.faults.take(
            point,
            service=self.mode.name,
            text=f"{question.system}\n{question.user}",
            name=self.name,
            model=self.model,
            deployment=self.deployment,
            account=self.account,
            **facts,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request: an answer that is billed, or an error; `refusal` says the model itself said no."""

    answered: Answered | None = None
    error: RowError | None = None
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """The line for the output file, or the error file where it is not `ok`; `late` is in seconds after the end."""

    line: bytes
    ok: bool
    answered: Answered | None = None
    late: float | None = None


def answer_question(asker: Asker, question: Question, fault: Fault | None) -> Outcome:
    """The model's answer, under a fault that has to do with the request itself."""
    do = fault.do if fault is not None else ""
    match do:
        case "row_error":
            message = (fault.message if fault else "") or "The request was rejected."
            return Outcome(error=RowError(400, message, code=(fault.code if fault else "") or "invalid_request"))
        case "row_server_error" | "poison":
            return Outcome(error=RowError(500, "The server had an error.", code="server_error", kind="server_error"))
        case "row_throttled":
            return Outcome(error=RowError(429, "Rate limit reached.", code="rate_limit_exceeded", kind="requests"))
        case "refuse" if fault is not None and fault.code in {"", "content_filter"}:
            return Outcome(error=shapes.content_filtered(asker.mode))
    answered = answers.answer(
        question.system,
        question.user,
        question.schema,
        question.max_tokens,
        reasoning=asker.model in MODELS and MODELS[asker.model].reasoning,
        seed=asker.app.seed,
        tokens=asker.app.tokens,
    )
    if do == "refuse":
        if fault is not None and fault.code == "finish_reason":
            return Outcome(replace(answered, finish_reason="content_filter"))
        return Outcome(answers.refused(answered, asker.app.tokens), refusal=True)
    return Outcome(answers.unfit(answered, asker.app.tokens) if do == "invalid" else answered)


def answer_row(asker: Asker, api: Api | None, raw: bytes, key: str, *, faulty: bool) -> Row:
    """Process one line of the input. What is answered goes on the bill, whatever becomes of its line afterwards."""
    request = orjson.loads(raw)
    custom_id, body = request["custom_id"], request["body"]
    try:
        if api is None:
            raise BadRequest(RowError(400, "This emulator does not answer this endpoint.", code="not_emulated"))
        question = read_question(api, body, asker.model)
    except BadRequest as bad:
        return Row(_rejected(asker.mode, custom_id, key, bad.error), ok=False)
    fault = asker.fault("row", question, custom_id) if faulty else None
    if fault is not None and fault.do == "row_expired":
        return Row(unanswered_line(asker.mode, custom_id, key), ok=False)
    outcome = answer_question(asker, question, fault)
    if outcome.answered is None:
        error = outcome.error or RowError(500, "")
        return Row(_rejected(asker.mode, custom_id, key, error), ok=False)
    asker.charge(body, outcome.answered, custom_id)
    created = int(asker.app.clock.now())
    reply = shapes.Reply(outcome.answered, key, created, asker.model, refusal=outcome.refusal)
    response = {"status_code": 200, "request_id": f"req_{key}", "body": shapes.body(api, asker.mode, reply)}
    line = _line(asker.mode, custom_id, key, response, None)
    if fault is None:
        return Row(line, ok=True, answered=outcome.answered)
    late = fault.seconds if fault.do == "late" else None
    return Row(_damaged(line, fault.do), ok=True, answered=outcome.answered, late=late)


def unanswered_line(mode: Mode, custom_id: str, key: str) -> bytes:
    """The line of a request that the batch had no time for."""
    return _line(mode, custom_id, key, None, {"code": "batch_expired", "message": EXPIRED})


def _damaged(line: bytes, do: str) -> bytes:
    match do:
        case "lose":
            return b""
        case "duplicate":
            return line + line
        case "truncate":
            return line[: len(line) // 2] + b"\n"
        case "malform":
            middle = len(line) // 2
            return line[:middle] + b"\xff\x00\xfe{]" + line[middle + 5 :]
    return line


def _rejected(mode: Mode, custom_id: str, key: str, error: RowError) -> bytes:
    response = {"status_code": error.status, "request_id": f"req_{key}", "body": error.body()}
    return _line(mode, custom_id, key, response, None)


def _line(mode: Mode, custom_id: str, key: str, response: object, error: object) -> bytes:
    line = {"custom_id": custom_id, "response": response, "error": error}
    if mode.name == "openai":
        line = {"id": f"batch_req_{key}", **line}
    return orjson.dumps(line, option=_LINE)
