"""The flow that fills many windows: one plan, one cap, and a flow run of the job's deployment for each window."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
from prefect import Flow, flow, get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import Field

from lowtide import backfill as domain
from lowtide import money
from lowtide.backfill import Backfill, Drive, Ended, Reprocess
from lowtide.engine.progress import Listener, Progress
from lowtide.engine.run import Run
from lowtide.errors import ConfigError
from lowtide.flows import approval
from lowtide.flows.backfill_page import question, write_plan
from lowtide.flows.children import Children
from lowtide.flows.failures import say_plainly
from lowtide.flows.filling import Place, Planned
from lowtide.flows.run import scheduled
from lowtide.flows.scheduled import BackendKind, Usd, WindowText

WAIT_SECONDS = 4 * 3600.0
"""For so long a parent looks after its windows, before it hands over to the next one: none lives for a day."""

HAND_OVER = timedelta(minutes=1)
"""Until the next one begins: this one has to be gone by then, since there is only one at a time."""


def _flow_run_name() -> str:
    asked = flow_run.parameters
    return f"backfill of {Path(str(asked['job'])).stem}, {asked['first']} to {asked['last']}"


def stop_open(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """When the flow run is cancelled on Prefect's pages: ask the windows that are open to stop; the tick does it."""
    place = Place(flow_run.parameters, flow_run.expected_start_time or datetime.now(UTC))
    found = domain.last_asked(place.root, place.wanted)
    if found is None or found.finished_at:
        return
    domain.write_backfill(place.root, msgspec.structs.replace(found, cancelled_at=time.time()))
    for _ in domain.stop_windows(place.windows, place.work_of, place.allotments(found), clock=time.time):
        pass


@flow(
    name="lowtide backfill",
    flow_run_name=_flow_run_name,
    persist_result=False,
    validate_parameters=True,
    on_cancellation=[stop_open],
)
def backfill_job(
    job: str,
    run_due: str,
    first: WindowText,
    last: WindowText,
    by: str | None = None,
    reprocess: Reprocess = "missing",
    max_usd: Usd | None = None,
    approved_usd: Usd | None = None,
    max_active: Annotated[int, Field(ge=1, le=50)] = 3,
    backends: list[BackendKind] | None = None,
    newest_first: bool = False,
    exact: bool = False,
    again: bool = False,
    cancel: bool = False,
    wait: Annotated[float, Field(ge=0)] = WAIT_SECONDS,
) -> State[dict[str, object]]:
    """Run each window from `first` to `last` by the deployment that runs the job; the tick sees the runs through.

    One plan is made over all windows, and nothing is bought before it is approved. Asked the same again, it goes on;
    once all is done it buys nothing. After `wait` seconds it hands over to a further flow run of its own deployment, if
    it has one.

    Args:
        job: The job file, where the worker runs.
        run_due: The deployment that runs the job: `lowtide run due/NAME`.
        first: The first window: 2026-01, 2026-W01, 2026-01-01.
        last: The last one; the whole of it.
        by: The length of the windows, if not that of the job's schedule: hour, day, week, month, year, 10d, 2w.
        reprocess: Which published windows are run again, as for `lowtide backfill`.
        max_usd: What all windows together may cost at most, in USD.
        approved_usd: Spend about so much, in USD, without asking. Without it, the page of the flow run asks.
        max_active: So many windows are open at the same time, at most.
        backends: Ask only these of the job's backends.
        newest_first: Begin with the last window.
        exact: Read all documents for the plan, and not a sample.
        again: Ask and pay once more what was asked before: for `failed` and `all`.
        cancel: Stop what is open; windows that are done are kept.
        wait: Seconds that this flow run looks after its windows, and that its page asks; with 0, it opens what it may.
    """
    say_plainly()
    asked = {"job": job, "first": first, "last": last, "by": by, "reprocess": reprocess, "backends": backends}
    until = time.monotonic() + wait
    place = Place(asked, scheduled())
    if cancel:
        return _cancel(place, until)
    found = place.going_on(max_usd, again=again)
    if found is None:
        before = domain.last_asked(place.root, place.wanted)
        return _nothing("it was asked before, and is done; `again` asks and pays once more", before)
    planned = place.plan(found, newest_first=newest_first, exact=exact)
    if not planned.found.to_do:
        if domain.read_backfill(place.root, place.wanted.job, found.id):
            domain.conclude(place.root, planned.found, [], at=time.time())
        return _nothing("no window needs anything", planned.found)
    children = Children(run_due, job, found.id)
    children.check()
    write_plan(planned)
    allowed = _approved(place, planned, approved_usd, wait)
    if allowed is None:
        return _nothing("nobody has approved the plan", planned.found)
    domain.write_backfill(place.root, allowed.found)
    drive = _drive(place, allowed, children, max_active, until)
    return _tell(place, allowed, drive, drive.run(allowed.windows))


def _approved(place: Place, planned: Planned, approved_usd: Decimal | None, wait: float) -> Planned | None:
    """The plan with what may be spent; asks on the page where somebody has to say yes. None if nobody does.

    Raises ConfigError where there is no page that anybody looks at.
    """
    if approved_usd is not None and not planned.found.covers(planned.total):
        planned = planned.approved(approved_usd, "the parameter approved_usd")
    if not planned.asks:
        return planned
    usd, found = money.rough(planned.found.cost_usd), planned.found
    if deployment.id is None:
        raise ConfigError(f"the plan costs about {usd} USD, and nobody is here to approve it: give approved_usd")
    # From now on it can be found, and approved from elsewhere.
    domain.write_backfill(place.root, found)

    def elsewhere() -> Backfill | None:
        kept = domain.read_backfill(place.root, found.wanted.job, found.id)
        return kept if kept is not None and kept.covers(planned.total) else None

    if not approval.ask_on_page(question(planned), wait, lambda: elsewhere() is not None):
        return None
    kept = elsewhere()
    if kept is not None and kept.approved_usd is not None:
        return planned.approved(kept.approved_usd, kept.approved_by)
    return planned.approved(planned.total, approval.ON_PAGES)


def _drive(place: Place, planned: Planned, children: Children | None, most: int, until: float) -> Drive:
    """Opens the runs within the cap, lets children begin with them, and settles those that the tick has ended.

    Without `children`, all is left to the tick.
    """
    log, seen, looks = get_run_logger(), set[str](), count()

    def advance(run: Run, listen: Listener) -> Progress:
        over, window = domain.is_over(run.refresh()), run.plan.window
        # The tick may have done it all by now; on the pages, each window has its flow run even so.
        if children is not None and not (over and window in seen):
            children.see_to(window, run.plan.run_id)
            seen.add(window)
        return run.progress("published" if over else "with the tick", done=over)

    def ended(window: Ended) -> None:
        said = f": {window.why}" if window.why else ""
        log.info("window %s: %s, %s USD%s", window.window, window.stand, money.exact(window.usd), said)

    def leave() -> bool:
        # Each opens what it may, however little time it has: else they would hand over to each other for ever.
        return next(looks) > 0 and time.monotonic() >= until

    return Drive(
        planned.found,
        place.work_of,
        planned.allotments,
        most=most,
        sleep=lambda seconds: time.sleep(max(min(seconds, until - time.monotonic()), 0.0)),
        ended=ended,
        advance=advance,
        leave=leave,
    )


def _cancel(place: Place, until: float) -> State[dict[str, object]]:
    found = domain.last_asked(place.root, place.wanted)
    if found is None or found.finished_at:
        return _nothing("there is nothing to cancel", found)
    found = msgspec.structs.replace(found, cancelled_at=time.time())
    allotments = place.allotments(found)
    domain.settle_ended(place.first, allotments)
    domain.write_backfill(place.root, found)
    planned = Planned(found, (), allotments, allotments.spent)
    drive = _drive(place, planned, None, 1, until)
    return _tell(place, planned, drive, drive.cancel(place.windows))


def _tell(place: Place, planned: Planned, drive: Drive, ended: Sequence[Ended]) -> State[dict[str, object]]:
    """What has become of each window. What is left is for the next flow run, which this one asks for."""
    found, allotments = planned.found, planned.allotments
    if not drive.left and not found.cancelled_at:
        found = domain.conclude(place.root, found, [each.stand for each in ended], at=time.time())
    standing = {state.window: str(state.stand) for state in domain.window_states(place.root, found, allotments)}
    standing |= {each.window: each.stand for each in ended}
    counts, spent = Counter(standing.values()), allotments.spent
    said = ", ".join(f"{number} {word}" for word, number in counts.most_common())
    said = f"backfill {found.id}: {said}; {money.exact(spent)} USD for those that have ended"
    if drive.left:
        said += _hand_over(found.id, place.range)
    get_run_logger().info("%s", said)
    data = {"backfill": found.id, "spent_usd": money.exact(spent), "windows": standing}
    return Completed(message=said, data=data)


def _nothing(why: str, found: Backfill | None) -> State[dict[str, object]]:
    said = f"nothing bought: {why}"
    get_run_logger().info("%s", said)
    return Completed(message=said, data={"backfill": found.id if found else "", "spent_usd": "0", "windows": {}})


def _hand_over(backfill: str, windows: Mapping[str, str]) -> str:
    """Let a further flow run go on with the same windows, if this one is of a deployment."""
    if deployment.id is None:
        return "; run it again to go on"
    run_deployment(
        UUID(str(deployment.id)),
        parameters={**flow_run.parameters, **windows},
        scheduled_time=datetime.now(UTC) + HAND_OVER,
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{backfill}-after-{flow_run.id}",
    )
    return "; a further flow run goes on"
