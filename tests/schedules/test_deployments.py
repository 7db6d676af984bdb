"""What is deployed for a job, and that it fits the flows that it names."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from lowtide.errors import ConfigError
from lowtide.job import Job, load_job
from lowtide.schedules.deployments import Deployment, deployments_of, name_of_root, parse_tick, times_of, worker_path
from lowtide.schedules.prefect_yaml import prefect_yaml

JOB = """
version: 1
name: {name}
source: {{uri: "{folder}/documents/*.txt"}}
timezone: Europe/Paris
schedule: {{every: week, at: "fri 18:00"}}
operations: [summarize: {{words: 20}}]
backends: [local: {{model: tfidf}}]
output: {{root: "{root}"}}
"""


def job(folder: Path, name: str = "tides", root: str = "out") -> Job:
    path = folder / f"{name}.yaml"
    path.write_text(JOB.format(name=name, folder=folder, root=root))
    return load_job(path)


def described(of: Job, **options: object) -> dict[str, Deployment]:
    made = deployments_of(of, times_of(of), **options)  # type: ignore[arg-type]
    return {each.flow.removeprefix("lowtide "): each for each in made}


def test_a_job_has_a_run_at_its_times_a_tick_and_a_form_for_past_windows(tmp_path: Path) -> None:
    made = described(job(tmp_path))
    assert list(made) == ["run due", "tick", "backfill"]
    assert (made["run due"].cron, made["run due"].zone) == ("0 18 * * fri", "Europe/Paris")
    assert made["run due"].parameters == {"job": str(tmp_path / "tides.yaml")}
    assert made["tick"].interval == timedelta(minutes=2)
    assert made["tick"].one
    assert (made["backfill"].cron, made["backfill"].interval) == (None, None)
    assert all(each.environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30" for each in made.values())


def test_entry_points_are_flows_of_those_names_that_take_those_parameters(tmp_path: Path) -> None:
    for each in described(job(tmp_path), bill="s3://bucket/{year}/*.csv").values():
        flow = load_flow_from_entrypoint(each.entrypoint)
        assert flow.name == each.flow
        schema = parameter_schema(flow)
        assert set(each.parameters) <= set(schema.properties)
        assert set(schema.required or []) <= {*each.parameters, "first", "last"}
        assert all(field.get("description") for field in schema.properties.values())


def test_jobs_of_one_root_share_its_tick_and_those_of_another_do_not(tmp_path: Path) -> None:
    first, second = described(job(tmp_path, "tides")), described(job(tmp_path, "ebbs"))
    other = described(job(tmp_path, "flows", root="elsewhere"))
    assert first["tick"] == second["tick"]
    assert first["run due"].name != second["run due"].name
    assert other["tick"].name != first["tick"].name


@pytest.mark.parametrize(
    ("root", "name"),
    [("s3://acme-docs/lowtide", "acme-docs-lowtide-"), ("file:///srv/Data 1/out", "srv-data-1-out-")],
)
def test_a_root_has_a_name_that_prefect_takes(root: str, name: str) -> None:
    assert name_of_root(root).startswith(name)
    assert len(name_of_root(root + "/x" * 100)) < 60


def test_times_on_the_command_line_go_before_those_of_the_job_file(tmp_path: Path) -> None:
    loaded = job(tmp_path)
    given = times_of(loaded, at="mon 02:30", zone=ZoneInfo("UTC"))
    assert (given.cron, given.zone.key) == ("30 2 * * mon", "UTC")
    assert times_of(loaded, cron="5 4 * * *").cron == "5 4 * * *"
    assert times_of(loaded, every="week").cron == "0 18 * * fri"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": "day"}, "--every: found 'day'"),
        ({"cron": "61 * * * *"}, "--cron: "),
        ({"cron": "5 4 * * *", "at": "mon 02:30"}, "--cron: found together"),
        ({"at": "18:00"}, "expected a time of a week"),
    ],
)
def test_times_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        times_of(job(tmp_path), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("tick", ["30s", "2h", "0m"])
def test_a_tick_that_is_too_short_or_too_long_is_refused(tmp_path: Path, tick: str) -> None:
    with pytest.raises(ConfigError, match="expected 1m to 60m"):
        described(job(tmp_path), tick=parse_tick(tick))


def test_a_path_on_the_worker_is_absolute() -> None:
    assert worker_path("/jobs/tides.yaml") == "/jobs/tides.yaml"
    with pytest.raises(ConfigError, match="--worker-path"):
        worker_path("tides.yaml")


def test_a_bill_is_compared_once_a_month(tmp_path: Path) -> None:
    made = described(job(tmp_path), bill="s3://bucket/export/*.parquet")
    assert made["reconcile"].cron == "30 6 8 * *"
    assert made["reconcile"].parameters["bill"] == "s3://bucket/export/*.parquet"


def test_a_prefect_yaml_says_the_same(tmp_path: Path) -> None:
    made = deployments_of(job(tmp_path), times_of(job(tmp_path)))
    read = yaml.safe_load(prefect_yaml(made, "fargate"))
    assert [entry["entrypoint"] for entry in read["deployments"]] == [each.entrypoint for each in made]
    run, tick, _ = read["deployments"]
    assert run["schedules"] == [{"cron": "0 18 * * fri", "timezone": "Europe/Paris", "slug": "lowtide"}]
    assert tick["schedules"] == [
        {"interval": 120, "anchor_date": "2026-01-01T00:00:00+00:00", "timezone": "UTC", "slug": "lowtide"}
    ]
    assert tick["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert {entry["work_pool"]["name"] for entry in read["deployments"]} == {"fargate"}
