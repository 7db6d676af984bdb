"""The report of a run: its tables and its timeline, handed to the page."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import BinaryIO

from lowtide.billing.reading import is_priced
from lowtide.engine.publishing import ledger_path, results_path, runs_path
from lowtide.engine.run import Run
from lowtide.ledger import moment
from lowtide.report import ReportMeta, ShardTime, write_report
from lowtide.summary import summarize


def report_of(run: Run, out: BinaryIO) -> None:
    """Write the page about a run that has been published. Streams the tables: memory does not depend on their size."""
    plan, store = run.plan, run.context.store
    paths = {
        "results": results_path(plan.job, plan.window),
        "ledger": ledger_path(plan.job, plan.window, plan.run_id),
        "runs": runs_path(plan.job, plan.window, plan.run_id),
    }
    summary = summarize(run)
    meta = ReportMeta(
        job=plan.job,
        window=plan.window,
        run_id=plan.run_id,
        generated_at=datetime.now(UTC),
        shards=shard_times(run),
        tables={name: store.uri_of(path) for name, path in paths.items()},
        deadline=moment(plan.deadline),
        state=summary.state,
        priced=is_priced(plan.price_id, summary.cost_usd),
        plan=plan,
    )
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(store.open(path)) if store.info(path) else None for name, path in paths.items()
        }
        write_report(opened["results"], opened["ledger"], opened["runs"], out, meta=meta)


def shard_times(run: Run) -> list[ShardTime]:
    """When each attempt went through its states."""
    shards = run.state.shards
    return [
        ShardTime(
            number=attempt.shard,
            attempt=attempt.attempt,
            built=moment(shards[attempt.shard].built_at),
            submitted=moment(attempt.submitted_at),
            ended=moment(attempt.ended_at),
            collected=moment(attempt.collected_at),
            records=attempt.records,
            backend=run.plan.backend,
        )
        for attempt in run.state.attempts.values()
    ]
