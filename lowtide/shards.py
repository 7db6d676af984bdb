"""What a run knows of each shard and of each batch, as its events have it so far. How they change is in `states`."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from lowtide import events as e
from lowtide import money
from lowtide.records import Compute, Fault, Usage


class Phase(StrEnum):
    """Where a shard stands."""

    BUILT = "built"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    ENDED = "ended"
    COLLECTED = "collected"
    SETTLED = "settled"


class Attempt(msgspec.Struct, frozen=True):
    """One batch as the ledger and the timeline need it. `surplus`: beside the one that the attempt goes on with.

    `reserved_at` is when its money was reserved, which says in which month it counts. `counted_at` is when its tokens
    became known, if that was before its answers were collected. `unknown`: what it has cost could not be found out.
    """

    shard: int
    attempt: int
    records: int
    batch_id: str
    submitted_at: float
    reserved: Decimal = Decimal(0)
    reserved_at: float = 0.0
    ended_at: float = 0.0
    counted_at: float = 0.0
    collected_at: float = 0.0
    unknown: bool = False
    outcome: str = ""
    compute_seconds: int = 0
    compute: tuple[Compute, ...] = ()
    tallies: tuple[e.Tally, ...] = ()
    region: str = ""
    on_demand: bool = False
    surplus: bool = False
    places: tuple[str, ...] = ()

    @property
    def compute_usd(self) -> Decimal:
        """What its machine time has cost, waste included, where that has prices of its own."""
        return money.total(part.usd for part in self.compute)

    @property
    def known_at(self) -> float:
        """When it became known what the attempt has cost; 0 while it is not."""
        return self.collected_at or self.counted_at

    @property
    def may_cost(self) -> Decimal:
        """What it may still cost, in USD, beyond what is known."""
        return self.reserved if self.unknown or not self.known_at else Decimal(0)


class ShardState(msgspec.Struct, frozen=True):
    """One shard. `records`, `size` and `requests` are those of the attempt at hand; `total` is that of the first.

    `reused`, `saved` and `twins` are as in `events.ShardBuilt`: those requests are not among the records. `base` is the
    number of attempts made before the shard was last reopened, `reopenings` how often it has been. `answers` are the
    files of earlier attempts. `idle` counts the attempts in a row that were never begun. `charged`, `usage` and `fault`
    are what the provider says of the batch that has ended. `places` are where a batch of it may lie, `absences` how
    often one of the attempt's batches was looked for in vain.
    """

    number: int
    phase: Phase
    since: float
    documents: int
    total: int
    attempt: int
    records: int
    size: int
    requests: str
    first_requests: str
    index: str
    built_at: float
    input_tokens: int = 0
    text_bytes: int = 0
    reused: int = 0
    reused_rows: str = ""
    saved: tuple[e.Tally, ...] = ()
    twins: int = 0
    twin_rows: str = ""
    owner: str = ""
    expires: float = 0.0
    reserved: Decimal = Decimal(0)
    intended_at: float = 0.0
    missing_since: float = 0.0
    refusals: int = 0
    reason: str = ""
    not_before: float = 0.0
    on_demand: bool = False
    places: tuple[str, ...] = ()
    absences: int = 0
    batch_id: str = ""
    outcome: str = ""
    charged: int | None = None
    usage: Usage | None = None
    fault: Fault = ""
    idle: int = 0
    remaining: int = 0
    base: int = 0
    reopenings: int = 0
    answers: tuple[str, ...] = ()
    rows: str = ""
    given_up: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
