"""What to do next with a run: a pure function of its state, the time, and a few limits. The engine acts on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from lowtide.budget.caps import Room
from lowtide.money import exact
from lowtide.shards import Phase, ShardState
from lowtide.states import RunState

CLOCK_SKEW = 300.0
"""Seconds by which the clocks of two machines may differ without a claim of one being broken by the other."""


@dataclass(frozen=True, slots=True)
class Build:
    """Read documents and build shards, from where the last builder stopped."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """A stale intent: find out whether its create call was accepted."""

    shard: int


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask the provider where the batch stands; `stop` if it is to be cancelled as well."""

    shard: int
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Collect:
    """Fetch and keep what an ended batch has answered."""

    shard: int


@dataclass(frozen=True, slots=True)
class Reopen:
    """Build another attempt from the unanswered rows of a settled shard."""

    shard: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Give the rows of a shard that will not be asked their final status, for this reason; "" if there are none.

    `detail` is what the rows say where the reason alone would say too little.
    """

    shard: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Submit:
    """Create a batch for a shard, reserving so much for it; or ask its records one by one, if they are too few."""

    shard: int
    reserve: Decimal
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Drain:
    """A batch that nobody waits for: stop it, and once it has ended count what it cost."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Replace the window's tables by this run's rows."""


Action = Build | Resolve | Poll | Collect | Reopen | Settle | Submit | Drain | Publish


@dataclass(frozen=True, slots=True)
class Rules:
    """What bounds a run. `grace` in seconds; `price_of` gives what a shard's attempt may cost at most, in USD, and is
    told whether it would be `alone`: with no other batch out.

    A shard of fewer than `minimum_records` is asked on demand. `cap` is the run's own; `rooms` are what the caps of the
    root have left for it, with what is `held` for shards, by their numbers, taken off. Without `approved`, nothing is
    submitted.
    """

    attempts: int
    grace: float
    live_batches: int
    consistent_lookup: bool
    cap: Decimal | None
    price_of: Callable[[ShardState, bool], Decimal]
    minimum_records: int = 1
    rooms: tuple[Room, ...] = ()
    held: Mapping[int, Decimal] = field(default_factory=dict)
    approved: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What can be done now. With no actions, the run is `done`, or waits for others, for a provider or for a time.

    `over_budget`: some shards do not fit into the caps; `over_root`: not into those of the root.
    """

    actions: tuple[Action, ...]
    done: bool = False
    over_budget: bool = False
    over_root: bool = False


def decide(
    state: RunState, *, now: float, rules: Rules, spent: Decimal, stale: Callable[[str, float], bool]
) -> Decision:
    """The actions that are possible now, those first that bring in what is already paid for.

    `stale(owner, expires)` says whether a claim no longer holds. `spent` is what the run has cost so far, in USD.
    """
    if state.cancelled and not state.build_finished:
        return Decision((), done=True)
    actions: list[Action] = []
    shards = state.shards.values()
    actions += [Resolve(s.number) for s in shards if _can_resolve(s, now, rules, stale)]
    actions += [Poll(s.number, stop=state.cancelled) for s in shards if s.phase is Phase.SUBMITTED]
    actions += [Collect(s.number) for s in shards if s.phase in (Phase.ENDED, Phase.COLLECTED)]
    actions += [Drain(surplus.batch_id) for surplus in state.surplus]
    if not state.build_finished:
        if not state.builder or stale(state.builder, state.builder_expires):
            actions.append(Build())
        return Decision(tuple(actions))
    actions += [Reopen(s.number) for s in shards if _can_reopen(s, state)]
    submissions = _submissions(state, now, rules, spent)
    actions += submissions.actions
    if state.settled and not actions:
        if state.published_at:
            return Decision((), done=True, over_budget=submissions.over_budget)
        actions.append(Publish())
    return Decision(tuple(actions), over_budget=submissions.over_budget, over_root=submissions.over_root)


def _can_reopen(shard: ShardState, state: RunState) -> bool:
    if shard.phase is not Phase.SETTLED or not shard.remaining or state.cancelled:
        return False
    return shard.reopenings < state.extra_attempts and bool(shard.given_up or state.reopen_everything)


def _can_resolve(shard: ShardState, now: float, rules: Rules, stale: Callable[[str, float], bool]) -> bool:
    if shard.phase is not Phase.SUBMITTING or not stale(shard.owner, shard.expires + CLOCK_SKEW):
        return False
    return rules.consistent_lookup or not shard.missing_since or now - shard.missing_since >= rules.grace


def _submissions(state: RunState, now: float, rules: Rules, spent: Decimal) -> Decision:
    """Which shards to submit within the caps and the provider's room, and which to give up."""
    ready = [s for s in state.shards.values() if s.phase is Phase.BUILT]
    live = sum(s.phase in (Phase.SUBMITTING, Phase.SUBMITTED) for s in state.shards.values())
    working = live + sum(s.phase in (Phase.ENDED, Phase.COLLECTED) for s in state.shards.values())
    purse = Purse(rules.cap, spent, state.reserved, rules.rooms)
    actions: list[Action] = []
    unaffordable: list[Settle] = []
    over_root = False
    for shard in ready:
        if not shard.records:
            actions.append(Settle(shard.number, ""))
            continue
        if state.cancelled:
            actions.append(Settle(shard.number, "cancelled"))
            continue
        if not rules.approved:
            working += 1
            continue
        reserve, held = rules.price_of(shard, live == 0), rules.held.get(shard.number, Decimal(0))
        if room := purse.too_small(reserve, held):
            unaffordable.append(Settle(shard.number, "budget", f"budget: {room.refusal(reserve)}"))
            over_root |= room.by_root
        elif live < rules.live_batches and now >= shard.not_before:
            actions.append(Submit(shard.number, reserve, on_demand=shard.records < rules.minimum_records))
            live += 1
            working += 1
            purse.take(reserve, held)
        else:
            working += 1
    if unaffordable and not working:
        actions += unaffordable
    return Decision(tuple(actions), over_budget=bool(unaffordable), over_root=over_root)


class Purse:
    """What a run may still reserve: within its own cap, and within what the caps of its root have left."""

    def __init__(self, cap: Decimal | None, spent: Decimal, reserved: Decimal, rooms: Sequence[Room]) -> None:
        self._own = None if cap is None else own_room(cap, spent, reserved)
        self._rooms = rooms
        self._taken = self._taken_of_root = Decimal(0)

    def too_small(self, reserve: Decimal, held: Decimal) -> Room | None:
        """The cap that does not allow it, the run's own first; None if all do. The root has `held` for it already."""
        if self._own is not None and self._taken + reserve > self._own.left:
            return self._own
        needed = self._taken_of_root + max(reserve - held, Decimal(0))
        return next((room for room in self._rooms if needed > room.left), None)

    def take(self, reserve: Decimal, held: Decimal) -> None:
        """Reserve it."""
        self._taken += reserve
        self._taken_of_root += max(reserve - held, Decimal(0))


def own_room(cap: Decimal, spent: Decimal, reserved: Decimal) -> Room:
    """What the run's own cap has left."""
    return Room(f"run_usd {exact(cap)} USD of this run", cap, spent, reserved, by_root=False)
