"""What the tests of bedrock share: requests, shards, and a bench over a bucket and the emulator."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from servers.emulators import Emulator

from lowtide.connectors.backends.bedrock import Backend, open_bedrock
from lowtide.connectors.backends.bedrock.connection import connect
from lowtide.connectors.backends.bedrock.ondemand import Lane
from lowtide.connectors.backends.bedrock.staging import open_staging
from lowtide.job.backends import BedrockBackend
from lowtide.operations import Operation, Template
from lowtide.operations.answers import SummaryAnswer
from lowtide.protocols import Store
from lowtide.records import Answer, BatchStatus, Request, Shard

ROLE = "arn:aws:iam::123456789012:role/lowtide-bedrock"
HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
HAIKU_45 = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
PATIENCE = 120.0


def spec(**changes: object) -> BedrockBackend:
    return BedrockBackend.model_validate({"model": HAIKU, "role_arn": ROLE, "region": "us-east-1", **changes})


def summarize(schema: dict[str, object] | None = None, tokens: int = 256) -> Operation:
    return Operation(
        kind="summarize",
        name="summarize",
        system='Summarize the document. Answer with one JSON object. The form is {"summary": "..."}.',
        user=Template.parse("<document-{{ marker }}>\n{{ text }}\n</document-{{ marker }}>"),
        validate=SummaryAnswer(),
        schema=schema,
        max_output_tokens=tokens,
    )


def request_for(number: int, text: str | None = None, operation: Operation | None = None) -> Request:
    operation = operation or summarize()
    text = f"Report number {number} is about the harbour. It rained." if text is None else text
    user = operation.user.render({"text": text, "marker": "m1"})
    return Request(f"r{number:07d}x0a1b2c3d", operation, operation.system, user, text)


def shard_of(lines: Sequence[bytes], *, uri: str = "memory://shard", on_demand: bool = False) -> Shard:
    data = b"".join(line + b"\n" for line in lines)
    return Shard("run", 1, 1, len(lines), len(data), uri, lambda: io.BytesIO(data), on_demand)


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited {patience} s for {what}"
        time.sleep(0.05)


@dataclass
class Bench:
    """A bucket, an account on the emulator, and what tests do with them."""

    root: Store
    environ: dict[str, str]
    emulator: Emulator
    bucket: str

    def open(self, root: Store | None = None, **changes: object) -> Backend:
        return open_bedrock(spec(**changes), root or self.root, environ=self.environ)

    def quick(self, settle_seconds: float = 1.0, slice_seconds: float = 5.0, **changes: object) -> Backend:
        """As `open`, with shorter waits."""
        described, reached = spec(**changes), connect("us-east-1", self.environ)
        return Backend(
            described,
            self.root,
            reached,
            open_staging(described.staging, self.root, self.environ),
            lane=Lane(self.root, reached, described.model, described.invocation, slice_seconds=slice_seconds),
            settle_seconds=settle_seconds,
        )

    def shard(self, backend: Backend, count: int = 100, **more: object) -> Shard:
        return shard_of([backend.encode(request_for(number)) for number in range(count)], **more)  # type: ignore[arg-type]

    def on_root(self, backend: Backend, count: int = 100, name: str = "runs/j/w/r/requests/s00001-a1.jsonl") -> Shard:
        shard = self.shard(backend, count)
        self.root.write(name, shard.open().read())
        return Shard(
            "run", 1, 1, count, shard.size, self.root.uri_of(name), lambda: self.root.open(name), shard.on_demand
        )

    def finish(self, backend: Backend, batch_id: str) -> BatchStatus:
        statuses: list[BatchStatus] = []

        def ended() -> bool:
            statuses.append(backend.poll(batch_id))
            return statuses[-1].outcome is not None

        until(ended, "the batch to end")
        return statuses[-1]

    def answers(self, backend: Backend, batch_id: str) -> list[Answer]:
        lines: list[bytes] = []
        for output in backend.outputs(batch_id):
            lines += b"".join(output.chunks).split(b"\n")
        parsed = [backend.parse(line) for line in lines if line]
        return [answer for answer in parsed if answer is not None]

    def bedrock(self) -> Any:
        """The bare boto3 client, which sees and makes jobs that are not ours."""
        return boto3.client(
            "bedrock", "us-east-1", endpoint_url=self.emulator.url, aws_access_key_id="t", aws_secret_access_key="t"
        )

    def paths(self) -> list[str]:
        return [info.path for info in self.root.list()]


def token(number: int = 1) -> str:
    return f"lt-{uuid.uuid4().hex[:16]}-{uuid.uuid4().hex[:8]}-s{number:05d}-a1"
