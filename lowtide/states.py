"""The state of a run: a pure fold over its events.

A shard goes round like this; every arrow is an event, and what is not drawn cannot happen:

    built ──submitting──► submitting ──submitted──► submitted ──ended──► ended ──collected──► collected
      ▲  ▲                    │  ▲ │                                                            │   │
      │  └─refused, absent────┘  └─┴─missing                                  retrying ◄────────┘   │ settled
      └──────────────────────────────────────────────────────────────────────────┘                  ▼
    built ──settled──► settled  (nothing to ask, cancelled, or over budget)                      settled
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from lowtide import events as e
from lowtide.errors import CorruptJournal
from lowtide.shards import Attempt, Phase, ShardState

BUILD_LEASE = 60.0
"""Seconds for which a builder on another machine is believed to be at work after its last sign of life."""


_IN_FLIGHT = (Phase.SUBMITTING, Phase.SUBMITTED, Phase.ENDED)

TRANSITIONS: dict[tuple[Phase, type[e.Event]], Phase] = {
    (Phase.BUILT, e.Submitting): Phase.SUBMITTING,
    (Phase.BUILT, e.Settled): Phase.SETTLED,
    (Phase.SUBMITTING, e.Submitted): Phase.SUBMITTED,
    (Phase.SUBMITTING, e.Missing): Phase.SUBMITTING,
    (Phase.SUBMITTING, e.Absent): Phase.BUILT,
    (Phase.SUBMITTING, e.Refused): Phase.BUILT,
    (Phase.SUBMITTED, e.Ended): Phase.ENDED,
    (Phase.ENDED, e.Collected): Phase.COLLECTED,
    (Phase.COLLECTED, e.Retrying): Phase.BUILT,
    (Phase.COLLECTED, e.Settled): Phase.SETTLED,
    (Phase.SETTLED, e.Retrying): Phase.BUILT,
}


class RunState(msgspec.Struct, frozen=True):
    """A run after entry `entry` of its journal."""

    entry: int = 0
    started_at: float = 0.0
    requested_at: float = 0.0
    builder: str = ""
    builder_expires: float = 0.0
    build_finished: bool = False
    documents: int = 0
    file: int = 0
    document: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    cancelled: bool = False
    approved_usd: Decimal | None = None
    extra_attempts: int = 0
    reopen_everything: bool = False
    kept: bool = False
    published_at: float = 0.0
    published_counts: dict[str, int] = msgspec.field(default_factory=dict)
    shards: dict[int, ShardState] = msgspec.field(default_factory=dict)
    attempts: dict[str, Attempt] = msgspec.field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """All documents are in shards, no shard waits for anything, and no batch is left running."""
        shards = self.build_finished and all(s.phase is Phase.SETTLED for s in self.shards.values())
        return shards and not self.surplus

    @property
    def surplus(self) -> list[Attempt]:
        """Batches that nobody waits for, and that are not known to have ended."""
        return [attempt for attempt in self.attempts.values() if attempt.surplus and not attempt.collected_at]

    @property
    def places(self) -> set[str]:
        """Where batches may lie that are not collected yet."""
        out = (Phase.SUBMITTING, Phase.SUBMITTED, Phase.ENDED)
        shards = (place for s in self.shards.values() if s.phase in out for place in s.places)
        return {*shards, *(place for attempt in self.surplus for place in attempt.places)}

    @property
    def reserved(self) -> Decimal:
        """What open attempts, and those of which nobody knows what they have cost, may still cost, in USD."""
        intended = (s.reserved for s in self.shards.values() if s.phase is Phase.SUBMITTING)
        return sum((attempt.may_cost for attempt in self.attempts.values()), sum(intended, Decimal(0)))


class IllegalEvent(CorruptJournal):
    """An event does not fit the state that it would follow. For a writer: somebody else was faster."""


def apply(state: RunState, entry: int, happened: Iterable[e.AnyEvent]) -> RunState:
    """The state after one more journal entry. Raises IllegalEvent, leaving `state` as it was."""
    return fold(state, [(entry, tuple(happened))])


def fold(state: RunState, entries: Iterable[tuple[int, tuple[e.AnyEvent, ...]]]) -> RunState:
    """The state after more journal entries, each a number and its events. Pure: `state` is not changed."""
    draft = _Draft(state)
    for number, happened in entries:
        for event in happened:
            draft.take(event)
        draft.run["entry"] = number
    return draft.freeze()


def _key(shard: int, attempt: int) -> str:
    return f"{shard}-{attempt}"


class _Draft:
    """A state in the making: one copy of the shards for any number of events."""

    def __init__(self, state: RunState) -> None:
        self._base = state
        self.run: dict[str, object] = {}
        self.shards = dict(state.shards)
        self.attempts = dict(state.attempts)

    def freeze(self) -> RunState:
        return msgspec.structs.replace(self._base, shards=self.shards, attempts=self.attempts, **self.run)

    def take(self, event: e.AnyEvent) -> None:  # noqa: PLR0912 - one case for each kind of event
        match event:
            case e.Requested():
                # Order says what came first. Clocks of two machines do not.
                self.run |= {"requested_at": event.at, "published_at": 0.0}
                if not (self._base.started_at or "started_at" in self.run):
                    self.run["started_at"] = event.at
            case e.Building():
                self.run |= {"builder": event.owner, "builder_expires": event.expires}
            case e.ShardBuilt():
                self._shard_built(event)
            case e.BuildFinished():
                if self.run.get("build_finished", self._base.build_finished):
                    raise IllegalEvent("the build is already finished")
                self.run |= {"build_finished": True, "documents": event.documents, "bytes_read": event.bytes_read}
                self.run |= {"builder": "", "builder_expires": 0.0}
            case e.Approved():
                self.run["approved_usd"] = event.usd
            case e.CancelRequested():
                self.run["cancelled"] = True
            case e.Reopened():
                self.run |= {"cancelled": False, "published_at": 0.0, "reopen_everything": event.everything}
                self.run["extra_attempts"] = self._get_extra() + 1
                for number, shard in self.shards.items():
                    if shard.phase in _IN_FLIGHT:
                        self.shards[number] = msgspec.structs.replace(shard, base=shard.attempt)
            case e.Published():
                self.run |= {"published_at": event.at, "published_counts": event.counts}
                self.run |= {"bytes_written": event.bytes_written, "kept": event.kept}
            case e.Surplus() | e.Drained() | e.Counted():
                self._beside(event)
            case _:
                self._shard(event)

    def _get_extra(self) -> int:
        value = self.run.get("extra_attempts", self._base.extra_attempts)
        return value if isinstance(value, int) else 0

    def _shard_built(self, event: e.ShardBuilt) -> None:
        if event.shard != len(self.shards) + 1 or self.run.get("build_finished", self._base.build_finished):
            raise IllegalEvent(f"shard {event.shard} was built out of turn: {len(self.shards)} are known")
        self.shards[event.shard] = ShardState(
            number=event.shard,
            phase=Phase.BUILT,
            since=event.at,
            documents=event.documents,
            total=event.records,
            attempt=1,
            records=event.records,
            size=event.size,
            requests=event.requests,
            first_requests=event.requests,
            index=event.index,
            built_at=event.at,
            input_tokens=event.input_tokens,
            text_bytes=event.text_bytes,
            reused=event.reused,
            reused_rows=event.reused_rows,
            saved=event.saved,
            twins=event.twins,
            twin_rows=event.twin_rows,
        )
        self.run |= {"file": event.file, "document": event.document, "builder": event.owner}
        self.run["builder_expires"] = event.at + BUILD_LEASE

    def _beside(self, event: e.Surplus | e.Drained | e.Counted) -> None:
        match event:
            case e.Surplus():
                self._surplus(event)
            case e.Drained():
                self._drained(event)
            case e.Counted():
                self._counted(event)

    def _surplus(self, event: e.Surplus) -> None:
        kept = self.attempts.get(_key(event.shard, event.attempt))
        if (
            event.shard not in self.shards
            or event.batch_id in self.attempts
            or (kept is not None and kept.batch_id == event.batch_id)
        ):
            raise IllegalEvent(f"batch {event.batch_id} is known already")
        shard = self.shards[event.shard]
        alike = kept.reserved if kept is not None else shard.reserved if shard.attempt == event.attempt else Decimal(0)
        self.attempts[event.batch_id] = Attempt(
            event.shard,
            event.attempt,
            0,
            event.batch_id,
            event.at,
            event.reserved or alike,
            on_demand=event.on_demand,
            surplus=True,
            places=shard.places,
        )

    def _drained(self, event: e.Drained) -> None:
        surplus = self.attempts.get(event.batch_id)
        if surplus is None or surplus.collected_at:
            raise IllegalEvent(f"batch {event.batch_id} is no surplus batch that is open")
        self.attempts[event.batch_id] = msgspec.structs.replace(
            surplus,
            ended_at=event.at,
            collected_at=event.at,
            outcome=event.outcome,
            tallies=event.tallies,
            compute_seconds=event.compute_seconds,
            compute=event.compute,
            region=event.region,
        )

    def _counted(self, event: e.Counted) -> None:
        key = _key(event.shard, event.attempt)
        attempt = self.attempts.get(key)
        if attempt is None or not attempt.ended_at or attempt.known_at:
            raise IllegalEvent(f"attempt {event.attempt} of shard {event.shard} is not one that has ended uncounted")
        self.attempts[key] = msgspec.structs.replace(attempt, counted_at=event.at, tallies=event.tallies)

    def _shard(self, event: e.AnyEvent) -> None:
        number: int = event.shard  # type: ignore[union-attr]  # the run's own events were matched before
        shard = self.shards.get(number)
        if shard is None:
            raise IllegalEvent(f"{type(event).__name__} names shard {number}, which was never built")
        phase = TRANSITIONS.get((shard.phase, type(event)))
        if phase is None:
            raise IllegalEvent(f"{type(event).__name__} cannot follow {shard.phase.value!r} of shard {number}")
        expected = shard.attempt + 1 if isinstance(event, e.Retrying) else shard.attempt
        if getattr(event, "attempt", expected) != expected:
            raise IllegalEvent(f"{type(event).__name__} names another attempt than {expected} of shard {number}")
        changes = {"phase": phase, "since": event.at} | self._changes(shard, event)
        self.shards[number] = msgspec.structs.replace(shard, **changes)

    def _changes(self, shard: ShardState, event: e.AnyEvent) -> dict[str, object]:
        match event:
            case e.Submitting():
                return {
                    "owner": event.owner,
                    "expires": event.expires,
                    "reserved": event.reserved,
                    "intended_at": event.at,
                    "on_demand": event.on_demand,
                    "places": event.places,
                    "missing_since": 0.0,
                }
            case e.Missing():
                return {"missing_since": shard.missing_since or event.at, "since": shard.since}
            case e.Absent():
                # Once may be an accident; a create call that fails time and again is given more and more time.
                pause = 5.0 * (1 << min(shard.absences, 6)) if shard.absences else 0.0
                return {
                    "owner": "",
                    "reserved": Decimal(0),
                    "reason": "the create call was not accepted",
                    "absences": shard.absences + 1,
                    "not_before": event.at + pause if pause else shard.not_before,
                }
            case e.Refused():
                return {
                    "owner": "",
                    "reserved": Decimal(0),
                    "refusals": shard.refusals + 1,
                    "reason": event.reason,
                    "not_before": event.not_before,
                }
            case e.Submitted():
                # A create call that is sent again may bring back the batch that was taken for a surplus one.
                self.attempts.pop(event.batch_id, None)
                self.attempts[_key(shard.number, shard.attempt)] = Attempt(
                    shard.number,
                    shard.attempt,
                    shard.records,
                    event.batch_id,
                    event.at,
                    shard.reserved,
                    shard.intended_at,
                    on_demand=shard.on_demand,
                )
                return {"batch_id": event.batch_id, "owner": "", "refusals": 0, "reason": "", "reserved": Decimal(0)}
            case e.Ended():
                self._attempt(
                    shard,
                    ended_at=event.at,
                    outcome=event.outcome,
                    compute_seconds=event.compute_seconds,
                    compute=event.compute,
                    region=event.region,
                )
                said = {"charged": event.charged, "usage": event.usage, "fault": event.fault}
                return {"outcome": event.outcome, "reason": event.reason, **said}
            case e.Collected():
                self._attempt(shard, collected_at=event.at, tallies=event.tallies, unknown=event.unknown)
                answers = (*shard.answers, event.answers) if event.answers else shard.answers
                return {"remaining": event.remaining, "answers": answers, "counts": event.counts}
            case e.Retrying():
                return {
                    "attempt": event.attempt,
                    "requests": event.requests,
                    "records": event.records,
                    "size": event.size,
                    "batch_id": "",
                    "outcome": "",
                    "rows": "",
                    "given_up": "",
                    "not_before": event.not_before,
                    "intended_at": 0.0,
                    "absences": 0,
                    "charged": None,
                    "usage": None,
                    "fault": "",
                    "idle": shard.idle + 1 if event.free else 0,
                    "base": shard.attempt if shard.phase is Phase.SETTLED else shard.base + event.free,
                    "reopenings": self._get_extra(),
                }
            case e.Settled():
                left = shard.records if shard.phase is Phase.BUILT else shard.remaining
                return {
                    "rows": event.rows,
                    "counts": event.counts,
                    "remaining": left if event.remaining is None else event.remaining,
                    "given_up": event.given_up,
                    "reopenings": self._get_extra(),
                }
            case _:
                return {}

    def _attempt(self, shard: ShardState, **changes: object) -> None:
        key = _key(shard.number, shard.attempt)
        self.attempts[key] = msgspec.structs.replace(self.attempts[key], **changes)
