"""The lines of OpenAI's batch input and output, as they are read and written here.

An answer is spliced into its line as it came. A refusal keeps its code and what it says, but nothing of the prompt.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Raw

from lowtide_worker.quotes import BAD_JSON, texts_of, unquoted

CHAT = "/v1/chat/completions"

_SAID = 200
_LONGEST_SAID = 4096

LONG = 1 << 20
"""Bytes of a request from which on nothing is told of a refusal but its code and what is known of its sense."""

_TOO_LONG = re.compile(r"context (?:length|size|window)|max_model_len|too long|too many tokens", re.IGNORECASE)

DEEPEST = 64
"""How deep an answer may be nested, and at most twice that. Who reads it may have little stack left."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_CODE = re.compile(r"[A-Za-z_][\w.-]{0,63}")
_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]*)"')
_OUT_OF_MEMORY = re.compile(rb"out of memory|outofmemory|bad_alloc", re.IGNORECASE)
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


class Asked(msgspec.Struct):
    """A line of batch input."""

    custom_id: str
    body: Raw
    url: str = CHAT


_MOST = 2**40
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_Number: TypeAlias = _Count | Annotated[float, msgspec.Meta(ge=0, le=_MOST)] | None
_Code: TypeAlias = str | int | None


class Usage(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None


class _Counted(msgspec.Struct):
    usage: Usage | None = None


class _Details(msgspec.Struct):
    cached_tokens: _Number = None
    reasoning_tokens: _Number = None


class _WholeUsage(Usage):
    input_tokens: _Number = None
    output_tokens: _Number = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    content: list[_Part] | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: _Code = None


class _Inner(msgspec.Struct):
    code: _Code = None


class _WholeError(_Error):
    innererror: _Inner | None = None
    inner_error: _Inner | None = None


class Completion(msgspec.Struct, kw_only=True):
    """What is read of an answer: that it is one, and what it counts.

    All that those look at who read the results is typed as strictly as by them: a record whose line they cannot read is
    lost, and one with an error is asked again.
    """

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _WholeUsage | None = None
    output: list[_Item] | None = None
    error: _WholeError | str | None = None
    status: _Code = None
    incomplete_details: _Incomplete | None = None
    created: int | float | str | None = None
    created_at: int | float | str | None = None
    code: _Code = None
    message: str | None = None


class _Response(msgspec.Struct):
    body: _Counted | None = None


class _Line(msgspec.Struct):
    response: _Response | None = None


class _Refusal(msgspec.Struct):
    error: _Error | str | None = None
    message: str | None = None
    type: str | None = None
    code: _Code = None


_decode_asked = msgspec.json.Decoder(Asked).decode
_decode_completion = msgspec.json.Decoder(Completion).decode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode
_encode = msgspec.json.encode


def usage(line: bytes) -> tuple[int, int]:
    """The input and output tokens that an output line counts; 0 where it counts none."""
    try:
        response = _decode_line(line).response
    except BAD_JSON:
        return 0, 0
    return tokens(response.body) if response and response.body else (0, 0)


def read_asked(line: bytes) -> Asked:
    """Raises one of BAD_JSON."""
    return _decode_asked(line)


def read_completion(body: bytes) -> Completion | None:
    """None where the engine's answer is no completion, or cannot be read again everywhere."""
    if body.count(b"[") + body.count(b"{") > DEEPEST and _too_deep(body):
        return None
    try:
        return _decode_completion(_as_utf_8(body))
    except BAD_JSON:
        return None


def _too_deep(body: bytes) -> bool:
    left = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    for _ in range(DEEPEST):
        if not left:
            return False
        left = left.replace(b"[]", b"").replace(b"{}", b"")
    return bool(left)


def spliced(custom_id: str, body: bytes) -> bytes:
    """The answer as it came, in one line. Line ends stand between values only: in strings JSON has them escaped."""
    if b"\n" in body or b"\r" in body:
        body = body.translate(_ONE_LINE)
    body = _as_utf_8(body)
    return b'{"custom_id":%b,"response":{"status_code":200,"body":%b},"error":null}' % (_encode(custom_id), body)


def _as_utf_8(body: bytes) -> bytes:
    return body if body.isascii() else body.decode(errors="replace").encode()


def failed(custom_id: str, status: int | None, code: str, message: str) -> bytes:
    """The line of a request that has no answer.

    `status` is what the engine refused it with, None if it did not: a line with a success and no answer is none.
    """
    response = None if status is None else {"status_code": status, "body": None}
    return _encode({"custom_id": custom_id, "response": response, "error": {"code": code, "message": message}})


def told(status: int, answer: bytes, asked: bytes, key: str = "") -> tuple[str, str]:
    """The code and the message of a refusal. Where the message quotes the request, or the key, dots stand instead.

    Takes up to a second of the processor for a request of LONG bytes, and nothing to speak of for one that is longer.
    """
    try:
        said = _decode_refusal(answer)
    except BAD_JSON:
        said = _Refusal()
    inner = said.error if isinstance(said.error, _Error) else _Error(said.message, said.type, said.code)
    message = said.error if isinstance(said.error, str) else inner.message or ""
    if key:
        message = message.replace(key, "...")
    names = (name for name in (inner.code, inner.type) if isinstance(name, str) and _CODE.fullmatch(name))
    code = next(names, f"http_{status}")
    # Much of a long message may go, so that more than is kept is looked at.
    message = " ".join(message[:_LONGEST_SAID].split())[: 2 * _SAID]
    if not message:
        return code, "the engine gave no reason"
    if len(asked) > LONG:
        return code, _sense(message, len(asked))
    return code, unquoted(message, texts_of(asked))[:_SAID]


def _sense(message: str, size: int) -> str:
    if _TOO_LONG.search(message):
        return f"the request of {size:,} bytes is longer than the model's context"
    return f"what the engine says of a request as long as this one, {size:,} bytes, is not told"


def out_of_memory(answer: bytes) -> bool:
    """Whether a refusal says so."""
    return bool(_OUT_OF_MEMORY.search(answer))


def tokens(body: _Counted | Completion) -> tuple[int, int]:
    counted = body.usage or Usage()
    return counted.prompt_tokens or 0, counted.completion_tokens or 0


def id_of(line: bytes) -> str:
    """The custom_id of a line that cannot be read as a whole, "" if it shows none."""
    found = _ID.search(line)
    return found[1].decode(errors="replace") if found else ""
