"""Runs that cost more than may be spent without asking: nothing is submitted until somebody has approved it.

What a run is expected to cost is not only its plan's estimate. More may have to be asked than was planned, since the
answers of earlier runs are gone, and attempts may cost in vain. So the question is put again whenever something is to
be submitted: by what was spent, and by what is still to be asked.
"""

from __future__ import annotations

import getpass
from decimal import ROUND_DOWN, Decimal

from lowtide import money
from lowtide.events import Approved
from lowtide.journal import Journal
from lowtide.ledger import spent
from lowtide.plan import RunPlan
from lowtide.shards import Phase, ShardState
from lowtide.states import RunState

COVERS = Decimal("1.25")
"""What an approval covers, as a multiple of its figure: that is an estimate, and half of all estimates are too low."""

_UNPAID = (Phase.BUILT, Phase.SUBMITTING, Phase.SUBMITTED, Phase.ENDED)
_STEP = Decimal(1).scaleb(-money.SCALE)


def awaits_approval(plan: RunPlan, state: RunState) -> bool:
    """Whether the run may submit nothing more yet: it is expected to cost more than the job allows unasked, and than
    an approval covers. Never where nothing is left to be submitted.
    """
    if plan.approve_above_usd is None or state.cancelled or not _submits_more(state):
        return False
    expected = expected_usd(plan, state)
    if expected <= plan.approve_above_usd:
        return False
    approved = state.approved_usd
    return approved is None or approved < plan.cost_usd or covered_usd(approved) < expected


def expected_usd(plan: RunPlan, state: RunState) -> Decimal:
    """USD that the run is expected to cost in all: the plan's figure, or what is spent and open where that is more."""
    if plan.price is None:
        return plan.cost_usd
    unpaid = [shard for shard in state.shards.values() if shard.phase in _UNPAID and shard.records]
    return max(plan.cost_usd, spent(state, plan.price.price()) + _cost_of(plan, unpaid))


def covered_usd(approved: Decimal) -> Decimal:
    """USD that the run may be expected to cost until it asks again."""
    return (approved * COVERS).quantize(_STEP, ROUND_DOWN)


def _submits_more(state: RunState) -> bool:
    return not state.build_finished or any(s.phase is Phase.BUILT and s.records for s in state.shards.values())


def _cost_of(plan: RunPlan, shards: list[ShardState]) -> Decimal:
    """What the attempts at hand are expected to cost: for each request as much as the plan has reckoned with.

    Where it reckoned with none, each byte is taken for a token, and the answer for as long as the question: nobody has
    estimated them, and to ask once too often costs nothing.
    """
    planned = next((option for option in plan.options if option.chosen), None)
    if planned is not None and planned.requests:
        usd = plan.cost_usd * sum(shard.records for shard in shards) / planned.requests
        return usd.quantize(_STEP, ROUND_DOWN)
    price = plan.price.price() if plan.price else None
    each = price.unit("input") + price.unit("output") if price else Decimal(0)
    return money.product(each, sum(shard.size for shard in shards))


def approve(journal: Journal, plan: RunPlan, *, by: str, at: float, usd: Decimal | None = None) -> bool:
    """Approve `usd`, which was shown, or else what the run is expected to cost now.

    False, with nothing written, if nobody waits for that.
    """
    state = journal.refresh()
    if not awaits_approval(plan, state):
        return False
    journal.append(Approved(at=at, usd=expected_usd(plan, state) if usd is None else usd, by=by))
    return True


def command_of(plan: RunPlan) -> str:
    """What to type to approve the run."""
    return f"lowtide approve {plan.run_id}"


def this_user() -> str:
    """Who is at it, as far as the machine knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container, a number may be all that there is of a user.
        return "unknown"
