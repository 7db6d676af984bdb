"""The batch APIs of OpenAI and of Azure OpenAI: one backend, their differences as data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import orjson

from lowtide.connectors.backends.openai_batch.account import azure_account, openai_account
from lowtide.connectors.backends.openai_batch.backend import OpenAIBatch
from lowtide.connectors.backends.openai_batch.blob import blob_folder
from lowtide.connectors.backends.openai_batch.places import Place
from lowtide.connectors.backends.openai_batch.requests import RequestEncoder
from lowtide.connectors.backends.openai_batch.services import AZURE, OPENAI, Call, family_of, limits_of
from lowtide.errors import ConfigError
from lowtide.job.backends import AzureBatchBackend, OpenAIBatchBackend
from lowtide.protocols import Backend

_FIELD = f"backends[0].{AZURE.backend}"
_LONGEST_NAME = 64
"""Characters in the name of a deployment (documented for Azure)."""

__all__ = ["OpenAIBatch", "open_azure", "open_openai"]


def open_openai(
    spec: OpenAIBatchBackend,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
    keyed: bool = True,
) -> Backend:
    """The backend that a job file describes under `openai-batch`. Calls nobody yet, and never if not `keyed`.

    The key is OPENAI_API_KEY, the address OPENAI_BASE_URL unless the job file names one; `environ` goes before the
    process's environment. Raises ConfigError.
    """
    place = Place("", spec.model, openai_account(spec.base_url, environ, keyed=keyed))
    return _backend(spec, [place], spec.call, clock=clock)


def open_azure(
    spec: AzureBatchBackend,
    *,
    environ: Mapping[str, str] | None = None,
    tokens: Callable[[], str] | None = None,
    clock: Callable[[], float] = time.monotonic,
    keyed: bool = True,
) -> Backend:
    """The backend that a job file describes under `azure-batch`. Calls nobody yet, and never if not `keyed`.

    The key is AZURE_OPENAI_API_KEY, the address AZURE_OPENAI_ENDPOINT unless the job file names one; `environ` goes
    before the process's environment. With `auth: entra`, `tokens` takes the place of the environment's identity. Raises
    ConfigError and MissingExtra.
    """
    wanted = [(spec.region or "", spec.deployment, spec.endpoint)]
    wanted += [(further.region, further.deployment, further.endpoint) for further in spec.regions]
    _check_names([region for region, _, _ in wanted])
    for at, (_, deployment, _) in enumerate(wanted):
        if len(deployment) > _LONGEST_NAME:
            raise ConfigError(
                f"{_deployment_field(at)}.deployment: found {len(deployment)} characters; "
                f"expected at most {_LONGEST_NAME}"
            )
    places = [
        Place(
            region,
            deployment,
            azure_account(
                endpoint,
                region=region,
                auth=spec.auth,
                api=spec.api,
                environ=environ,
                tokens=tokens,
                where=_deployment_field(at),
                keyed=keyed,
            ),
        )
        for at, (region, deployment, endpoint) in enumerate(wanted)
    ]
    return _backend(spec, places, spec.call, environ, clock=clock)


def _deployment_field(at: int) -> str:
    """Where the job file names the deployment: itself, then further regions."""
    return f"{_FIELD}.regions[{at - 1}]" if at else _FIELD


def _check_names(regions: Sequence[str]) -> None:
    if len(regions) > 1 and not all(regions):
        raise ConfigError(f"{_FIELD}.region: missing; expected a name, since there are further regions")
    if len(set(regions)) < len(regions):
        twice = next(region for region in regions if regions.count(region) > 1)
        raise ConfigError(f"{_FIELD}.regions: found {twice!r} twice; expected a name of its own for each deployment")
    if any("/" in region for region in regions):
        slashed = next(region for region in regions if "/" in region)
        raise ConfigError(f"{_FIELD}.regions: found {slashed!r}; expected a name without a slash")


def _backend(
    spec: OpenAIBatchBackend | AzureBatchBackend,
    places: Sequence[Place],
    call: Call,
    environ: Mapping[str, str] | None = None,
    *,
    clock: Callable[[], float],
) -> OpenAIBatch:
    service = OPENAI if isinstance(spec, OpenAIBatchBackend) else AZURE
    wanted = spec.structured_output
    native = family_of(spec.model).native if wanted == "auto" else wanted == "native"
    own_blob = isinstance(spec, AzureBatchBackend) and spec.blob is not None
    encoder = RequestEncoder(
        call=call,
        url=service.urls[call],
        name=places[0].model,
        model=spec.model,
        parameters=spec.parameters,
        native=native,
        where=f"backends[0].{service.backend}",
    )
    names = [len(orjson.dumps(place.model)) for place in places]
    return OpenAIBatch(
        service,
        places,
        model=spec.model,
        encoder=encoder,
        parameters={**spec.parameters, "call": call, "structured_output": "native" if native else "prompt"},
        call=call,
        limits=limits_of(
            service,
            spec.model,
            own_blob=own_blob,
            enqueued_tokens=spec.enqueued_tokens,
            longer_names=max(names) - names[0],
        ),
        enqueued_tokens=spec.enqueued_tokens,
        blob=blob_folder(spec.blob, environ) if isinstance(spec, AzureBatchBackend) and spec.blob else None,
        keep_files=spec.keep_files,
        clock=clock,
    )
