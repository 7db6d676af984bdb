"""The deployments of a job as a `prefect.yaml`, for those who deploy with `prefect deploy --all`."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from lowtide import __version__
from lowtide.schedules.deployments import Deployment

ANCHOR = "2026-01-01T00:00:00+00:00"
"""What intervals are counted from: a tick of two minutes comes at even minutes."""

SLUG = "lowtide"
"""Names our schedule of a deployment beside those that somebody adds."""


def prefect_yaml(deployments: Sequence[Deployment], pool: str) -> str:
    """The file. It has the deployments only: the automations are made by `lowtide deploy`."""
    content = {"name": "lowtide", "pull": [], "deployments": [_entry(each, pool) for each in deployments]}
    heading = f"# Written by lowtide {__version__}; deployed by: prefect deploy --all\n"
    return heading + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _entry(deployment: Deployment, pool: str) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": deployment.name,
        "entrypoint": deployment.entrypoint,
        "description": deployment.description,
        "version": __version__,
        "tags": list(deployment.tags),
        "parameters": dict(deployment.parameters),
        "enforce_parameter_schema": True,
        "work_pool": {"name": pool, "job_variables": {"env": dict(deployment.environment)}},
        "schedules": [],
    }
    if deployment.cron is not None:
        entry["schedules"] = [{"cron": deployment.cron, "timezone": deployment.zone, "slug": SLUG}]
    elif deployment.interval is not None:
        seconds = int(deployment.interval.total_seconds())
        entry["schedules"] = [{"interval": seconds, "anchor_date": ANCHOR, "timezone": "UTC", "slug": SLUG}]
    if deployment.one:
        entry["concurrency_limit"] = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    return entry
