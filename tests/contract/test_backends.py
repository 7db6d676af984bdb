"""What `lowtide.protocols.Backend` promises, at every backend."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest
from faults.scene import environment, make_bucket
from servers.azurite import environ as azure_environ
from servers.emulators import Emulator, emulators
from servers.keyed import keyed

from lowtide import ids
from lowtide.collecting.outcomes import split_lines
from lowtide.connectors.backends import open_backend
from lowtide.connectors.stores import open_store
from lowtide.errors import SubmitUnknown
from lowtide.job.model import JobFile
from lowtide.operations import Operation, Output, build_operation
from lowtide.protocols import Backend, Store
from lowtide.records import Answer, BatchStatus, Shard
from lowtide.sharding import line_template

TEXTS = [f"The tide of day {n} came at noon. It rose by {n} millimetres, and fell again." for n in range(120)]
SUMMARIZE = {"summarize": {"words": 12}}
CLASSIFY = {"classify": {"labels": {"sea": "tides, waves and ships", "land": "fields and roads"}}}
SPECS: dict[str, dict[str, object]] = {
    "local": {"local": {"model": "tfidf"}},
    "openai-batch": {"openai-batch": {"model": "gpt-4o-mini"}},
    "openai-batch, responses": {"openai-batch": {"model": "gpt-4o-mini", "call": "responses"}},
    "azure-batch": {"azure-batch": {"model": "gpt-4o-mini", "deployment": "gpt-4o-mini-batch"}},
    "azure-batch, dated": {
        "azure-batch": {"model": "gpt-4o-mini", "deployment": "gpt-4o-mini-batch", "api": "2025-04-01-preview"}
    },
    "azure-batch, blob": {
        "azure-batch": {"model": "gpt-4o-mini", "deployment": "gpt-4o-mini-batch", "blob": "abfs://CONTAINER/staging"}
    },
    "azure-batch, regions": {
        "azure-batch": {
            "model": "gpt-4o-mini",
            "deployment": "gpt-4o-mini-batch",
            "endpoint": "EMULATOR/azure/one",
            "region": "one",
            "regions": [{"endpoint": "EMULATOR/azure/two", "deployment": "gpt-4o-mini-batch", "region": "two"}],
        }
    },
    "bedrock": {"bedrock": {"model": "amazon.nova-lite-v1:0", "role_arn": "arn:aws:iam::123456789012:role/batch"}},
    "bedrock, invoke": {
        "bedrock": {
            "model": "anthropic.claude-3-haiku-20240307-v1:0",
            "role_arn": "arn:aws:iam::123456789012:role/batch",
            "invocation": "invoke",
        }
    },
    "spot": {
        "spot": {
            "model": "gpt-4o-mini",
            "launcher": "process",
            "max_workers": 2,
            "structured_output": "native",
            "engine": {"url": "that of a fixture"},
        }
    },
}
OWN = ("local", "spot")
"""Backends whose batches are made by no call that could get lost."""


@dataclass
class Bench:
    """One backend, its root, and a shard for it."""

    name: str
    backend: Backend
    root: Store
    emulator: Emulator
    reopened: Callable[[], Backend]

    def operation(self, spec: dict[str, object] | None = None) -> Operation:
        job = JobFile.model_validate(
            {
                "version": 1,
                "name": "contract",
                "source": {"uri": "./x"},
                "operations": [spec or SUMMARIZE],
                "backends": [{"local": {}}],
                "output": {"root": "./out"},
            }
        )
        return build_operation(job.operations[0], Path())

    def shard(self, texts: list[str], operation: Operation | None = None, *, on_demand: bool = False) -> Shard:
        operation = operation or self.operation()
        template = line_template(self.backend, operation)
        lines = []
        for number, text in enumerate(texts):
            sha = ids.document_id(text, "")
            values = {"record_id": ids.record_id(number, sha), "text": text, "marker": "mark"}
            lines.append(template.render({key: orjson.dumps(value)[1:-1] for key, value in values.items()}))
        path = f"requests/{uuid.uuid4().hex}.jsonl"
        self.root.write(path, b"".join(lines))
        size = sum(map(len, lines))
        return Shard(
            "run", 1, 1, len(lines), size, self.root.uri_of(path), lambda: self.root.open(path), on_demand=on_demand
        )

    def end(self, batch_id: str) -> BatchStatus:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            status = self.backend.poll(batch_id)
            if status.outcome is not None:
                return status
            time.sleep(0.1)
        pytest.fail(f"{batch_id} has not ended")

    def answers(self, batch_id: str) -> list[Answer]:
        found = []
        for output in self.backend.outputs(batch_id):
            assert output.name
            for line in split_lines(output.chunks):
                answer = self.backend.parse(line) if line else None
                if answer is not None:
                    found.append(answer)
        return found

    def token(self) -> str:
        return ids.token(uuid.uuid4().hex[:16], uuid.uuid4().hex[:8], 1, 1)


@pytest.fixture(scope="session")
def served(moto_url: str, azurite: str) -> Iterator[Emulator]:
    blob = azure_environ(azurite)["AZURE_STORAGE_CONNECTION_STRING"]
    with emulators(s3_url=moto_url, blob=blob, speed=10.0) as found:
        yield found


@pytest.fixture(scope="session")
def engine(served: Emulator) -> Iterator[str]:
    with keyed(served.url) as url:
        yield url


@pytest.fixture(params=SPECS)
def bench(
    request: pytest.FixtureRequest,
    served: Emulator,
    moto_url: str,
    azurite: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    served.reset()
    name = str(request.param)
    kind = name.partition(",")[0]
    monkeypatch.setenv("LOWTIDE_LOCAL_DIR", str(tmp_path / "local"))
    monkeypatch.setenv("LOWTIDE_SPOT_DIR", str(tmp_path / "spot"))
    for variable, value in environment(kind, served.url, moto_url).items() if kind not in OWN else ():
        monkeypatch.setenv(variable, value)
    bucket = f"contract-{uuid.uuid4().hex}"
    spec = orjson.loads(
        orjson.dumps(SPECS[name]).replace(b"CONTAINER", bucket.encode()).replace(b"EMULATOR", served.url.encode())
    )
    if kind == "spot":
        spec["spot"]["engine"]["url"] = request.getfixturevalue("engine")
    if kind == "bedrock":
        make_bucket(moto_url, bucket)
        root = open_store(f"s3://{bucket}/root")
    else:
        root = open_store(str(tmp_path / "root"))
    if "blob" in name:
        make_container(azurite, bucket, monkeypatch)
    job = JobFile.model_validate(
        {
            "version": 1,
            "name": "contract",
            "source": {"uri": "./x"},
            "operations": [SUMMARIZE],
            "backends": [spec],
            "output": {"root": "./out"},
        }
    )

    def reopened() -> Backend:
        return open_backend(job.backends[0], root)

    return Bench(name, reopened(), root, served, reopened)


def make_container(azurite: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.storage.blob import BlobServiceClient

    for variable, value in azure_environ(azurite).items():
        monkeypatch.setenv(variable, value)
    BlobServiceClient.from_connection_string(
        azure_environ(azurite)["AZURE_STORAGE_CONNECTION_STRING"]
    ).create_container(name)


def test_it_says_what_it_is(bench: Bench) -> None:
    backend = bench.backend
    assert backend.name == bench.name.partition(",")[0]
    assert backend.provider
    assert backend.model
    assert orjson.dumps(dict(backend.parameters))
    limits = backend.limits
    assert 0 < limits.minimum_records <= limits.records
    assert 0 < limits.request_bytes <= limits.bytes
    assert limits.live_batches > 0
    assert backend.refusal(bench.operation()) is None


@pytest.mark.parametrize("spec", [SUMMARIZE, CLASSIFY], ids=["summarize", "classify"])
def test_every_record_is_answered_in_the_form_that_was_asked_for(bench: Bench, spec: dict[str, object]) -> None:
    operation = bench.operation(spec)
    batch_id = bench.backend.submit(bench.shard(TEXTS, operation), bench.token())
    status = bench.end(batch_id)
    assert status.outcome == "completed"
    answers = bench.answers(batch_id)
    assert sorted(ids.ordinal_of(answer.record_id) for answer in answers) == list(range(len(TEXTS)))
    assert {answer.status for answer in answers} == {"ok"}
    assert all(isinstance(operation.validate(answer.text), Output) for answer in answers)
    if bench.name != "local":
        assert status.charged == len(TEXTS)
        assert all(answer.input_tokens > 0 and answer.output_tokens > 0 for answer in answers)
        bill = bench.emulator.bill()
        assert sum(answer.input_tokens for answer in answers) == bill["input_tokens"]
        assert sum(answer.output_tokens for answer in answers) == bill["output_tokens"]
        assert sum(answer.cached_tokens for answer in answers) == bill["cached_tokens"]
    if status.usage is not None:
        assert status.usage.input_tokens == sum(answer.input_tokens for answer in answers)


def test_a_batch_is_found_by_its_token_by_any_process(bench: Bench) -> None:
    token = bench.token()
    assert list(bench.backend.find(token)) == []
    batch_id = bench.backend.submit(bench.shard(TEXTS), token)
    assert list(bench.reopened().find(token)) == [batch_id]
    assert list(bench.reopened().find(bench.token())) == []
    bench.end(batch_id)
    assert list(bench.reopened().find(token)) == [batch_id]


def test_what_has_ended_stays_as_it_is(bench: Bench) -> None:
    batch_id = bench.backend.submit(bench.shard(TEXTS), bench.token())
    first = bench.end(batch_id)
    again = bench.reopened().poll(batch_id)
    assert replace(again, answered=0) == replace(first, answered=0)
    assert sorted(answer.record_id for answer in bench.answers(batch_id)) == sorted(
        answer.record_id for answer in bench.answers(batch_id)
    )


def test_a_cancelled_batch_ends_and_keeps_what_was_answered(bench: Bench) -> None:
    batch_id = bench.backend.submit(bench.shard(TEXTS), bench.token())
    bench.backend.cancel(batch_id)
    bench.backend.cancel(batch_id)
    status = bench.end(batch_id)
    assert status.outcome in ("cancelled", "completed", "partial")
    bench.backend.cancel(batch_id)
    said = [answer for answer in bench.answers(batch_id) if answer.status == "ok"]
    if status.charged is not None:
        assert len(said) == status.charged == bench.emulator.bill()["records"]


def test_what_is_discarded_is_gone_and_the_requests_stay(bench: Bench) -> None:
    shard = bench.shard(TEXTS)
    batch_id = bench.backend.submit(shard, bench.token())
    bench.end(batch_id)
    bench.backend.discard(batch_id)
    bench.backend.discard(batch_id)
    with shard.open() as source:
        assert len(source.read()) == shard.size


def test_a_create_call_without_an_answer_is_unknown_and_can_be_found(bench: Bench) -> None:
    if bench.name in OWN:
        return
    bench.emulator.faults([{"on": "create", "do": "reset_after"}])
    token = bench.token()
    with pytest.raises(SubmitUnknown):
        bench.backend.submit(bench.shard(TEXTS), token)
    assert bench.emulator.struck() == [1]
    [batch_id] = bench.backend.find(token)
    assert bench.end(batch_id).outcome == "completed"
    assert len(bench.answers(batch_id)) == len(TEXTS)
    assert bench.emulator.bill()["most_billed"] == 1


def test_a_broken_line_is_a_value_error(bench: Bench) -> None:
    batch_id = bench.backend.submit(bench.shard(TEXTS), bench.token())
    bench.end(batch_id)
    line = max((line for output in bench.backend.outputs(batch_id) for line in split_lines(output.chunks)), key=len)
    with pytest.raises(ValueError):  # noqa: PT011 - no more is promised
        bench.backend.parse(line[: len(line) // 2])


def test_a_sound_backend_passes_its_examination(bench: Bench) -> None:
    findings = list(bench.backend.examine())
    assert findings
    assert [finding for finding in findings if not finding.ok] == []
    assert all(finding.name and finding.found for finding in findings)


def test_too_few_for_a_batch_are_asked_one_by_one(bench: Bench) -> None:
    if bench.backend.limits.minimum_records == 1:
        return
    batch_id = bench.backend.submit(bench.shard(TEXTS[:7], on_demand=True), bench.token())
    status = bench.end(batch_id)
    answers = bench.answers(batch_id)
    assert len(answers) == 7
    assert {answer.status for answer in answers} == {"ok"}
    assert status.charged == 7
    assert bench.emulator.bill()["tiers"] == {"batch": 0, "on_demand": 7}
