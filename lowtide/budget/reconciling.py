"""What a run's journal says of its reservations: which are used up, which were never used, and which may still cost.

Every reservation has an intent in its run's journal before it, and every settlement an end there. So whoever finds an
account with open reservations can close those whose end was not written into it, whoever died in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from lowtide.budget.account import Account, AccountState, Payer, Release, Settle
from lowtide.budget.caps import month_of
from lowtide.errors import CorruptJournal, NotFound
from lowtide.journal import Journal
from lowtide.plan import RunPlan
from lowtide.prices import Price
from lowtide.protocols import Store
from lowtide.shards import Attempt, Phase, ShardState
from lowtide.states import RunState

_OUT = (Phase.SUBMITTING, Phase.SUBMITTED, Phase.ENDED)
_TOKEN = re.compile(r".*-s(\d+)-a(\d+)")


def payer_of(plan: RunPlan) -> Payer:
    """The run as the account knows it."""
    return Payer(plan.prefix, plan.job, plan.tags)


def name_of(plan: RunPlan, attempt: Attempt) -> str:
    """What the attempt's reservation is called in the account."""
    token = plan.token(attempt.shard, attempt.attempt)
    return f"{token}/{attempt.batch_id}" if attempt.surplus else token


def cost_of(attempt: Attempt, price: Price) -> Decimal:
    """USD that the provider bills for an attempt, waste included; where nobody could find out, what it may bill."""
    at = price.of(on_demand=attempt.on_demand)
    if at.by_time:
        return max(attempt.compute_usd, attempt.may_cost)
    tokens = sum((at.unit(tally.token_type) * tally.quantity for tally in attempt.tallies), Decimal(0))
    return max(tokens + at.unit("compute_second") * attempt.compute_seconds, attempt.may_cost)


def closings(
    plan: RunPlan, state: RunState, price: Price, account: AccountState, month: str, *, in_hand: bool
) -> list[Settle | Release]:
    """What a run's journal closes in a month of the account.

    With `in_hand`, attempts that were refused and will be tried again keep their reservations.
    """
    settled = list(_settlements(plan, state, price, account, month))
    ended = {change.id for change in settled}
    released = _releases(plan, state, account, in_hand=in_hand)
    return [*settled, *(change for change in released if change.id not in ended)]


def _settlements(plan: RunPlan, state: RunState, price: Price, account: AccountState, month: str) -> Iterator[Settle]:
    for attempt in state.attempts.values():
        name = name_of(plan, attempt)
        line = account.lines.get(name)
        if (
            attempt.known_at
            and month_of(attempt.reserved_at or attempt.submitted_at) == month
            and not (line and line.settled)
        ):
            yield Settle(name, cost_of(attempt, price))


def _releases(plan: RunPlan, state: RunState, account: AccountState, *, in_hand: bool) -> Iterator[Release]:
    # What was taken for a surplus batch, and is the one that its attempt goes on with.
    adopted = {f"{name_of(plan, attempt)}/{attempt.batch_id}" for attempt in state.attempts.values()}
    for name, line in account.open.items():
        if name in adopted:
            yield Release(name)
            continue
        found = _TOKEN.fullmatch(name) if line.run == plan.prefix else None
        if found is None:
            continue
        number, attempt = int(found[1]), int(found[2])
        shard = state.shards.get(number)
        # Another token: the root was emptied since, and nothing is known of the batch.
        if shard is None or shard.attempt < attempt or name != plan.token(number, attempt):
            continue
        if not _may_cost(shard, attempt, in_hand=in_hand):
            yield Release(name)


def _may_cost(shard: ShardState, attempt: int, *, in_hand: bool) -> bool:
    """Whether a batch of the attempt may be out, or soon will be."""
    return shard.attempt == attempt and (shard.phase in _OUT or (in_hand and shard.phase is Phase.BUILT))


def reconcile_account(account: Account, store: Store, *, at: float) -> None:
    """Close the reservations whose runs say, in their journals, that nothing more will come of them.

    Reads the journals of runs with open reservations, and changes none. A reservation whose batch may be out stays: its
    run must be advanced or cancelled. Whatever is reserved anew meanwhile stays as well.
    """
    seen = account.refresh()
    for run in {line.run for line in seen.open.values()}:
        plan = _read_plan(store, run)
        if plan is None or plan.price is None:
            continue
        journal = Journal(store, run, "")
        try:
            state = journal.refresh()
        except CorruptJournal:
            # It is its own run's trouble; until then its money is taken for spent.
            continue
        due = closings(plan, state, plan.price.price(), seen, account.month, in_hand=False)
        account.close(payer_of(plan), due, at=at, seen=seen)


def _read_plan(store: Store, run: str) -> RunPlan | None:
    try:
        return msgspec.json.decode(store.read(f"{run}/plan.json"), type=RunPlan)
    except (NotFound, msgspec.DecodeError):
        return None
