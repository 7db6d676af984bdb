"""What every step of a run needs at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.collecting.outcomes import Outcomes
from lowtide.collecting.rows import asked_of
from lowtide.journal import Journal
from lowtide.ownership import is_alive, this_owner
from lowtide.plan import RunPlan, Work
from lowtide.prices import Price
from lowtide.protocols import Backend, Store
from lowtide.shards import ShardState
from lowtide.states import RunState

PATIENCE = 3600.0
"""Seconds beyond its lease after which even a living process's claim no longer holds."""


@dataclass
class Context:
    """One process's view of one run. `clock` gives seconds since the epoch.

    By shard and attempt: `first_missed`, when this process first looked for the batch in vain, and `first_incomplete`,
    when it first found answers missing from its output.
    """

    work: Work
    plan: RunPlan
    journal: Journal
    owner: str = field(default_factory=this_owner)
    clock: Callable[[], float] = time.time
    alive: Callable[[str], bool | None] = is_alive
    first_missed: dict[tuple[int, int], float] = field(default_factory=dict)
    first_incomplete: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return self.work.root

    @property
    def backend(self) -> Backend:
        return self.work.backend

    @property
    def state(self) -> RunState:
        return self.journal.state

    def path(self, name: str) -> str:
        """A path inside the run."""
        return f"{self.plan.prefix}/{name}"

    def stale(self, owner: str, expires: float) -> bool:
        """Whether a claim no longer holds: it is ours and we are not at it, its process is gone, or its time is up.

        A slow owner that is known to live has much more time, but not for ever: it may have left its claim behind.
        """
        if owner == self.owner:
            return True
        alive = self.alive(owner)
        if alive is False:
            return True
        return self.clock() > expires + (PATIENCE if alive else 0.0)

    def price_of(self, shard: ShardState) -> Price:
        """What the shard's attempt at hand is charged."""
        return self.work.price.of(on_demand=shard.on_demand)

    def index(self, shard: ShardState) -> pa.Table:
        """The shard's index: one row for each document."""
        with self.store.open(self.path(shard.index)) as source:
            return pq.read_table(source, pre_buffer=False, use_threads=False)

    def outcomes(self, shard: ShardState, index: pa.Table) -> Outcomes:
        """What earlier attempts at the shard have brought."""
        having = index.filter(pa.compute.greater_equal(index["first"], 0))
        having = having.take(pa.compute.sort_indices(having["first"]))
        checks = [sha256[:8] for sha256 in having["content_sha256"].to_pylist()]
        everything = (1 << len(self.work.operations)) - 1
        asked = asked_of(having, len(self.work.operations)).tolist()
        outcomes = Outcomes(checks, self.work.operations, None if all(mask == everything for mask in asked) else asked)
        if shard.answers:
            with self.store.open(self.path(shard.answers[-1])) as source:
                outcomes.load(source)
        return outcomes
