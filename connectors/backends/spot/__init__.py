"""The backend `spot`: open models on machines that may be taken away, on AWS Batch or of one's own."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from lowtide.connectors.backends.openai_batch.requests import RequestEncoder
from lowtide.connectors.backends.spot.backend import SpotBackend, workers_for
from lowtide.connectors.backends.spot.fleet import asks_natively, fleet_of
from lowtide.connectors.backends.spot.launching import Launcher
from lowtide.connectors.backends.spot.manual_launcher import ManualLauncher
from lowtide.connectors.backends.spot.process_launcher import ProcessLauncher, default_directory
from lowtide.connectors.backends.spot.rates import OwnRates, Rates, SpotRates
from lowtide.errors import MissingExtra
from lowtide.job import backends as job
from lowtide.protocols import Store
from lowtide_worker.layout import Fleet

__all__ = ["SpotBackend", "open_spot"]

_WHERE = "backends[0].spot"
_OWN_POLL_SECONDS = 2.0
"""Looking at files of one's own disk costs nothing, and a worker that died is started again that much sooner."""


def open_spot(
    spec: job.SpotBackend,
    root: Store,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
    fleet: Fleet | None = None,
) -> SpotBackend:
    """The backend that a job file describes under `spot`. Calls nobody yet.

    With launcher batch, credentials and region are those of the AWS tools; `environ` goes before the process's
    environment. `fleet` takes the place of what the job file says of how workers work. Raises ConfigError, and
    MissingExtra where workers are to run here and cannot.
    """
    fleet = fleet or fleet_of(spec)
    native = asks_natively(spec)
    encoder = RequestEncoder(
        call="chat",
        url="/v1/chat/completions",
        name=spec.model,
        model=spec.model,
        parameters=spec.parameters,
        native=native,
        # Older than max_completion_tokens, and understood by all engines.
        limit_key="max_tokens",
        where=_WHERE,
    )
    parameters = {**spec.parameters, "structured_output": "native" if native else "prompt"}
    site = _on_aws(spec, root, environ) if spec.launcher == "batch" else _elsewhere(spec, root, environ)
    return SpotBackend(
        root,
        fleet,
        site.launcher,
        site.rates,
        provider=site.provider,
        region=site.region,
        workers=site.workers,
        encoder=encoder,
        parameters=parameters,
        poll_seconds=site.poll_seconds,
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class _Site:
    """Where workers run, what they cost there, and how many there may be."""

    launcher: Launcher
    rates: Rates
    provider: str
    region: str
    workers: int
    poll_seconds: float | None = None


def _elsewhere(spec: job.SpotBackend, root: Store, environ: Mapping[str, str] | None) -> _Site:
    hourly = spec.usd_per_hour or Decimal(0)
    most = workers_for(spec.max_workers, spec.max_usd_per_hour, hourly)
    if spec.launcher == "none":
        return _Site(ManualLauncher(), OwnRates(hourly), "own", "", most)
    return _Site(_processes(root, most, environ), OwnRates(hourly), "own", "", most, _OWN_POLL_SECONDS)


def _processes(root: Store, most: int, environ: Mapping[str, str] | None) -> ProcessLauncher:
    if importlib.util.find_spec("aiohttp") is None:
        raise MissingExtra("the backend 'spot' with launcher: process", "spot", "aiohttp")
    env = {**os.environ, **(environ or {})}
    return ProcessLauncher(root, default_directory(env), most, env)


def _on_aws(spec: job.SpotBackend, root: Store, environ: Mapping[str, str] | None) -> _Site:
    # boto3 takes half a second to import, and workers of one's own have no use for it.
    from lowtide.connectors.backends.spot.aws import connect  # noqa: PLC0415
    from lowtide.connectors.backends.spot.batch_launcher import BatchLauncher, Settings  # noqa: PLC0415
    from lowtide.connectors.backends.spot.spot_prices import SpotPrices  # noqa: PLC0415

    aws = connect(spec.region, environ)
    prices = SpotPrices(aws)
    settings = Settings(
        queue=spec.queue or "",
        definition=spec.job_definition or "",
        instances=spec.instances,
        max_usd_per_hour=spec.max_usd_per_hour,
    )
    launcher = BatchLauncher(aws, root, settings, prices)
    return _Site(launcher, SpotRates(prices, spec.instances), "aws", aws.region, spec.max_workers)
