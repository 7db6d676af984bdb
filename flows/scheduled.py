"""The flow that a schedule starts: open the runs of the windows that are due, and leave the rest to the tick."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from prefect import flow, get_run_logger
from pydantic import Field, PlainSerializer

from lowtide.backfill.asking import Reprocess
from lowtide.calendars import is_last
from lowtide.engine.run import Run
from lowtide.errors import LowtideError
from lowtide.flows.advance import advance_once
from lowtide.flows.failures import say_plainly
from lowtide.flows.pages import ProgressPage
from lowtide.flows.run import flow_run_name, scheduled
from lowtide.job import Job, load_job
from lowtide.openruns import Asked
from lowtide.summary import Summary
from lowtide.tasks import steps
from lowtide.windows import Window

WindowText = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z:+.-]{1,80}$")]
"""`last`, `all`, or what `lowtide.windows.parse_window` takes; the window itself is checked in the job's time zone."""

Usd = Annotated[
    Decimal, Field(gt=0, max_digits=18, decimal_places=12), PlainSerializer(lambda usd: f"{usd:f}", when_used="json")
]
"""Money in USD, as a number or as text with every digit."""

RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]

BackendKind = Literal["bedrock", "azure-batch", "openai-batch", "spot", "local"]


@flow(name="lowtide run due", flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def run_due(
    job: str,
    window: WindowText = "last",
    max_usd: Usd | None = None,
    backends: list[BackendKind] | None = None,
    reprocess: Reprocess = "missing",
    run_id: RunId | None = None,
) -> list[dict[str, object]]:
    """Open the runs that are due, with one pass each; the tick sees them through. Returns their summaries.

    A window that cannot be run does not keep the others from being run; the flow run fails then, in the end. Nothing is
    done for a window without documents.

    Args:
        job: The job file, where the worker runs.
        window: `last` is the last window that had ended when this was scheduled, and before it those that are open
            for late documents. Or one window: 2026-W47, 2026-11, 2026-11-20, all, START..END.
        max_usd: The most that the run of each window may cost, in USD, below the job file's own caps.
        backends: Ask only these of the job's backends. All of them, if none is named.
        reprocess: `missing` and `changed` ask what has no answer yet to the job file's questions as they are now;
            `failed` asks again also for rows that ended without an answer; `all` asks everything anew, past the cache.
        run_id: Go on with this run of the window, as it was begun, and list nothing: a backfill begins its runs itself.
    """
    say_plainly()
    loaded = load_job(Path(job))
    if run_id is not None:
        begun = steps.find_open(loaded, loaded.calendar.named(window, scheduled()), run_id)
        return [msgspec.to_builtins(_advance(begun))]
    asked = Asked(max_usd=max_usd, backends=tuple(backends or ()))
    log = get_run_logger()
    done: list[Summary] = []
    failed: list[LowtideError] = []
    for due in windows_due(loaded, window, scheduled()):
        try:
            summary = _open(loaded, due, asked, reprocess)
        except LowtideError as error:
            log.error("job %s, window %s: %s", loaded.name, due.name, error)
            failed.append(error)
        else:
            done += [] if summary is None else [summary]
    if failed:
        raise failed[0]
    return [msgspec.to_builtins(summary) for summary in done]


def windows_due(job: Job, window: str, now: datetime) -> tuple[Window, ...]:
    """The windows that a flow run is for that was scheduled for then: late in coming, it is still for those."""
    return job.calendar.due(now) if is_last(window) else (job.calendar.named(window, now),)


def _open(job: Job, window: Window, asked: Asked, reprocess: Reprocess) -> Summary | None:
    run = steps.open_window(job, window, asked, retry=reprocess == "failed", refresh=reprocess == "all")
    return None if run is None else _advance(run)


def _advance(run: Run) -> Summary:
    page = ProgressPage(run.plan.job, run.plan.window, lambda progress: None)
    return advance_once(run, page, is_new=True)
