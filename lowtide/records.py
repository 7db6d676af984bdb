"""The records that pass between the domain and the connectors. Plain, frozen, without behaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

if TYPE_CHECKING:
    from lowtide.operations import Operation


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One object of a store.

    `path` is relative to the store, with `/` between parts; `uri` is the whole address; `size` is in bytes;
    `etag` changes whenever the content does; `modified` is aware, in UTC.
    """

    path: str
    uri: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a bulk read gave for one file: its bytes, or the reason why there are none."""

    info: FileInfo
    data: bytes
    error: str | None = None


@dataclass(slots=True)
class DocumentBatch:
    """Documents as columns: every list has the same length, one entry per document.

    `keys` holds the row key inside a file of rows, and "" where the whole file is the document.
    Where a document could not be read, `texts` holds "" and `reasons` says why; elsewhere `reasons` holds None.
    `fields` holds the job's fields, as text (numbers and nested values in their JSON spelling), None where absent.
    """

    uris: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    modified: list[datetime | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    fields: dict[str, list[str | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.uris)


@dataclass(frozen=True, slots=True)
class Request:
    """One model call. `text` is the document alone; `user` is the whole prompt, the document between its markers."""

    record_id: str
    operation: Operation
    system: str
    user: str
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a backend accepts in one batch, as data. None stands for no limit.

    `request_bytes` bounds one JSONL line. `live_batches` bounds the batches that are open at once. `consistent_lookup`
    says that `find` sees a batch as soon as `submit` has made it, so that absence needs no grace period. Where looking
    costs nothing, `poll_seconds` is the longest pause between two polls, whatever the job says.

    For plans: a batch is answered within `turnaround_seconds`, as far as the provider promises anything; where the
    speed depends on the number of records, it is about `records_per_second`. Where machines are started for it, so many
    `machines` work at once, each after `boot_seconds`.
    """

    records: int
    bytes: int
    request_bytes: int
    live_batches: int
    tokens: int | None = None
    minimum_records: int = 1
    consistent_lookup: bool = False
    poll_seconds: float | None = None
    turnaround_seconds: float = 86_400.0
    records_per_second: float | None = None
    machines: int = 0
    boot_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shard:
    """An immutable JSONL file of requests, ready to be submitted.

    `uri` is where the file lies in the run's root, `open` streams it. `on_demand` says that it holds fewer records than
    a batch of this backend may, so that they are asked one by one, at the price of that. `may_cost` is what is reserved
    for it under a cap, in USD: a backend that charges by time must not go beyond; None where nothing limits it.
    """

    run_id: str
    number: int
    attempt: int
    records: int
    size: int
    uri: str
    open: Callable[[], BinaryIO]
    on_demand: bool = False
    may_cost: Decimal | None = None


Outcome = Literal["completed", "partial", "failed", "expired", "cancelled"]


Fault = Literal["", "quota", "fatal"]
"""What an ended batch says beside its outcome: there was no room for all of it, or not enough was reserved, and it may
be asked again without an end (`quota`); or asking again cannot help (`fatal`)."""


class Usage(msgspec.Struct, frozen=True):
    """The provider's own totals of one batch. Cached tokens are part of input, reasoning tokens of output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Compute(msgspec.Struct, frozen=True):
    """Machine time that a batch is charged for: whole seconds of one kind of machine, at what one cost then and there.

    `waste` is "" for time that went into its answers; `preempted`, `boot` or `idle` for what was lost or not used.
    `source` says where the price is from.
    """

    seconds: int
    usd_per_second: Decimal
    waste: str = ""
    machine: str = ""
    zone: str = ""
    source: str = ""

    @property
    def usd(self) -> Decimal:
        return self.usd_per_second * self.seconds


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """Where a batch stands. `outcome` is None until it has ended; `provider_state` is the provider's own word.

    `answered` counts records answered so far (for progress only). `compute_seconds` is what the backend charges for
    machine time, known at the end, and 0 where it charges by token; `compute` says the same where its price changes.

    Known at the end, and None where the provider does not say: `charged`, how many records it has answered and puts on
    the bill, whether or not their lines can be read; `usage`, its totals. A record without a line is asked again only
    as far as `charged`, or without it an outcome that is not `completed`, says that it was not answered. `region` is
    where the batch ran, "" for the backend's own.
    """

    provider_state: str
    outcome: Outcome | None = None
    answered: int = 0
    reason: str = ""
    compute_seconds: int = 0
    charged: int | None = None
    usage: Usage | None = None
    fault: Fault = ""
    region: str = ""
    compute: tuple[Compute, ...] = ()


AnswerStatus = Literal["ok", "refused", "error", "unanswered"]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the provider says of one record.

    `ok` has `text`. `refused` is the model's or the filter's final no. `error` failed for the reason in `error`, and is
    worth another attempt if `retryable`. `unanswered` was never processed: expired, cancelled, or missing.
    Tokens are the provider's own counts; `cached_tokens` is part of `input_tokens`, `reasoning_tokens` of
    `output_tokens`. `answered_at` is in seconds since the epoch, 0 where the provider does not say.
    """

    record_id: str
    status: AnswerStatus
    text: str = ""
    error: str = ""
    retryable: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    answered_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `ok`, and what was found, or what is missing and what to do."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of a batch's output, as the provider wrote it. `chunks` may be consumed once."""

    name: str
    chunks: Iterator[bytes]
