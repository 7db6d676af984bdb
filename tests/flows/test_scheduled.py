"""The flows that schedules start, on a Prefect server of their own."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import jsonschema_rs
import pyarrow.parquet as pq
import pytest
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from support.command import Bench, write_documents

from lowtide.calendars import Calendar
from lowtide.connectors.assembly import assemble
from lowtide.connectors.stores import open_store
from lowtide.engine import open_run
from lowtide.flows.reconciling import of_month
from lowtide.flows.scheduled import BackendKind, run_due, windows_due
from lowtide.flows.tick import advance_root
from lowtide.job import load_job
from lowtide.job.backends import BACKENDS
from lowtide.openruns import list_open
from lowtide.windows import parse_window

SCHEDULE = "schedule: {every: day, lateness: 36h}\n"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    made.job.write_text(made.job.read_text() + SCHEDULE)
    monkeypatch.setenv("LOWTIDE_LOCAL_DIR", str(made.batches))
    return made


def write_day(bench: Bench, days_ago: int, count: int) -> str:
    """Documents of a day; its window."""
    day = datetime.now(UTC).replace(hour=12) - timedelta(days=days_ago)
    folder = bench.folder / "documents"
    before = set(folder.glob("*")) if folder.exists() else set()
    write_documents(folder, len(before) + count)
    for path in set(folder.glob("*")) - before:
        os.utime(path, (day.timestamp(), day.timestamp()))
    return f"{day.date()}"


def rows_of(bench: Bench) -> dict[str, int]:
    paths = Path(bench.root).glob("tables/results/job=tides/window=*/results.parquet")
    return {path.parent.name.removeprefix("window="): pq.read_metadata(path).num_rows for path in paths}


def tick_until_done(bench: Bench) -> int:
    store = open_store(bench.root)
    for number in range(200):
        if not list(list_open(store)):
            return number
        advance_root(bench.root)
    raise AssertionError("still open")


@pytest.mark.usefixtures("server")
def test_what_is_due_is_begun_and_the_tick_sees_it_through(bench: Bench) -> None:
    day = write_day(bench, 1, 3)
    [begun] = run_due(str(bench.job))
    assert begun["window"] == day
    assert tick_until_done(bench) >= 1
    assert rows_of(bench) == {day: 6}
    assert (Path(bench.root) / "metrics/lowtide.prom").read_text().endswith("# EOF\n")


@pytest.mark.usefixtures("server")
def test_an_idle_tick_does_nothing(bench: Bench) -> None:
    result = advance_root(bench.root)
    assert result == {"root": Path(bench.root).as_uri(), "runs": []}
    assert not Path(bench.root).exists()


@pytest.mark.usefixtures("server")
def test_a_run_whose_job_file_is_broken_is_told_of_and_the_others_go_on(bench: Bench) -> None:
    day = write_day(bench, 1, 2)
    run_due(str(bench.job))
    other = bench.folder / "other.yaml"
    other.write_text(bench.job.read_text().replace("name: tides", "name: ebbs"))
    run_due(str(other))
    other.write_text("version: 2\n")
    for _ in range(100):
        result = advance_root(bench.root)
        assert isinstance(result, dict)
        if rows_of(bench):
            break
    assert rows_of(bench) == {day: 4}
    told = {each["job"]: each for each in result["runs"]}
    assert told["ebbs"]["outcome"] == "failed"
    assert "other.yaml:1" in told["ebbs"]["error"]


@pytest.mark.usefixtures("server")
def test_a_run_that_was_asked_for_from_a_laptop_too_goes_on_where_the_worker_is(bench: Bench) -> None:
    day = write_day(bench, 1, 2)
    run_due(str(bench.job))
    laptop = bench.folder / "laptop.yaml"
    laptop.write_text(bench.job.read_text())
    job = load_job(laptop)
    open_run(assemble(job, parse_window(day, job.zone)))
    [found] = list_open(open_store(bench.root))
    assert found.asked.job_files == (str(laptop), str(bench.job))
    # Where the tick runs there is no such file.
    laptop.unlink()
    assert tick_until_done(bench) >= 1
    assert rows_of(bench) == {day: 4}


@pytest.mark.usefixtures("server")
def test_a_note_that_cannot_be_read_is_told_of_and_measured_and_the_others_go_on(bench: Bench) -> None:
    day = write_day(bench, 1, 2)
    run_due(str(bench.job))
    note = Path(bench.root) / "open/ebbs/all/0123456789abcdef"
    note.parent.mkdir(parents=True)
    note.write_text("{")
    for _ in range(100):
        state = advance_root(bench.root, return_state=True)
        if rows_of(bench):
            break
    assert rows_of(bench) == {day: 4}
    result = state.result()
    assert isinstance(result, dict)
    told = {each["job"]: each for each in result["runs"]}
    assert (told["ebbs"]["outcome"], told["ebbs"]["run_id"]) == ("failed", "0123456789abcdef")
    assert "open/ebbs/all/0123456789abcdef: not a note of an open run" in str(state.message)
    metrics = (Path(bench.root) / "metrics/lowtide.prom").read_text()
    assert 'lowtide_open_runs{job="ebbs",state="unreadable"} 1\n' in metrics


@pytest.mark.usefixtures("server")
def test_a_day_without_documents_is_no_failure(bench: Bench) -> None:
    write_day(bench, 30, 1)
    assert run_due(str(bench.job)) == []


def test_windows_go_by_the_scheduled_time_and_those_open_for_late_documents_come_first(bench: Bench) -> None:
    write_day(bench, 1, 1)
    job = load_job(bench.job)
    assert isinstance(job.calendar, Calendar)
    due = windows_due(job, "last", datetime(2026, 11, 20, 0, 10, tzinfo=UTC))
    assert [window.name for window in due] == ["2026-11-18", "2026-11-19"]
    assert [w.name for w in windows_due(job, "2026-W40", datetime(2026, 11, 20, tzinfo=UTC))] == ["2026-W40"]


GOOD: list[dict[str, object]] = [
    {},
    {"window": "2026-W47", "max_usd": 12.5, "backends": ["bedrock", "local"], "reprocess": "all"},
    {"window": "2026-01-05--2026-01-19", "max_usd": "0.25"},
    {"window": "2026-11-20T05"},
]
BAD: list[dict[str, object]] = [
    {"window": "../../etc"},
    {"window": ""},
    {"max_usd": 0},
    {"max_usd": -1},
    {"backends": ["azure"]},
    {"backends": "bedrock"},
    {"reprocess": "some"},
]


@pytest.mark.parametrize("given", GOOD)
def test_prefects_form_takes_what_the_flow_takes(given: dict[str, object]) -> None:
    schema = parameter_schema(run_due).model_dump(mode="json", exclude_none=True)
    jsonschema_rs.validate(schema, {"job": "/jobs/tides.yaml", **given})
    run_due.validate_parameters({"job": "/jobs/tides.yaml", **given})


@pytest.mark.parametrize("given", BAD)
def test_prefects_form_refuses_what_the_flow_refuses(given: dict[str, object]) -> None:
    schema = parameter_schema(run_due).model_dump(mode="json", exclude_none=True)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(schema, {"job": "/jobs/tides.yaml", **given})
    with pytest.raises(ParameterTypeError):
        run_due.validate_parameters({"job": "/jobs/tides.yaml", **given})


def test_the_form_knows_every_backend() -> None:
    assert set(get_args(BackendKind)) == set(BACKENDS)


def test_a_bill_is_that_of_the_month_before() -> None:
    address = "s3://bucket/{year}/{month}/*.csv"
    assert of_month(address, datetime(2027, 1, 8, 6, 30, tzinfo=UTC)) == "s3://bucket/2026/12/*.csv"
    assert of_month("bill.csv", datetime(2027, 1, 8, tzinfo=UTC)) == "bill.csv"
