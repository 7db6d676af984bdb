"""One run, advanced by idempotent passes. Any number of processes may advance the same run at the same time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from decimal import Decimal

from lowtide import logs, openruns
from lowtide.budget.approval import awaits_approval, command_of
from lowtide.decisions import (
    Action,
    Build,
    Collect,
    Decision,
    Drain,
    Poll,
    Publish,
    Purse,
    Reopen,
    Resolve,
    Rules,
    Settle,
    Submit,
    decide,
)
from lowtide.engine import building, collecting, publishing, submitting
from lowtide.engine.context import PATIENCE, Context
from lowtide.engine.fitting import Fit
from lowtide.engine.polling import Lookout
from lowtide.engine.progress import Listener, Progress
from lowtide.engine.spending import Spending, highest_price
from lowtide.errors import ConfigError, LowtideError, Terminal, Transient
from lowtide.journal import Superseded
from lowtide.ledger import spent
from lowtide.plan import RunPlan
from lowtide.shards import Phase, ShardState
from lowtide.states import RunState

_MOST_TROUBLED_PASSES = 100

_SENDING = (Build, Submit, Publish)
"""What is not begun once a backend has refused something."""

_LOG = logging.getLogger("lowtide.engine")


class Run:
    """A run in this process's hands."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.spending = Spending(context)
        self.lookout = Lookout(context, lambda: not self.fit.differs)
        self._documents = context.state.documents
        self._over_since = 0.0
        self._held_since = 0.0
        self._over_budget = False
        self.trouble = ""
        self._refusals: list[LowtideError] = []
        self.chores: list[Callable[[], bool]] = []
        self.before: list[Run] = []

    @property
    def plan(self) -> RunPlan:
        return self.context.plan

    @property
    def state(self) -> RunState:
        return self.context.state

    def refresh(self) -> RunState:
        """Read what other processes have done."""
        return self.context.journal.refresh()

    def decide(self, looked: Collection[Action] = ()) -> Decision:
        """What can be done now, the actions in `looked` left out."""
        context = self.context
        limits = context.backend.limits
        price = context.work.price
        rules = Rules(
            attempts=context.plan.attempts,
            grace=context.work.grace.total_seconds(),
            live_batches=limits.live_batches,
            consistent_lookup=limits.consistent_lookup,
            cap=context.work.run_usd,
            price_of=lambda shard, alone: highest_price(shard, context, alone=alone),
            minimum_records=limits.minimum_records,
            rooms=self.spending.rooms(),
            held=self.spending.held(),
            approved=not self.awaits_approval,
        )
        decision = decide(
            context.state,
            now=context.clock(),
            rules=rules,
            spent=spent(context.state, price),
            stale=context.stale,
        )
        self._over_budget = decision.over_budget
        actions = tuple(action for action in decision.actions if action not in looked)
        return replace(decision, actions=actions)

    @property
    def awaits_approval(self) -> bool:
        """Whether nothing is submitted until somebody has approved what the run will cost."""
        return awaits_approval(self.plan, self.state)

    def advance(self, listen: Listener = lambda progress: None, *, leave: tuple[type[Action], ...] = ()) -> Progress:
        """One pass: do what can be done until only waiting is left. Each batch is polled or looked for once.

        Actions of the types in `leave` are left to somebody else, and the pass is done when only they are left.
        Raises what a step raises; what was done up to then is in the journal. What a look at a batch raises is raised
        at the end, once all that was answered is brought in. Raises StalePlan, before anything is done, if the work at
        hand is not what this run was planned for.
        """
        self.fit.check()
        self.refresh()
        self.lookout.blind = ""
        self._refusals.clear()
        self._do_chores()
        leave = (*leave, Build) if self.holds_build else leave
        self.spending.refresh()
        looked: set[Action] = set()
        failed: set[Action] = set()
        reconciled = False
        while True:
            decision = self.decide(looked | failed)
            if decision.over_root and not reconciled:
                # Before anything is given up: what runs that died have left reserved need not be in the way.
                self.spending.make_room()
                reconciled = True
                continue
            # What was answered is brought in before a backend's refusal stops the run, and nothing new is sent.
            left = (*leave, *_SENDING) if self._refusals else leave
            actions = [action for action in decision.actions if not isinstance(action, left)]
            if not actions:
                break
            failed |= self.perform(actions, listen)
            looked |= {action for action in actions if isinstance(action, Poll | Resolve | Drain)}
        if self._refusals:
            raise self._refusals[0]
        done = not failed and self._chores_done(over=decision.done) and (decision.done or bool(decision.actions))
        if decision.done:
            self.close_dropped()
        return self.progress(self._step(decision, done=done), done=done)

    def _step(self, decision: Decision, *, done: bool) -> str:
        if decision.done or done:
            return "done" if decision.done else "settled"
        if self.state.build_finished and self.awaits_approval:
            return f"waiting for approval: {command_of(self.plan)}"
        if self.holds_build:
            return "waiting for the run before this one"
        blind = self.lookout.blind
        return f"waiting for answers ({blind})" if blind else "waiting for answers"

    def perform(self, actions: Sequence[Action], listen: Listener = lambda progress: None) -> set[Action]:
        """Carry out actions, decided on the state at hand. One that another process has overtaken is passed over.

        Returns those that failed for a reason that may pass; `trouble` says which. They are for the next pass.
        """
        decided = self.state
        failed: set[Action] = set()
        for action in actions:
            if self._refusals and isinstance(action, _SENDING):
                continue
            if not isinstance(action, Build | Publish | Drain):
                number = action.shard
                if self.state.shards[number] != decided.shards[number]:
                    continue
            about = {} if isinstance(action, Build | Publish | Drain) else {"shard": action.shard}
            try:
                with logs.about(job=self.plan.job, window=self.plan.window, run=self.plan.run_id, **about):
                    self._perform(action, listen)
                    _LOG.info("%s done", type(action).__name__.lower())
            except Superseded:
                self.refresh()
            except collecting.NotYet:
                failed.add(action)
            except Transient as error:
                failed.add(action)
                self.trouble = str(error)
            except (Terminal, ConfigError) as error:
                if not isinstance(action, Poll):
                    raise
                failed.add(action)
                self._refusals.append(error)
        return failed

    def _do_chores(self) -> None:
        """What is to be done for runs before this one; a chore says whether it is over."""
        left = []
        for chore in self.chores:
            try:
                over = chore()
            except Transient as error:
                self.trouble, over = str(error), False
            except LowtideError as error:
                # The run keeps its mark, for who comes next; this one is not its prisoner.
                self.trouble, over = str(error), True
            if not over:
                left.append(chore)
        self.chores = left

    @property
    def is_out(self) -> bool:
        """Whether batches of the run may still be answered, or were and are not collected."""
        out = (Phase.SUBMITTING, Phase.SUBMITTED, Phase.ENDED, Phase.COLLECTED)
        return any(shard.phase in out for shard in self.state.shards.values())

    @property
    def holds_build(self) -> bool:
        """Whether to wait for the runs before this one: what they have answered need not be asked again.

        Not for ever: their batches may take as long as they like to stop.
        """
        if not self.context.work.use_cache or self.state.build_finished:
            return False
        if not self.chores or not any(run.is_out and not run.fit.differs for run in self.before):
            return False
        self._held_since = self._held_since or self.context.clock()
        return self.context.clock() - self._held_since < PATIENCE

    def _chores_done(self, *, over: bool) -> bool:
        """Whether nothing is left to do for runs before this one, or this one is over and has waited long enough."""
        if not self.chores or not over:
            self._over_since = 0.0
            return not self.chores
        self._over_since = self._over_since or self.context.clock()
        return self.context.clock() - self._over_since > PATIENCE

    def affords_more(self) -> bool:
        """Whether a shard that was given up for the budget fits into all caps now."""
        given_up = [shard for shard in self.state.shards.values() if shard.given_up == "budget"]
        if not given_up:
            return False
        self.spending.refresh()
        if self._affords(given_up):
            return True
        if not self.spending.caps:
            return False
        self.spending.make_room()
        return self._affords(given_up)

    def _affords(self, shards: Sequence[ShardState]) -> bool:
        context = self.context
        purse = Purse(
            context.work.run_usd, spent(self.state, context.work.price), self.state.reserved, self.spending.rooms()
        )
        alone = not any(shard.phase in (Phase.SUBMITTING, Phase.SUBMITTED) for shard in self.state.shards.values())
        costs = (highest_price(shard, context, alone=alone) for shard in shards)
        return any(not purse.too_small(cost, Decimal(0)) for cost in costs)

    @property
    def fit(self) -> Fit:
        """Whether the work at hand is what this run was planned for."""
        return Fit(self.plan, self.state.places, self.context.work)

    def close_dropped(self) -> None:
        """Note that the run is over, if it was cancelled before all its documents were read, and nobody reads them.

        Such a run has sent nothing, and will send nothing before somebody asks for it again.
        """
        if self._is_dropped():
            plan = self.plan
            openruns.close_ended(self.context.store, plan.job, plan.window, plan.run_id, self._is_dropped)

    def _is_dropped(self) -> bool:
        state = self.refresh()
        if not state.cancelled or state.build_finished or state.attempts or self.is_out:
            return False
        return not state.builder or self.context.stale(state.builder, state.builder_expires)

    def progress(self, step: str, *, done: bool = False) -> Progress:
        """Where the run stands."""
        answered = 0
        for number, shard in self.state.shards.items():
            if shard.phase is Phase.SETTLED:
                answered += shard.total - shard.remaining
            elif shard.phase in (Phase.ENDED, Phase.COLLECTED):
                answered += shard.total
            else:
                answered += shard.total - shard.records
                answered += self.lookout.answered(number, shard.attempt) if shard.phase is Phase.SUBMITTED else 0
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
                self.lookout.poll(shard, stop=stop)
                listen(self.progress("waiting for answers"))
            case Collect(shard):
                self._collect(shard)
                self.spending.settle()
                listen(self.progress("collecting answers"))
            case Reopen(shard):
                collecting.reopen(context, shard)
            case Settle(shard, reason, detail):
                collecting.settle(context, shard, reason, detail)
                self.spending.settle()
            case Submit():
                submitting.submit(context, action, self.spending)
                listen(self.progress("submitting shards"))
            case Drain(batch_id):
                collecting.drain(context, batch_id)
                self.spending.settle()
            case Publish():
                self.spending.finish()
                publishing.publish(context, lambda rows: listen(self.progress("publishing")))
                openruns.close(context.store, self.plan.job, self.plan.window, self.plan.run_id)
                if not self.refresh().published_at:
                    # Somebody has asked for it again in between.
                    openruns.write_asked(
                        context.store, self.plan.job, self.plan.window, self.plan.run_id, context.work.asked
                    )

    def _collect(self, number: int) -> None:
        """Collect; in a cancelled run, what cannot be had for a while is given up."""
        try:
            collecting.collect(self.context, number)
        except collecting.NotYet:
            raise
        except Transient:
            grace = self.context.work.grace.total_seconds()
            if not self.state.cancelled or self.lookout.seconds_blind(number) <= grace:
                raise
            collecting.abandon(self.context, number)
        self.lookout.saw(number)


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

    Actions of the types in `leave` are left undone. Raises Transient if a hundred passes in a row bring nothing new and
    meet trouble each time.
    """
    troubled, entry = 0, -1
    while True:
        run.trouble = ""
        progress = run.advance(listen, leave=leave)
        listen(progress)
        troubled = troubled + 1 if run.trouble and run.state.entry == entry else 0
        entry = run.state.entry
        if troubled > _MOST_TROUBLED_PASSES:
            raise Transient(run.trouble)
        if progress.done or (until is not None and run.context.clock() + poll > until):
            return progress
        sleep(poll)
