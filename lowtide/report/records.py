"""What the caller knows about a run that stands in none of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lowtide.plan import RunPlan


@dataclass(frozen=True, slots=True)
class ShardTime:
    """When one attempt at one shard went through its states. Times are aware; None is a state not reached yet.

    `built` is when the shard's file was written, `submitted` when the provider accepted the batch, `ended` when the
    provider was seen to be done with it, `collected` when its answers were kept. `records` counts requests.
    """

    number: int
    attempt: int
    built: datetime | None
    submitted: datetime | None
    ended: datetime | None
    collected: datetime | None
    records: int
    backend: str


@dataclass(frozen=True, slots=True)
class ReportMeta:
    """The heading of a report, and its timeline.

    `generated_at` is aware, and is taken as "now" for what has not ended. `state` is one word for where the run stands
    (`running`, `done`); "" if the runs table tells. `deadline` is used where the runs table has none. `tables` maps a
    table's name to its address, as a reader would type it. `priced` is False where no price is known, so that an
    amount of 0 says nothing. `plan` is what the run was planned to be, for plan against actual.
    """

    job: str
    window: str
    run_id: str
    generated_at: datetime
    shards: Sequence[ShardTime] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    deadline: datetime | None = None
    state: str = ""
    priced: bool = True
    plan: RunPlan | None = None
