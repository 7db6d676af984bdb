"""Deployments, made through a Prefect server: created where they are missing, and brought up to date where they differ.

What the job file says goes before what is on the server. What it does not speak of stays as somebody has set it there:
a schedule that is paused, one that was added, parameters such as `max_usd`, further tags, job variables and the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.utilities.callables import parameter_schema

from lowtide import __version__
from lowtide.errors import ConfigError
from lowtide.schedules import automations
from lowtide.schedules.automations import Made
from lowtide.schedules.deployments import TAG, Deployment
from lowtide.schedules.prefect_yaml import ANCHOR, SLUG

POOL = "lowtide"
"""The work pool where none is named; it is made, for workers that start processes, if it is missing."""

_ROOT_TAG = f"{TAG}-root-"

NO_SERVER = (
    "PREFECT_API_URL: not set; a schedule needs a Prefect server that stays: start one with `prefect server start`, "
    "and name it: export PREFECT_API_URL=http://127.0.0.1:4200/api"
)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment, and what was done about it. `paused` says that somebody has stopped its schedule."""

    deployment: Deployment
    outcome: Literal["created", "updated", "unchanged"]
    pool: str
    paused: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What `deploy` has done, or would do. `made_pool` is the pool that was missing."""

    deployments: tuple[Deployed, ...]
    automations: tuple[Made, ...]
    made_pool: str | None


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """The Prefect server that the settings name, never one of our own. Raises ConfigError if there is none."""
    url = get_current_settings().api.url
    if not url:
        raise ConfigError(NO_SERVER)
    with get_client(sync_client=True) as client:
        trouble = client.api_healthcheck()
        if trouble is not None:
            raise ConfigError(
                f"PREFECT_API_URL: no Prefect server answers at {url} ({type(trouble).__name__}); start it, or name "
                "another one"
            )
        yield client


def deploy(
    client: SyncPrefectClient, deployments: Sequence[Deployment], pool: str | None, *, dry_run: bool = False
) -> Result:
    """Make the deployments and the automations. The same again changes nothing.

    A pool that is named has to be there; without one, a deployment stays in its pool, or goes into `lowtide`. Raises
    ConfigError, also for a deployment that belongs to another root.
    """
    there = [_find(client, deployment) for deployment in deployments]
    for deployment, found in zip(deployments, there, strict=True):
        _check_root(deployment, found)
    pools = [pool or (found.work_pool_name if found else None) or POOL for found in there]
    made_pool = _made_pool(client, pool, pools, dry_run=dry_run)
    deployed = [
        _deploy(client, deployment, found, each, dry_run=dry_run)
        for deployment, found, each in zip(deployments, there, pools, strict=True)
    ]
    return Result(tuple(deployed), tuple(automations.make(client, dry_run=dry_run)), made_pool)


def _find(client: SyncPrefectClient, deployment: Deployment) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(deployment.full_name)
    except ObjectNotFound:
        return None


def _check_root(deployment: Deployment, found: DeploymentResponse | None) -> None:
    if found is None:
        return
    theirs = {tag for tag in found.tags if tag.startswith(_ROOT_TAG)}
    if theirs and theirs.isdisjoint(deployment.tags):
        raise ConfigError(
            f"deployment {deployment.full_name!r}: belongs to a job of another root; name this one with --name, or "
            f"delete that one: prefect deployment delete {deployment.full_name!r}"
        )


def _made_pool(client: SyncPrefectClient, asked: str | None, pools: Sequence[str], *, dry_run: bool) -> str | None:
    missing: str | None = None
    for name in dict.fromkeys(pools):
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            if asked is not None or name != POOL:
                raise ConfigError(
                    f"--pool: there is no work pool {name!r}; make one: prefect work-pool create {name} --type process"
                ) from None
            missing = name
            if not dry_run:
                client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    return missing


def _deploy(
    client: SyncPrefectClient, deployment: Deployment, found: DeploymentResponse | None, pool: str, *, dry_run: bool
) -> Deployed:
    flow: Flow[..., object] = load_flow_from_entrypoint(deployment.entrypoint)
    schedules = _schedules(deployment, found)
    variables = dict(found.job_variables) if found else {}
    variables["env"] = {**variables.get("env", {}), **deployment.environment}
    wanted: dict[str, object] = {
        "entrypoint": deployment.entrypoint,
        "version": __version__,
        "description": deployment.description,
        "parameters": {**(found.parameters if found else {}), **deployment.parameters},
        "tags": sorted({*(found.tags if found else ()), *deployment.tags}),
        "work_pool_name": pool,
        "job_variables": variables,
        "enforce_parameter_schema": True,
        "parameter_openapi_schema": parameter_schema(flow).model_dump(mode="json"),
    }
    options = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW) if deployment.one else None
    paused = found is not None and (found.paused or any(not each.active for each in schedules if each.slug == SLUG))
    if found is not None and _is_as(found, wanted, schedules, options):
        return Deployed(deployment, "unchanged", pool, paused)
    if not dry_run:
        client.create_deployment(
            flow_id=client.create_flow_from_name(deployment.flow),
            name=deployment.name,
            schedules=schedules,
            concurrency_limit=1 if deployment.one else None,
            concurrency_options=options,
            pull_steps=[],
            **wanted,  # type: ignore[arg-type]  # the names are those of create_deployment
        )
    return Deployed(deployment, "updated" if found else "created", pool, paused)


def _schedules(deployment: Deployment, found: DeploymentResponse | None) -> list[DeploymentScheduleCreate]:
    """Our schedule, active unless somebody has paused it, and those that somebody has added."""
    theirs = found.schedules if found else []
    active = next((each.active for each in theirs if each.slug == SLUG), True)
    schedules = [
        DeploymentScheduleCreate(schedule=each.schedule, active=each.active, parameters=each.parameters, slug=each.slug)
        for each in theirs
        if each.slug != SLUG
    ]
    if deployment.cron is not None:
        cron = CronSchedule(cron=deployment.cron, timezone=deployment.zone)
        schedules.insert(0, DeploymentScheduleCreate(schedule=cron, active=active, slug=SLUG))
    elif deployment.interval is not None:
        interval = IntervalSchedule(
            interval=deployment.interval, anchor_date=datetime.fromisoformat(ANCHOR), timezone="UTC"
        )
        schedules.insert(0, DeploymentScheduleCreate(schedule=interval, active=active, slug=SLUG))
    return schedules


def _is_as(
    found: DeploymentResponse,
    wanted: dict[str, object],
    schedules: Sequence[DeploymentScheduleCreate],
    options: ConcurrencyOptions | None,
) -> bool:
    def told(each: object) -> object:
        return each.model_dump(mode="json", include={"schedule", "active", "parameters", "slug"})  # type: ignore[attr-defined]

    limit = found.global_concurrency_limit.limit if found.global_concurrency_limit else None
    if (limit, found.concurrency_options) != (1 if options else None, options):
        return False
    if sorted(map(repr, map(told, found.schedules))) != sorted(map(repr, map(told, schedules))):
        return False
    held = {name: getattr(found, name) for name in wanted}
    held["tags"] = sorted(found.tags)
    return held == wanted
