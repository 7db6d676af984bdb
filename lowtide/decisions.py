"""What to do next with a run: a pure function of its state, the time, and a few limits. The engine acts on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

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
    """Give the rows of a shard that will not be asked their final status, for this reason; "" if there are none."""

    shard: int
    reason: str


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
    """What bounds a run. `grace` in seconds; `price_of` gives what a shard's attempt may cost at most, in USD.

    A shard of fewer than `minimum_records` is asked on demand.
    """

    attempts: int
    grace: float
    live_batches: int
    consistent_lookup: bool
    cap: Decimal | None
    price_of: Callable[[ShardState], Decimal]
    minimum_records: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What can be done now. With no actions, the run is `done`, or waits for others, for a provider or for a time."""

    actions: tuple[Action, ...]
    done: bool = False
    over_budget: bool = False


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
    return Decision(tuple(actions), over_budget=submissions.over_budget)


def _can_reopen(shard: ShardState, state: RunState) -> bool:
    if shard.phase is not Phase.SETTLED or not shard.remaining or state.cancelled:
        return False
    return shard.reopenings < state.extra_attempts and bool(shard.given_up or state.reopen_everything)


def _can_resolve(shard: ShardState, now: float, rules: Rules, stale: Callable[[str, float], bool]) -> bool:
    if shard.phase is not Phase.SUBMITTING or not stale(shard.owner, shard.expires + CLOCK_SKEW):
        return False
    return rules.consistent_lookup or not shard.missing_since or now - shard.missing_since >= rules.grace


def _submissions(state: RunState, now: float, rules: Rules, spent: Decimal) -> Decision:
    """Which shards to submit within the cap and the provider's room, and which to give up."""
    ready = [s for s in state.shards.values() if s.phase is Phase.BUILT]
    live = sum(s.phase in (Phase.SUBMITTING, Phase.SUBMITTED) for s in state.shards.values())
    working = live + sum(s.phase in (Phase.ENDED, Phase.COLLECTED) for s in state.shards.values())
    committed = spent + state.reserved
    actions: list[Action] = []
    unaffordable: list[ShardState] = []
    for shard in ready:
        if not shard.records:
            actions.append(Settle(shard.number, ""))
            continue
        if state.cancelled:
            actions.append(Settle(shard.number, "cancelled"))
            continue
        reserve = rules.price_of(shard)
        if rules.cap is not None and committed + reserve > rules.cap:
            unaffordable.append(shard)
        elif live < rules.live_batches and now >= shard.not_before:
            actions.append(Submit(shard.number, reserve, on_demand=shard.records < rules.minimum_records))
            live += 1
            working += 1
            committed += reserve
        else:
            working += 1
    if unaffordable and not working:
        actions += [Settle(shard.number, "budget") for shard in unaffordable]
    return Decision(tuple(actions), over_budget=bool(unaffordable))
