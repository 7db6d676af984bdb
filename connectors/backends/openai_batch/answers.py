"""From one line of an output or error file to an answer.

The status code is looked at first: a rejected row has `"error": null` and the refusal inside its `response`. Nothing of
a document goes into `Answer.error`: it holds codes, and the provider's message cut short.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from lowtide.records import Answer

Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**40)] | Annotated[float, msgspec.Meta(ge=0, le=2**40)] | None
"""Tokens. A line that says more, or less than none, is broken: one such number would be most of a bill."""

Text: TypeAlias = str | None
Code: TypeAlias = str | int | None

_UNANSWERED = {"batch_expired", "batch_cancelled", "batch_canceled"}
_FILTERED = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}
# Codes of rows without a response that another attempt cannot mend.
_FINAL = {
    "context_length_exceeded", "invalid_request", "invalid_request_error", "invalid_value", "model_not_found",
    "unsupported_parameter", "unsupported_value", "string_above_max_length",
}  # fmt: skip
_PASSING = {408, 409, 425, 429}
_SAID = 200
_LATEST = 4e9

CUT_OFF = "the answer was cut off at the operation's max_output_tokens; raise it, reasoning counts too"


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Number = None
    reasoning_tokens: Number = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Number = None
    completion_tokens: Number = None
    input_tokens: Number = None
    output_tokens: Number = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Part(msgspec.Struct, gc=False):
    type: Text = None
    text: Text = None
    refusal: Text = None


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None
    refusal: Text = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: Text = None


class _Item(msgspec.Struct, gc=False):
    type: Text = None
    content: list[_Part] | None = None


class _Inner(msgspec.Struct, gc=False):
    code: Code = None


class _Error(msgspec.Struct, gc=False):
    code: Code = None
    type: Text = None
    message: Text = None
    innererror: _Inner | None = None
    inner_error: _Inner | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: Text = None


class _Body(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    output: list[_Item] | None = None
    usage: _Usage | None = None
    error: _Error | str | None = None
    status: Code = None
    incomplete_details: _Incomplete | None = None
    created: int | float | str | None = None
    created_at: int | float | str | None = None
    code: Code = None
    message: Text = None


class _Response(msgspec.Struct, gc=False):
    status_code: Code = None
    body: _Body | str | None = None


class _Line(msgspec.Struct, gc=False):
    custom_id: Text = None
    response: _Response | None = None
    error: _Error | str | None = None


_decode = msgspec.json.Decoder(_Line).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_EMPTY = _Body()


def parse_answer(line: bytes) -> Answer | None:
    """What the line says of one record; None for a blank line, or one without a record's id. Raises ValueError."""
    if not line.strip():
        return None
    try:
        row = _decode(line.removeprefix(b"\xef\xbb\xbf"))
        if row.custom_id is None:
            return None
        response = row.response
        if response is None or response.status_code is None:
            return _without_response(row.custom_id, row.error)
        status, body = int(response.status_code), response.body
        if isinstance(body, str):
            # Some servers write the body as JSON inside a string.
            body = _decode_body(body) if body else _EMPTY
    except RecursionError:
        raise ValueError("the line is nested too deeply") from None
    if 200 <= status < 300:
        return _answered(row.custom_id, body or _EMPTY)
    return _rejected(row.custom_id, status, body or _EMPTY, row.error)


def _answered(record_id: str, body: _Body) -> Answer:
    text, stopped, refusal = "", body.incomplete_details.reason if body.incomplete_details else None, ""
    if body.choices:
        choice = body.choices[0]
        stopped = choice.finish_reason
        if (message := choice.message) is not None:
            refusal = message.refusal or ""
            text = message.content if isinstance(message.content, str) else _joined(message.content)
    elif body.output is not None:
        parts = [part for item in body.output if item.type in {None, "message"} for part in item.content or ()]
        text, refusal = _joined(parts), "".join(part.refusal or "" for part in parts)
    elif body.error is None:
        raise ValueError("the response has neither choices nor output")
    if stopped == "content_filter":
        return _answer(record_id, "refused", body, text=text, error="the provider's content filter stopped the answer")
    if refusal:
        return _answer(record_id, "refused", body, text=refusal, error="the model refused")
    if stopped in {"length", "max_output_tokens"}:
        return _answer(record_id, "error", body, error=CUT_OFF)
    if body.status in {"failed", "cancelled"} or (body.error is not None and not text):
        return _rejected(record_id, 500, body, None)
    return _answer(record_id, "ok", body, text=text)


def _rejected(record_id: str, status: int, body: _Body, beside: _Error | str | None) -> Answer:
    codes, said = _codes(body.error or _Error(body.code, None, body.message), beside)
    told = f"HTTP {status}{_told(codes, said)}"
    if _UNANSWERED & codes.keys():
        return _answer(record_id, "unanswered", body, error=told)
    if _FILTERED & codes.keys():
        return _answer(record_id, "refused", body, error=told)
    return _answer(record_id, "error", body, error=told, retryable=status >= 500 or status in _PASSING)


def _without_response(record_id: str, error: _Error | str | None) -> Answer:
    if error is None:
        raise ValueError("the line has neither a response nor an error")
    codes, said = _codes(error, None)
    told = _told(codes, said).removeprefix(", ").removeprefix(": ") or "an error without a code"
    if _UNANSWERED & codes.keys():
        return Answer(record_id, "unanswered", error=told)
    if _FILTERED & codes.keys():
        return Answer(record_id, "refused", error=told)
    return Answer(record_id, "error", error=told, retryable=not _FINAL & codes.keys())


def _codes(error: _Error | str | None, beside: _Error | str | None) -> tuple[dict[str, None], str]:
    """The codes of an error, those within it included, and what it says, cut short."""
    codes: dict[str, None] = {}
    said = ""
    for one in (error, beside):
        if isinstance(one, str):
            said = said or one
        elif one is not None:
            inner = [deeper.code for deeper in (one.innererror, one.inner_error) if deeper is not None]
            codes |= {str(code).lower(): None for code in (one.code, *inner, one.type) if code is not None}
            said = said or one.message or ""
    return codes, " ".join(said.split())[:_SAID]


def _told(codes: dict[str, None], said: str) -> str:
    named = f", {next(iter(codes))}" if codes else ""
    return f"{named}: {said}" if said else named


def _answer(
    record_id: str,
    status: Literal["ok", "refused", "error", "unanswered"],
    body: _Body,
    *,
    text: str = "",
    error: str = "",
    retryable: bool = False,
) -> Answer:
    created = body.created if body.created is not None else body.created_at
    known = isinstance(created, int | float) and 0 <= created <= _LATEST
    answered_at = float(created or 0) if known else 0.0
    usage = body.usage
    if usage is None:
        return Answer(record_id, status, text, error, retryable, answered_at=answered_at)
    # Responses have input and output, chat completions prompt and completion; neither has both.
    asked = usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    given = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    cached = usage.prompt_tokens_details or usage.input_tokens_details
    reasoned = usage.completion_tokens_details or usage.output_tokens_details
    return Answer(
        record_id,
        status,
        text,
        error,
        retryable,
        int(asked or 0),
        int(given or 0),
        int(cached.cached_tokens or 0) if cached else 0,
        int(reasoned.reasoning_tokens or 0) if reasoned else 0,
        answered_at,
    )


def _joined(parts: list[_Part] | None) -> str:
    return "".join(part.text or "" for part in parts or ())
