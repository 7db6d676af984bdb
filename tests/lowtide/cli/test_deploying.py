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
    ("options", "said"),
    [
        (["--every", "day"], "schedule: {every: day}"),
        (["--tz", "Mars/Olympus"], "--tz: found 'Mars/Olympus'"),
        (["--cron", "every day"], "--cron: found"),
        (["--tick", "soon"], "--tick: found 'soon'"),
        (["--worker-path", "tides.yaml"], "--worker-path: found"),
    ],
)
def test_bad_options_end_with_2_and_say_what_to_do(job: Path, options: list[str], said: str) -> None:
    ended = deploy(job, "--yaml", *options)
    assert ended.exit_code == 2
    assert said in ended.output
