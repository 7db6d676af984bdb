"""The same on S3 and on Azure: workers of this machine get the credentials, and find everything."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import orjson
import pytest
from faults.scene import make_bucket
from servers.azurite import environ as azure_environ
from servers.engine import Engine, running

from lowtide import ids
from lowtide.connectors.backends.spot import open_spot
from lowtide.connectors.backends.spot.fleet import fleet_of
from lowtide.connectors.stores import open_store
from lowtide.job.backends import SpotBackend
from lowtide.protocols import Store
from lowtide.records import Shard

PATIENCE = 60.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running() as found:
        yield found


@pytest.fixture(params=["s3", "azure"])
def environ(request: pytest.FixtureRequest, moto_url: str, azurite: str) -> dict[str, str]:
    """How a user would reach a bucket that is there, whose address is ROOT."""
    name = f"spot-{uuid.uuid4().hex}"
    if request.param == "s3":
        make_bucket(moto_url, name)
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
        return {**keys, "AWS_ENDPOINT_URL": moto_url, "ROOT": f"s3://{name}/root"}
    from azure.storage.blob import BlobServiceClient

    found = azure_environ(azurite)
    BlobServiceClient.from_connection_string(found["AZURE_STORAGE_CONNECTION_STRING"]).create_container(name)
    return {**found, "ROOT": f"abfs://{name}/root"}


def shard(root: Store, attempt: int, ordinals: range) -> Shard:
    lines = []
    for n in ordinals:
        body = {"model": "small", "messages": [{"role": "user", "content": f"text {n}"}], "max_tokens": 5}
        line = {"custom_id": ids.record_id(n, "0badcafe"), "url": "/v1/chat/completions", "body": body}
        lines.append(orjson.dumps(line) + b"\n")
    path, data = f"runs/requests/s00001-a{attempt}.jsonl", b"".join(lines)
    root.write(path, data)
    return Shard("run", 1, attempt, len(lines), len(data), root.uri_of(path), lambda: root.open(path))


def test_shards_are_answered_wherever_the_root_is(environ: dict[str, str], engine: Engine, tmp_path: Path) -> None:
    root = open_store(environ["ROOT"], environ=environ)
    spec = SpotBackend.model_validate({"model": "small", "launcher": "process", "engine": {"url": engine.url}})
    fleet = msgspec.structs.replace(fleet_of(spec), idle_seconds=1.0, beat_seconds=0.5)
    slots = {
        "LOWTIDE_SPOT_DIR": str(tmp_path),
        "LOWTIDE_METADATA_URL_EC2": "none",
        "LOWTIDE_METADATA_URL_AZURE": "none",
    }
    backend = open_spot(spec, root, environ={**environ, **slots}, fleet=fleet)
    assert all(finding.ok for finding in backend.examine())
    for attempt, ordinals in ((1, range(40)), (2, range(30, 40))):
        batch = backend.submit(shard(root, attempt, ordinals), ids.token("0123456789abcdef", "0a0b0c0d", 1, attempt))
        end = time.monotonic() + PATIENCE
        while (status := backend.poll(batch)).outcome is None:
            assert time.monotonic() < end, f"{status}: {(tmp_path / 'slots/000/log').read_text()}"
            time.sleep(0.1)
        assert (status.outcome, status.charged) == ("completed", len(ordinals))
        lines = b"".join(chunk for output in backend.outputs(batch) for chunk in output.chunks).splitlines()
        answers = [answer for answer in map(backend.parse, lines) if answer is not None]
        assert Counter(ids.ordinal_of(answer.record_id) for answer in answers) == Counter(ordinals)
        backend.discard(batch)
        assert not list(root.list(f"spot/0123456789abcdef-0a0b0c0d/shards/s00001-a{attempt}/parts/"))
