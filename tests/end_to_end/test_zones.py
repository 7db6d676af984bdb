"""A job in a time zone, through the command line: each row in the day that clocks there showed, once and only once."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from support.command import Bench

from lowtide.tasks import steps
from lowtide.windows import parse_window

PARIS = ZoneInfo("Europe/Paris")
JOB = """
version: 1
name: tickets
timezone: Europe/Paris
schedule: {every: day}
source: {uri: ./tickets.jsonl, text: body, id: ticket, fields: [ticket, created_at], window_by: "field:created_at"}
operations: [summarize: {words: 20}]
backends: [local: {model: tfidf}]
output: {root: ./out}
"""
BODY = "The harbour was calm that night. Its lights were seen from afar, and ships came in one after the other."
# When summer time ends, at 03:00 of the 25th, Paris goes back to 02:00.
CREATED = {
    "2026-10-24": ["2026-10-24T00:00:00", "2026-10-24T23:59:59", "2026-10-23T22:00:00Z", "2026-10-24T21:59:59Z"],
    "2026-10-25": [
        "2026-10-25",
        "2026-10-25T00:00:00",
        "2026-10-24T22:00:00Z",
        "2026-10-25T02:30:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T23:59:59",
        "2026-10-25T22:59:59Z",
        "2026-10-25T18:59:59-04:00",
    ],
    "2026-10-26": ["2026-10-26T00:00:00", "2026-10-25T23:00:00Z", "2026-10-26T22:59:59Z"],
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, root=str(tmp_path / "out"), name="tickets")
    made.job.write_text(JOB, encoding="utf-8")
    return made


def write_rows(bench: Bench, times: list[str]) -> None:
    rows = [{"ticket": f"t{at}", "created_at": time, "body": f"{BODY} {at}"} for at, time in enumerate(times)]
    (bench.folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def published(bench: Bench, window: str) -> list[dict[str, object]]:
    path = Path(bench.root) / f"tables/results/job=tickets/window={window}/results.parquet"
    rows: list[dict[str, object]] = pq.read_table(path, partitioning=None).to_pylist()
    return rows


def test_each_row_is_in_the_day_that_clocks_in_the_jobs_zone_showed(bench: Bench) -> None:
    write_rows(bench, [time for times in CREATED.values() for time in times])
    for day, times in CREATED.items():
        ended = bench.run("--window", day)
        assert ended.returncode == 0, ended.stderr
        rows = published(bench, day)
        assert sorted(str(row["created_at"]) for row in rows) == sorted(times)
        window = parse_window(day, PARIS)
        assert {(row["window_start"], row["window_end"]) for row in rows} == {(window.start, window.end)}
    week = bench.run("--window", "2026-W43")
    assert week.returncode == 0, week.stderr
    assert len(published(bench, "2026-W43")) == len(CREATED["2026-10-24"]) + len(CREATED["2026-10-25"])


def test_an_hour_that_paris_leaves_out_is_refused_with_the_reason(bench: Bench) -> None:
    write_rows(bench, ["2026-03-29T02:30:00"])
    ended = bench.run("--window", "2026-03-29T02")
    assert ended.returncode == 2
    assert "Europe/Paris has no such hour: its clocks go from 2026-03-29 02:00 to 2026-03-29 03:00" in ended.stderr
    assert bench.run("--window", "2026-03-29T03").returncode == 0
    assert len(published(bench, "2026-03-29T03")) == 1


def test_another_zone_is_another_run_over_the_same_name(bench: Bench) -> None:
    write_rows(bench, ["2026-10-25T12:00:00Z", "2026-10-25T23:30:00Z"])
    assert bench.run("--window", "2026-10-25").returncode == 0
    assert len(published(bench, "2026-10-25")) == 1
    assert bench.run("--window", "2026-10-25").returncode == 3
    bench.job.write_text(JOB.replace("Europe/Paris", "UTC"), encoding="utf-8")
    assert bench.run("--window", "2026-10-25").returncode == 0
    assert len(published(bench, "2026-10-25")) == 2


def test_last_is_the_last_day_that_has_ended_and_is_told_by_its_name(bench: Bench) -> None:
    today = datetime.now(PARIS).date()
    write_rows(bench, [f"{today - timedelta(days=back)}T12:00:00" for back in range(4)])
    plan = bench.folder / "plan.json"
    planned = bench.lowtide("plan", str(bench.job), "--window", "last", "--out", str(plan))
    assert planned.returncode == 0, planned.stderr
    ended = bench.run("--window", "last")
    assert ended.returncode == 0, ended.stderr
    # Midnight may have come in between.
    days = {str(day - timedelta(days=1)) for day in (today, datetime.now(PARIS).date())}
    (folder,) = (Path(bench.root) / "tables/results/job=tickets").glob("window=*")
    day = folder.name.removeprefix("window=")
    assert day in days
    assert json.loads(plan.read_text())["window"] in days
    assert [row["created_at"] for row in published(bench, day)] == [f"{day}T12:00:00"]
    found = steps.find_run.fn(str(bench.job), "last")
    assert found is not None
    assert found.plan.window == day
    for command in ("status", "show", "report"):
        shown = bench.lowtide(command, str(bench.job), "--window", "last")
        assert shown.returncode == 0, shown.stderr
    never = bench.lowtide("status", str(bench.job), "--window", "2020-01-01")
    assert never.returncode == 2


def test_a_plan_is_stale_when_the_zone_has_changed(bench: Bench) -> None:
    write_rows(bench, ["2026-10-25T12:00:00Z"])
    plan = str(bench.folder / "plan.json")
    assert bench.lowtide("plan", str(bench.job), "--window", "2026-10-25", "--out", plan).returncode == 0
    bench.job.write_text(JOB.replace("Europe/Paris", "Asia/Tokyo"), encoding="utf-8")
    refused = bench.lowtide("apply", plan, "--direct")
    assert refused.returncode == 3
    told = "timezone: window 2026-10-25 begins at 2026-10-24 15:00 UTC now, and at 2026-10-24 22:00 UTC in the plan"
    assert told in refused.stderr
