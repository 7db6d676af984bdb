"""`lowtide deploy` as far as it goes without a Prefect server."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from prefect.settings import PREFECT_API_URL, temporary_settings

from lowtide.cli import main

JOB = """
version: 1
name: tides
source: {uri: "documents/*.txt"}
operations: [summarize: {words: 20}]
backends: [local: {model: tfidf}]
output: {root: "out"}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "tides.yaml"
    path.write_text(JOB)
    return path


def deploy(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["deploy", *map(str, arguments)])


def test_without_a_server_it_says_how_to_start_one(job: Path) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        ended = deploy(job)
    assert ended.exit_code == 2
    assert "PREFECT_API_URL: not set" in ended.output
    assert "prefect server start" in ended.output


def test_a_server_that_does_not_answer_is_named(job: Path) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        ended = deploy(job)
    assert ended.exit_code == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api" in ended.output


def test_the_file_needs_no_server(job: Path) -> None:
    ended = deploy(job, "--yaml", "--at", "fri 18:00", "--tz", "Europe/Paris", "--pool", "fargate")
    assert ended.exit_code == 0, ended.output
    run = yaml.safe_load(ended.output)["deployments"][0]
    assert run["schedules"] == [{"cron": "0 18 * * fri", "timezone": "Europe/Paris", "slug": "lowtide"}]
    assert run["work_pool"]["name"] == "fargate"
    assert run["parameters"] == {"job": str(job)}


@pytest.mark.parametrize(
    "bill",
    [
        "s3://bills-{year}/{month}/*.parquet",
        "abfs://bills@acme.dfs.core.windows.net/cost/{year}{month}/**",
        "/srv/bills/{year}-{month}.csv",
        "file:///srv/bills/*.csv",
    ],
)
def test_a_bills_address_is_taken_as_it_is_written_whether_or_not_anything_is_there_yet(job: Path, bill: str) -> None:
    ended = deploy(job, "--yaml", "--reconcile", bill)
    assert ended.exit_code == 0, ended.output
    assert yaml.safe_load(ended.output)["deployments"][-1]["parameters"]["bill"] == bill


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--every", "day"], "schedule: {every: day}"),
        (["--tz", "Mars/Olympus"], "--tz: found 'Mars/Olympus'"),
        (["--cron", "every day"], "--cron: found"),
        (["--tick", "soon"], "--tick: found 'soon'"),
        (["--worker-path", "tides.yaml"], "--worker-path: found"),
        (["--worker-path", ""], "--worker-path: found ''"),
        (["--at", "fri 25:00"], "--at: found 'fri 25:00'; expected a time of a week"),
        (["--every", "fortnight"], "--every: found 'fortnight'; expected hour, day"),
        (["--pool", ""], "--pool: found ''; expected a name"),
        (["--pool", " "], "--pool: found ' '; expected a name"),
        (["--name", ""], "--name: found ''; expected a name"),
        (["--name", "a/b"], "--name: found 'a/b'; expected a name"),
        (["--reconcile", ""], "--reconcile: found ''; expected s3://"),
        (["--reconcile", "s3://"], "--reconcile: the source 's3://' names no bucket"),
        (["--reconcile", "s3:///cur/*.parquet"], "names no bucket"),
        (["--reconcile", "abfs://x"], "--reconcile: 'abfs://x' cannot be used"),
        (["--reconcile", "gs://bills/cur.csv"], "--reconcile: 'gs://bills/cur.csv' cannot be used"),
        (["--reconcile", "bills/*.csv"], "--reconcile: found 'bills/*.csv'; expected s3://"),
        (["--reconcile", "file://bills/a.csv"], "--reconcile: 'file://bills/a.csv' cannot be used"),
    ],
)
def test_bad_options_end_with_2_and_say_what_to_do(job: Path, options: list[str], said: str) -> None:
    ended = deploy(job, "--yaml", *options)
    assert ended.exit_code == 2
    assert said in ended.output
