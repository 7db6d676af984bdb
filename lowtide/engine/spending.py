"""What a run reserves and settles in the account of its root, so that the caps of all runs hold together.

The order of writes: the intent into the run's journal, the reservation into the account, the create call; and at the
end what was collected into the journal, its cost into the account. So the journal always knows more than the account,
and whoever comes after a crash can put the account right.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from decimal import Decimal

from lowtide.budget.account import Account, Release
from lowtide.budget.caps import Cap, Room, month_of, months_between
from lowtide.budget.reconciling import closings, name_of, payer_of, reconcile_account
from lowtide.budget.rootfile import FILE, read_caps
from lowtide.engine.context import Context
from lowtide.errors import ConfigError
from lowtide.prices import Price
from lowtide.shards import Phase, ShardState

_LOG = logging.getLogger("lowtide.engine")


def charges(price: Price) -> bool:
    """Whether anything costs anything at these prices."""
    return any(price.per_unit.values()) or (price.on_demand is not None and charges(price.on_demand))


class Spending:
    """One process's view of what its run does to the root's account. Of a run that costs nothing, nothing is kept."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._accounts: dict[str, Account] = {}
        self._payer = payer_of(context.plan)
        self._file = context.store.uri_of(FILE)
        self._every = context.work.caps
        self._unreadable = ""

    @property
    def caps(self) -> tuple[Cap, ...]:
        """The caps of the root that this run counts towards."""
        if not charges(self._context.work.price):
            return ()
        return tuple(cap for cap in self._every if cap.covers(self._payer.job, self._payer.tags))

    def refresh(self) -> None:
        """Read the root's caps again, and what others have reserved and settled this month, where a cap asks for it."""
        if not charges(self._context.work.price):
            return
        self._read_caps()
        self._reserve_surplus()
        if self.caps:
            self._now().refresh()

    def _read_caps(self) -> None:
        """Take the caps that the root's file has now; those at hand stay if it cannot be read, or is gone."""
        store, kept = self._context.store, [cap for cap in self._every if not self._is_of_file(cap)]
        found: tuple[Cap, ...] = ()
        trouble = ""
        try:
            found = read_caps(store)
        except ConfigError as error:
            trouble = str(error)
        if not found and len(kept) < len(self._every) and store.info(FILE) is None:
            trouble = f"{self._file}: not there any more"
        if not trouble:
            self._every = (*kept, *found)
        elif trouble != self._unreadable:
            _LOG.warning("%s; until it can be read, this run keeps the caps that it had", trouble)
        self._unreadable = trouble

    def _is_of_file(self, cap: Cap) -> bool:
        return cap.source.startswith(f"{self._file}:")

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
        self._reserve_surplus()
        name = self._token(shard)
        if shard.intended_at and month_of(shard.intended_at) != month_of(at):
            self._account(month_of(shard.intended_at)).close(self._payer, [Release(name)], at=at)
        return self._account(month_of(at)).reserve(self._payer, name, usd, self.caps, at=at)

    def settle(self) -> None:
        """Close what the run's journal says has ended, in the months that its attempts are in."""
        if not charges(self._context.work.price):
            return
        self._reserve_surplus()
        state = self._context.state
        times = [attempt.reserved_at or attempt.submitted_at for attempt in state.attempts.values()]
        times += [shard.intended_at for shard in state.shards.values() if shard.intended_at]
        for month in sorted({month_of(at) for at in times}):
            self._close(month)

    def finish(self, *, in_hand: bool = True) -> None:
        """Close all that is left, once the run is settled: whatever died between two writes, in whichever month.

        Without `in_hand`, also what is reserved for shards that will not be submitted as the job file is now.
        """
        context = self._context
        state = context.state
        intended = state.attempts or any(shard.intended_at for shard in state.shards.values())
        if intended and charges(context.work.price):
            for month in months_between(state.started_at, context.clock()):
                self._account(month).refresh()
                self._close(month, in_hand=in_hand)

    def make_room(self) -> None:
        """Close this month's reservations of all runs that have ended: a cap is in the way."""
        reconcile_account(self._now(), self._context.store, at=self._context.clock())

    def _reserve_surplus(self) -> None:
        """Reserve what surplus batches may cost. No cap is asked: they are there, and the money may be spent."""
        for surplus in self._context.state.surplus:
            account, name = self._account(month_of(surplus.submitted_at)), name_of(self._context.plan, surplus)
            if surplus.reserved and name not in account.state.lines:
                account.reserve(self._payer, name, surplus.reserved, (), at=self._context.clock())

    def _close(self, month: str, *, in_hand: bool = True) -> None:
        context, account = self._context, self._account(month)
        due = closings(context.plan, context.state, context.work.price, account.state, month, in_hand=in_hand)
        account.close(self._payer, due, at=context.clock())

    def _token(self, shard: ShardState) -> str:
        return self._context.plan.token(shard.number, shard.attempt)

    def _now(self) -> Account:
        return self._account(month_of(self._context.clock()))

    def _account(self, month: str) -> Account:
        if month not in self._accounts:
            self._accounts[month] = Account(self._context.store, month, self._context.owner)
        return self._accounts[month]


def highest_price(shard: ShardState, context: Context, *, alone: bool = True) -> Decimal:
    """What an attempt at the shard may cost at most: every byte a token, every answer as long as it may be.

    Where machines are paid, there is one for each of the first shards, which may have to be started for it; and for a
    further attempt, or one that is `alone`, with no other batch out, one may have to be started again.
    """
    limits = context.backend.limits
    price = context.work.price.of(on_demand=shard.records < limits.minimum_records)
    longest = max(operation.max_output_tokens for operation in context.work.operations)
    starting = alone or shard.number <= limits.machines or shard.attempt > 1
    return price.at_most(shard.size, shard.records, longest, starting=starting)
