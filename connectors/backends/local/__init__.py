"""The backend `local`: extractive summaries and zero-shot classification on this machine, with batch semantics."""

from __future__ import annotations

from lowtide.connectors.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
