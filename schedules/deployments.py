"""What is deployed for a job, as plain descriptions: which flow, when, with which parameters. Asks nobody for anything.

    lowtide run due/JOB       opens the windows that are due, at the times of the job's schedule
    lowtide tick/ROOT         advances all open runs of the root, every few minutes, one at a time
    lowtide backfill/JOB      has no schedule: a form for past windows
    lowtide reconcile/ROOT    compares the provider's bill with the ledger, once a month

Jobs of one root share its tick.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from lowtide.calendars import parse_every
from lowtide.connectors.stores import open_store, split_glob
from lowtide.connectors.stores.addresses import local_path, scheme_of
from lowtide.errors import ConfigError
from lowtide.job import Job
from lowtide.job.times import check_cron
from lowtide.schedules.cron import cron_of, cron_of_job

TAG = "lowtide"
"""On every flow run of ours. The automations go by it: a flow run with this tag sends heartbeats."""

HEARTBEAT_SECONDS = 30
"""Between two heartbeats of a flow run: the least that Prefect allows."""

ENVIRONMENT: Mapping[str, str] = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    # What flows return is JSON; Prefect's own choice would be pickle.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}

TICK = timedelta(minutes=2)
_SHORTEST_TICK, _LONGEST_TICK = timedelta(minutes=1), timedelta(hours=1)

BILL_CRON = "30 6 8 * *"
"""On the 8th of the month: AWS and Azure go on correcting a month's bill for some days after it has ended."""

_LONGEST_NAME = 40
_NOT_IN_NAMES = frozenset("/%&<>")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment. `zone` is that of `cron`; neither `cron` nor `interval` means that nothing starts it by itself.

    Where only `one` flow run at a time makes sense, one that comes while another is at it is cancelled, not queued.
    """

    flow: str
    name: str
    entrypoint: str
    description: str
    parameters: Mapping[str, object]
    cron: str | None = None
    zone: str | None = None
    interval: timedelta | None = None
    tags: tuple[str, ...] = ()
    one: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    @property
    def full_name(self) -> str:
        """What Prefect calls it."""
        return f"{self.flow}/{self.name}"


@dataclass(frozen=True, slots=True)
class Times:
    """When a job runs: a crontab line on the clocks of a zone."""

    cron: str
    zone: ZoneInfo


def times_of(
    job: Job, *, cron: str | None = None, every: str | None = None, at: str | None = None, zone: ZoneInfo | None = None
) -> Times:
    """When the job runs: what is given, and else what its `schedule` says. Raises ConfigError.

    `every` only says what the windows are: it has to be what the job file says, since whoever runs the job by hand goes
    by that.
    """
    zone = zone or job.zone
    if cron is not None:
        if every is not None or at is not None:
            raise ConfigError("--cron: found together with --every or --at; expected one or the other")
        return Times(_option("--cron", check_cron, cron), zone)
    if every is not None and (wanted := _option("--every", parse_every, every)) != job.schedule.length:
        raise ConfigError(
            f"--every: found {every!r}; the windows of job {job.name!r} are of a {job.schedule.length}: write "
            f"`schedule: {{every: {wanted}}}` into the job file"
        )
    if at is not None:
        length = job.schedule.length
        return Times(_option("--at", lambda text: cron_of(length, text, zone, job.schedule.lateness), at), zone)
    if zone != job.zone and job.schedule.at is None and job.schedule.cron is None:
        raise ConfigError(
            f"--tz: found {zone}, and no time to begin at; give --at or --cron with it, or write "
            f"`timezone: {zone}` into the job file, whose windows end by the clocks of {job.zone}"
        )
    return Times(cron_of_job(job), zone)


def deployments_of(
    job: Job,
    times: Times,
    *,
    name: str | None = None,
    job_file: str | None = None,
    tick: timedelta = TICK,
    bill: str | None = None,
) -> tuple[Deployment, ...]:
    """What is deployed for a job. `name` stands for the job's own where another root has a job of that name.

    `job_file` is the job file's path where the worker runs; by default the one that was read. Raises ConfigError.
    """
    if not _SHORTEST_TICK <= tick <= _LONGEST_TICK:
        raise ConfigError(f"--tick: found {tick.total_seconds():.0f} seconds; expected 1m to 60m")
    root = open_store(job.output.root).uri
    path, called, place = job_file or str(job.file), name or job.name, name_of_root(root)
    tags = (TAG, tag_of_root(root))
    run = Deployment(
        flow="lowtide run due",
        name=called,
        entrypoint="lowtide.flows.scheduled.run_due",
        description=f"Opens the windows of job {job.name} that are due, each a {job.schedule.length} ({job.timezone}).",
        parameters={"job": path},
        cron=times.cron,
        zone=times.zone.key,
        tags=(*tags, f"lowtide-job-{job.name}"),
    )
    ticking = Deployment(
        flow="lowtide tick",
        name=place,
        entrypoint="lowtide.flows.tick.advance_root",
        description=f"Advances all open runs of {root}.",
        parameters={"root": root},
        interval=tick,
        tags=tags,
        one=True,
    )
    backfill = Deployment(
        flow="lowtide backfill",
        name=called,
        entrypoint="lowtide.flows.backfill.backfill_job",
        description=f"Runs past windows of job {job.name}, each in a flow run of its own.",
        parameters={"job": path, "run_due": run.full_name},
        tags=(*tags, f"lowtide-job-{job.name}"),
        one=True,
    )
    if bill is None:
        return run, ticking, backfill
    reconcile = Deployment(
        flow="lowtide reconcile",
        name=place,
        entrypoint="lowtide.flows.reconciling.reconcile_root",
        description=f"Compares the provider's bill with the ledger of {root}.",
        parameters={"root": root, "bill": bill},
        cron=BILL_CRON,
        zone=times.zone.key,
        tags=tags,
        one=True,
    )
    return run, ticking, backfill, reconcile


def name_of_root(root: str) -> str:
    """A name for a root's own deployments: the end of its address, and a hash of the whole."""
    words = re.sub(r"[^a-z0-9]+", "-", root.partition("://")[2].lower()).strip("-")
    return f"{words[-_LONGEST_NAME:].strip('-')}-{_hash(root)}"


def tag_of_root(root: str) -> str:
    """What all that belongs to a root is tagged with."""
    return f"lowtide-root-{_hash(root)}"


def parse_tick(text: str) -> timedelta:
    """`2m`, `90s` or `1h`. Raises ConfigError."""
    found = re.fullmatch(r"([0-9]{1,4})([smh])", text.strip().lower())
    if found is None:
        raise ConfigError(f"--tick: found {text!r}; expected a time such as 2m")
    return timedelta(seconds=int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]])


def worker_path(path: str) -> str:
    """A job file's path where the worker runs. Raises ConfigError unless it is absolute."""
    if not Path(path).is_absolute():
        raise ConfigError(f"--worker-path: found {path!r}; expected an absolute path, since a worker runs anywhere")
    return path


def prefect_name(option: str, name: str) -> str:
    """A name that Prefect takes for a deployment or a work pool. Raises ConfigError, which names the option."""
    if not name.strip() or not _NOT_IN_NAMES.isdisjoint(name):
        without = " ".join(sorted(_NOT_IN_NAMES))
        raise ConfigError(f"{option}: found {name!r}; expected a name, without any of {without}")
    return name


def bill_address(address: str) -> str:
    """An address that a worker can look for bills at. Whether anything is there is seen when it does.

    Raises ConfigError.
    """
    month = address.replace("{year}", "2026").replace("{month}", "01")
    if _option("--reconcile", scheme_of, month) != "file":
        _option("--reconcile", split_glob, month)
    elif not (_option("--reconcile", local_path, month) if "://" in month else Path(month)).is_absolute():
        raise ConfigError(
            f"--reconcile: found {address!r}; expected s3://, abfs:// or an absolute path, since a worker runs anywhere"
        )
    return address


def _option(option: str, parse: Callable[[str], T], text: str) -> T:
    """What the text of an option means. Raises ConfigError, which names the option."""
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {str(error).removeprefix(f'{option[2:]}: ')}") from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
