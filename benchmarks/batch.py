"""An OpenAI-style batch API as the benchmarks use it: the shape of its lines, and the operation that is asked.

Shapes: https://platform.openai.com/docs/guides/batch (request lines and output lines).
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import msgspec
import orjson

from benchmarks.data import sentences
from lowtide.job.model import Summarize
from lowtide.operations import build_operation
from lowtide.prices import Price
from lowtide.records import Answer, Limits, Request

MODEL = "stand-in-1"
PRICE = Price("bench", "made up", {"input": Decimal("0.00000015"), "output": Decimal("0.0000006")})
LIMITS = Limits(records=50_000, bytes=200_000_000, request_bytes=1_000_000, live_batches=1_000, consistent_lookup=True)
SHARD_RECORDS = 10_000
OPERATION = build_operation(Summarize(words=60), Path())
"""What all benchmarks ask: the project's own summarize, with its own validation of answers."""


class Summary(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What an answer must look like, for the loops that do without our code."""

    summary: str


class Message(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None


class Choice(msgspec.Struct, gc=False):
    message: Message
    finish_reason: str = ""


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int


class Body(msgspec.Struct, gc=False):
    choices: list[Choice]
    usage: Usage
    created: int = 0


class Response(msgspec.Struct, gc=False):
    status_code: int
    body: Body


class Line(msgspec.Struct, gc=False):
    """One line of a batch's output file."""

    custom_id: str
    response: Response


summary_decoder = msgspec.json.Decoder(Summary)
line_decoder = msgspec.json.Decoder(Line)


def prompt(text: str) -> str:
    """The user's message as a page of code would write it."""
    return f"<document>\n{text}\n</document>"


def request_body(record: str, user: str) -> dict[str, object]:
    """A request line before it is serialized; the bare and the naive loops make one for each document."""
    return {
        "custom_id": record,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": MODEL,
            "max_completion_tokens": OPERATION.max_output_tokens,
            "messages": [{"role": "system", "content": OPERATION.system}, {"role": "user", "content": user}],
        },
    }


def encode(request: Request) -> bytes:
    """A request line, as a backend's `encode` gives it."""
    return orjson.dumps(request_body(request.record_id, request.user))


def parse(line: bytes) -> Answer | None:
    """An output line, as a backend's `parse` reads it."""
    try:
        found = line_decoder.decode(line)
    except msgspec.DecodeError as error:
        raise ValueError("not an output line") from error
    body = found.response.body
    return Answer(
        record_id=found.custom_id,
        status="ok",
        text=body.choices[0].message.content or "",
        input_tokens=body.usage.prompt_tokens,
        output_tokens=body.usage.completion_tokens,
        answered_at=float(body.created),
    )


def fingerprint(user: str) -> str:
    """What the summary of a prompt ends with, so that a joined row can be checked against its document."""
    text = user.partition(">\n")[2].rpartition("\n<")[0]
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def answer_line(record: str, ends_with: str, number: int) -> bytes:
    """An output line of about 1.27 KB. `number` varies its length and its tokens, the same way every time."""
    pool = sentences()
    said = "".join(pool[(number * 7919 + nth * 104_729) % len(pool)] for nth in range(4 + number % 4))
    content = orjson.dumps({"summary": f"{said} {ends_with}"}).decode()
    body = {
        "id": f"chatcmpl-{number:029d}",
        "object": "chat.completion",
        "created": 1_770_000_000 + number % 86_400,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 400 + number % 100,
            "completion_tokens": 100 + number % 50,
            "total_tokens": 500 + number % 100 + number % 50,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_stand_in",
    }
    response = {"status_code": 200, "request_id": f"{number:032x}", "body": body}
    return orjson.dumps({"id": f"batch_req_{number:024x}", "custom_id": record, "response": response, "error": None})
