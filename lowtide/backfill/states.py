"""Where the windows of a backfill stand, as the journals of their runs say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Literal

import msgspec

from lowtide import money
from lowtide.backfill.allotments import Allotments, Line
from lowtide.backfill.looking import Found, find
from lowtide.backfill.record import Backfill, WindowPlan
from lowtide.budget.approval import awaits_approval
from lowtide.ledger import spent
from lowtide.protocols import Store
from lowtide.shards import Phase
from lowtide.states import RunState
from lowtide.summary import FAILED

Stand = Literal["passed over", "waiting", "open", "approval", "done", "incomplete", "over budget", "cancelled"]
"""`waiting` for its turn; `open`, a run is under way; `approval`, it waits for somebody to approve it; `incomplete`,
published, and rows that were asked have no answer.
"""


class WindowState(msgspec.Struct, frozen=True):
    """Where a window stands. `rows` and `counts` are those that its run has published, `usd` what it has cost."""

    window: str
    stand: Stand
    run_id: str = ""
    rows: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    requests: int = 0
    answered: int = 0
    usd: Decimal = Decimal(0)


def window_states(store: Store, backfill: Backfill, allotments: Allotments) -> Iterator[WindowState]:
    """Where each window of the backfill stands now, in their order of time. Reads journals, and writes nothing."""
    lines: dict[str, list[Line]] = {}
    for line in allotments.lines():
        lines.setdefault(line.window, []).append(line)
    for planned in backfill.windows:
        yield _state_of(store, planned, lines.get(planned.window, []))


def _state_of(store: Store, planned: WindowPlan, lines: list[Line]) -> WindowState:
    runs = list(dict.fromkeys(line.run for line in lines))
    found = [run for run in (find(store, run) for run in runs) if run is not None and run.state.entry]
    if not found:
        return WindowState(planned.window, "waiting" if planned.needs else "passed over", planned.run_id)
    usd = money.total(
        spent(run.state, run.plan.price.price()) if run.plan.price else Decimal(0) for run in found
    ) - money.total({line.run: line.before for line in reversed(lines)}.values())
    last = max(found, key=lambda run: run.state.requested_at)
    return _stand_of(last, usd)


def _stand_of(found: Found, usd: Decimal) -> WindowState:
    state = found.state
    return WindowState(
        found.plan.window,
        stand_of(found),
        found.plan.run_id,
        sum(state.published_counts.values()) if state.published_at else 0,
        dict(state.published_counts) if state.published_at else {},
        sum(shard.total for shard in state.shards.values()),
        answered_in(state),
        usd,
    )


def stand_of(found: Found) -> Stand:
    """Where a run stands, in a word."""
    state = found.state
    given_up = Counter(shard.given_up for shard in state.shards.values() if shard.given_up)
    if state.cancelled and (state.published_at or not state.build_finished):
        return "cancelled"
    if not state.published_at:
        return "approval" if awaits_approval(found.plan, state) else "open"
    if given_up["cancelled"]:
        return "cancelled"
    if given_up:
        return "over budget"
    return "incomplete" if any(state.published_counts.get(status) for status in FAILED) else "done"


def answered_in(state: RunState) -> int:
    """Requests whose answers are collected."""
    return sum(
        shard.total - shard.remaining if shard.phase is Phase.SETTLED else shard.total - shard.records
        for shard in state.shards.values()
    )
