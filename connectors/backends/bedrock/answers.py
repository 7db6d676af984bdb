"""From a line of a job's output to an answer. Both invocation types and all families are read by their keys.

A row is `{"recordId", "modelInput", "modelOutput"}` or `{"recordId", "modelInput", "error": {"errorCode",
"errorMessage"}}` (docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html). `expired` in an error,
error codes as text, and null for what is absent were reported from the field.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from lowtide.records import Answer, Usage

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**40)] | None
"""Tokens. A line that says more, or less than none, is broken: one such number would be most of a bill."""

LOST_CODE = 0
LOST = "asked on demand, and the answer was lost: not asked again"

_LONGEST_ERROR = 500
_LATEST = 4e9
_REFUSED = frozenset({"content_filtered", "guardrail_intervened", "refusal", "content_filter", "CONTENT_FILTERED"})
_RETRYABLE_WORDS = ("throttl", "timeout", "timedout", "internal", "unavailable", "toomanyrequests", "notready")
_NO_FORM = "the model's output has a form that is not known"


class _Usage(msgspec.Struct, rename="camel", gc=False):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_write_input_tokens: Count = None
    # Nova's own form spells them otherwise.
    nova_read: Count = msgspec.field(default=None, name="cacheReadInputTokenCount")
    nova_write: Count = msgspec.field(default=None, name="cacheWriteInputTokenCount")
    anthropic_input: Count = msgspec.field(default=None, name="input_tokens")
    anthropic_output: Count = msgspec.field(default=None, name="output_tokens")
    anthropic_read: Count = msgspec.field(default=None, name="cache_read_input_tokens")
    anthropic_write: Count = msgspec.field(default=None, name="cache_creation_input_tokens")
    prompt_tokens: Count = msgspec.field(default=None, name="prompt_tokens")
    completion_tokens: Count = msgspec.field(default=None, name="completion_tokens")


class _Block(msgspec.Struct, gc=False):
    text: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block] | str | None = None


class _Converse(msgspec.Struct, gc=False):
    message: _Message | None = None


class _Completion(msgspec.Struct, gc=False):
    text: str | None = None
    message: _Message | None = None
    stop_reason: str | None = None
    finish_reason: str | None = None


class _Titan(msgspec.Struct, rename="camel", gc=False):
    output_text: str | None = None
    token_count: Count = None
    completion_reason: str | None = None


class _Output(msgspec.Struct, rename="camel", gc=False):
    output: _Converse | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    content: list[_Block] | None = None
    snake_stop_reason: str | None = msgspec.field(default=None, name="stop_reason")
    generation: str | None = None
    llama_input: Count = msgspec.field(default=None, name="prompt_token_count")
    llama_output: Count = msgspec.field(default=None, name="generation_token_count")
    outputs: list[_Completion] | None = None
    choices: list[_Completion] | None = None
    input_text_token_count: Count = None
    results: list[_Titan] | None = None


class _Error(msgspec.Struct, rename="camel", gc=False):
    error_code: int | str | None = None
    error_message: str | None = None
    expired: bool | None = None


class _Line(msgspec.Struct, rename="camel", gc=False):
    record_id: str | None = None
    model_output: _Output | None = None
    error: _Error | None = None
    # Of the manifest, which is no row.
    total_record_count: int | None = None
    # Of our own lines on demand, where the tokens may stand in the response's headers only.
    usage: _Usage | None = None
    answered_at: float | None = None


class Manifest(msgspec.Struct, rename="camel", frozen=True):
    """The job's own totals, `manifest.json.out`. Token counts are of those records that were answered."""

    total_record_count: int | None = None
    processed_record_count: int | None = None
    success_record_count: int | None = None
    error_record_count: int | None = None
    input_token_count: Count = None
    output_token_count: Count = None
    cache_read_input_token_count: Count = None
    cache_write_input_token_count: Count = None

    @property
    def usage(self) -> Usage | None:
        """The tokens; None where the manifest does not say, or says 0 for answers that cannot have cost nothing."""
        if self.input_token_count is None or self.output_token_count is None:
            return None
        cached, written = self.cache_read_input_token_count or 0, self.cache_write_input_token_count or 0
        asked = self.input_token_count + cached + written
        if not asked and self.success_record_count:
            return None
        return Usage(input_tokens=asked, output_tokens=self.output_token_count, cached_tokens=cached)


_CUT = frozenset({"max_tokens", "length", "LENGTH"})
CUT_OFF = "the answer was cut off at max_output_tokens: raise it for this operation"
_line = msgspec.json.Decoder(_Line)
_manifest = msgspec.json.Decoder(Manifest)


def parse(line: bytes) -> Answer | None:
    """What the line says of its record; None for the manifest. Raises ValueError if it is broken.

    An error is worth another attempt if its code is 408, 429 or 5xx.
    """
    row = _line.decode(line)
    record = row.record_id
    if record is None:
        if row.total_record_count is None:
            raise ValueError("the line has no recordId")
        return None
    if row.model_output is not None:
        return _answer(record, row, row.model_output)
    if row.error is None:
        raise ValueError("the line has neither modelOutput nor error")
    return _failure(record, row.error)


def parse_manifest(data: bytes) -> Manifest | None:
    """The manifest, or None if it is not whole."""
    try:
        return _manifest.decode(data)
    except ValueError:
        return None


def _answer(record: str, row: _Line, output: _Output) -> Answer:
    text, reason = _text(output)
    asked, answered, cached = _tokens(output, row.usage)
    if text is None:
        status, error, text = "error", _NO_FORM, ""
    elif reason in _REFUSED:
        status, error = "refused", f"the model gave no answer: {reason}"
    elif reason in _CUT:
        # Asked again, it would be cut again, and paid for again.
        status, error, text = "error", CUT_OFF, ""
    else:
        status, error = "ok", ""
    return Answer(
        record_id=record,
        status=status,  # type: ignore[arg-type]  # one of the three words above
        text=text,
        error=error,
        input_tokens=asked,
        output_tokens=answered,
        cached_tokens=cached,
        answered_at=at if 0 <= (at := row.answered_at or 0.0) <= _LATEST else 0.0,
    )


def _failure(record: str, error: _Error) -> Answer:
    message = (error.error_message or "the provider gives no reason")[:_LONGEST_ERROR]
    if error.expired:
        return Answer(record, "unanswered", error=message, retryable=True)
    code = error.error_code
    if isinstance(code, str) and code.strip().isdecimal():
        code = int(code)
    if isinstance(code, str):
        word = code.lower().replace("_", "").replace(" ", "")
        retryable = any(known in word for known in _RETRYABLE_WORDS)
    else:
        # Without a code, nothing says that the same request would fail again.
        retryable = code is None or code in {408, 429} or code >= 500
    shown = message if code is None or code == LOST_CODE else f"{code}: {message}"
    return Answer(record, "error", error=shown, retryable=retryable)


def _text(output: _Output) -> tuple[str | None, str | None]:
    """The answer's text and why it ended; no text where the output is of no known form."""
    if output.output is not None and output.output.message is not None:
        return _joined(output.output.message.content), output.stop_reason
    if output.content is not None:
        return _joined(output.content), output.snake_stop_reason
    if output.generation is not None:
        return output.generation, output.snake_stop_reason
    for completion in output.outputs or output.choices or ():
        message = completion.message
        text = completion.text if message is None else _joined(message.content)
        return text or "", completion.stop_reason or completion.finish_reason
    if output.results:
        return output.results[0].output_text or "", output.results[0].completion_reason
    # A blocked answer may come without any message.
    reason = output.stop_reason or output.snake_stop_reason
    return ("" if reason in _REFUSED else None), reason


def _joined(content: list[_Block] | str | None) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if len(content) == 1:
        return content[0].text or ""
    return "".join(block.text for block in content if block.text)


def _tokens(output: _Output, beside: _Usage | None) -> tuple[int, int, int]:
    """Input, output and cached tokens. Bedrock counts what it reads from a cache apart; here it is part of input."""
    usage = output.usage or beside
    if usage is not None:
        asked = usage.input_tokens or usage.anthropic_input or usage.prompt_tokens or 0
        answered = usage.output_tokens or usage.anthropic_output or usage.completion_tokens or 0
        cached = usage.cache_read_input_tokens or usage.nova_read or usage.anthropic_read or 0
        written = usage.cache_write_input_tokens or usage.nova_write or usage.anthropic_write or 0
        return asked + cached + written, answered, cached
    if output.results:
        return output.input_text_token_count or 0, output.results[0].token_count or 0, 0
    return output.llama_input or 0, output.llama_output or 0, 0
