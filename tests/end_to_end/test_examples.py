"""The job files under examples/job-files, run as they are: only the environment says that providers are emulated."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import boto3
import fsspec
import pyarrow.parquet as pq
import pytest
from azure.storage.blob import BlobServiceClient
from servers import aws
from servers import azurite as blob_service
from servers.emulators import Emulator, emulators
from servers.keyed import keyed
from support.command import text_of

from lowtide.emulators.faults import read_plan

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "examples" / "job-files"
GUIDE = ROOT / "docs" / "guides" / "emulators.md"
FAULTS = ROOT / "docs" / "operations" / "what-happens-when.md"
DOCUMENTS = 120
SECONDS = 240.0


@dataclass(frozen=True)
class Place:
    """The emulators, S3 and Blob Storage, and the environment that leads to them."""

    emulator: Emulator
    environ: Mapping[str, str]

    def lowtide(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `lowtide ARGUMENTS`, with `more` in its environment."""
        command = [sys.executable, "-m", "lowtide", *arguments]
        environ = {**os.environ, **self.environ, **more}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)

    def finish(self, job: Path, **more: str) -> None:
        """Run a job to its end as a scheduler would, which does not wait for the answers."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            ended = self.lowtide("run", str(job), "--direct", "--no-wait", **more)
            assert ended.returncode == 0, ended.stderr
            if "not finished" not in ended.stderr:
                return
        raise AssertionError(f"{job.name} has not ended")

    def check(self, root: str, rows: int) -> None:
        """So many good rows; and a ledger that is the bill."""
        results, ledger = table(root, "results"), table(root, "ledger")
        assert Counter(row["status"] for row in results) == {"ok": rows}
        used: Counter[str] = Counter()
        for row in ledger:
            if row["kind"] == "actual":
                used[str(row["token_type"])] += int(str(row["quantity"]))
        bill = self.emulator.bill()
        assert bill["most_billed"] == 1
        assert bill["records"] == rows
        assert (used["input"] + used["cached_input"], used["output"] + used["reasoning"]) == (
            bill["input_tokens"],
            bill["output_tokens"],
        )


def blocks(language: str) -> list[str]:
    """The fenced blocks of the guide to the emulators that are in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def table(root: str, name: str) -> list[dict[str, object]]:
    """The only file of one of a root's tables."""
    [file] = fsspec.open_files(f"{root}/tables/{name}/**/*.parquet")
    with file as opened:
        rows: list[dict[str, object]] = pq.read_table(opened).to_pylist()
    return rows


@pytest.fixture(scope="module")
def servers(moto_url: str, azurite: str) -> Iterator[Place]:
    storage = blob_service.environ(azurite)
    with emulators(s3_url=moto_url, blob=storage["AZURE_STORAGE_CONNECTION_STRING"], speed=20) as running:
        url = running.url
        environ = {
            **aws.environ(moto_url),
            **storage,
            "AWS_ENDPOINT_URL_BEDROCK": url,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": url,
            "AWS_ENDPOINT_URL_SERVICE_QUOTAS": url,
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "emulated",
            "AZURE_OPENAI_ENDPOINT": url,
            "AZURE_OPENAI_ENDPOINT_WESTUS": f"{url}/azure/west",
            "AZURE_OPENAI_API_KEY": "emulated",
        }
        yield Place(running, environ)


@pytest.fixture
def place(servers: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """As new, and the test itself reaches S3 and Blob Storage as a user's pandas would."""
    servers.emulator.reset()
    for name, value in servers.environ.items():
        monkeypatch.setenv(name, value)
    return servers


@pytest.mark.slow
def test_contracts_at_bedrock(place: Place) -> None:
    bucket = f"examples-{uuid.uuid4().hex}"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=bucket)
    for number in range(DOCUMENTS):
        s3.put_object(Bucket=bucket, Key=f"contracts/2026/{number}.txt", Body=text_of(number).encode())
    job = JOBS / "bedrock.yaml"
    named = {"CONTRACTS_BUCKET": bucket, "RESULTS_BUCKET": bucket}
    examined = place.lowtide("doctor", str(job), **named)
    assert examined.returncode == 0, examined.stdout
    place.finish(job, **named)
    place.check(f"s3://{bucket}/lowtide", 2 * DOCUMENTS)


@pytest.mark.slow
def test_too_few_contracts_for_a_batch_are_asked_on_demand(place: Place) -> None:
    bucket = f"examples-{uuid.uuid4().hex}"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=bucket)
    for number in range(6):
        s3.put_object(Bucket=bucket, Key=f"contracts/{number}.txt", Body=text_of(number).encode())
    place.finish(JOBS / "bedrock.yaml", CONTRACTS_BUCKET=bucket, RESULTS_BUCKET=bucket)
    place.check(f"s3://{bucket}/lowtide", 12)
    assert place.emulator.bill()["tiers"] == {"batch": 0, "on_demand": 12}


@pytest.mark.slow
def test_mails_at_azure(place: Place) -> None:
    account = BlobServiceClient.from_connection_string(place.environ["AZURE_STORAGE_CONNECTION_STRING"])
    name = uuid.uuid4().hex
    containers = {part: account.create_container(f"{part}-{name}") for part in ("mails", "batches", "results")}
    for number in range(DOCUMENTS):
        mail = EmailMessage()
        mail["From"], mail["Subject"] = f"customer-{number}@example.com", f"Order {number}"
        mail.set_content(text_of(number))
        containers["mails"].upload_blob(f"2026/{number}.eml", mail.as_bytes())
    job = JOBS / "azure-batch.yaml"
    named = {f"{part.upper()}_CONTAINER": container.container_name for part, container in containers.items()}
    examined = place.lowtide("doctor", str(job), **named)
    assert examined.returncode == 0, examined.stdout
    place.finish(job, **named)
    place.check(f"abfs://results-{name}/lowtide", 2 * DOCUMENTS)


def run_reviews(place: Place, folder: Path) -> None:
    rows = (
        {
            "review_id": n,
            "product": f"P{n % 7}",
            "stars": n % 5,
            "body": text_of(n),
            "written_at": "2026-11-20T10:00:00Z",
        }
        for n in range(DOCUMENTS)
    )
    (folder / "reviews.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    job = JOBS / "openai-batch.yaml"
    named = {"REVIEWS": str(folder), "LOWTIDE_ROOT": str(folder / "out")}
    examined = place.lowtide("doctor", str(job), **named)
    assert examined.returncode == 0, examined.stdout
    place.finish(job, **named)


@pytest.mark.slow
def test_reviews_at_openai(place: Place, tmp_path: Path) -> None:
    run_reviews(place, tmp_path)
    place.check(str(tmp_path / "out"), 2 * DOCUMENTS)


@pytest.mark.slow
def test_notes_on_a_machine_of_ones_own(place: Place, tmp_path: Path) -> None:
    """The emulated OpenAI stands in for an engine: it answers chat completions, and counts them."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number}.md").write_text(text_of(number), encoding="utf-8")
    named = {
        "NOTES": str(folder),
        "LOWTIDE_ROOT": str(tmp_path / "out"),
        "LOWTIDE_SPOT_DIR": str(tmp_path / "spot"),
        "MODEL": "gpt-4o-mini",
    }
    job = JOBS / "spot.yaml"
    with keyed(place.emulator.url) as engine:
        planned = place.lowtide("plan", str(job), **named, ENGINE=engine)
        assert planned.returncode == 0, planned.stderr
        assert "2,000 tokens a second" in planned.stdout
        place.finish(job, **named, ENGINE=engine)
    place.check(str(tmp_path / "out"), 2 * DOCUMENTS)
    ledger = table(str(tmp_path / "out"), "ledger")
    machine = [row for row in ledger if row["kind"] == "actual" and row["token_type"] == "compute_second"]
    assert sum(int(str(row["quantity"])) for row in machine) > 0
    assert all(row["amount"] > 0 for row in machine)  # type: ignore[operator]  # a column of decimals
    results = table(str(tmp_path / "out"), "results")
    assert sum(row["cost_usd"] for row in results) == sum(row["amount"] for row in machine)  # type: ignore[misc]


@pytest.mark.slow
def test_what_the_guide_to_the_emulators_shows_works(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boto, openai, compared = [block.replace("http://127.0.0.1:8787", place.emulator.url) for block in blocks("python")]
    exec(boto, {})  # noqa: S102 - our own documentation
    assert "The tide rose. It fell again. {'inputTokens': 15" in capsys.readouterr().out
    exec(openai, {})  # noqa: S102
    assert '"custom_id":"first"' in capsys.readouterr().out
    assert place.emulator.bill()["tiers"] == {"batch": 1, "on_demand": 1}

    place.emulator.reset()
    run_reviews(place, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compared, {})  # noqa: S102


def test_the_plans_in_the_guide_to_the_emulators_can_be_followed(tmp_path: Path) -> None:
    plans = blocks("yaml")
    assert len(plans) == 2
    for number, plan in enumerate(plans):
        path = tmp_path / f"{number}.yaml"
        path.write_text(plan, encoding="utf-8")
        assert read_plan(path)["rules"]


def test_what_happens_when_names_tests_that_exist() -> None:
    named = set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", FAULTS.read_text(encoding="utf-8")))
    assert len(named) > 30
    missing = [
        f"{path}::{test}"
        for path, test in sorted(named)
        if f"def {test}(" not in (ROOT / "tests" / path).read_text(encoding="utf-8")
    ]
    assert not missing
