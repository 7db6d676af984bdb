"""`lowtide backfill` as a user types it: what it shows, when it asks, how it ends, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.command import Bench, text_of

LOCAL = "local: {model: tfidf}"
PRICED = "openai-batch: {model: gpt-4o-mini, price: {input: 1, output: 2}}"
RANGE = ("--from", "2026-01-05", "--to", "2026-01-25")
WEEKS = ["2026-W02", "2026-W03", "2026-W04"]


def bench_of(folder: Path, *, backend: str = LOCAL, documents: int = 4, budget: str = "{}") -> Bench:
    """A job with some documents in each of three weeks."""
    bench = Bench(folder, environ={"OPENAI_API_KEY": "nobody", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})
    for week in range(3):
        place = folder / f"documents/2026/01/{5 + 7 * week:02d}"
        place.mkdir(parents=True)
        for number in range(documents):
            (place / f"{week}-{number}.txt").write_text(text_of(week * documents + number))
    bench.job.write_text(
        f"""version: 1
name: tides
source: {{uri: "./documents/**/*.txt", window_by: "path:{{year}}/{{month}}/{{day}}/"}}
operations: [summarize: {{words: 20}}]
backends: [{backend}]
budget: {budget}
limits: {{shard_records: 3}}
output: {{root: ./out}}
"""
    )
    return bench


def backfill(bench: Bench, *options: str) -> subprocess.CompletedProcess[str]:
    return bench.lowtide("backfill", str(bench.job), *RANGE, *options)


def check_done(bench: Bench, documents: int) -> None:
    """Three partitions with a good row for each document, and nothing that was done twice."""
    results = Path(bench.root) / "tables/results"
    assert sorted(path.name for path in results.glob("job=tides/*")) == [f"window={week}" for week in WEEKS]
    rows = pq.read_table(results).to_pylist()
    assert Counter(row["window"] for row in rows) == dict.fromkeys(WEEKS, documents)
    assert {row["status"] for row in rows} == {"ok"}
    bill = bench.billed()
    assert bill["records"] == 3 * documents
    assert max(number for key, number in bill.items() if key.startswith("id ")) == 1
    assert not [path for path in (Path(bench.root) / "open").rglob("*") if path.is_file()]


def test_a_dry_run_shows_the_plan_and_leaves_nothing(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    shown = backfill(bench, "--dry-run")
    assert shown.returncode == 0
    assert [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("*")] == WEEKS
    assert "3 windows to run, 0 passed over" in shown.stdout
    assert not Path(bench.root).exists()
    told = json.loads(backfill(bench, "--dry-run", "--json").stdout)
    assert [window["window"] for window in told["windows"]] == WEEKS
    assert told["to_do"] == 3


def test_it_fills_the_weeks_once(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    first = backfill(bench)
    assert first.returncode == 0, first.stderr
    assert [line.split()[1] for line in first.stderr.splitlines() if "published" in line] == WEEKS
    check_done(bench, 4)
    again = backfill(bench)
    assert again.returncode == 3
    assert "nothing bought" in again.stderr
    check_done(bench, 4)
    told = json.loads(backfill(bench, "--json").stdout)
    assert told["to_do"] == 0


def test_what_costs_something_is_not_bought_before_somebody_says_yes(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, backend=PRICED)
    refused = backfill(bench)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert "nothing was spent" in refused.stderr
    assert not (Path(bench.root) / "runs").exists()
    assert not (Path(bench.root) / "backfills").exists()


def test_in_a_terminal_it_asks_and_no_means_no(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, backend=PRICED)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lowtide", "backfill", str(bench.job), *RANGE],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **bench.environ},
    )
    os.write(leader, b"n\n")
    out, err = process.communicate(timeout=300)
    os.close(leader)
    os.close(follower)
    assert process.returncode == 3, err
    assert "cost" in out
    assert "Spend about" in err
    assert not (Path(bench.root) / "runs").exists()


def test_a_cap_that_holds_no_window_ends_with_5_and_says_what_is_left(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, backend=PRICED)
    ended = backfill(bench, "--yes", "--max-usd", "0.000001")
    assert ended.returncode == 5, ended.stderr
    assert "left       2026-W02, 2026-W03, 2026-W04" in ended.stdout
    assert "goes on with them" in ended.stdout
    assert not (Path(bench.root) / "runs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-usd", "lots"), "--max-usd: found 'lots'"),
        (("--max-usd", "-1"), "--max-usd: found '-1'"),
        (("--by", "fortnight"), "--by: every: found 'fortnight'"),
        (("--to", "2025-01-01"), "ends before it begins"),
        (("--cancel", "--dry-run"), "--cancel: found together with --dry-run"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    refused = backfill(bench_of(tmp_path), *options)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_ctrl_c_says_how_to_go_on_and_cancel_keeps_what_is_done(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, documents=40)
    process = bench.start("backfill", str(bench.job), *RANGE, "--max-active", "1")
    assert process.stderr is not None
    for line in process.stderr:
        if "published" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode in (130, 0)
    if process.returncode == 130:
        assert f"lowtide backfill {bench.job} --from 2026-01-05 --to 2026-01-25\n" in err
        cancelled = backfill(bench, "--cancel")
        assert cancelled.returncode == 0, cancelled.stderr
    else:
        assert backfill(bench, "--cancel").returncode == 3
    assert (Path(bench.root) / "tables/results/job=tides/window=2026-W02/results.parquet").exists()
    gone_on = backfill(bench)
    assert gone_on.returncode in (0, 3)
    results = pq.read_table(Path(bench.root) / "tables/results").to_pylist()
    assert Counter(row["window"] for row in results) == dict.fromkeys(WEEKS, 40)
    assert {row["status"] for row in results} == {"ok"}


def test_nothing_is_cancelled_where_nothing_was_begun(tmp_path: Path) -> None:
    ended = backfill(bench_of(tmp_path), "--cancel")
    assert ended.returncode == 3
    assert "never begun" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_time_the_same_command_goes_on(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    bench = bench_of(tmp_path, documents=8)
    for _ in range(3):
        process = bench.start("backfill", str(bench.job), *RANGE, "--max-active", "2")
        while process.poll() is None and not list(Path(bench.root).glob("budget/*/entries/*.json")):
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 2.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = backfill(bench)
    assert last.returncode in (0, 3), last.stderr
    check_done(bench, 8)
    assert backfill(bench).returncode == 3
