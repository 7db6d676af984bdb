"""Where requests are answered: one module or package for each backend, imported only when a job asks for it."""

from __future__ import annotations

from lowtide.job.model import BackendSpec
from lowtide.protocols import Backend


def open_backend(spec: BackendSpec) -> Backend:
    """The backend that a job file describes. Raises MissingExtra where a package for it is not installed."""
    from lowtide.connectors.backends.local import LocalBackend

    return LocalBackend(model=spec.model, workers=spec.workers)
