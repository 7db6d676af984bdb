"""What can happen to a run. Events are written once, in order, and never changed.

Times (`at`, `expires`) are seconds since the epoch by the writer's clock. `shard` numbers start at 1, `attempt` at 1.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from lowtide.records import Compute, Fault, Usage


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=True, omit_defaults=True, kw_only=True):
    """Base of all events."""

    at: float


class Requested(Event, frozen=True, tag="requested"):
    """Somebody asked for this run, for the first time or again."""


class Building(Event, frozen=True, tag="building"):
    """`owner` reads documents and builds shards, and is believed to be at it until `expires`."""

    owner: str
    expires: float


class Tally(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens that the provider counted in one attempt. `waste` is "" for tokens that ended in a kept answer."""

    token_type: str
    quantity: int
    waste: str = ""


class ShardBuilt(Event, frozen=True, tag="shard_built"):
    """A shard's files are complete: `requests` and `index` are paths under the run.

    `documents` counts index rows, `records` the request lines. `file` and `document` say where the next shard starts:
    the ordinal of the file among the run's inputs, and how many of its documents are in shards already.

    `reused` counts requests whose answers an earlier run has bought: `reused_rows` is the file of their rows, and
    `saved` are the tokens that they had cost. `twins` counts requests that are the same as one before them in this run:
    the file `twin_rows` says which. `text_bytes` are the UTF-8 bytes of the text in all request lines.
    """

    shard: int
    documents: int
    records: int
    size: int
    requests: str
    index: str
    file: int
    document: int
    owner: str
    input_tokens: int = 0
    text_bytes: int = 0
    reused: int = 0
    reused_rows: str = ""
    saved: tuple[Tally, ...] = ()
    twins: int = 0
    twin_rows: str = ""


class BuildFinished(Event, frozen=True, tag="build_finished"):
    """Every document is in a shard."""

    documents: int
    bytes_read: int = 0
    seconds: float = 0.0


class Submitting(Event, frozen=True, tag="submitting"):
    """Written before the create call: `owner` is about to create a batch for this attempt.

    `on_demand` says that its records are too few for a batch, and are asked one by one. `places` are where the batch
    may lie: it can be looked for there, and nowhere else.
    """

    shard: int
    attempt: int
    token: str
    owner: str
    expires: float
    reserved: Decimal = Decimal(0)
    on_demand: bool = False
    places: tuple[str, ...] = ()


class Missing(Event, frozen=True, tag="missing"):
    """A look-up for a stale intent found nothing. Not yet proof: listings lag."""

    shard: int
    attempt: int


class Absent(Event, frozen=True, tag="absent"):
    """Look-ups over the grace period found nothing: the create call was not accepted."""

    shard: int
    attempt: int


class Refused(Event, frozen=True, tag="refused"):
    """The provider said no to the create call, so nothing was accepted. Not tried again before `not_before`."""

    shard: int
    attempt: int
    reason: str
    not_before: float = 0.0


class Submitted(Event, frozen=True, tag="submitted"):
    """The provider has accepted the batch."""

    shard: int
    attempt: int
    batch_id: str


class Ended(Event, frozen=True, tag="ended"):
    """The provider will do no more on this batch, whatever it calls that. The rest is as in `records.BatchStatus`."""

    shard: int
    attempt: int
    outcome: str
    provider_state: str
    reason: str = ""
    compute_seconds: int = 0
    charged: int | None = None
    usage: Usage | None = None
    fault: Fault = ""
    region: str = ""
    compute: tuple[Compute, ...] = ()


class Collected(Event, frozen=True, tag="collected"):
    """The attempt's answers are stored. `answers` is "" when the shard is settled in the same entry.

    `counts` are records by what became of them; `remaining` may be asked again. `unknown` says that what the provider
    has done, and bills, could not be found out.
    """

    shard: int
    attempt: int
    remaining: int
    counts: dict[str, int]
    tallies: tuple[Tally, ...]
    answers: str = ""
    raw_bytes: int = 0
    unknown: bool = False


class Counted(Event, frozen=True, tag="counted"):
    """The tokens of a batch that has ended are known; its answers are not collected, and may never be."""

    shard: int
    attempt: int
    tallies: tuple[Tally, ...]


class Retrying(Event, frozen=True, tag="retrying"):
    """Attempt number `attempt` is built from what the last one left unanswered.

    It is not submitted before `not_before`. `free` says that the last one was never begun, and does not count.
    """

    shard: int
    attempt: int
    requests: str
    records: int
    size: int
    not_before: float = 0.0
    free: bool = False


class Surplus(Event, frozen=True, tag="surplus"):
    """A batch beside the one that the attempt goes on with: it is stopped, and what it cost is put into the ledger.

    It may cost up to `reserved`; where that is not said, what the other one may.
    """

    shard: int
    attempt: int
    batch_id: str
    on_demand: bool = False
    reserved: Decimal = Decimal(0)


class Drained(Event, frozen=True, tag="drained"):
    """A surplus batch has ended; `tallies` are all of its tokens."""

    batch_id: str
    outcome: str
    tallies: tuple[Tally, ...] = ()
    compute_seconds: int = 0
    region: str = ""
    compute: tuple[Compute, ...] = ()


class Settled(Event, frozen=True, tag="settled"):
    """Every row of the shard has its final status; `rows` is their file.

    `given_up` says why rows were not asked that could have been: `budget`, `cancelled`, or "". `remaining` may be asked
    again, those whose answers were lost included; without it, what the last attempt has left.
    """

    shard: int
    rows: str
    counts: dict[str, int]
    given_up: str = ""
    remaining: int | None = None


class Reopened(Event, frozen=True, tag="reopened"):
    """Rows of settled shards that got no answer may be asked again, up to `attempts` times more.

    Those that were given up, or with `everything` those whose attempts were used up as well.
    """

    attempts: int
    everything: bool = False


class Approved(Event, frozen=True, tag="approved"):
    """Somebody has approved what the run was expected to cost by then. `by` is who, as far as is known."""

    usd: Decimal
    by: str = ""


class CancelRequested(Event, frozen=True, tag="cancel_requested"):
    """Somebody wants the run to stop: nothing more is submitted, what was answered is kept."""


class Published(Event, frozen=True, tag="published"):
    """The window's tables hold this run's rows.

    With `kept`, another run's results were left where they are, since this run is not complete.
    """

    rows: int
    counts: dict[str, int]
    bytes_written: int = 0
    kept: bool = False


AnyEvent = (
    Requested
    | Building
    | ShardBuilt
    | BuildFinished
    | Submitting
    | Missing
    | Absent
    | Refused
    | Submitted
    | Ended
    | Collected
    | Counted
    | Retrying
    | Surplus
    | Drained
    | Settled
    | Reopened
    | Approved
    | CancelRequested
    | Published
)
