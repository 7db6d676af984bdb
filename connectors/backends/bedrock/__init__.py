"""Amazon Bedrock: batch inference through boto3, and requests on demand for what is too little for a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from lowtide.connectors.backends.bedrock.backend import Backend
from lowtide.connectors.backends.bedrock.connection import connect
from lowtide.connectors.backends.bedrock.staging import open_staging
from lowtide.job.backends import BedrockBackend
from lowtide.protocols import Store

__all__ = ["Backend", "open_bedrock"]


def open_bedrock(
    spec: BedrockBackend,
    root: Store,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Backend:
    """The backend that a job file describes, for runs under `root`. No service is called yet.

    Credentials, region and endpoints that the job file does not name are those of the AWS tools; `environ` goes before
    the process's environment. Raises ConfigError.
    """
    aws, staging = connect(spec.region, environ), open_staging(spec.staging, root, environ)
    return Backend(spec, root, aws, staging, clock=clock)
