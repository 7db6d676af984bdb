"""One request on demand: what is sent, and what its end means for asking again.

A request is sent again only if it is certain that the model has not worked on it. Bedrock throttles before it does
(ThrottlingException, ModelNotReadyException: 429). That ServiceUnavailableException (503) comes before the work as well
is what users report, and is not documented.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from lowtide.connectors.backends.aws.failures import NOT_SENT, Said, never_sent, reported, said, without_password
from lowtide.connectors.backends.bedrock.answers import LOST, LOST_CODE
from lowtide.connectors.backends.bedrock.connection import Aws
from lowtide.errors import LowtideError, Terminal

Invocation = Literal["converse", "invoke"]

_PERMISSION = "bedrock:InvokeModel on the model (and on its inference profile) to this identity"
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
# What is wrong with everybody's request, and will be until somebody mends it.
_GENERAL = frozenset({401, 403, 404})
# Errors of the service that say that this request has no answer; all others from 500 on leave that open.
_ANSWERLESS = frozenset({400, 408, 413, 424})


class Ask(msgspec.Struct, rename="camel", frozen=True):
    """A request line, its input as it came."""

    record_id: str
    model_input: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Line:
    """The record has been asked: this is its line for good."""

    data: bytes


@dataclass(frozen=True, slots=True)
class NotAsked:
    """The model has certainly not worked on it. `error` is set where asking again is of no use either."""

    reason: str
    error: LowtideError | None = None


class Pace:
    """How long to wait before a call, for all threads: twice as long after each refusal, less after each answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pause = 0.0
        self._not_before = 0.0
        self._slowed_at = 0.0

    def wait(self, until: float) -> float | None:
        """Wait for one's turn, and return its time; None, at once, if it comes after `until` (by time.monotonic)."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._not_before)
            if turn > until:
                return None
            self._not_before = turn + self._pause
        time.sleep(turn - now)
        return turn

    def refused(self, turn: float) -> None:
        """Who had this turn was turned away. Of all who were under way together, only the first slows the others."""
        with self._lock:
            if turn < self._slowed_at:
                return
            self._slowed_at = time.monotonic()
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, keeps no secret
            self._not_before = max(self._not_before, time.monotonic() + self._pause * jitter)

    def answered(self) -> None:
        """Somebody was served."""
        with self._lock:
            self._pause = 0.0 if self._pause < _FIRST_PAUSE else self._pause / 2


def ask(
    aws: Aws,
    model: str,
    invocation: Invocation,
    request: Ask,
    pace: Pace,
    until: float,
    over: Callable[[], bool] = lambda: False,
) -> Line | NotAsked:
    """Ask once; while Bedrock has no room, wait and ask again, up to `until`.

    `over` is asked directly before each call, and none is made once it says so. Raises what `over` raises, before a
    call, and nothing that AWS has said.
    """
    reason = "its turn has not come yet"
    while (turn := pace.wait(until)) is not None:
        if over():
            return NotAsked("its batch has ended")
        try:
            output, usage = _call(aws, model, invocation, request.model_input)
        except ClientError as error:
            answer = said(error)
            if answer.throttled or (answer.status == 503 and answer.code == "ServiceUnavailableException"):
                pace.refused(turn)
                reason = str(answer)
                continue
            return _refused(request.record_id, answer, error)
        except ParamValidationError as error:
            return NotAsked("", Terminal(f"boto3 refused the request; is it older than 1.43? {type(error).__name__}"))
        except Exception as error:
            if isinstance(error, NOT_SENT):
                pace.refused(turn)
                reason = f"Bedrock cannot be reached now: {without_password(error)}"
                continue
            if isinstance(error, BotoCoreError) and never_sent(error):
                return NotAsked("", reported(error, "ask the model on demand", _PERMISSION))
            # Whatever else breaks, breaks after the request was on its way: the answer may have been written and paid.
            return Line(lost(request.record_id))
        pace.answered()
        return Line(_line(recordId=request.record_id, modelOutput=output, usage=usage, answeredAt=time.time()))
    return NotAsked(reason)


def lost(record_id: str) -> bytes:
    """The line of a record that was asked, and whose answer is nowhere. It is final: asking again may be paid twice."""
    return _line(recordId=record_id, error={"errorCode": LOST_CODE, "errorMessage": LOST})


def _refused(record_id: str, answer: Said, error: ClientError) -> Line | NotAsked:
    if answer.status in _GENERAL or answer.code == "ServiceQuotaExceededException":
        return NotAsked(str(answer), reported(error, "ask the model on demand", _PERMISSION))
    if answer.status in _ANSWERLESS:
        message = {"errorCode": answer.status, "errorMessage": str(answer)}
        return Line(_line(recordId=record_id, error=message))
    return Line(lost(record_id))


def _call(
    aws: Aws, model: str, invocation: Invocation, body: msgspec.Raw
) -> tuple[Mapping[str, Any], Mapping[str, int] | None]:
    if invocation == "converse":
        answer = dict(aws.runtime.converse(modelId=model, **msgspec.json.decode(body)))
        answer.pop("ResponseMetadata", None)
        return answer, None
    raw: Mapping[str, Any] = aws.runtime.invoke_model(
        modelId=model, body=bytes(body), contentType="application/json", accept="application/json"
    )
    output = msgspec.json.decode(raw["body"].read(), type=dict[str, Any])
    headers = raw.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    counts = {
        "inputTokens": headers.get("x-amzn-bedrock-input-token-count"),
        "outputTokens": headers.get("x-amzn-bedrock-output-token-count"),
    }
    return output, {name: int(count) for name, count in counts.items() if count and count.isdecimal()} or None


def _line(**fields: object) -> bytes:
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
