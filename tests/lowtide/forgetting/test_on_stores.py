"""The same on a bucket, and over the raw answers of a provider as it writes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from servers import aws
from servers.emulators import Emulator, emulators
from support.command import Bench
from support.engine_support import finish
from support.remains import objects_in, remains
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide import ids
from lowtide.connectors.stores import open_store
from lowtide.engine import open_run
from lowtide.forgetting import Forgetting, Target

TEXTS: dict[str, str | None] = {f"doc-{number}": f"words of person {number}." for number in range(6)}


def test_on_s3(moto_url: str) -> None:
    bucket = f"test-{uuid.uuid4().hex}"
    client = boto3.client(
        "s3",
        endpoint_url=moto_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket=bucket)
    store = open_store(f"s3://{bucket}/root", environ=aws.environ(moto_url))
    work = work_on(MemoryStore(), StandInBackend(Provider()), ListedDocuments(TEXTS))
    assert finish(open_run(replace(work, root=store))).done
    words = ["doc-3", ids.document_id("doc-3", ""), "person 3."]

    def objects() -> dict[str, bytes]:
        return {info.path: store.read(info.path) for info in store.list()}

    assert len(remains(objects(), words)) > 8
    assert Forgetting(store, Target.of("doc-3")).perform()
    assert remains(objects(), words) == []
    assert not Forgetting(store, Target.of("doc-3")).survey()


JOB = """
version: 1
name: tides
source: {{uri: "{folder}/documents/*.txt"}}
operations: [summarize: {{words: 20}}]
backends:
  - openai-batch: {{model: gpt-4o-mini}}
limits: {{shard_records: 4, poll: 1s}}
output: {{root: "{root}"}}
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulators(speed=2000.0) as served:
        yield served


def test_over_the_answers_of_an_emulated_provider(emulator: Emulator, tmp_path: Path) -> None:
    emulator.reset()
    bench = Bench(tmp_path, environ={"OPENAI_BASE_URL": f"{emulator.url}/v1", "OPENAI_API_KEY": "emulated"})
    (tmp_path / "documents").mkdir()
    for number in range(6):
        (tmp_path / f"documents/{number}.txt").write_text(f"Person {number} rowed out at dawn.", encoding="utf-8")
    bench.job.write_text(JOB.format(folder=tmp_path, root=bench.root), encoding="utf-8")
    ran = bench.run()
    assert ran.returncode == 0, ran.stderr
    uri = (tmp_path / "documents/3.txt").as_uri()
    root = Path(bench.root)
    [own] = [row for row in bench.results().to_pylist() if row["document_uri"] == uri]
    raw = [line for path, data in objects_in(root).items() if "/raw/" in path for line in data.splitlines()]
    before = [row for row in bench.results().to_pylist() if row["document_uri"] != uri]
    done = bench.lowtide("forget", str(bench.job), "--document", own["document_id"], "--yes")
    assert done.returncode == 0, done.stderr
    words = [uri, "3.txt", own["document_id"], "Person 3 rowed", own["content_sha256"][:12]]
    assert remains(objects_in(root), words) == []
    left = [line for path, data in objects_in(root).items() if "/raw/" in path for line in data.splitlines()]
    assert left == [line for line in raw if own["content_sha256"][:8].encode() not in line]
    assert len(left) == len(raw) - 1
    assert bench.results().to_pylist() == before
