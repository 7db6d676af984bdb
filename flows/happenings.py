"""What happens to runs, as Prefect events that automations can act upon.

    lowtide.run.published          the window's tables hold the run's rows
    lowtide.run.waiting-approval   nothing is submitted before somebody has approved what it will cost
    lowtide.run.over-budget        a cap leaves requests unasked
    lowtide.run.failed             the run cannot go on until somebody does something
    lowtide.run.troubled           it could not go on now, and may by itself

An event is about the resource `lowtide.run.<run id>`, and related to its job, window and root. It holds counts and
money, and no text. Prefect is not the truth: an event that cannot be sent is logged and passed over.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.events import emit_event

from lowtide.budget.approval import command_of, expected_usd
from lowtide.engine.run import Run
from lowtide.summary import summarize
from lowtide.ticking import Taken

_LOG = logging.getLogger("lowtide.flows")

Happening = Literal["published", "waiting-approval", "over-budget", "failed", "troubled"]
PREFIX = "lowtide.run."


def standing(run: Run) -> frozenset[Happening]:
    """What holds of the run now that an event would tell of."""
    summary = summarize(run)
    holds: set[Happening] = set()
    if run.state.published_at and run.state.published_at >= run.state.requested_at:
        holds.add("published")
    elif run.state.build_finished and run.awaits_approval:
        holds.add("waiting-approval")
    if summary.over_budget or run.progress("").over_budget:
        holds.add("over-budget")
    return frozenset(holds)


def tell(run: Run, before: frozenset[Happening] = frozenset()) -> frozenset[Happening]:
    """Emit what has become true of the run since `before`; returns what holds now."""
    now = standing(run)
    for happening in sorted(now - before):
        _emit(happening, run.plan.job, run.plan.window, run.context.store.uri, run.plan.run_id, run=run)
    return now


def tell_of_failure(root: str, taken: Taken, run: Run | None = None) -> None:
    """Emit that a run could not go on; the same reason once a day, however often it is met."""
    happening: Happening = "troubled" if taken.outcome == "troubled" else "failed"
    _emit(happening, taken.job, taken.window, root, taken.run_id, run=run, reason=taken.error)


def _emit(
    happening: Happening, job: str, window: str, root: str, run_id: str, *, run: Run | None, reason: str = ""
) -> None:
    try:
        payload: dict[str, object] = {"job": job, "window": window, "root": root, "run_id": run_id}
        if reason:
            payload["reason"] = reason
        labels = {"lowtide.job": job, "lowtide.window": window, "lowtide.root": root}
        if run is not None:
            payload |= _figures(run)
            labels |= {"lowtide.backend": run.plan.backend, "lowtide.complete": _yes(_complete(run))}
        emit_event(
            event=PREFIX + happening,
            resource={
                "prefect.resource.id": PREFIX + run_id,
                "prefect.resource.name": f"{job}, window {window}",
                **labels,
            },
            related=[
                _related("job", f"lowtide.job.{job}", job),
                _related("window", f"lowtide.window.{job}.{window}", window),
                _related("root", f"lowtide.root.{root}", root),
            ],
            payload=payload,
            id=_event_id(happening, run_id, run, reason),
        )
    except Exception as error:
        # Whatever the server says, the run goes on.
        _LOG.warning("the event %s%s was not sent: %s", PREFIX, happening, type(error).__name__)


def _event_id(happening: Happening, run_id: str, run: Run | None, reason: str) -> UUID:
    """The same for the same transition: Prefect keeps an event of an id once, whoever sends it."""
    if happening in ("failed", "troubled"):
        when = f"{datetime.now(UTC).date()} {reason}"
    else:
        when = "" if run is None else repr((run.state.requested_at, run.state.published_at))
    return uuid5(NAMESPACE_URL, f"{PREFIX}{run_id}/{happening}/{when}")


def _related(role: str, resource: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": resource, "prefect.resource.role": role, "prefect.resource.name": name}


def _figures(run: Run) -> dict[str, object]:
    """Counts, and money in USD, written out in full."""
    summary, plan = summarize(run), run.plan
    figures: dict[str, object] = {
        "state": summary.state,
        "backend": plan.backend,
        "model": plan.model,
        "documents": summary.documents,
        "requests": summary.requests,
        "answered": summary.answered,
        "rows": summary.rows,
        "counts": summary.counts,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "planned_usd": _usd(summary.planned_usd),
        "cost_usd": _usd(summary.cost_usd),
        "saved_usd": _usd(summary.saved_usd),
        "deadline": datetime.fromtimestamp(plan.deadline, UTC).isoformat(),
    }
    cap: Decimal | None = run.context.work.run_usd
    if cap is not None:
        figures["cap_usd"] = _usd(cap)
    if run.awaits_approval:
        figures |= {"expected_usd": _usd(expected_usd(plan, run.state)), "approve": command_of(plan)}
    return figures


def _complete(run: Run) -> bool:
    """Whether each row has an answer, as far as is known."""
    counts = summarize(run).counts
    return set(counts) <= {"ok"}


def _usd(amount: Decimal) -> str:
    """Every digit, for programs."""
    return f"{amount:f}"


def _yes(holds: bool) -> str:
    return "true" if holds else "false"
