"""What S3 and the network do between us and a job: nothing is lost, and nothing is created that is not known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bedrock_bench import Bench, token
from servers.faulty import Fault, Faulty, faulty

from lowtide.connectors.stores import open_store
from lowtide.errors import SubmitUnknown, Terminal, Transient


@pytest.fixture
def s3(bench: Bench) -> Iterator[Faulty]:
    with faulty(bench.environ["AWS_ENDPOINT_URL"]) as proxy:
        bench.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        bench.root = open_store(bench.root.uri, environ=bench.environ)
        yield proxy


@pytest.fixture
def between(bench: Bench) -> Iterator[Faulty]:
    with faulty(bench.emulator.url) as proxy:
        bench.environ["AWS_ENDPOINT_URL_BEDROCK"] = proxy.url
        yield proxy


def created(bench: Bench) -> int:
    return len(bench.emulator.calls()["created"])


def test_an_upload_that_fails_is_transient_and_nothing_was_created(bench: Bench, s3: Faulty) -> None:
    backend = bench.open()
    s3.faults.append(Fault("PUT", 503, "SlowDown", where="requests.jsonl", times=100))
    with pytest.raises(Transient):
        backend.submit(bench.shard(backend), token())
    assert created(bench) == 0
    s3.faults.clear()
    assert backend.submit(bench.shard(backend), token())


def test_an_upload_that_is_denied_is_terminal_and_names_the_permission(bench: Bench, s3: Faulty) -> None:
    backend = bench.open()
    s3.faults.append(Fault("PUT", 403, "AccessDenied", where="requests.jsonl", times=100))
    with pytest.raises(Terminal, match="allow s3:PutObject"):
        backend.submit(bench.shard(backend), token())
    assert created(bench) == 0


def test_an_output_that_is_gone_once_is_read_later(bench: Bench, s3: Faulty) -> None:
    backend = bench.open()
    batch = backend.submit(bench.on_root(backend), token())
    bench.finish(backend, batch)
    s3.faults += [Fault(method, 404, "NoSuchKey", where=".jsonl.out") for method in ("GET", "HEAD")]

    with pytest.raises(Transient):
        bench.answers(backend, batch)

    s3.faults.clear()
    assert len(bench.answers(backend, batch)) == 100


def test_an_output_that_is_replaced_while_it_is_read_is_read_later(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(bench.on_root(backend), token())
    bench.finish(backend, batch)
    path = next(path for path in bench.paths() if path.endswith(".jsonl.out"))
    rows = bench.root.read(path)
    bench.root.write(path, rows * (12_000_000 // len(rows)))
    chunks = {output.name: output.chunks for output in backend.outputs(batch)}["s00001-a1.jsonl.out"]
    next(chunks)
    bench.root.write(path, rows)

    with pytest.raises(Transient, match="replaced or removed while it was read"):
        list(chunks)

    assert len(bench.answers(backend, batch)) == 100


@pytest.mark.parametrize("status", [200, 500, 502, 503, 504])
def test_an_answer_to_create_that_cannot_be_read_is_an_unknown_outcome(
    bench: Bench, between: Faulty, status: int
) -> None:
    backend, name = bench.open(), token()
    between.faults.append(Fault("POST", status, "x", where="/model-invocation-job", forward=True))

    with pytest.raises(SubmitUnknown):
        backend.submit(bench.on_root(backend), name)

    assert len(backend.find(name)) == 1
    assert created(bench) == 1
    assert between.seen.count("POST /model-invocation-job") == 1


def test_a_lost_answer_to_create_is_an_unknown_outcome(bench: Bench, between: Faulty) -> None:
    backend, name = bench.open(), token()
    between.faults.append(Fault("POST", 0, where="/model-invocation-job", forward=True))
    with pytest.raises(SubmitUnknown):
        backend.submit(bench.on_root(backend), name)
    assert len(backend.find(name)) == 1
    assert created(bench) == 1


def test_an_answer_to_get_that_cannot_be_read_is_transient(bench: Bench, between: Faulty) -> None:
    backend = bench.open()
    batch = backend.submit(bench.on_root(backend), token())
    between.faults.append(Fault("GET", 200, "x", where="/model-invocation-job/", times=50))
    with pytest.raises(Transient):
        backend.poll(batch)
    between.faults.clear()
    assert bench.finish(backend, batch).charged == 100
