"""A job from its file to its tables, through the command line, with real workers."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.command import Bench, text_of, write_documents


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    write_documents(tmp_path / "documents", 25)
    return made


def test_documents_become_a_table_a_ledger_and_a_report(bench: Bench) -> None:
    ended = bench.run()
    assert ended.returncode == 0, ended.stderr
    bench.assert_right(25)
    topics = {row["document_uri"]: row["label"] for row in bench.results().to_pylist() if row["operation"] == "topic"}
    right = sum(label == ("sea" if int(uri[-8:-4]) % 2 else "kitchen") for uri, label in topics.items())
    assert right >= 23
    page = bench.folder / "page.html"
    assert bench.lowtide("report", str(bench.job), "--out", str(page)).returncode == 0
    assert "tides" in page.read_text(encoding="utf-8")


def test_the_same_again_buys_nothing_and_says_so(bench: Bench) -> None:
    assert bench.run().returncode == 0
    before = bench.billed()
    again = bench.run()
    assert again.returncode == 3
    assert "nothing bought" in again.stderr.lower()
    assert bench.billed() == before


def test_a_changed_document_makes_a_new_run_that_replaces_the_table(bench: Bench) -> None:
    assert bench.run().returncode == 0
    first = set(bench.results()["run_id"].to_pylist())
    changed = bench.folder / "documents" / "doc-0003.txt"
    changed.write_text("An oven, some flour, and a recipe for bread. " + text_of(4), encoding="utf-8")
    assert bench.run().returncode == 0
    second = set(bench.results()["run_id"].to_pylist())
    assert len(second) == 1
    assert first.isdisjoint(second)


def test_pandas_reads_the_tables_as_they_are(bench: Bench) -> None:
    assert bench.run().returncode == 0
    frame = pd.read_parquet(Path(bench.root) / "tables" / "results")
    assert len(frame) == 50
    assert set(frame["job"].astype(str)) == {"tides"}
    assert set(frame["window"].astype(str)) == {"all"}
    runs = pd.read_parquet(Path(bench.root) / "tables" / "runs")
    assert runs["rows"].tolist() == [50]


def test_plan_spends_and_writes_nothing(bench: Bench) -> None:
    planned = bench.lowtide("plan", str(bench.job), "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["files"] == 25
    assert not (Path(bench.root) / "runs").exists()
    assert not bench.batches.exists() or not list(bench.batches.iterdir())


def test_two_runs_of_the_same_job_at_once_do_nothing_twice(bench: Bench) -> None:
    processes = [bench.start("run", str(bench.job), "--direct") for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] in ([0, 0], [0, 3], [3, 0]), ended
    bench.assert_right(25)


def test_no_wait_submits_and_the_next_run_collects(bench: Bench) -> None:
    first = bench.run("--no-wait")
    assert first.returncode == 0, first.stderr
    assert "not finished" in first.stderr
    assert bench.run().returncode == 0
    bench.assert_right(25)


def test_ctrl_c_leaves_a_run_that_goes_on(bench: Bench) -> None:
    process = bench.start("run", str(bench.job), "--direct")
    journal = Path(bench.root) / "runs" / "tides" / "all"
    deadline = time.monotonic() + 120
    while not list(journal.glob("*/journal/000003.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (130, 0, -signal.SIGINT), err
    assert "Traceback" not in err
    assert bench.run().returncode in (0, 3)
    bench.assert_right(25)


def test_cancel_keeps_what_was_answered_and_the_rest_can_be_asked_later(bench: Bench) -> None:
    assert bench.run("--no-wait").returncode == 0
    cancelled = bench.lowtide("cancel", str(bench.job))
    assert cancelled.returncode == 0, cancelled.stderr
    rows = bench.results().to_pylist()
    assert len(rows) == 50
    statuses = Counter((row["status"], row["status_reason"]) for row in rows)
    assert {status for status, _ in statuses} <= {"ok", "skipped"}
    assert all(reason.startswith("cancelled") for status, reason in statuses if status == "skipped")
    assert bench.run().returncode == 0
    assert {row["status"] for row in bench.results().to_pylist()} == {"ok"}
    bill, ledger = bench.billed(), bench.ledgered()
    assert (ledger["input"], ledger["output"]) == (bill["input"], bill["output"])
    assert bill["records"] == 50


def test_bad_documents_become_skipped_rows(bench: Bench) -> None:
    (bench.folder / "documents" / "empty.txt").write_bytes(b"")
    (bench.folder / "documents" / "latin.txt").write_bytes(b"caf\xe9 au lait")
    ended = bench.run()
    assert ended.returncode == 0, ended.stderr
    rows = bench.results().to_pylist()
    assert len(rows) == 54
    skipped = {Path(row["document_uri"]).name: row["status_reason"] for row in rows if row["status"] == "skipped"}
    assert set(skipped) == {"empty.txt", "latin.txt"}
    assert all(skipped.values())


def test_prompts_that_the_local_backend_cannot_answer_are_refused_before_anything_is_written(bench: Bench) -> None:
    bench.job.write_text(bench.job.read_text().replace("summarize: {words: 20}", "translate: {to: fr}"))
    for command in (["plan"], ["run", "--direct"]):
        refused = bench.lowtide(command[0], str(bench.job), *command[1:])
        assert refused.returncode == 2
        assert "translate" in refused.stderr
    assert not (Path(bench.root) / "runs").exists()


def test_a_run_through_prefect_gives_the_same_table(bench: Bench) -> None:
    ended = bench.lowtide("run", str(bench.job), timeout=400)
    assert ended.returncode == 0, ended.stderr
    assert "Prefect failed" not in ended.stderr
    bench.assert_right(25)


def test_an_unreachable_prefect_server_fails_no_run(bench: Bench) -> None:
    bench.environ = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    ended = bench.lowtide("run", str(bench.job), timeout=400)
    assert ended.returncode == 0, ended.stderr
    assert "going on without it" in ended.stderr
    bench.assert_right(25)


def test_results_are_one_sorted_file_with_the_runs_name_in_its_footer(bench: Bench) -> None:
    assert bench.run().returncode == 0
    path = Path(bench.root) / "tables/results/job=tides/window=all/results.parquet"
    metadata = pq.read_metadata(path).metadata
    table = bench.results()
    assert metadata[b"lowtide.run_id"].decode() == table["run_id"][0].as_py()
    ids = table["document_id"].to_pylist()
    assert ids == sorted(ids)
    assert [found.name for found in path.parent.iterdir()] == ["results.parquet"]


def test_status_and_show_say_what_is_there(bench: Bench) -> None:
    nothing = bench.lowtide("status", str(bench.job))
    assert nothing.returncode == 2
    assert "lowtide run" in nothing.stderr
    assert bench.run().returncode == 0
    status = json.loads(bench.lowtide("status", str(bench.job), "--json").stdout)
    assert status["counts"] == {"ok": 50}
    shown: subprocess.CompletedProcess[str] = bench.lowtide("show", str(bench.job), "--rows", "3")
    assert shown.returncode == 0
    assert shown.stdout.count("doc-") == 2
    assert shown.stdout.count("summarize: ") == 2
    assert shown.stdout.count("topic: ") == 1
