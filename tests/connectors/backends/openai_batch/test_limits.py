"""No shard that is built for these backends can break a limit of the provider's, whatever the documents hold."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.openai_support import azure_backend, openai_backend, prompt, raw_shard, summarize

from lowtide.connectors.backends.openai_batch.services import AZURE, OPENAI
from lowtide.connectors.backends.openai_batch.uploads import opened
from lowtide.records import DocumentBatch, Limits
from lowtide.sharding import Position, ShardBuilder

NOWHERE = "http://127.0.0.1:9"
FAR = {"endpoint": NOWHERE, "deployment": "a-much-longer-name-of-a-deployment-elsewhere", "region": "far"}


class Small:
    """The same backend in the small: the provider takes `records` requests and `size` bytes."""

    def __init__(self, backend, records, size, slack):
        self._backend = backend
        self.limits = replace(
            backend.limits, records=records, bytes=size - slack * records, request_bytes=size - slack * records
        )

    def __getattr__(self, name):
        return getattr(self._backend, name)


@settings(max_examples=120, deadline=None)
@given(
    texts=st.lists(st.text(max_size=400), min_size=1, max_size=40),
    records=st.integers(2, 12),
    size=st.integers(4000, 12_000),
    call=st.sampled_from(["chat", "responses"]),
)
def test_no_shard_is_over_a_limit_even_under_the_longest_name_of_a_deployment(texts, records, size, call):
    near = azure_backend(NOWHERE, deployment="d", region="near", regions=[FAR], call=call)
    slack = len(FAR["deployment"]) - len("d")
    backend = Small(near, records, size, slack)
    builder = ShardBuilder(backend, (summarize(), prompt()), salt=b"salt", shard_records=10_000)
    documents = DocumentBatch(
        uris=[f"file:///{at}" for at in range(len(texts))],
        keys=[""] * len(texts),
        modified=[None] * len(texts),
        texts=texts,
        reasons=[None] * len(texts),
    )
    for built in builder.build([documents], first_number=1, start=Position(0, 0), uris=iter(documents.uris)):
        lines = [bytes(line).removesuffix(b"\n") for line in built.lines]
        if not lines:
            continue
        with opened(raw_shard(lines), FAR["deployment"]) as source:
            sent = source.read()
        assert len(sent) <= size
        assert sent.count(b"\n") == len(lines) <= records
        rows = [orjson.loads(line) for line in sent.split(b"\n")[:-1]]
        ids = [row["custom_id"] for row in rows]
        assert len(set(ids)) == len(ids)
        assert all(len(one) <= 64 and one.isalnum() for one in ids)
        assert {row["body"]["model"] for row in rows} == {FAR["deployment"]}
        assert len({row["url"] for row in rows}) == 1
        assert not sent.startswith(b"\xef\xbb\xbf")


def test_limits_are_those_that_the_providers_document():
    assert openai_backend(NOWHERE).limits == Limits(50_000, 200_000_000, 6_285_456, 100, None)
    assert azure_backend(NOWHERE).limits == Limits(100_000, 200_000_000, 6_285_456, 100, 15_000_000)


def test_a_longer_name_elsewhere_takes_room_from_every_line():
    backend = azure_backend(NOWHERE, deployment="d", region="near", regions=[FAR])
    assert backend.limits.bytes == 200_000_000 - 100_000 * (len(FAR["deployment"]) - 1)


def test_a_shard_takes_half_of_the_quota_that_the_job_names():
    assert openai_backend(NOWHERE, enqueued_tokens=90_000).limits.tokens == 45_000
    assert azure_backend(NOWHERE, enqueued_tokens=1).limits.tokens == 1


def test_a_batch_is_found_with_a_grace_period():
    assert not openai_backend(NOWHERE).limits.consistent_lookup


@pytest.mark.parametrize(("service", "least"), [(OPENAI, 3_600), (AZURE, 1_209_600)])
def test_files_expire_inside_of_what_the_provider_takes(service, least):
    assert least <= service.input_seconds <= 2_592_000
    assert least <= service.output_seconds <= 2_592_000


def test_a_long_line_is_refused_only_where_the_model_could_not_read_it():
    assert openai_backend(NOWHERE, model="gpt-35-turbo").limits.request_bytes == 16_385 * 6
    assert openai_backend(NOWHERE, model="gpt-4o").limits.request_bytes == 128_000 * 6
