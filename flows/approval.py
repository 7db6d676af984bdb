"""Asking on Prefect's pages whether a run may spend what it is expected to cost.

The answer goes into the run's journal, as that of `lowtide approve` does; either ends the pause.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from uuid import UUID

from prefect.exceptions import FlowPauseTimeout, NotPausedError
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run

from lowtide.budget.approval import approve, awaits_approval, expected_usd
from lowtide.engine.run import Run
from lowtide.journal import Journal
from lowtide.money import exact, rough

LOOK_SECONDS = 3.0
"""Between two looks at the page, and at the journal."""

_LATE_SECONDS = 60
"""After its time, Prefect fails a run that is paused. We end the pause ourselves before that."""

ON_PAGES = "somebody on Prefect's pages"
"""Who has approved, where Prefect does not say."""

_LOG = logging.getLogger("lowtide.flows")


class Approval(RunInput):
    """What the page asks."""

    approve: bool = False


def asks_here(run: Run) -> bool:
    """Whether there is something to approve, and a page for it that somebody looks at: that of a deployment."""
    return run.awaits_approval and deployment.id is not None


def ask(run: Run, wait: float) -> bool:
    """Pause the flow run until the run is approved, there or elsewhere; False if it is not in `wait` seconds.

    Where Prefect cannot pause, nothing is asked; then True, too: the run itself goes on waiting.
    """
    # Batches of earlier runs are stopped before anybody is waited for.
    run.advance()
    journal = Journal(run.context.store, run.plan.prefix, run.context.owner)
    expected = expected_usd(run.plan, run.state)
    said = ask_on_page(_question(run, expected), wait, lambda: not awaits_approval(run.plan, journal.refresh()))
    if said is None:
        return True
    if said:
        approve(run.context.journal, run.plan, by=ON_PAGES, at=run.context.clock(), usd=expected)
    run.refresh()
    return not run.awaits_approval


def ask_on_page(question: str, wait: float, elsewhere: Callable[[], bool]) -> bool | None:
    """Pause the flow run until somebody has answered, or it is approved `elsewhere`; whether that is a yes.

    False if nobody says anything in `wait` seconds; None where Prefect cannot pause. The question is Markdown.
    """
    asked = Approval.with_initial_data(description=question)
    try:
        with _ended_elsewhere(elsewhere, wait):
            answer = pause_flow_run(
                wait_for_input=asked, timeout=int(wait) + _LATE_SECONDS, poll_interval=int(LOOK_SECONDS)
            )
    except FlowPauseTimeout:
        return False
    except Exception as error:
        _LOG.warning("Prefect could not ask for approval: %s", type(error).__name__)
        return None
    return bool(answer.approve)


def _question(run: Run, expected: Decimal) -> str:
    plan, root = run.plan, run.context.store.uri
    above = exact(plan.approve_above_usd or Decimal(0))
    return "\n".join(
        [
            f"## Job {plan.job}, window {plan.window}",
            "",
            f"This run is expected to cost **{rough(expected)} USD** at {plan.backend}, model {plan.model}. "
            f"The job asks before it spends more than {above} USD.",
            "",
            f"Switch *approve* on and resume, or type `lowtide approve {root}/{plan.prefix}`. "
            "Without an answer nothing is spent, and the next flow run asks again.",
        ]
    )


@contextmanager
def _ended_elsewhere(elsewhere: Callable[[], bool], wait: float) -> Iterator[None]:
    """While the flow run is paused, a thread that resumes it once it is approved elsewhere, or time is up."""
    over = threading.Event()
    until = time.monotonic() + wait
    paused = UUID(str(flow_run.id))

    def watch() -> None:
        while not over.wait(min(LOOK_SECONDS, max(until - time.monotonic(), 0.1))):
            try:
                approved = elsewhere()
                if approved or time.monotonic() >= until:
                    # Once more on the next look if it is still paused: Prefect may abort it, and tells nobody.
                    resume_flow_run(paused, run_input={"approve": approved})
            except NotPausedError:
                # Not yet, or not any more: then `over` ends this.
                continue
            except Exception as error:
                _LOG.warning("the pause could not be ended: %s", type(error).__name__)

    # Prefect's settings are in the context of the thread that the flow runs in.
    watcher = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(LOOK_SECONDS)
