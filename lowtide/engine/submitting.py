"""Submitting and looking up: the two steps where money is spent, and where "unknown" is an outcome of its own.

The intent is in the journal before the create call. What happens between the two is found out, never guessed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from lowtide import events as e
from lowtide.decisions import CLOCK_SKEW, Submit
from lowtide.engine.context import Context
from lowtide.engine.spending import Spending
from lowtide.errors import QuotaFull, SubmitUnknown, Terminal, Transient
from lowtide.journal import Superseded
from lowtide.ledger import spent
from lowtide.records import Shard
from lowtide.shards import Phase, ShardState
from lowtide.states import RunState

INTENT_LEASE = 600.0
"""Seconds that a create call, the upload included, may take before others look whether it was accepted."""

_LONGEST_PAUSE = 300.0


def submit(context: Context, action: Submit, spending: Spending) -> None:
    """Create a batch for the shard. Raises Terminal if the provider refuses for good; the shard can be tried again.

    The intent goes first, so that whoever finds the reservation knows whose it is; where a cap of the root has no room
    for it by then, the intent is taken back.
    """
    shard = context.state.shards[action.shard]
    now = context.clock()
    intent = e.Submitting(
        at=now,
        shard=shard.number,
        attempt=shard.attempt,
        token=context.plan.token(shard.number, shard.attempt),
        owner=context.owner,
        expires=now + INTENT_LEASE,
        reserved=action.reserve,
        on_demand=action.on_demand,
        places=context.backend.places,
    )
    context.journal.append(
        intent,
        guard=lambda state: state.shards[shard.number] == shard and _still_allowed(context, state, action.reserve),
    )
    denied = spending.reserve(shard, action.reserve, now)
    if denied:
        _refused(context, shard, f"budget: {denied}", pause=growing_pause(shard.refusals))
        return
    if context.clock() > intent.expires:
        # Suspended since the intent was written: others may have looked, and concluded that nobody submits.
        context.journal.refresh()
        spending.settle()
        return
    try:
        batch_id = context.backend.submit(_handle(context, shard, action, capped=bool(spending.caps)), intent.token)
    except SubmitUnknown:
        return
    except (QuotaFull, Transient, Terminal) as error:
        pause = 0.0 if isinstance(error, Terminal) else growing_pause(shard.refusals)
        _refused(context, shard, str(error), pause=pause)
        if isinstance(error, Terminal):
            raise
        return
    try:
        context.journal.append(
            e.Submitted(at=context.clock(), shard=shard.number, attempt=shard.attempt, batch_id=batch_id)
        )
    except Superseded:
        # Another process has not waited for this batch. It may be adopted by now; if not, it runs for nobody.
        leave(context, msgspec.structs.replace(shard, reserved=action.reserve), [batch_id], on_demand=action.on_demand)
        spending.settle()
        raise


def _refused(context: Context, shard: ShardState, reason: str, *, pause: float) -> None:
    """Take our intent back: nothing was accepted."""
    now = context.clock()
    context.journal.append(
        e.Refused(
            at=now, shard=shard.number, attempt=shard.attempt, reason=reason, not_before=now + pause if pause else 0
        ),
        guard=lambda state: state.shards[shard.number].owner == context.owner,
    )


def leave(context: Context, shard: ShardState, batch_ids: Sequence[str], *, on_demand: bool) -> None:
    """Note batches that nobody waits for, so that they are stopped, and what they cost is not forgotten.

    Each may cost what is reserved for the shard, or was for the batch that its attempt goes on with.
    """
    kept = context.state.attempts.get(f"{shard.number}-{shard.attempt}")
    for batch_id in batch_ids:
        with contextlib.suppress(Superseded):
            context.journal.append(
                e.Surplus(
                    at=context.clock(),
                    shard=shard.number,
                    attempt=shard.attempt,
                    batch_id=batch_id,
                    on_demand=on_demand,
                    reserved=shard.reserved or (kept.reserved if kept is not None else Decimal(0)),
                )
            )


def growing_pause(times: int) -> float:
    """Seconds to wait after so many noes in a row: 5, then twice as long each time, at most five minutes."""
    return min(5.0 * float(1 << min(times, 10)), _LONGEST_PAUSE)


def _still_allowed(context: Context, state: RunState, reserve: Decimal) -> bool:
    """Whether the cap and the provider's room still hold after what others have done meanwhile."""
    if state.cancelled:
        return False
    live = sum(s.phase in (Phase.SUBMITTING, Phase.SUBMITTED) for s in state.shards.values())
    if live >= context.backend.limits.live_batches:
        return False
    cap = context.work.run_usd
    return cap is None or spent(state, context.work.price) + state.reserved + reserve <= cap


def _handle(context: Context, shard: ShardState, action: Submit, *, capped: bool) -> Shard:
    path = context.path(shard.requests)
    return Shard(
        run_id=context.plan.run_id,
        number=shard.number,
        attempt=shard.attempt,
        records=shard.records,
        size=shard.size,
        uri=context.store.uri_of(path),
        open=lambda: context.store.open(path),
        on_demand=action.on_demand,
        may_cost=action.reserve if capped or context.work.run_usd is not None else None,
    )


def _missed_long_enough(context: Context, shard: ShardState, now: float) -> bool:
    """Whether look-ups have found nothing over the grace period: by this process's own clock, or by that of the
    process that looked first and what two clocks may differ.
    """
    if not shard.missing_since:
        return False
    grace = context.work.grace.total_seconds()
    seen = context.first_missed.setdefault((shard.number, shard.attempt), now)
    return now - seen >= grace or now - shard.missing_since >= grace + CLOCK_SKEW


def resolve(context: Context, number: int) -> None:
    """Find out what became of a stale intent: adopt its batch, or conclude, in the end, that there is none.

    What is concluded holds for the intent that was looked up, and not for one that has taken its place meanwhile.
    """
    shard = context.state.shards[number]
    found = context.backend.find(context.plan.token(shard.number, shard.attempt))
    now = context.clock()
    if found:
        context.journal.append(e.Submitted(at=now, shard=number, attempt=shard.attempt, batch_id=found[0]))
        leave(context, shard, found[1:], on_demand=shard.on_demand)
    elif context.backend.limits.consistent_lookup or _missed_long_enough(context, shard, now):
        absent = e.Absent(at=now, shard=number, attempt=shard.attempt)
        context.journal.append(absent, guard=lambda state: state.shards[number] == shard)
    elif not shard.missing_since:
        missing = e.Missing(at=now, shard=number, attempt=shard.attempt)
        context.journal.append(missing, guard=lambda state: state.shards[number] == shard)
