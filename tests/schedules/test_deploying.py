"""Deployments and automations, made twice and changed by somebody in between, on a Prefect server of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.testing.utilities import prefect_test_harness

from lowtide.errors import ConfigError
from lowtide.job import load_job
from lowtide.schedules.automations import heartbeat, start
from lowtide.schedules.deploying import Result, deploy
from lowtide.schedules.deployments import Deployment, deployments_of, times_of

JOB = """
version: 1
name: tides
source: {{uri: "documents/*.txt"}}
timezone: Europe/Paris
schedule: {{every: week, at: "{at}"}}
operations: [summarize: {{words: 20}}]
backends: [local: {{model: tfidf}}]
output: {{root: "{root}"}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def client(server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        for found in opened.read_deployments():
            opened.delete_deployment(found.id)
        for automation in opened.read_automations():
            opened.delete_automation(automation.id)
        yield opened


def described(folder: Path, at: str = "fri 18:00", root: str = "out") -> tuple[Deployment, ...]:
    path = folder / "tides.yaml"
    path.write_text(JOB.format(at=at, root=root))
    job = load_job(path)
    return deployments_of(job, times_of(job))


def outcomes(result: Result) -> Sequence[str]:
    return [each.outcome for each in (*result.deployments, *result.automations)]


def test_the_same_again_changes_nothing(client: SyncPrefectClient, tmp_path: Path) -> None:
    wanted = described(tmp_path)
    shown = deploy(client, wanted, None, dry_run=True)
    assert set(outcomes(shown)) == {"created"}
    assert not client.read_deployments()
    assert outcomes(deploy(client, wanted, None)) == outcomes(shown)
    assert set(outcomes(deploy(client, wanted, None))) == {"unchanged"}
    assert len(client.read_deployments()) == len(wanted)
    assert {found.name for found in client.read_automations()} == {heartbeat().name, start().name}


def test_what_the_job_file_says_is_brought_up_to_date(client: SyncPrefectClient, tmp_path: Path) -> None:
    deploy(client, described(tmp_path), None)
    result = deploy(client, described(tmp_path, at="mon 02:00"), None)
    assert outcomes(result) == ["updated", "unchanged", "unchanged", "unchanged", "unchanged"]
    found = client.read_deployment_by_name("lowtide run due/tides")
    [schedule] = found.schedules
    assert isinstance(schedule.schedule, CronSchedule)
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * mon", "Europe/Paris")


def test_what_somebody_has_set_on_the_pages_stays(client: SyncPrefectClient, tmp_path: Path) -> None:
    deploy(client, described(tmp_path), None)
    found = client.read_deployment_by_name("lowtide run due/tides")
    client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
    client.create_deployment_schedules(
        found.id, [DeploymentScheduleCreate(schedule=CronSchedule(cron="0 6 1 * *"), slug="theirs")]
    )
    path = f"/deployments/{found.id}"
    client.request(
        "PATCH", path, json={"parameters": {**found.parameters, "max_usd": 5}, "tags": [*found.tags, "ours"]}
    )  # type: ignore[arg-type]
    client.pause_automation(client.read_automations_by_name(heartbeat().name)[0].id)

    result = deploy(client, described(tmp_path, at="mon 02:00"), None)
    assert result.deployments[0].paused
    found = client.read_deployment_by_name("lowtide run due/tides")
    assert {schedule.slug: schedule.active for schedule in found.schedules} == {"lowtide": False, "theirs": True}
    assert found.parameters == {"job": str(tmp_path / "tides.yaml"), "max_usd": 5}
    assert "ours" in found.tags
    assert not client.read_automations_by_name(heartbeat().name)[0].enabled
    assert set(outcomes(deploy(client, described(tmp_path, at="mon 02:00"), None))) == {"unchanged"}


def test_an_automation_that_was_changed_or_doubled_is_mended(client: SyncPrefectClient, tmp_path: Path) -> None:
    deploy(client, described(tmp_path), None)
    client.create_automation(heartbeat())
    assert "updated" in outcomes(deploy(client, described(tmp_path), None))
    [found] = client.read_automations_by_name(heartbeat().name)
    client.update_automation(found.id, heartbeat().model_copy(update={"description": "ours now"}))
    assert "updated" in outcomes(deploy(client, described(tmp_path), None))
    assert client.read_automations_by_name(heartbeat().name)[0].description == heartbeat().description


def test_a_job_of_the_same_name_under_another_root_is_refused(client: SyncPrefectClient, tmp_path: Path) -> None:
    deploy(client, described(tmp_path), None)
    with pytest.raises(ConfigError, match="belongs to a job of another root; name this one with --name"):
        deploy(client, described(tmp_path, root="elsewhere"), None)
    other = [replace(each, name=f"other-{each.name}") for each in described(tmp_path, root="elsewhere")]
    assert outcomes(deploy(client, other, None))[:3] == ["created"] * 3


def test_a_pool_that_is_named_has_to_be_there_and_is_kept(client: SyncPrefectClient, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prefect work-pool create fargate"):
        deploy(client, described(tmp_path), "fargate")
    client.create_work_pool(WorkPoolCreate(name="fargate", type="process"))
    deploy(client, described(tmp_path), "fargate")
    assert {each.pool for each in deploy(client, described(tmp_path), None).deployments} == {"fargate"}


def test_only_one_tick_of_a_root_runs_at_a_time(client: SyncPrefectClient, tmp_path: Path) -> None:
    made = deploy(client, described(tmp_path), None)
    tick = client.read_deployment_by_name(made.deployments[1].deployment.full_name)
    assert tick.global_concurrency_limit is not None
    assert tick.concurrency_options is not None
    assert (tick.global_concurrency_limit.limit, tick.concurrency_options.collision_strategy) == (1, "CANCEL_NEW")
