"""Ending for good a run whose answers cannot be read any more, since the job file asks something else by now.

Winding down stops such a run and counts what it has cost, and leaves its answers where they are, for the day when the
job file is put back. Here they are given up: paid, and lost. So nothing is left to be waited for, and whatever goes by
what is open at a root, such as its tick, or who forgets a document in it, need not know of the run any more.

If the job file is put back all the same, the run can be asked for again. It asks what it has never sent, and what is
lost only if that is wanted.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from lowtide import events as e
from lowtide import openruns
from lowtide.collecting.outcomes import Outcomes
from lowtide.collecting.rows import Verdict, build_rows, write_rows
from lowtide.collecting.tallies import Tallies
from lowtide.engine import collecting
from lowtide.engine.run import Run
from lowtide.engine.superseding import costs_unknown, wind_down
from lowtide.errors import LowtideError, StalePlan, Transient
from lowtide.journal import Superseded
from lowtide.operations import Invalid, Operation, Template
from lowtide.plan import PlannedOperation
from lowtide.shards import Attempt, Phase, ShardState

_MOST_TROUBLED_PASSES = 100
_CANCELLED = "cancelled"


def end_run(run: Run, *, poll: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """End a run that asks something else than the job file; `poll` seconds lie between two looks at its batches.

    Its ledger is written first. A batch that is out of sight for longer than the grace period is given up as well; all
    that was reserved for it counts as spent unless the provider has said what it has cost. Raises StalePlan if batches
    may be out at a place that the job file does not name, and Transient if a hundred passes in a row meet trouble.
    """
    ending = _Ending(run)
    troubled, entry = 0, -1
    while not ending.advance():
        troubled = troubled + 1 if run.trouble and run.state.entry == entry else 0
        entry = run.state.entry
        if troubled > _MOST_TROUBLED_PASSES:
            raise Transient(run.trouble)
        sleep(poll)


class _Ending:
    """One process's way to the end of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # No answer is read, so no more has to be known of the questions than how many there were.
        work = replace(run.context.work, operations=tuple(map(_unknown, run.plan.operations)))
        self._context = replace(run.context, work=work)
        self._unseen: dict[int, float] = {}

    def advance(self) -> bool:
        """One pass; whether the run is over."""
        run = self._run
        run.trouble = ""
        state = run.refresh()
        if state.published_at or not state.entry:
            return wind_down(run)
        self._check_reach()
        if not state.cancelled:
            run.context.journal.append(e.CancelRequested(at=run.context.clock()))
        try:
            return self._give_up() if self._wound_down() else self._look_after()
        except Superseded:
            run.refresh()
            return False

    def _wound_down(self) -> bool:
        try:
            return wind_down(self._run)
        except Transient as error:
            self._run.trouble = str(error)
            return False

    def _check_reach(self) -> None:
        run, backend = self._run, self._run.context.backend
        if not costs_unknown(run) or (run.plan.backend == backend.name and not run.fit.moved):
            return
        where = ", ".join(sorted(run.state.places)) or "no place of its own"
        raise StalePlan(
            f"run {run.plan.run_id} may have batches at backend {run.plan.backend} ({where}), which the job file does "
            "not name now: they can neither be stopped nor counted from here; put that backend back, and run this again"
        )

    def _look_after(self) -> bool:
        """Count what can be counted; give up the batches that are out of sight for too long."""
        now, grace = self._context.clock(), self._context.work.grace.total_seconds()
        for number, shard in sorted(self._run.refresh().shards.items()):
            try:
                self._look_at(shard)
                self._unseen.pop(number, None)
            except Transient as error:
                self._run.trouble = str(error)
                if now - self._unseen.setdefault(number, now) > grace:
                    self._settle(shard, self._attempt_of(shard))
        return False

    def _look_at(self, shard: ShardState) -> None:
        if shard.phase is Phase.SUBMITTED:
            self._context.backend.poll(shard.batch_id)
        elif shard.phase is Phase.ENDED and not self._attempt_of(shard).known_at:
            collecting.count(self._context, shard.number)

    def _give_up(self) -> bool:
        """Settle what is left of a run of which all costs are known and in its ledger, and close it."""
        run, state = self._run, self._run.refresh()
        for number, shard in sorted(state.shards.items()) if state.build_finished else ():
            if shard.phase in (Phase.BUILT, Phase.COLLECTED):
                collecting.settle(self._context, number, _CANCELLED)
            elif shard.phase is Phase.ENDED:
                self._settle(shard, self._attempt_of(shard))
                self._discard(shard.batch_id)
        if not self._is_over():
            # Somebody has asked for it again meanwhile.
            return False
        plan = run.plan
        openruns.close_ended(run.context.store, plan.job, plan.window, plan.run_id, self._is_over)
        return True

    def _discard(self, batch_id: str) -> None:
        """Tidy up at the provider: nobody will ask for the answers any more."""
        if self._run.plan.backend == self._context.backend.name:
            with contextlib.suppress(LowtideError):
                self._context.backend.discard(batch_id)

    def _is_over(self) -> bool:
        state = self._run.refresh()
        return state.cancelled and (state.settled or not state.build_finished)

    def _settle(self, shard: ShardState, attempt: Attempt) -> None:
        """Settle a shard whose answers are not read: its open records count as lost, and its tokens for what they are.

        What it has cost stays known since when it was counted, so that no line of the ledger moves to another month.
        """
        context, number, now = self._context, shard.number, self._context.clock()
        index = context.index(shard)
        outcomes = context.outcomes(shard, index)
        asked = outcomes.remaining(range(shard.total))
        # Where the provider says that it has answered nothing, nothing is lost.
        outcomes.give_up(() if shard.charged == 0 else asked, shard.attempt)
        left = len(outcomes.remaining(range(shard.total), lost=True))
        rows = build_rows(
            index,
            outcomes,
            operations=context.work.operations,
            requested_at=attempt.submitted_at,
            attempts=shard.attempt,
            field_names=context.plan.fields,
            leftover=Verdict("skipped", _CANCELLED),
            on_demand=context.work.price.on_demand,
        )
        kept = f"rows/s{number:05d}-{secrets.token_hex(3)}.arrow"
        with context.store.writer(context.path(kept)) as out:
            write_rows(rows, out)
        tallies = Tallies()
        tallies.reconcile(shard.usage)
        out_of_reach = e.Ended(
            at=now, shard=number, attempt=shard.attempt, outcome="cancelled", provider_state="out of reach"
        )
        collected = e.Collected(
            at=attempt.counted_at or now,
            shard=number,
            attempt=shard.attempt,
            remaining=left,
            counts=outcomes.counts(asked),
            tallies=attempt.tallies if attempt.counted_at else tallies.entries(),
            answers=self._save(shard, outcomes) if outcomes.heard else "",
            # Unless the provider has said what it bills, it may bill all that was reserved.
            unknown=not attempt.counted_at and shard.usage is None and shard.charged != 0,
        )
        settled = e.Settled(
            at=now,
            shard=number,
            rows=kept,
            counts=dict(Counter(rows["status"].to_pylist())),
            remaining=left,
            given_up=_CANCELLED if outcomes.remaining(asked) else "",
        )
        context.journal.append(
            *([out_of_reach] if shard.phase is Phase.SUBMITTED else []),
            collected,
            settled,
            guard=lambda state: state.shards[number] == shard and state.cancelled,
        )

    def _save(self, shard: ShardState, outcomes: Outcomes) -> str:
        name = f"answers/s{shard.number:05d}-a{shard.attempt}-{secrets.token_hex(3)}.arrow"
        with self._context.store.writer(self._context.path(name)) as out:
            outcomes.save(out)
        return name

    def _attempt_of(self, shard: ShardState) -> Attempt:
        return self._run.state.attempts[f"{shard.number}-{shard.attempt}"]


def _unknown(planned: PlannedOperation) -> Operation:
    """An operation of which only the plan is known: as good as any where nothing is asked and no answer read."""

    def validate(text: str) -> Invalid:
        return Invalid("the question is not known any more")

    return Operation(planned.kind, planned.name, "", Template.parse("{{ text }}"), validate)
