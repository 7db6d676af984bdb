"""Half a year at once, at a provider that misbehaves, while others read: 26 weeks, 20,000 documents, one cap."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import msgspec
import orjson
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from faults.scene import SECONDS, environment
from servers.emulators import Emulator
from servers.process import serving

from lowtide import backfill as domain
from lowtide.backfill import Allotments, Backfill, Drive, Ended, PlannedWindow
from lowtide.connectors.assembly import assemble
from lowtide.connectors.backends import open_backend
from lowtide.job import load_job
from lowtide.plan import Candidate, Work
from lowtide.windows import Window

pytestmark = pytest.mark.slow

SPEED = 120.0
WEEKS = 26
DOCUMENTS = 20_000
READS = 1_000
MONDAY = date(2026, 1, 5)
FOREVER = {"times": "forever"}
FAULTS = (
    {"on": "create", "do": "reset_after", "times": 4, "seconds": 0.2},
    {"on": "create", "do": "timeout_after", "times": 2, "after": 6, "seconds": 0.2},
    {"on": "create", "do": "quota", "times": 3},
    {"on": "upload", "do": "error_before", "times": 3},
    {"on": ["get", "list", "download"], "do": "throttle", "rate": 0.1, "times": 12},
    {"on": "process", "do": "expire", "times": 2},
    {"on": "process", "do": "partial", "times": 2},
    {"on": "row", "do": "row_server_error", "rate": 0.01, "each": 1, **FOREVER},
    {"on": "row", "do": "row_throttled", "rate": 0.01, "each": 1, **FOREVER},
    {"on": "output", "do": "reorder", **FOREVER},
)


def write_job(folder: Path, *, words: int = 20, documents: int = DOCUMENTS) -> Path:
    """A job over a file of rows a week, and the files."""
    folder.mkdir(parents=True, exist_ok=True)
    each = -(-documents // WEEKS)
    for week in range(WEEKS):
        day = MONDAY + timedelta(weeks=week, days=week % 7)
        path = folder / f"reports/{day:%Y/%m/%d}.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers = range(week * each, min((week + 1) * each, documents))
            path.write_bytes(b"".join(orjson.dumps({"id": n, "text": _text(n)}) + b"\n" for n in numbers))
    job = folder / "job.yaml"
    job.write_text(
        f"""version: 1
name: weekly
source: {{uri: "./reports/**/*.jsonl", text: text, id: id, window_by: "path:{{year}}/{{month}}/{{day}}"}}
operations:
  - summarize: {{words: {words}}}
  - classify: {{name: topic, labels: {{sea: "ships and tides", land: "fields and roads"}}}}
backends:
  - openai-batch: {{model: gpt-4o-mini, price: {{input: "0.075", output: "0.30"}}}}
limits: {{attempts: 5, shard_records: 800}}
output: {{root: ./out}}
"""
    )
    return job


def _text(number: int) -> str:
    return f"Report {number}. The tide rose by {number * 7} millimetres, and {number % 90} ships left the harbour. " * 2


class Clock:
    """Seconds since the epoch, SPEED times as fast as the real ones."""

    def __init__(self) -> None:
        self._start = time.time()

    def __call__(self) -> float:
        return self._start + (time.time() - self._start) * SPEED


class HalfAYear:
    """The backfill of a job file, as the command line does it, with a fast clock."""

    def __init__(self, job: Path, clock: Clock) -> None:
        self.job, self.clock = load_job(job), clock
        calendar = self.job.calendar
        self.span = domain.span_of(calendar, "2026-01-05", "2026-07-05", datetime.now(UTC))
        self.windows = domain.windows_of(calendar, self.span)

    def work_of(self, window: Window) -> Work:
        work = assemble(self.job, window, try_root=False)
        backend = open_backend(self.job.backends[0], work.root, clock=self.clock)
        work = replace(work, backend=backend, poll=timedelta(seconds=12), grace=timedelta(seconds=120))
        return replace(work, candidates=(Candidate(backend, work.price),))

    def plan(self, reprocess: domain.Reprocess = "missing") -> tuple[Backfill, tuple[PlannedWindow, ...]]:
        work = self.work_of(self.windows[0])
        wanted = domain.wanted(work, self.job.calendar, self.span, None, reprocess)
        found = domain.going_on(work.root, wanted, job_file=str(self.job.file))
        assert found is not None
        planned = domain.plan_backfill(found, self.windows, self.work_of, clock=self.clock)
        return domain.with_windows(found, planned, at=self.clock()), planned

    def allotments(self, found: Backfill) -> Allotments:
        work = self.work_of(self.windows[0])
        return Allotments(work.root, found.id, work.job, {}, "test:1", cap=found.max_usd, clock=self.clock)

    def run(self, found: Backfill, planned: tuple[PlannedWindow, ...], *, max_usd: Decimal) -> list[Ended]:
        begun = time.monotonic()

        def sleep(seconds: float) -> None:
            assert time.monotonic() - begun < SECONDS, "not at its end"
            time.sleep(seconds / SPEED)

        root = self.work_of(self.windows[0]).root
        found = msgspec.structs.replace(found, max_usd=max_usd)
        domain.write_backfill(root, found)
        drive = Drive(found, self.work_of, self.allotments(found), most=4, clock=self.clock, sleep=sleep)
        ended = drive.run(planned)
        domain.conclude(root, found, [each.stand for each in ended], at=self.clock())
        return ended


class Readers:
    """Readers of the results, over and over: with pyarrow, pandas and DuckDB. Each window is whole or not there."""

    def __init__(self, root: Path) -> None:
        self.reads = 0
        self.bad: list[str] = []
        self._results = root / "tables" / "results"
        self._stop = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[Readers]:
        threads = [
            threading.Thread(target=self._read, args=(how,)) for how in (self._arrow, self._pandas, self._duckdb)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _read(self, how: Callable[[], None]) -> None:
        while not self._stop.wait(0.002):
            if not list(self._results.rglob("results.parquet")):
                continue
            try:
                how()
            except Exception as error:
                self.bad.append(f"{type(error).__name__}: {error}")
            self.reads += 1

    def _arrow(self) -> None:
        table = ds.dataset(self._results, partitioning="hive").to_table(columns=["window", "run_id"])
        counted = table.group_by(["window", "run_id"]).aggregate([([], "count_all")]).to_pylist()
        self._check({(row["window"], row["run_id"]): row["count_all"] for row in counted})

    def _pandas(self) -> None:
        frame = pd.read_parquet(self._results, columns=["run_id", "window"])
        self._check(frame.groupby(["window", "run_id"], observed=True).size().to_dict())

    def _duckdb(self) -> None:
        asked = 'SELECT "window", run_id, count(*) FROM read_parquet(?, hive_partitioning = true) GROUP BY ALL'
        with duckdb.connect() as database:
            rows = database.execute(asked, [str(self._results / "**" / "*.parquet")]).fetchall()
        self._check({(window, run_id): number for window, run_id, number in rows})

    def _check(self, rows: dict[tuple[str, str], int]) -> None:
        windows = Counter(window for window, _ in rows)
        self.bad += [f"{window}: rows of {n} runs" for window, n in windows.items() if n > 1]
        self.bad += [f"{key}: {n} rows" for key, n in rows.items() if n not in WHOLE]


_EACH = -(-DOCUMENTS // WEEKS)
WHOLE = {2 * _EACH, 2 * (DOCUMENTS - _EACH * (WEEKS - 1))}
"""Rows of a window, and of the last one, which is shorter."""


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    # Tokens as the model counts them: the plan reckons with those.
    options = ["--speed", str(SPEED), "--tokens", "o200k"]
    with serving(
        lambda port: [sys.executable, "-m", "lowtide.emulators", "--port", str(port), *options],
        ready="/_emulator/health",
    ) as url:
        found = Emulator(url)
        for name, value in environment("openai-batch", found.url, "").items():
            monkeypatch.setenv(name, value)
        found.settings(
            openai={
                "validating_seconds": 5,
                "processing_seconds": 20,
                "finalizing_seconds": 5,
                "cancelling_seconds": 10,
            }
        )
        yield found


def ledger_of(root: Path) -> tuple[Counter[str], Decimal]:
    """Tokens by type and USD of all ledgers."""
    tokens: Counter[str] = Counter()
    usd = Decimal(0)
    for row in pq.read_table(root / "tables/ledger", columns=["kind", "token_type", "quantity", "amount"]).to_pylist():
        if row["kind"] == "actual":
            tokens[row["token_type"]] += row["quantity"]
            usd += row["amount"]
    return +tokens, usd


def billed(emulator: Emulator) -> Counter[str]:
    bill = emulator.bill()
    return +Counter(
        input=bill["input_tokens"] - bill["cached_tokens"],
        cached_input=bill["cached_tokens"],
        output=bill["output_tokens"] - bill["reasoning_tokens"],
        reasoning=bill["reasoning_tokens"],
    )


def test_half_a_year_is_filled_within_its_cap(emulator: Emulator, tmp_path: Path) -> None:
    clock, root = Clock(), tmp_path / "out"
    job = write_job(tmp_path)
    root.mkdir()
    readers = Readers(root)
    with readers.at_work():
        first = HalfAYear(job, clock)
        found, planned = first.plan()
        assert len(found.windows) == len(found.to_do) == WEEKS
        assert sum(window.documents for window in found.to_do) == pytest.approx(DOCUMENTS, rel=0.05)
        emulator.faults(FAULTS)
        cap = found.cost_high_usd * 2
        ended = first.run(found, planned, max_usd=cap)
        assert Counter(each.stand for each in ended) == {"done": WEEKS}
        assert sum(bool(struck) for struck in emulator.struck()) >= len(FAULTS) - 1

        partitions = sorted(path.parent.name for path in root.glob("tables/results/job=weekly/*/results.parquet"))
        assert partitions == [f"window={window.name}" for window in first.windows]
        rows = pq.read_table(root / "tables/results", columns=["document_id", "operation", "status"]).to_pylist()
        assert len({(row["document_id"], row["operation"]) for row in rows}) == len(rows) == 2 * DOCUMENTS
        assert Counter(row["status"] for row in rows) == {"ok": 2 * DOCUMENTS}

        tokens, usd = ledger_of(root)
        assert emulator.bill()["most_billed"] == 1
        assert tokens == billed(emulator)
        assert found.cost_low_usd <= usd <= found.cost_high_usd
        allotments = first.allotments(found)
        assert usd == allotments.spent <= cap
        assert all(line.settled for line in allotments.lines())

        before = emulator.bill()["records"]
        again, _ = HalfAYear(job, clock).plan()
        assert not again.to_do
        assert emulator.bill()["records"] == before

        edited = HalfAYear(write_job(tmp_path, words=30), clock)
        missing, _ = edited.plan()
        assert not missing.to_do
        changed, planned = edited.plan("changed")
        assert len(changed.to_do) == WEEKS
        assert sum(window.requests for window in changed.to_do) == pytest.approx(DOCUMENTS, rel=0.05)
        assert sum(window.cached for window in changed.to_do) == pytest.approx(DOCUMENTS, rel=0.05)
        emulator.faults([])
        ended = edited.run(changed, planned, max_usd=cap)
        assert Counter(each.stand for each in ended) == {"done": WEEKS}
        assert emulator.bill()["records"] - before == DOCUMENTS
        asked = pq.read_table(root / "tables/results", columns=["operation", "cached"]).to_pylist()
        assert {row["operation"] for row in asked if row["cached"]} == {"topic"}
        assert Counter(row["cached"] for row in asked) == {True: DOCUMENTS, False: DOCUMENTS}
        tokens, both = ledger_of(root)
        assert tokens == billed(emulator)
        assert changed.cost_low_usd <= both - usd <= changed.cost_high_usd
        assert not edited.plan("changed")[0].to_do
    assert not readers.bad[:5]
    assert readers.reads >= READS
