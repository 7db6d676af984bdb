"""Whatever the documents, no shard of any provider backend breaks a limit of the provider's.

The limits that can be reached in a test are made small; what the providers say of ids, lines and addresses is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.standins import MemoryStore

from lowtide import ids
from lowtide.connectors.backends import open_backend
from lowtide.job.model import JobFile
from lowtide.operations import Operation, build_operation
from lowtide.protocols import Backend
from lowtide.records import DocumentBatch, Limits, Request
from lowtide.sharding import BuiltShard, Position, ShardBuilder

OPERATIONS = [
    {"summarize": {"words": 12}},
    {"classify": {"labels": {"sea": "tides", "land": "fields"}}},
    {"prompt": {"user": "Say what {{ who }} said:\n{{ text }}"}},
]
ROLE = "arn:aws:iam::123456789012:role/batch"
SPECS: Mapping[str, dict[str, object]] = {
    "openai": {"openai-batch": {"model": "gpt-4o-mini", "base_url": "http://127.0.0.1:9/v1"}},
    "openai, responses": {
        "openai-batch": {"model": "gpt-4.1", "call": "responses", "base_url": "http://127.0.0.1:9/v1"}
    },
    "azure": {"azure-batch": {"model": "gpt-4o-mini", "deployment": "dep", "endpoint": "https://x.openai.azure.com"}},
    **{
        f"bedrock, {model}, {how}": {
            "bedrock": {
                "model": model,
                "role_arn": ROLE,
                "invocation": how,
                "staging": "s3://bucket/staging",
                "region": "us-east-1",
            }
        }
        for how in ("converse", "invoke")
        for model in (
            "anthropic.claude-3-haiku-20240307-v1:0",
            "amazon.nova-lite-v1:0",
            "meta.llama3-1-70b-instruct-v1:0",
            "mistral.mistral-large-2407-v1:0",
        )
    },
}
ENVIRON = {
    "OPENAI_API_KEY": "x",
    "AZURE_OPENAI_API_KEY": "x",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_REGION": "us-east-1",
}


def job(backend: dict[str, object]) -> JobFile:
    return JobFile.model_validate(
        {
            "version": 1,
            "name": "limits",
            "source": {"uri": "./x", "fields": ["who"]},
            "operations": OPERATIONS,
            "backends": [backend],
            "output": {"root": "./out"},
        }
    )


BACKENDS = {name: open_backend(job(spec).backends[0], MemoryStore(), environ=ENVIRON) for name, spec in SPECS.items()}
ASKED = tuple(build_operation(spec, Path()) for spec in job({"local": {}}).operations)


@dataclass(frozen=True)
class Smaller:
    """A backend with smaller limits of sizes and counts. Bounds of a provider's own ids and forms stay."""

    backend: Backend
    limits: Limits

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)

    def encode(self, request: Request) -> bytes:
        return self.backend.encode(request)


texts = st.text(max_size=300) | st.text(st.characters(exclude_categories=()), max_size=20) | st.just('"\\\n\u2028' * 9)


def shards(on: Smaller, found: list[tuple[str, str]], width: int, shard_records: int) -> Iterator[BuiltShard]:
    operations: tuple[Operation, ...] = ASKED[:width]
    batch = DocumentBatch(fields={"who": []})
    for number, (text, who) in enumerate(found):
        batch.uris.append("s3://b/f")
        batch.keys.append(str(number))
        batch.modified.append(None)
        batch.texts.append(text)
        batch.reasons.append(None)
        batch.fields["who"].append(who)
    builder = ShardBuilder(on, operations, salt=b"s", shard_records=shard_records, field_names=("who",))  # type: ignore[arg-type]
    return builder.build([batch], first_number=1, start=Position(0, 0), uris=iter(["s3://b/f"]))


@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_shard_breaks_a_limit_of_its_provider(name: str, data: st.DataObject) -> None:
    backend = BACKENDS[name]
    limits = backend.limits
    small = Limits(
        records=data.draw(st.integers(3, 30)),
        bytes=data.draw(st.integers(8_000, 40_000)),
        request_bytes=data.draw(st.integers(1_500, 8_000)),
        live_batches=1,
        tokens=data.draw(st.none() | st.integers(2_000, 9_000)),
        minimum_records=data.draw(st.integers(1, 6)) if limits.minimum_records > 1 else 1,
    )
    found = data.draw(st.lists(st.tuples(texts, texts), max_size=25))
    width = data.draw(st.integers(1, 3))
    built = list(shards(Smaller(backend, small), found, width, data.draw(st.integers(1, 40))))
    for shard in built:
        assert shard.records <= small.records
        assert shard.size == sum(map(len, shard.lines)) <= small.bytes
        assert small.tokens is None or shard.tokens <= small.tokens
        records = [check_line(name, line, small) for line in shard.lines]
        assert len(set(records)) == len(records)


def check_line(name: str, line: bytes, limits: Limits) -> str:
    """What a provider says of one line; returns its record id."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert not line.startswith(b"\xef\xbb\xbf")
    assert len(line) <= limits.request_bytes
    request = orjson.loads(line)
    if name.startswith("bedrock"):
        assert set(request) == {"recordId", "modelInput"}
        assert re.fullmatch("[a-zA-Z0-9]{1,64}", request["recordId"])
        return str(request["recordId"])
    assert list(request) == ["custom_id", "method", "url", "body"]
    assert request["method"] == "POST"
    assert 0 < len(request["custom_id"]) <= 64
    assert request["body"]["model"] == ("dep" if name == "azure" else BACKENDS[name].model)
    return str(request["custom_id"])


@given(
    st.binary(min_size=8, max_size=8), st.binary(min_size=4, max_size=4), st.integers(1, 99_999), st.integers(1, 999)
)
def test_every_token_is_a_name_that_all_providers_take(run: bytes, nonce: bytes, shard: int, attempt: int) -> None:
    token = ids.token(run.hex(), nonce.hex(), shard, attempt)
    assert re.fullmatch(r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+\-.]){0,63}", token)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", token)
    assert len(token) <= 63


@pytest.mark.parametrize(
    ("name", "records", "size", "minimum"),
    [
        ("openai", 50_000, 200_000_000, 1),
        ("azure", 100_000, 200_000_000, 1),
        ("bedrock, amazon.nova-lite-v1:0, converse", 50_000, 10**9, 100),
    ],
)
def test_the_limits_are_those_that_the_providers_publish(name: str, records: int, size: int, minimum: int) -> None:
    limits = BACKENDS[name].limits
    assert limits.records <= records
    assert limits.bytes <= size
    assert limits.minimum_records == minimum
