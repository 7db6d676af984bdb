"""`deploy`: a job's schedule, on a Prefect server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from lowtide.cli.options import ends_well, job_argument

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from lowtide.schedules.deploying import Result
    from lowtide.schedules.deployments import Deployment

DONE = 0
_NEXT = 3


@click.command()
@job_argument
@click.option("--every", help="What the windows are: week, day, month ...  [default: the job file's schedule.every]")
@click.option("--at", help='When: "fri 18:00", "18:00", "1 06:00".  [default: the job file\'s schedule.at]')
@click.option("--cron", help="When, as a crontab line, in place of --at.  [default: the job file's schedule.cron]")
@click.option("--tz", metavar="ZONE", help="The time zone of those times.  [default: the job file's timezone]")
@click.option("--pool", metavar="NAME", help="The work pool.  [default: the one it is in, or lowtide, which is made]")
@click.option("--tick", default="2m", show_default=True, help="How often open runs are advanced: 1m to 60m.")
@click.option("--reconcile", "bill", metavar="BILL", help="Compare the provider's bill monthly: its address.")
@click.option("--name", help="The deployment's name.  [default: the job's]")
@click.option("--worker-path", metavar="PATH", help="The job file's path where the worker runs.  [default: as here]")
@click.option("--print", "only_print", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print it as a prefect.yaml, and do nothing.")
@ends_well
def deploy(
    job: str,
    every: str | None,
    at: str | None,
    cron: str | None,
    tz: str | None,
    pool: str | None,
    tick: str,
    bill: str | None,
    name: str | None,
    worker_path: str | None,
    only_print: bool,
    as_yaml: bool,
) -> int:
    """Have a job run by itself: its windows when they are due, and a tick that sees the runs through.

    Needs a Prefect server (PREFECT_API_URL), and a worker. The same command again changes nothing. A schedule that
    somebody has paused on Prefect's pages stays paused.
    """
    from pathlib import Path

    from lowtide.job import load_job
    from lowtide.schedules import deployments as described
    from lowtide.schedules.prefect_yaml import prefect_yaml

    loaded = load_job(Path(job))
    pool = None if pool is None else described.prefect_name("--pool", pool)
    times = described.times_of(loaded, cron=cron, every=every, at=at, zone=_zone(tz))
    wanted = described.deployments_of(
        loaded,
        times,
        name=None if name is None else described.prefect_name("--name", name),
        job_file=None if worker_path is None else described.worker_path(worker_path),
        tick=described.parse_tick(tick),
        bill=None if bill is None else described.bill_address(bill),
    )
    if as_yaml:
        click.echo(prefect_yaml(wanted, pool or described.TAG), nl=False)
        return DONE
    from lowtide.schedules.deploying import deploy as make
    from lowtide.schedules.deploying import server

    with server() as client:
        result = make(client, wanted, pool, dry_run=only_print)
    _show(result, dry_run=only_print)
    return DONE


def _zone(name: str | None) -> ZoneInfo | None:
    from zoneinfo import ZoneInfo

    from lowtide.errors import ConfigError

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ConfigError(f"--tz: found {name!r}; expected an IANA time zone, such as Europe/Paris") from None


def _show(result: Result, *, dry_run: bool) -> None:
    would = " (not done: --print)" if dry_run else ""
    if result.made_pool:
        click.echo(f"created    work pool {result.made_pool}, for workers that start processes{would}")
    for each in result.deployments:
        click.echo(f"{each.outcome:<10} deployment {each.deployment.full_name}, in pool {each.pool}{would}")
        for line in _when(each.deployment):
            click.echo(f"{'':<10} {line}")
        if each.paused:
            click.echo(f"{'':<10} its schedule is paused on Prefect's pages, and stays so")
    for made in result.automations:
        click.echo(f"{made.outcome:<10} automation {made.name!r}{would}")
    if not dry_run:
        pools: Sequence[str] = sorted({each.pool for each in result.deployments})
        click.echo(f"A worker does the work: prefect worker start --pool {pools[0]}")


def _when(deployment: Deployment) -> Iterator[str]:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    from lowtide.schedules.cron import next_runs

    if deployment.interval is not None:
        yield f"every {deployment.interval.total_seconds():.0f} s"
    elif deployment.cron is not None and deployment.zone is not None:
        zone = ZoneInfo(deployment.zone)
        yield f"cron {deployment.cron} in {deployment.zone}"
        moments = next_runs(deployment.cron, zone, datetime.now(UTC), _NEXT)
        yield "next: " + ", ".join(f"{moment.astimezone(zone):%a %Y-%m-%d %H:%M}" for moment in moments)
    else:
        yield "when somebody starts it"
