"""The command line as a user runs it, over a folder of documents, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

JOB = """
version: 1
name: {name}
source: {{uri: "{uri}"}}
operations:
  - summarize: {{words: 20}}
  - classify:
      name: topic
      labels: {{sea: "ships, tides, waves and harbours", kitchen: "cooking, bread, ovens and recipes"}}
backends:
  - local: {{model: tfidf}}
limits: {{shard_records: {shard_records}}}
output: {{root: "{root}", tags: {{team: tests}}}}
"""


def text_of(number: int) -> str:
    """A short document that says which one it is."""
    if number % 2:
        return (
            f"Ship number {number} left the harbour before the tide had turned. The waves were high that night. "
            "Its captain had sailed these waters for years, and knew every light along the coast."
        )
    return (
        f"Recipe number {number} begins with flour, water and salt. The bread rests overnight and bakes in a hot oven. "
        "Let it cool before you cut it, or the crumb will tear."
    )


def write_documents(folder: Path, count: int) -> None:
    """So many documents as text files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"doc-{number:04d}.txt").write_text(text_of(number), encoding="utf-8")


@dataclass
class Bench:
    """A job in a folder of its own, with its own local batches."""

    folder: Path
    root: str = ""
    uri: str = ""
    name: str = "tides"
    shard_records: int = 10
    environ: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.root = self.root or str(self.folder / "out")
        self.uri = self.uri or str(self.folder / "documents" / "*.txt")
        self.job = self.folder / "job.yaml"
        self.write_job()

    def write_job(self) -> None:
        self.job.write_text(
            JOB.format(name=self.name, uri=self.uri, root=self.root, shard_records=self.shard_records), encoding="utf-8"
        )

    @property
    def batches(self) -> Path:
        return self.folder / "local-batches"

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        """Start `lowtide ARGUMENTS` without waiting for it."""
        environ = {
            **os.environ,
            "LOWTIDE_LOCAL_DIR": str(self.batches),
            "PREFECT_HOME": str(self.folder / "prefect"),
            **self.environ,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "lowtide", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environ,
        )

    def lowtide(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `lowtide ARGUMENTS` to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.lowtide("run", str(self.job), "--direct", *options)

    def results(self) -> pa.Table:
        return pq.read_table(
            Path(self.root) / f"tables/results/job={self.name}/window=all/results.parquet", partitioning=None
        )

    def ledger(self) -> list[dict[str, object]]:
        """The ledger of the last run."""
        latest = (Path(self.root) / f"runs/{self.name}/all/latest").read_text()
        path = Path(self.root) / f"tables/ledger/job={self.name}/window=all/{latest}.parquet"
        rows: list[dict[str, object]] = pq.read_table(path, partitioning=None).to_pylist()
        return rows

    def billed(self) -> Counter[str]:
        """What the worker processes say that they have done, over all batches: tokens by type, and records."""
        bill: Counter[str] = Counter()
        for path in self.batches.glob("*/bill.jsonl"):
            for line in path.read_bytes().split(b"\n"):
                if line:
                    record = orjson.loads(line)
                    bill["input"] += record["input_tokens"]
                    bill["output"] += record["output_tokens"]
                    bill["records"] += 1
                    bill[f"id {path.parent.name} {record['id']}"] += 1
        return bill

    def ledgered(self) -> Counter[str]:
        """Tokens by type in the ledger's actual rows."""
        total: Counter[str] = Counter()
        for row in self.ledger():
            if row["kind"] == "actual":
                total[str(row["token_type"])] += int(str(row["quantity"]))
        return total

    def assert_right(self, documents: int, operations: Sequence[str] = ("summarize", "topic")) -> None:
        """One good row for each document and operation, nothing done twice, and a ledger that is the bill."""
        rows = self.results().to_pylist()
        assert len(rows) == documents * len(operations)
        assert Counter((row["document_uri"], row["operation"]) for row in rows).most_common(1)[0][1] == 1
        assert {row["operation"] for row in rows} == set(operations)
        assert {row["status"] for row in rows} == {"ok"}
        bill, ledger = self.billed(), self.ledgered()
        assert bill["records"] == len(rows)
        assert max(number for key, number in bill.items() if key.startswith("id ")) == 1
        assert (ledger["input"], ledger["output"]) == (bill["input"], bill["output"])
