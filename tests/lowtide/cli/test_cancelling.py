"""`cancel`, of a window's last run and of exactly one, as a user types it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from support.command import Bench, text_of, write_documents
from support.remains import objects_in, remains

from lowtide import ids
from lowtide.cli.running import prepare
from lowtide.engine import open_run


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, shard_records=6)
    write_documents(tmp_path / "documents", 6)
    return bench


def run_id(bench: Bench) -> str:
    return (Path(bench.root) / "runs/tides/all/latest").read_text()


def ask_otherwise(bench: Bench) -> None:
    """What somebody does who edits the prompt while batches are out."""
    bench.job.write_text(bench.job.read_text().replace("words: 20", "words: 12"), encoding="utf-8")


def open_runs(bench: Bench) -> list[str]:
    told = bench.lowtide("status", str(bench.job), "--all", "--json")
    return [run["run_id"] for run in orjson.loads(told.stdout)["runs"] if run["open"]]


def ledgered(bench: Bench) -> Counter[str]:
    """Tokens by type in the actual rows of all ledgers of the root."""
    total: Counter[str] = Counter()
    for path in Path(bench.root).glob("tables/ledger/**/*.parquet"):
        for row in pq.read_table(path, partitioning=None, use_threads=False).to_pylist():
            if row["kind"] == "actual" and row["token_type"] in ("input", "output"):
                total[row["token_type"]] += row["quantity"]
    return total


def test_a_run_whose_prompt_was_edited_is_cancelled_by_its_id_and_a_person_in_it_forgotten(bench: Bench) -> None:
    assert bench.run("--no-wait").returncode == 0
    first = run_id(bench)
    ask_otherwise(bench)
    assert bench.run().returncode == 0
    assert open_runs(bench) == [first]
    uri = (bench.folder / "documents/doc-0003.txt").as_uri()
    refused = bench.lowtide("forget", str(bench.job), "--document", uri, "--yes")
    assert refused.returncode == 3
    told = re.search(r"`lowtide (cancel \S+ --run [0-9a-f]{16})`", refused.stderr)
    assert told is not None, refused.stderr
    assert first in told[1]
    cancelled = bench.lowtide(*told[1].split())
    assert cancelled.returncode == 0, cancelled.stderr
    assert f"run {first} of job tides, window all, is ended" in cancelled.stdout
    assert open_runs(bench) == []
    bill = bench.billed()
    assert bill["records"] > 12
    assert ledgered(bench) == Counter({name: bill[name] for name in ("input", "output")})
    forgotten = bench.lowtide("forget", str(bench.job), "--document", uri, "--yes")
    assert forgotten.returncode == 0, forgotten.stderr
    assert remains(objects_in(Path(bench.root)), [uri, ids.document_id(uri, ""), text_of(3)[:30]]) == []
    again = bench.lowtide("cancel", str(bench.job), "--run", first)
    assert again.returncode == 3
    assert "nothing to cancel" in again.stderr


def test_a_plain_cancel_of_a_run_whose_prompt_was_edited_says_how_to_end_it(bench: Bench) -> None:
    assert bench.run("--no-wait").returncode == 0
    first = run_id(bench)
    ask_otherwise(bench)
    cancelled = bench.lowtide("cancel", str(bench.job))
    assert cancelled.returncode == 0, cancelled.stderr
    assert f"lowtide cancel {bench.job} --run {first}" in cancelled.stderr
    assert open_runs(bench) == [first]
    assert bench.lowtide("cancel", str(bench.job), "--run", first).returncode == 0
    assert open_runs(bench) == []


def test_the_windows_last_run_may_be_named_by_its_id(bench: Bench) -> None:
    assert bench.run("--no-wait").returncode == 0
    cancelled = bench.lowtide("cancel", str(bench.job), "--run", run_id(bench))
    assert cancelled.returncode == 0, cancelled.stderr
    assert len(bench.results()) == 12
    assert open_runs(bench) == []
    bill = bench.billed()
    assert ledgered(bench) == Counter({name: bill[name] for name in ("input", "output") if bill[name]})
    again = bench.lowtide("cancel", str(bench.job), "--run", run_id(bench))
    assert again.returncode == 3


def test_a_run_before_the_last_is_ended_and_what_it_was_answered_is_not_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.run("--no-wait").returncode == 0
    first = run_id(bench)
    (bench.folder / "documents/late.txt").write_text(text_of(99), encoding="utf-8")
    monkeypatch.setenv("LOWTIDE_LOCAL_DIR", str(bench.batches))
    # Asked for, and not begun: its first pass would stop the one before it.
    second = open_run(prepare(str(bench.job), "all", writes=True)).plan.run_id
    assert sorted(open_runs(bench)) == sorted([first, second])
    cancelled = bench.lowtide("cancel", str(bench.job), "--run", first)
    assert cancelled.returncode == 0, cancelled.stderr
    assert "is ended" in cancelled.stdout
    assert "kept for later runs" in cancelled.stdout
    assert open_runs(bench) == [second]
    assert bench.run().returncode == 0
    assert Counter(row["status"] for row in bench.results().to_pylist()) == {"ok": 14}
    bill = bench.billed()
    assert ledgered(bench) == Counter({name: bill[name] for name in ("input", "output")})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--run", "0123456789abcdef"), "job 'tides' has no run 0123456789abcdef"),
        (("--run", "2026-W47"), "--run: found '2026-W47'; expected a run's id"),
        (("--run", "0123456789abcdef", "--window", "all"), "--run and --window: one of them"),
    ],
)
def test_what_names_no_run_is_bad_input(bench: Bench, options: tuple[str, ...], said: str) -> None:
    cancelled = bench.lowtide("cancel", str(bench.job), *options)
    assert cancelled.returncode == 2
    assert said in cancelled.stderr
