"""Runs that cost more than may be spent without asking: nothing is submitted until somebody has approved it."""

from __future__ import annotations

import getpass

from lowtide.events import Approved
from lowtide.journal import Journal
from lowtide.plan import RunPlan
from lowtide.states import RunState


def awaits_approval(plan: RunPlan, state: RunState) -> bool:
    """Whether the run may submit nothing yet: it is expected to cost more than the job allows, and than is approved."""
    if plan.approve_above_usd is None or plan.cost_usd <= plan.approve_above_usd or state.cancelled:
        return False
    return state.approved_usd is None or state.approved_usd < plan.cost_usd


def approve(journal: Journal, plan: RunPlan, *, by: str, at: float) -> bool:
    """Approve what the plan says the run will cost; False, with nothing written, if nobody waits for that."""
    journal.refresh()
    if not awaits_approval(plan, journal.state):
        return False
    journal.append(Approved(at=at, usd=plan.cost_usd, by=by))
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
