"""What a run reserves and settles in the account of its root, so that the caps of all runs hold together.

The order of writes: the intent into the run's journal, the reservation into the account, the create call; and at the
end what was collected into the journal, its cost into the account. So the journal always knows more than the account,
and whoever comes after a crash can put the account right.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from lowtide.budget.account import Account, Release
from lowtide.budget.caps import Cap, Room, month_of, months_between
from lowtide.budget.reconciling import closings, payer_of, reconcile_account
from lowtide.engine.context import Context
from lowtide.prices import Price
from lowtide.shards import Phase, ShardState


def charges(price: Price) -> bool:
    """Whether anything costs anything at these prices."""
    return any(price.per_unit.values()) or (price.on_demand is not None and charges(price.on_demand))


class Spending:
    """One process's view of what its run does to the root's account. Of a run that costs nothing, nothing is kept."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._accounts: dict[str, Account] = {}
        self._payer = payer_of(context.plan)

    @property
    def caps(self) -> tuple[Cap, ...]:
        """The caps of the root that this run counts towards."""
        if not charges(self._context.work.price):
            return ()
        return tuple(cap for cap in self._context.work.caps if cap.covers(self._payer.job, self._payer.tags))

    def refresh(self) -> None:
        """Read what others have reserved and settled this month, where a cap asks for it."""
        if self.caps:
            self._now().refresh()

    def rooms(self) -> tuple[Room, ...]:
        """What the caps have left this month, as far as this process has read."""
        caps = self.caps
        return tuple(self._now().state.room(cap) for cap in caps) if caps else ()

    def held(self) -> Mapping[int, Decimal]:
        """What is reserved for shards that wait for their next try, by shard."""
        if not self.caps:
            return {}
        lines = self._now().state.lines
        waiting = [s for s in self._context.state.shards.values() if s.phase is Phase.BUILT and s.intended_at]
        found = {shard.number: lines.get(self._token(shard)) for shard in waiting}
        return {number: line.reserved for number, line in found.items() if line is not None}

    def reserve(self, shard: ShardState, usd: Decimal, at: float) -> str:
        """Reserve money for the attempt whose intent was written at `at`; "", or why it may not be submitted.

        `shard` is as it was before the intent. Its last try may have reserved money in another month.
        """
        if not charges(self._context.work.price):
            return ""
        name = self._token(shard)
        if shard.intended_at and month_of(shard.intended_at) != month_of(at):
            self._account(month_of(shard.intended_at)).close(self._payer, [Release(name)], at=at)
        return self._account(month_of(at)).reserve(self._payer, name, usd, self.caps, at=at)

    def settle(self) -> None:
        """Close what the run's journal says has ended, in the months that its attempts are in."""
        if not charges(self._context.work.price):
            return
        state = self._context.state
        times = [attempt.reserved_at or attempt.submitted_at for attempt in state.attempts.values()]
        times += [shard.intended_at for shard in state.shards.values() if shard.intended_at]
        for month in sorted({month_of(at) for at in times}):
            self._close(month)

    def finish(self) -> None:
        """Close all that is left, once the run is settled: whatever died between two writes, in whichever month."""
        context = self._context
        state = context.state
        intended = state.attempts or any(shard.intended_at for shard in state.shards.values())
        if intended and charges(context.work.price):
            for month in months_between(state.started_at, context.clock()):
                self._account(month).refresh()
                self._close(month)

    def make_room(self) -> None:
        """Close this month's reservations of all runs that have ended: a cap is in the way."""
        reconcile_account(self._now(), self._context.store, at=self._context.clock())

    def _close(self, month: str) -> None:
        context, account = self._context, self._account(month)
        due = closings(context.plan, context.state, context.work.price, account.state, month, in_hand=True)
        account.close(self._payer, due, at=context.clock())

    def _token(self, shard: ShardState) -> str:
        return self._context.plan.token(shard.number, shard.attempt)

    def _now(self) -> Account:
        return self._account(month_of(self._context.clock()))

    def _account(self, month: str) -> Account:
        if month not in self._accounts:
            self._accounts[month] = Account(self._context.store, month, self._context.owner)
        return self._accounts[month]
