"""Backends, shards and answers for the tests of the batch APIs, whatever server is behind them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lowtide.connectors.backends.openai_batch import open_azure, open_openai
from lowtide.job.backends import AzureBatchBackend, OpenAIBatchBackend
from lowtide.operations import Operation, Template
from lowtide.operations.answers import PlainAnswer, SummaryAnswer
from lowtide.protocols import Backend
from lowtide.records import Answer, BatchStatus, Request, Shard

KEY = "sk-a-key-of-tests"
SCHEMA = {
    "type": "object",
    "properties": {"summary": {"type": "string"}},
    "required": ["summary"],
    "additionalProperties": False,
}
TEXT = "The bridge is closed. It opens in spring."
PATIENCE = 60.0


def summarize(max_output_tokens: int = 300) -> Operation:
    return Operation(
        "summarize",
        "summarize",
        'Summarize. The form is {"summary": "..."}.',
        Template.parse("<m>{{ text }}</m>"),
        SummaryAnswer(),
        schema=SCHEMA,
        max_output_tokens=max_output_tokens,
    )


def prompt(max_output_tokens: int = 300) -> Operation:
    return Operation(
        "prompt", "ask", "", Template.parse("{{ text }}"), PlainAnswer(), max_output_tokens=max_output_tokens
    )


def request_of(
    number: int, text: str = "The bridge is closed. It opens in spring.", operation: Operation | None = None
) -> Request:
    chosen = operation or summarize()
    return Request(f"r{number:07d}x0123abcd", chosen, chosen.system, chosen.user.render({"text": text}), text)


def shard_of(backend: Backend, requests: Sequence[Request]) -> Shard:
    return raw_shard([backend.encode(request) for request in requests])


def raw_shard(lines: Sequence[bytes]) -> Shard:
    data = b"".join(line + b"\n" for line in lines)
    return Shard("run", 1, 1, len(lines), len(data), "memory://shard", lambda: io.BytesIO(data))


def ended(backend: Backend, batch_id: str) -> BatchStatus:
    """Poll until the batch has ended."""
    end = time.monotonic() + PATIENCE
    while (status := backend.poll(batch_id)).outcome is None:
        assert time.monotonic() < end, f"waited {PATIENCE} s for {batch_id}, which is {status}"
        time.sleep(0.02)
    return status


def outputs_of(backend: Backend, batch_id: str) -> dict[str, bytes]:
    return {output.name: b"".join(output.chunks) for output in backend.outputs(batch_id)}


def answers_of(backend: Backend, batch_id: str) -> dict[str, Answer]:
    """The answers by record id; each record has one at most."""
    found = [backend.parse(line) for data in outputs_of(backend, batch_id).values() for line in data.splitlines()]
    answers = {answer.record_id: answer for answer in found if answer is not None}
    assert len(answers) == len(found)
    return answers


@dataclass
class Clock:
    """A clock that stands still until somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def openai_backend(url: str, **options: object) -> Backend:
    spec = OpenAIBatchBackend.model_validate({"model": "gpt-4.1-mini", "base_url": f"{url}/v1", **options})
    return open_openai(spec, environ={"OPENAI_API_KEY": KEY})


def azure_backend(url: str, environ: Mapping[str, str] | None = None, **options: object) -> Backend:
    asked = {"model": "gpt-4.1-mini", "deployment": "gpt-4.1-mini-batch", "endpoint": url, **options}
    return open_azure(AzureBatchBackend.model_validate(asked), environ={"AZURE_OPENAI_API_KEY": KEY, **(environ or {})})
