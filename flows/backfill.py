"""The flow that goes through many windows, each in a flow run of the job's deployment, under one parent."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import Field

from lowtide import openruns
from lowtide.backfill.asking import Reprocess, in_order, span_of, windows_of
from lowtide.calendars import parse_every
from lowtide.connectors.stores import open_store
from lowtide.flows.run import scheduled
from lowtide.flows.scheduled import BackendKind, Usd, WindowText
from lowtide.job import load_job
from lowtide.protocols import Store

LOOK_SECONDS = 20.0
"""Between two looks at what the windows' runs have come to."""

WAIT_SECONDS = 4 * 3600.0
"""For so long a parent looks after its windows, before it hands over to the next one: none lives for a day."""

_PAGE = 200

_TRIES = 3
"""Flow runs for one window: one that failed or crashed is followed by another."""


def _flow_run_name() -> str:
    asked = flow_run.parameters
    return f"backfill of {Path(str(asked['job'])).stem}, {asked['first']} to {asked['last']}"


@flow(name="lowtide backfill", flow_run_name=_flow_run_name, persist_result=False, validate_parameters=True)
def backfill_job(
    job: str,
    run_due: str,
    first: WindowText,
    last: WindowText,
    by: str | None = None,
    reprocess: Reprocess = "missing",
    max_active: Annotated[int, Field(ge=1, le=100)] = 3,
    window_usd: Usd | None = None,
    backends: list[BackendKind] | None = None,
    newest_first: bool = False,
    wait: Annotated[float, Field(ge=0)] = WAIT_SECONDS,
) -> State[dict[str, object]]:
    """Run each window from `first` to `last` by the deployment that runs the job; the tick sees the runs through.

    Asked the same again, it goes on: a window has one flow run, and another only if that failed or crashed. After
    `wait` seconds it hands over to a further flow run of its own deployment, if it has one.

    Args:
        job: The job file, where the worker runs.
        run_due: The deployment that runs the job: `lowtide run due/NAME`.
        first: The first window: 2026-01, 2026-W01, 2026-01-01.
        last: The last one; the whole of it.
        by: The length of the windows, if not that of the job's schedule: hour, day, week, month, year, 10d, 2w.
        reprocess: As for a run that is due.
        max_active: So many windows are open at the same time, at most.
        window_usd: The most that the run of each window may cost, in USD.
        backends: Ask only these of the job's backends.
        newest_first: Begin with the last window.
        wait: Seconds that this flow run looks after its windows.
    """
    loaded, log = load_job(Path(job)), get_run_logger()
    span = span_of(loaded.calendar, first, last, scheduled())
    windows = windows_of(loaded.calendar, span, parse_every(by) if by else None)
    names = [window.name for window in in_order(windows, newest_first=newest_first)]
    asked: dict[str, object] = {"job": job, "reprocess": reprocess, "backends": backends}
    asked["max_usd"] = None if window_usd is None else f"{window_usd:f}"
    children = Children(run_due, asked, open_store(loaded.output.root), loaded.name)
    until = time.monotonic() + wait
    while True:
        standing = children.look_after(names, max_active)
        counts = Counter(standing.values())
        said = ", ".join(f"{counts[word]} {word}" for word in ("done", "open", "failed", "waiting") if counts[word])
        log.info("backfill %s: %s of %s windows", children.id, said, len(names))
        if not counts["open"] and not counts["waiting"]:
            break
        if time.monotonic() + LOOK_SECONDS > until:
            said += _hand_over(children.id)
            break
        time.sleep(LOOK_SECONDS)
    return Completed(message=said, data={"backfill": children.id, "windows": standing})


@dataclass
class Children:
    """The flow runs of a backfill's windows. Its id is a hash of what is asked of each, and of the root."""

    deployment: str
    asked: dict[str, object]
    root: Store
    job: str

    @property
    def id(self) -> str:
        """12 hex digits."""
        said = msgspec.json.encode([self.deployment, self.root.uri, *sorted(self.asked.items())])
        return hashlib.sha256(said).hexdigest()[:12]

    @property
    def tag(self) -> str:
        """What all flow runs of the backfill are tagged with."""
        return f"backfill-{self.id}"

    def look_after(self, windows: Sequence[str], max_active: int) -> dict[str, str]:
        """Start as many as there is room for; where each window stands: done, open, failed or waiting."""
        tries = self._tries()
        begun = {info.path.split("/")[2] for info in self.root.list(f"{openruns.FOLDER}{self.job}/")}
        standing = {window: _standing(tries.get(window, []), is_open=window in begun) for window in windows}
        room = max_active - sum(1 for word in standing.values() if word == "open")
        for window in [window for window in windows if standing[window] == "waiting"][: max(room, 0)]:
            self._start(window, len(tries.get(window, [])) + 1)
            standing[window] = "open"
        return standing

    def _tries(self) -> dict[str, list[FlowRun]]:
        """The flow runs of each window, in the order in which they were started."""
        found: dict[str, dict[int, FlowRun]] = {}
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[self.tag]))
        with get_client(sync_client=True) as client:
            while page := client.read_flow_runs(
                flow_run_filter=tagged, limit=_PAGE, offset=sum(map(len, found.values()))
            ):
                for run in page:
                    _, _, rest = (run.idempotency_key or "").partition(f"{self.id}-")
                    window, _, number = rest.rpartition("#") if "#" in rest else (rest, "", "1")
                    found.setdefault(window, {})[int(number)] = run
                if len(page) < _PAGE:
                    break
        return {window: [runs[number] for number in sorted(runs)] for window, runs in found.items()}

    def _start(self, window: str, number: int) -> None:
        key = f"{self.id}-{window}"
        run_deployment(
            self.deployment,
            parameters={**self.asked, "window": window},
            timeout=0,
            tags=[self.tag],
            idempotency_key=key if number == 1 else f"{key}#{number}",
        )


def _standing(tries: Sequence[FlowRun], *, is_open: bool) -> str:
    """Where a window stands whose flow runs these are, and whose run is open or not."""
    match tries[-1].state_type if tries else None:
        case None:
            return "waiting"
        case StateType.COMPLETED:
            # The flow run has only begun it: the run itself goes on until it is published.
            return "open" if is_open else "done"
        case StateType.FAILED | StateType.CRASHED:
            return "waiting" if len(tries) < _TRIES else "failed"
        case StateType.CANCELLED:
            return "failed"
        case _:
            return "open"


def _hand_over(backfill: str) -> str:
    """Let a further flow run go on, if this one is of a deployment."""
    if deployment.id is None:
        return "; run it again to go on"
    run_deployment(
        UUID(str(deployment.id)),
        parameters=flow_run.parameters,
        scheduled_time=datetime.now(UTC) + timedelta(seconds=3 * LOOK_SECONDS),
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{backfill}-after-{flow_run.id}",
    )
    return "; a further flow run goes on"
