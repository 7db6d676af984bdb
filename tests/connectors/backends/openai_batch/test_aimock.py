"""A whole round against a server that was written elsewhere."""

from __future__ import annotations

import pytest
from servers.aimock import ANSWER
from support.openai_support import answers_of, ended, openai_backend, outputs_of, request_of, shard_of

from lowtide.errors import Transient


@pytest.fixture
def backend(aimock_url):
    return openai_backend(aimock_url, model="gpt-4o")


@pytest.mark.parametrize("call", ["chat", "responses"])
def test_a_batch_goes_all_the_way(aimock_url, call):
    backend = openai_backend(aimock_url, model="gpt-4o", call=call)
    requests = [request_of(at) for at in range(300)]
    batch_id = backend.submit(shard_of(backend, requests), f"token-{call}")
    assert backend.find(f"token-{call}") == [batch_id]
    status = ended(backend, batch_id)
    assert (status.outcome, status.answered, status.charged) == ("completed", 300, 300)
    answers = answers_of(backend, batch_id)
    assert answers.keys() == {request.record_id for request in requests}
    assert {(answer.status, answer.text) for answer in answers.values()} == {("ok", ANSWER)}
    if call == "chat":
        assert {(answer.input_tokens, answer.output_tokens) for answer in answers.values()} == {(1, 1)}
    backend.cancel(batch_id)
    backend.discard(batch_id)
    backend.discard(batch_id)
    with pytest.raises(Transient, match="404"):
        outputs_of(backend, batch_id)


def test_the_same_token_twice_is_found_twice(backend):
    shard = shard_of(backend, [request_of(1)])
    first, second = backend.submit(shard, "twice"), backend.submit(shard, "twice")
    assert sorted(backend.find("twice")) == sorted([first, second])
    assert backend.find("never") == []


def test_a_cancelled_batch_was_charged_nothing_and_has_no_files(backend):
    batch_id = backend.submit(shard_of(backend, [request_of(1)]), "cancelled")
    backend.cancel(batch_id)
    status = ended(backend, batch_id)
    assert (status.outcome, status.charged) == ("cancelled", 0)
    assert outputs_of(backend, batch_id) == {}


def test_what_a_run_needs_is_looked_at(backend, aimock_url):
    assert {finding.name: finding.ok for finding in backend.examine()} == {
        "credentials": True, "files": True, "batches": True, "model": True, "quota": True,
    }  # fmt: skip
    unknown = {finding.name: finding for finding in openai_backend(aimock_url, model="no-such-model").examine()}
    assert not unknown["model"].ok
    assert "no-such-model" in unknown["model"].found
