"""A whole job against one emulated provider that misbehaves, and what has to be true at its end whatever happened.

Engine and emulator have clocks that run equally fast, so that waits of minutes take seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import orjson
import pyarrow.parquet as pq
from servers.emulators import Emulator

from lowtide.budget.account import Account
from lowtide.cli.running import exit_code
from lowtide.connectors.assembly import assemble
from lowtide.connectors.backends import open_backend
from lowtide.engine import Run, drive, open_run
from lowtide.job import load_job
from lowtide.plan import Candidate, Work
from lowtide.summary import Summary, summarize
from lowtide.windows import parse_window

SPEED = 60.0
"""Seconds of both clocks to a real one."""
DOCUMENTS = 2000
POISON = 777
"""The number of the document that `match: {text: POISON}` strikes."""
BACKENDS = ("openai-batch", "azure-batch", "bedrock")
SPOT = "spot"
"""Asks in place of the provider's batches, with workers of its own: of the faults only some can strike it."""
SECONDS = 240.0
"""Real seconds after which a run that has not ended is a failure."""

_PRICE = 'price: {input: "0.075", output: "0.30", cached_input: "0.0375"}'
_SPECS = {
    "openai-batch": f"{{model: gpt-4o-mini, {_PRICE}}}",
    "azure-batch": f"{{model: gpt-4o-mini, deployment: gpt-4o-mini-batch, {_PRICE}}}",
    "bedrock": (
        "{model: 'amazon.nova-lite-v1:0', role_arn: 'arn:aws:iam::123456789012:role/batch', region: us-east-1, "
        f"staging: 's3://BUCKET/staging', {_PRICE}, "
        'on_demand_price: {input: "0.15", output: "0.60", cached_input: "0.075"}}'
    ),
    "spot": (
        "{model: gpt-4o-mini, launcher: process, max_workers: 3, usd_per_hour: 3.60, tokens_per_second: 2000, "
        "structured_output: native, engine: {url: 'ENGINE'}}"
    ),
}


def environment(backend: str, emulator: str, s3: str) -> dict[str, str]:
    """What a user would set."""
    if backend == "openai-batch":
        return {"OPENAI_BASE_URL": f"{emulator}/v1", "OPENAI_API_KEY": "emulated"}
    if backend == SPOT:
        return {}
    if backend == "azure-batch":
        return {"AZURE_OPENAI_ENDPOINT": emulator, "AZURE_OPENAI_API_KEY": "emulated"}
    return {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ENDPOINT_URL_BEDROCK": emulator,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": emulator,
        "AWS_ENDPOINT_URL_SERVICE_QUOTAS": emulator,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
    }


def write_job(
    folder: Path,
    backend: str,
    *,
    documents: int = DOCUMENTS,
    shard_records: int = 500,
    attempts: int = 4,
    bucket: str = "",
    root: str = "",
    engine: str = "",
) -> Path:
    """A job over numbered documents, and the documents."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (
        {"id": n, "text": f"Report {n}{' POISON' if n == POISON else ''}. The tide rose by {n * 7} millimetres. " * 3}
        for n in range(documents)
    )
    (folder / "reports.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    path = folder / "job.yaml"
    path.write_text(
        f"""version: 1
name: faults
source: {{uri: ./reports.jsonl, text: text, id: id}}
operations: [summarize: {{words: 20}}]
backends: [{backend}: {_SPECS[backend].replace("BUCKET", bucket).replace("ENGINE", engine)}]
limits: {{attempts: {attempts}, shard_records: {shard_records}}}
output: {{root: {root or "./out"}}}
"""
    )
    return path


def make_bucket(s3: str, name: str) -> None:
    """A fresh bucket on the S3 server."""
    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    client.create_bucket(Bucket=name)


class Clock:
    """Seconds since the epoch, SPEED times as fast as the real ones, and `skew` seconds ahead."""

    def __init__(self, skew: float = 0.0) -> None:
        self._start = time.time()
        self.skew = skew

    def __call__(self) -> float:
        return self._start + (time.time() - self._start) * SPEED + self.skew


@dataclass
class Ended:
    """How a run has ended."""

    run: Run
    summary: Summary
    code: int
    rows: list[dict[str, Any]]
    ledger: list[dict[str, Any]]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(row["status"] for row in self.rows)

    def tokens(self) -> Counter[str]:
        """The ledger's tokens by type, waste included."""
        found: Counter[str] = Counter()
        for row in self.ledger:
            if row["kind"] == "actual" and row["token_type"] != "compute_second":
                found[row["token_type"]] += row["quantity"]
        return +found

    def seconds(self) -> Counter[str]:
        """The ledger's seconds of machines by kind of waste, "" for none."""
        found: Counter[str] = Counter()
        for row in self.ledger:
            if row["kind"] == "actual" and row["token_type"] == "compute_second":
                found[row["waste"] or ""] += row["quantity"]
        return found

    def waste(self) -> Counter[str]:
        """The ledger's tokens by kind of waste."""
        found: Counter[str] = Counter()
        for row in self.ledger:
            if row["kind"] == "actual" and row["waste"] and row["token_type"] != "compute_second":
                found[row["waste"]] += row["quantity"]
        return found


@dataclass
class Scene:
    """One job at one provider. `documents` is how many it has."""

    backend: str
    emulator: Emulator
    job: Path
    documents: int = DOCUMENTS
    clock: Clock = field(default_factory=Clock)

    def work(self, **changes: object) -> Work:
        """The job, as the command line would assemble it, with pauses of seconds of the fast clock."""
        job = load_job(self.job)
        work = assemble(job, parse_window("all"))
        settings: dict[str, Any] = {"poll": timedelta(seconds=12), "grace": timedelta(seconds=120), **changes}
        settings.setdefault("backend", open_backend(job.backends[0], work.root, clock=self.clock))
        work = replace(work, **settings)
        return replace(work, candidates=(Candidate(work.backend, work.price),))

    def open(self, *, retry: bool = False, **changes: object) -> Run:
        """The run, not advanced yet."""
        return open_run(self.work(**changes), retry=retry, clock=self.clock)

    def finish(self, run: Run | None = None, *, on_pass: Callable[[Run], None] = lambda run: None) -> Ended:
        """Drive the run to its end, which has to come by itself."""
        run = run or self.open()
        begun = time.monotonic()

        def sleep(seconds: float) -> None:
            assert time.monotonic() - begun < SECONDS, f"not at its end: {summarize(run)}"
            on_pass(run)
            time.sleep(seconds / SPEED)

        assert drive(run, poll=run.context.work.poll_seconds, sleep=sleep).done
        return self.ended(run)

    def ended(self, run: Run) -> Ended:
        """What the run has written."""
        summary = summarize(run)
        root = run.context.store.uri
        assert root.startswith("file://")
        rows = pq.read_table(root[7:] + "/tables/results").to_pylist()
        ledger = pq.read_table(root[7:] + "/tables/ledger").to_pylist()
        return Ended(run, summary, exit_code(run, summary), rows, ledger)

    def check(
        self,
        ended: Ended,
        expected: Mapping[str, int] | None = None,
        *,
        code: int | None = None,
        again: Sequence[str] = (),
        struck: bool = True,
    ) -> None:
        """What is true at the end of every run: nothing billed twice, the ledger is the bill, one row for each."""
        assert not struck or all(self.emulator.struck()), "a fault that never struck proves nothing"
        bill = self.emulator.bill()
        assert bill["most_billed"] <= 1 or again, f"billed again: {list(bill['billed_again'].items())[:3]}"
        billed = Counter(
            input=bill["input_tokens"] - bill["cached_tokens"],
            cached_input=bill["cached_tokens"],
            output=bill["output_tokens"] - bill["reasoning_tokens"],
            reasoning=bill["reasoning_tokens"],
        )
        assert ended.tokens() == +billed, f"waste: {ended.waste()}"
        uris = Counter((row["document_id"], row["operation"]) for row in ended.rows)
        assert len(uris) == self.documents
        assert set(uris.values()) == {1}
        assert all(row["status_reason"] for row in ended.rows if row["status"] != "ok")
        self.check_money(ended)
        if expected is not None:
            assert ended.statuses == Counter(expected)
        failed = sum(ended.statuses[status] for status in ("invalid", "refused", "error"))
        assert ended.code == (code if code is not None else 4 if failed else 0)
        assert not ended.run.state.reserved

    def check_money(self, ended: Ended) -> None:
        """Amounts are tokens times price, documents bear all of it, and nothing is left reserved."""
        actual = [row for row in ended.ledger if row["kind"] == "actual"]
        assert all(row["amount"] == row["quantity"] * row["unit_price"] for row in actual)
        spent = sum((row["amount"] for row in actual), Decimal(0))
        assert sum((row["cost_usd"] for row in ended.rows), Decimal(0)) == spent
        store = ended.run.context.store
        months = {info.path.split("/")[1] for info in store.list("budget/")}
        accounts = [Account(store, month, "test").refresh() for month in sorted(months)]
        assert not [line for account in accounts for line in account.open.values()]
        settled = sum((line.spent for account in accounts for line in account.lines.values()), Decimal(0))
        assert settled == spent
