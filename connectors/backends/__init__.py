"""Where requests are answered: one module or package for each backend, imported only when a job asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from lowtide.job.backends import (
    AzureBatchBackend,
    BackendSpec,
    BedrockBackend,
    LocalBackend,
    OpenAIBatchBackend,
    SpotBackend,
)
from lowtide.protocols import Backend, Store


def open_backend(
    spec: BackendSpec,
    root: Store,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
    keyed: bool = True,
) -> Backend:
    """The backend that a job file describes, for runs under `root`. Calls nobody yet.

    Credentials and endpoints that the job file does not name are those of the environment. `clock`, in seconds, counts
    how long a deployment that was full is left alone, and how long late counters are waited for. Without `keyed`, a key
    may be missing, and the provider is not to be called. Raises ConfigError, and MissingExtra where a package for the
    backend is not installed.
    """
    match spec:
        case LocalBackend():
            from lowtide.connectors.backends import local

            return local.LocalBackend(model=spec.model, workers=spec.workers)
        case BedrockBackend():
            from lowtide.connectors.backends.bedrock import open_bedrock

            return open_bedrock(spec, root, environ=environ, clock=clock)
        case AzureBatchBackend():
            from lowtide.connectors.backends.openai_batch import open_azure

            return open_azure(spec, environ=environ, clock=clock, keyed=keyed)
        case OpenAIBatchBackend():
            from lowtide.connectors.backends.openai_batch import open_openai

            return open_openai(spec, environ=environ, clock=clock, keyed=keyed)
        case SpotBackend():
            from lowtide.connectors.backends.spot import open_spot

            return open_spot(spec, root, environ=environ, clock=clock)
