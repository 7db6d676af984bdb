"""A run in a few numbers, for people and for programs: what the command line, Prefect's pages and the report show."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import msgspec

from lowtide.engine.publishing import ledger_path, results_path
from lowtide.engine.run import Run
from lowtide.ledger import in_vain, saved, spent
from lowtide.shards import Phase

FAILED = ("invalid", "refused", "error")
"""Statuses that end a run with exit code 4."""


class Summary(msgspec.Struct, frozen=True):
    """Money in USD, times in seconds since the epoch (0: not yet), `state` in words.

    `reused` counts requests whose answers an earlier run has bought, which saved `saved_usd`; `twins` those that repeat
    another one of the run. `compute_seconds` are those of this machine's processors, `machine_seconds` those of
    machines that are paid by the clock. What was wasted is a part of the whole. `over_budget` and `cut_short` say that
    rows were skipped for the budget, or because the run was cancelled.
    """

    job: str
    window: str
    run_id: str
    state: str
    backend: str
    model: str
    documents: int
    rows: int
    counts: dict[str, int]
    requests: int
    reused: int
    twins: int
    answered: int
    shards: dict[str, int]
    batches: int
    input_tokens: int
    output_tokens: int
    wasted_tokens: int
    compute_seconds: int
    machine_seconds: int
    wasted_seconds: int
    wasted_usd: Decimal
    cost_usd: Decimal
    price_id: str
    reserved_usd: Decimal
    planned_usd: Decimal
    saved_usd: Decimal
    started: float
    finished: float
    deadline: float
    results: str
    ledger: str
    over_budget: bool
    cut_short: bool
    waiting_for: list[str]

    @property
    def unasked(self) -> bool:
        """Whether there are rows, and all were skipped: nothing could be asked."""
        return 0 < self.rows == self.counts.get("skipped", 0)

    @property
    def failed(self) -> int:
        """Rows that have no answer although they were asked."""
        return sum(self.counts.get(status, 0) for status in FAILED)


def summarize(run: Run) -> Summary:
    """The run as its journal has it now."""
    plan, state = run.plan, run.state
    counts, tokens = Counter[str](), Counter[str]()
    wasted = 0
    if state.published_at:
        counts.update(state.published_counts)
    else:
        for shard in state.shards.values():
            counts["ok"] += shard.reused
            if shard.phase is Phase.SETTLED:
                counts.update(shard.counts)
    for attempt in state.attempts.values():
        for tally in attempt.tallies:
            tokens[tally.token_type] += tally.quantity
            wasted += tally.quantity if tally.waste else 0
    phases = Counter(str(shard.phase) for shard in state.shards.values())
    store = run.context.store
    vain = in_vain(state, run.context.work.price)
    return Summary(
        job=plan.job,
        window=plan.window,
        run_id=plan.run_id,
        state=_in_words(run),
        backend=plan.backend,
        model=plan.model,
        documents=sum(shard.documents for shard in state.shards.values()),
        rows=sum(counts.values()),
        counts={status: number for status, number in counts.items() if number},
        requests=sum(shard.total for shard in state.shards.values()),
        reused=sum(shard.reused for shard in state.shards.values()),
        twins=sum(shard.twins for shard in state.shards.values()),
        answered=run.progress("").answered,
        shards=dict(phases),
        batches=len(state.attempts),
        input_tokens=tokens["input"] + tokens["cached_input"],
        output_tokens=tokens["output"] + tokens["reasoning"],
        wasted_tokens=wasted,
        compute_seconds=sum(attempt.compute_seconds for attempt in state.attempts.values()),
        machine_seconds=vain.machine_seconds,
        wasted_seconds=vain.seconds,
        wasted_usd=vain.usd,
        cost_usd=spent(state, run.context.work.price),
        price_id=plan.price_id,
        reserved_usd=state.reserved,
        planned_usd=plan.cost_usd,
        saved_usd=saved(state, run.context.work.price),
        started=state.started_at,
        finished=state.published_at,
        deadline=plan.deadline,
        results=store.uri_of(results_path(plan.job, plan.window)),
        ledger=store.uri_of(ledger_path(plan.job, plan.window, plan.run_id)),
        over_budget=any(shard.given_up == "budget" for shard in state.shards.values()),
        cut_short=any(shard.given_up == "cancelled" for shard in state.shards.values()),
        waiting_for=[
            f"shard {s.number}: {s.reason}" for s in state.shards.values() if s.phase is Phase.BUILT and s.reason
        ],
    )


def _in_words(run: Run) -> str:
    state = run.state
    if state.published_at and state.published_at >= state.requested_at:
        return "cancelled, what was answered is published" if state.cancelled else "published"
    if state.cancelled:
        return "cancelling" if state.build_finished else "cancelled before anything was asked"
    if not state.build_finished:
        return "reading documents"
    if run.awaits_approval:
        return "waiting for approval"
    return "settled, to be published" if state.settled else "waiting for answers"
