"""For workers that somebody else starts: on Azure Batch, Kubernetes, SkyPilot, or by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lowtide.errors import QuotaFull
from lowtide.records import Finding


@dataclass(frozen=True, slots=True)
class ManualLauncher:
    """Implements `launching.Launcher` by starting nothing. Shards wait until a worker comes."""

    name: str = "none"

    def ensure(self, fleet: str, uri: str, workers: int) -> None:
        """Raises QuotaFull, which says where workers are to be started: docs/backends/spot-elsewhere.md says how."""
        raise QuotaFull(f"workers that are started with LOWTIDE_FLEET={uri} take its shards")

    def running(self, fleet: str) -> int:
        """0: only the fleet's own beats tell of workers that others have started."""
        return 0

    def stop(self, fleet: str) -> None:
        """Nothing: workers end by themselves where there is nothing to do."""

    def release(self, fleet: str) -> None:
        """Nothing, as above."""

    def examine(self) -> Iterator[Finding]:
        yield Finding("workers", True, "somebody else starts them: launcher is none")
