"""One run, advanced by idempotent passes. Any number of processes may advance the same run at the same time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from lowtide import events as e
from lowtide.decisions import (
    Action,
    Build,
    Collect,
    Decision,
    Poll,
    Publish,
    Reopen,
    Resolve,
    Rules,
    Settle,
    Submit,
    decide,
)
from lowtide.engine import building, collecting, publishing, submitting
from lowtide.engine.context import Context
from lowtide.errors import StalePlan, Transient
from lowtide.journal import Superseded
from lowtide.ledger import spent
from lowtide.plan import RunPlan
from lowtide.prices import Price
from lowtide.states import Phase, RunState, ShardState


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `step` is what is being done, `documents` counts those read, `answered` the records."""

    step: str
    documents: int
    shards: int
    records: int
    answered: int
    settled: int
    open_batches: int
    over_budget: bool = False
    done: bool = False


Listener = Callable[[Progress], None]


class Run:
    """A run in this process's hands."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._answered: dict[int, int] = {}
        self._documents = context.state.documents
        self._over_budget = False

    @property
    def plan(self) -> RunPlan:
        return self.context.plan

    @property
    def state(self) -> RunState:
        return self.context.state

    def refresh(self) -> RunState:
        """Read what other processes have done."""
        return self.context.journal.refresh()

    def decide(self, polled: frozenset[int] = frozenset()) -> Decision:
        """What can be done now, polls of the given shards left out."""
        context = self.context
        limits = context.backend.limits
        price = context.work.price
        rules = Rules(
            attempts=context.plan.attempts,
            grace=context.work.grace.total_seconds(),
            live_batches=limits.live_batches,
            consistent_lookup=limits.consistent_lookup,
            cap=context.work.run_usd,
            price_of=lambda shard: _highest_price(shard, context, price),
        )
        decision = decide(
            context.state,
            now=context.clock(),
            rules=rules,
            spent=spent(context.state, price),
            stale=context.stale,
        )
        self._over_budget = decision.over_budget
        actions = tuple(a for a in decision.actions if not (isinstance(a, Poll) and a.shard in polled))
        return Decision(actions, decision.done, decision.over_budget)

    def advance(self, listen: Listener = lambda progress: None, *, leave: tuple[type[Action], ...] = ()) -> Progress:
        """One pass: do what can be done until only waiting is left. Open batches are polled once.

        Actions of the types in `leave` are left to somebody else, and the pass is done when only they are left.
        Raises what a step raises; what was done up to then is in the journal. Raises StalePlan, before anything is
        done, if the work at hand is not what this run was planned for.
        """
        self._check_plan()
        self.refresh()
        polled: set[int] = set()
        while True:
            decision = self.decide(frozenset(polled))
            actions = [action for action in decision.actions if not isinstance(action, leave)]
            if not actions:
                break
            self.perform(actions, listen)
            polled |= {action.shard for action in actions if isinstance(action, Poll)}
        done = decision.done or bool(decision.actions)
        step = "done" if decision.done else "settled" if done else "waiting for answers"
        return self.progress(step, done=done)

    def perform(self, actions: Sequence[Action], listen: Listener = lambda progress: None) -> None:
        """Carry out actions, decided on the state at hand. One that another process has overtaken is passed over."""
        decided = self.state
        for action in actions:
            if not isinstance(action, Build | Publish):
                number = action.shard
                if self.state.shards[number] != decided.shards[number]:
                    continue
            try:
                self._perform(action, listen)
            except Superseded:
                self.refresh()

    def _check_plan(self) -> None:
        plan, work = self.plan, self.context.work
        planned = [(op.name, op.version) for op in plan.operations]
        backend = (work.backend.name, work.backend.model)
        if planned != [(op.name, op.version) for op in work.operations] or (plan.backend, plan.model) != backend:
            raise StalePlan(
                f"run {plan.run_id} was planned for other operations, or another backend or model, than the job file "
                "names now; put the job file back to go on with it, or run the job again to begin a new run"
            )

    def progress(self, step: str, *, done: bool = False) -> Progress:
        """Where the run stands."""
        answered = 0
        for number, shard in self.state.shards.items():
            if shard.phase in (Phase.ENDED, Phase.COLLECTED, Phase.SETTLED):
                answered += shard.total
            else:
                answered += shard.total - shard.records
                answered += self._answered.get(number, 0) if shard.phase is Phase.SUBMITTED else 0
        phases = Counter(shard.phase for shard in self.state.shards.values())
        return Progress(
            step=step,
            documents=self._documents,
            shards=len(self.state.shards),
            records=sum(shard.total for shard in self.state.shards.values()),
            answered=answered,
            settled=phases[Phase.SETTLED],
            open_batches=phases[Phase.SUBMITTED],
            over_budget=self._over_budget,
            done=done,
        )

    def _perform(self, action: Action, listen: Listener) -> None:
        context = self.context
        match action:
            case Build():

                def count(documents: int) -> None:
                    self._documents = documents
                    listen(self.progress("reading documents"))

                building.build(context, count)
            case Resolve(shard):
                submitting.resolve(context, shard)
            case Poll(shard, stop):
                self._poll(shard, stop)
                listen(self.progress("waiting for answers"))
            case Collect(shard):
                collecting.collect(context, shard)
                listen(self.progress("collecting answers"))
            case Reopen(shard):
                collecting.reopen(context, shard)
            case Settle(shard, reason):
                collecting.settle(context, shard, reason)
            case Submit():
                submitting.submit(context, action)
                listen(self.progress("submitting shards"))
            case Publish():
                publishing.publish(context, lambda rows: listen(self.progress("publishing")))

    def _poll(self, number: int, stop: bool) -> None:
        """Look at a batch. An error of the poll says nothing about the batch, so it is passed over."""
        shard = self.state.shards[number]
        try:
            status = self.context.backend.poll(shard.batch_id)
            if stop and status.outcome is None:
                self.context.backend.cancel(shard.batch_id)
        except Transient:
            return
        self._answered[number] = min(status.answered, shard.records)
        if status.outcome is not None:
            self.context.journal.append(
                e.Ended(
                    at=self.context.clock(),
                    shard=number,
                    attempt=shard.attempt,
                    outcome=status.outcome,
                    provider_state=status.provider_state,
                    reason=status.reason,
                    compute_seconds=status.compute_seconds,
                )
            )


def _highest_price(shard: ShardState, context: Context, price: Price) -> Decimal:
    """What an attempt at the shard may cost at most: every byte a token, every answer as long as it may be."""
    longest = max(operation.max_output_tokens for operation in context.work.operations)
    asked = max(price.unit("input"), price.unit("cached_input"))
    answered = max(price.unit("output"), price.unit("reasoning"))
    return asked * shard.size + answered * shard.records * longest


def drive(
    run: Run,
    listen: Listener = lambda progress: None,
    *,
    poll: float,
    until: float | None = None,
    leave: tuple[type[Action], ...] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Progress:
    """Advance the run until it is done, or until the clock passes `until`; `poll` seconds lie between two passes.

    Actions of the types in `leave` are left undone.
    """
    while True:
        progress = run.advance(listen, leave=leave)
        listen(progress)
        if progress.done or (until is not None and run.context.clock() + poll > until):
            return progress
        sleep(poll)
