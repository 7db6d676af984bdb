"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `step` is what is being done, `documents` counts those read, `answered` the records."""

    step: str
    documents: int
    shards: int
    records: int
    answered: int
    settled: int
    open_batches: int
    over_budget: bool = False
    done: bool = False


Listener = Callable[[Progress], None]
"""Hears where a run stands, whenever it has got on."""
