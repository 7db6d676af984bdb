"""An OpenAI or Azure OpenAI account at an emulator, used as anybody would: through the openai SDK, without retries."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from openai import AzureOpenAI, OpenAI
from openai.types import Batch
from servers.emulators import Emulator

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
WAIT_SECONDS = 60.0
AZURE_EXPIRY = 1_209_600
QUICK = {
    "validating_seconds": 0.02,
    "processing_seconds": 0.05,
    "finalizing_seconds": 0.02,
    "cancelling_seconds": 0.05,
}


def chat_body(text: str, model: str = "gpt-4o-mini", **changes: Any) -> dict[str, Any]:
    """The body of one chat completion."""
    system = "Answer in one sentence, in the language of the question, and say nothing that it does not say."
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return {"model": model, "messages": messages, **changes}


def line(custom_id: str, body: Mapping[str, Any], url: str = "/v1/chat/completions") -> dict[str, Any]:
    """One line of an input file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """An input file."""
    return b"".join(orjson.dumps(one) + b"\n" for one in lines)


@dataclass
class Desk:
    """One account. `model` is what batches ask for: a model's name, or a batch deployment's."""

    emulator: Emulator
    client: OpenAI
    model: str

    @property
    def is_azure(self) -> bool:
        """Whether the other side is Azure."""
        return "/openai" in str(self.client.base_url)

    def rows(self, count: int, make: Callable[[str], Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
        """That many different lines, r0 and so on."""
        make = make or (lambda text: chat_body(text, self.model))
        return [line(f"r{number}", make(f"This is document {number}. It says little.")) for number in range(count)]

    def upload(self, lines: list[dict[str, Any]] | bytes, **options: Any) -> str:
        """An input file; its id."""
        data = lines if isinstance(lines, bytes) else jsonl(lines)
        return self.client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch", **options).id

    def create(self, lines: list[dict[str, Any]] | bytes | str, **options: Any) -> str:
        """A batch over these lines, or over a file; its id."""
        file_id = lines if isinstance(lines, str) else self.upload(lines)
        asked: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **options}
        return self.client.batches.create(input_file_id=file_id, **asked).id

    def get(self, batch_id: str) -> Batch:
        """The batch as it is now."""
        return self.client.batches.retrieve(batch_id)

    def wait(self, batch_id: str, *states: str) -> Batch:
        """The batch once it is in one of these states; without any, once it has ended."""
        return self.until(batch_id, lambda batch: batch.status in (states or ENDED))

    def until(self, batch_id: str, holds: Callable[[Batch], bool]) -> Batch:
        """The batch as soon as something holds of it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            batch = self.get(batch_id)
            if holds(batch):
                return batch
            assert time.monotonic() < deadline, f"{batch_id} is still {batch.status}"
            time.sleep(0.02)

    def run(self, lines: list[dict[str, Any]] | bytes | str, **options: Any) -> Batch:
        """A batch over these lines, ended."""
        return self.wait(self.create(lines, **options))

    def content(self, file_id: str | None) -> bytes:
        """The bytes of a file."""
        assert file_id
        return self.client.files.content(file_id).read()

    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """The lines of the output file."""
        return [orjson.loads(one) for one in self.content(batch.output_file_id).splitlines()]

    def errors(self, batch: Batch) -> list[dict[str, Any]]:
        """The lines of the error file."""
        return [orjson.loads(one) for one in self.content(batch.error_file_id).splitlines()]

    def codes(self, batch: Batch) -> list[tuple[str | None, int | None]]:
        """Code and line of everything that validation found."""
        assert batch.errors
        return [(error.code, error.line) for error in batch.errors.data or []]

    def setting(self, **settings: object) -> None:
        """Change settings of the service."""
        self.emulator.settings(openai=settings)


def openai_desk(emulator: Emulator, key: str = "key") -> Desk:
    """OpenAI, with short batches."""
    emulator.settings(openai=QUICK)
    client = OpenAI(base_url=f"{emulator.url}/v1", api_key=key, max_retries=0, timeout=60)
    return Desk(emulator, client, "gpt-4o-mini")


def azure_desk(emulator: Emulator, resource: str = "", key: str = "key") -> Desk:
    """Azure OpenAI under the v1 API, with short batches; `resource` names another resource than the first."""
    emulator.settings(openai=QUICK)
    root = f"{emulator.url}/azure/{resource}" if resource else emulator.url
    client = OpenAI(base_url=f"{root}/openai/v1/", api_key=key, max_retries=0, timeout=60)
    return Desk(emulator, client, "gpt-4o-mini-batch")


def dated_desk(emulator: Emulator, key: str = "key") -> Desk:
    """Azure OpenAI under a dated API version, through AzureOpenAI."""
    emulator.settings(openai=QUICK)
    client = AzureOpenAI(
        azure_endpoint=emulator.url, api_key=key, api_version="2025-04-01-preview", max_retries=0, timeout=60
    )
    return Desk(emulator, client, "gpt-4o-mini-batch")
