"""What a run will do, fixed before it does anything: the documents it reads, what it asks, where and at what price.

A run is identified by its job, window, and the hash of what it reads and asks: the same again is the same run.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
import orjson

from lowtide import ids
from lowtide.budget.caps import Cap
from lowtide.errors import ConfigError
from lowtide.inputs import Inputs
from lowtide.openruns import Asked
from lowtide.operations import Operation
from lowtide.prices import Price
from lowtide.protocols import Backend, Documents, Store
from lowtide.windows import Window, names_utc


@dataclass(frozen=True)
class Candidate:
    """A backend that the job allows, and what it charges. A cap on what its machines cost allows so many `machines`."""

    backend: Backend
    price: Price
    machines: int | None = None

    @property
    def machines_at_most(self) -> int:
        """How many work at once; 0 where none are started, or none may be."""
        most = self.backend.limits.machines
        return most if self.machines is None else min(most, self.machines)


@dataclass(frozen=True)
class Work:
    """Everything that a run needs from outside, put together from a job file by the connectors.

    `candidates` are all backends that the job allows, in its order; `backend` and `price` are those of the one that is
    chosen, at first the first. `refresh` asks everything anew; without `use_cache`, no answers are taken from earlier
    runs, and none are kept for later ones. `price_book` is the id of the book that prices were looked up in. `asked` is
    what was asked beyond the job file; `run_usd` and `candidates` are within it already.
    """

    job: str
    window: Window
    operations: tuple[Operation, ...]
    backend: Backend
    documents: Documents
    root: Store
    price: Price
    reading: Mapping[str, object]
    fields: tuple[str, ...] = ()
    shard_records: int = 10_000
    attempts: int = 3
    poll: timedelta = timedelta(seconds=60)
    grace: timedelta = timedelta(seconds=120)
    deadline: timedelta = timedelta(hours=24)
    run_usd: Decimal | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    reads_rows: bool = False
    candidates: tuple[Candidate, ...] = ()
    caps: tuple[Cap, ...] = ()
    approve_above_usd: Decimal | None = None
    use_cache: bool = True
    refresh: bool = False
    price_book: str = ""
    asked: Asked = field(default_factory=Asked)

    @property
    def allowed(self) -> tuple[Candidate, ...]:
        """All backends that the job allows: the candidates, or the one at hand where none are listed."""
        return self.candidates or (Candidate(self.backend, self.price),)

    def choosing(self, candidate: Candidate) -> Work:
        """The same work at this backend."""
        return replace(self, backend=candidate.backend, price=candidate.price)

    @property
    def poll_seconds(self) -> float:
        """Seconds between two polls: the job's, or less where looking costs nothing."""
        wanted, enough = self.poll.total_seconds(), self.backend.limits.poll_seconds
        return wanted if enough is None else min(wanted, enough)

    @property
    def folder(self) -> str:
        """Where this job's runs over this window lie in the root."""
        return f"runs/{self.job}/{self.window.name}"


class PlannedOperation(msgspec.Struct, frozen=True):
    """An operation as it stood when the run was planned."""

    name: str
    kind: str
    version: str


class PlannedPrice(msgspec.Struct, frozen=True):
    """The prices that a run was planned with, and that its rows and its ledger go by to its end."""

    price_id: str
    source: str
    per_unit: dict[str, Decimal]
    on_demand: PlannedPrice | None = None
    by_time: bool = False
    fixed: Decimal = Decimal(0)
    tokens_per_second: float = 0.0
    least: Decimal = Decimal(0)
    start: Decimal = Decimal(0)

    @classmethod
    def of(cls, price: Price) -> PlannedPrice:
        return cls(
            price.price_id,
            price.source,
            dict(price.per_unit),
            cls.of(price.on_demand) if price.on_demand else None,
            price.by_time,
            price.fixed,
            price.tokens_per_second,
            price.least,
            price.start,
        )

    def price(self) -> Price:
        """The same, to reckon with."""
        return Price(
            self.price_id,
            self.source,
            self.per_unit,
            self.on_demand.price() if self.on_demand else None,
            self.by_time,
            self.fixed,
            self.tokens_per_second,
            self.least,
            self.start,
        )


class Range(msgspec.Struct, frozen=True):
    """A number that is not known yet: it is expected to be `expected`, and with 90 % between `low` and `high`."""

    low: int
    expected: int
    high: int


class PlannedOption(msgspec.Struct, frozen=True):
    """What the work would cost at one of the job's backends, and when it would be done.

    `finish` in seconds since the epoch, 0 where the backend cannot do the work. `why_not` says what speaks against it;
    "" for the one that is chosen. `requests` would be asked there, `cached` are answered by what an earlier run has
    bought from the same model, and `twins` by another request of the run. `on_demand` says that they are too few for a
    batch. `quota` says how the shards fit into what the backend takes at once. `by_time` says that machines are paid,
    and not tokens. `fixed_usd` is part of each cost, whatever the number of requests; `break_even` says in words from
    how many requests on that pays.
    """

    backend: str
    model: str
    region: str
    price_id: str
    input_tokens: Range
    output_tokens: Range
    cost_low_usd: Decimal
    cost_usd: Decimal
    cost_high_usd: Decimal
    realtime_usd: Decimal | None
    shards: int
    finish: float
    finish_basis: str
    fits_deadline: bool
    basis: str
    chosen: bool = False
    why_not: str = ""
    requests: int = 0
    cached: int = 0
    twins: int = 0
    on_demand: bool = False
    quota: str = ""
    by_time: bool = False
    fixed_usd: Decimal = Decimal(0)
    break_even: str = ""


class CountedDocuments(msgspec.Struct, frozen=True):
    """The documents by what they are. With `exact` all were read; else the numbers are scaled from the `read` ones.

    `new`, `changed` and `unchanged` are as against the window's published results.
    """

    exact: bool
    read: int
    documents: int
    new: int
    changed: int
    unchanged: int
    unreadable: int


class PlannedDocuments(CountedDocuments, frozen=True):
    """The documents with what will become of them.

    Requests are `asked`, or not, since an earlier run has bought the answer (`cached`) or the same is asked in this run
    already (`twins`).
    """

    asked: int
    cached: int
    twins: int
    text_bytes: int


class PlannedReplacement(msgspec.Struct, frozen=True):
    """The window's results that a run will replace."""

    run_id: str
    rows: int
    published_at: float


class RunPlan(msgspec.Struct, frozen=True):
    """The run's `plan.json`. Times in seconds since the epoch, money in USD. `notes` are what its reader should know.

    `refresh` counts how often everything was asked anew before, with the same inputs and questions.

    `nonce` tells this root's run from the same run under another root, or under one that was emptied: their batches
    must not be taken for each other's.
    """

    run_id: str
    nonce: str
    job: str
    window: str
    window_start: datetime | None
    window_end: datetime | None
    created_at: float
    files: int
    bytes: int
    inputs_sha256: str
    operations: tuple[PlannedOperation, ...]
    backend: str
    provider: str
    region: str
    model: str
    parameters: dict[str, str | int | float | bool]
    fields: tuple[str, ...]
    shard_records: int
    attempts: int
    deadline: float
    run_usd: Decimal | None
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    price_id: str
    tags: dict[str, str]
    notes: tuple[str, ...] = ()
    price: PlannedPrice | None = None
    price_book: str = ""
    documents: PlannedDocuments | None = None
    options: tuple[PlannedOption, ...] = ()
    replaces: PlannedReplacement | None = None
    approve_above_usd: Decimal | None = None
    refresh: int = 0

    def token(self, shard: int, attempt: int) -> str:
        """The name of one attempt at one shard, the same after a crash."""
        return ids.token(self.run_id, self.nonce, shard, attempt)

    @property
    def prefix(self) -> str:
        """The run's path in the root."""
        return f"runs/{self.job}/{self.window}/{self.run_id}"


def run_id_of(work: Work, inputs_sha256: str, refresh: int = 0) -> str:
    """The run that reads these inputs and asks these questions, at whichever of the job's backends."""
    identity = {
        "job": work.job,
        "window": work.window.name,
        "inputs": inputs_sha256,
        "reading": dict(work.reading),
        "fields": list(work.fields),
        "operations": [[op.name, op.version] for op in work.operations],
        "backends": sorted(map(_identity, work.allowed), key=orjson.dumps),
        "refresh": refresh,
    }
    if not names_utc(work.window):
        # The name alone says what the bounds are in UTC only.
        identity["bounds"] = [work.window.start, work.window.end]
    return ids.run_id(identity)


def _identity(candidate: Candidate) -> list[object]:
    backend = candidate.backend
    return [backend.name, backend.model, sorted(backend.parameters.items())]


def make_plan(work: Work, inputs: Inputs, now: float, *, refresh: int = 0) -> RunPlan:
    """The plan for these inputs at the backend at hand, without estimates: `planning.making` knows how to make those.

    Raises ConfigError for an operation that the backend cannot do.
    """
    check_operations(work.operations, work.backend)
    return RunPlan(
        run_id=run_id_of(work, inputs.sha256, refresh),
        nonce=secrets.token_hex(4),
        job=work.job,
        window=work.window.name,
        window_start=work.window.start,
        window_end=work.window.end,
        created_at=now,
        files=inputs.files,
        bytes=inputs.bytes,
        inputs_sha256=inputs.sha256,
        operations=tuple(PlannedOperation(op.name, op.kind, op.version) for op in work.operations),
        backend=work.backend.name,
        provider=work.backend.provider,
        region=work.backend.region,
        model=work.backend.model,
        parameters=dict(work.backend.parameters),
        fields=work.fields,
        shard_records=work.shard_records,
        attempts=work.attempts,
        deadline=now + work.deadline.total_seconds(),
        run_usd=work.run_usd,
        input_tokens=0,
        output_tokens=0,
        cost_usd=Decimal(0),
        price_id=work.price.price_id,
        tags=dict(work.tags),
        price=PlannedPrice.of(work.price),
        price_book=work.price_book,
        approve_above_usd=work.approve_above_usd,
        refresh=refresh,
    )


def check_operations(operations: Sequence[Operation], backend: Backend) -> None:
    """Refuse, all at once, the operations that the backend cannot do."""
    refusals = [f"operation {op.name!r}: {why}" for op in operations if (why := backend.refusal(op))]
    if refusals:
        raise ConfigError("\n".join(refusals))


def check_candidates(operations: Sequence[Operation], candidates: Sequence[Candidate]) -> None:
    """Refuse operations that none of the backends can do together. One that can is enough.

    Raises ConfigError that says of each backend what it cannot do.
    """
    refusals: list[str] = []
    for candidate in candidates:
        try:
            check_operations(operations, candidate.backend)
        except ConfigError as error:
            refusals.append(str(error))
        else:
            return
    raise ConfigError("\n".join(refusals))
