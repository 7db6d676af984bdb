"""One plan over all windows of a backfill, made before anything is bought."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from decimal import ROUND_UP, Decimal
from pathlib import Path

import msgspec

from lowtide import money
from lowtide.backfill.asking import Reprocess, Span
from lowtide.backfill.listing import Listed
from lowtide.backfill.looking import Found, Need, need_of, run_begun
from lowtide.backfill.record import Backfill, WindowPlan
from lowtide.budget.approval import expected_usd
from lowtide.engine import plan_run
from lowtide.errors import ConfigError
from lowtide.inputs import spool
from lowtide.ledger import spent
from lowtide.plan import Candidate, PlannedOption, RunPlan, Work
from lowtide.sharding.lines import line_template
from lowtide.windows import Window

WorkOf = Callable[[Window], Work]
"""Puts the job together for a window; raises ConfigError, MissingExtra or UnsafeStore."""

Heard = Callable[[Window, WindowPlan], None]
"""Told of each window as soon as it is planned."""

MARGIN = Decimal("1.25")
"""By how much the worst case is taken to be worse than a sample says."""

_NAME_BYTES = 64
"""Bytes of a request's id and marker, which its line's template does not hold."""

_STEP = Decimal(1).scaleb(-6)


@dataclass(frozen=True)
class PlannedWindow:
    """A window with what is to be done about it. `plan` is that of its run; None if it is passed over."""

    window: Window
    shown: WindowPlan
    need: Need
    plan: RunPlan | None = None


def plan_backfill(
    backfill: Backfill,
    windows: Collection[Window],
    work_of: WorkOf,
    *,
    ended: Collection[str] = (),
    exact: bool = False,
    clock: Callable[[], float],
    heard: Heard = lambda window, shown: None,
) -> tuple[PlannedWindow, ...]:
    """What is done about each window, in their order. Writes nothing and spends nothing.

    `ended` are the paths of the backfill's runs that have ended. Documents are sampled, unless `exact`, or where only
    all of them tell whether a window is run at all. Raises ConfigError if no backend can do what the job asks.
    """
    found: list[PlannedWindow] = []
    for window in windows:
        planned = plan_window(
            window, work_of(window), backfill.wanted.reprocess, backfill.id, ended=ended, exact=exact, clock=clock
        )
        heard(window, planned.shown)
        found.append(planned)
    return tuple(found)


def plan_window(
    window: Window,
    work: Work,
    reprocess: Reprocess,
    backfill: str,
    *,
    ended: Collection[str] = (),
    exact: bool = False,
    clock: Callable[[], float],
) -> PlannedWindow:
    """What is done about one window. Writes nothing and spends nothing."""
    with spool() as folder:
        listed = Listed(work.documents, Path(folder))
        if not listed.inputs.files:
            return _passed(window, Need("", "no documents"))
        need = need_of(work, listed.inputs.sha256, reprocess, backfill=backfill, ended=ended)
        if not need.word:
            return _passed(window, need)
        work = replace(work, documents=listed, refresh=need.refresh)
        begun = run_begun(work, listed.inputs.sha256)
        plan = begun.plan if begun else _planned(work, exact=exact or need.count, clock=clock)
        documents = plan.documents
        if documents is not None and not documents.documents:
            return _passed(window, Need("", "no documents"))
        if need.count and not begun and documents is not None and not documents.new:
            return _passed(window, Need("", "every document has its row"))
        return PlannedWindow(window, _shown(window, work, need, plan, begun), need, plan)


def _planned(work: Work, *, exact: bool, clock: Callable[[], float]) -> RunPlan:
    plan = plan_run(work, exact=exact, clock=clock)
    if plan.documents is not None and not plan.documents.documents and not plan.documents.exact:
        # A sample in which nothing was found says little about a window that few rows of a file belong to.
        plan = plan_run(work, exact=True, clock=clock)
    return plan


def _passed(window: Window, need: Need) -> PlannedWindow:
    span = bounds_of(window)
    return PlannedWindow(window, WindowPlan(window.name, span.start, span.end, why=need.why), need)


def bounds_of(window: Window) -> Span:
    """The window's bounds. Raises ConfigError for `all`, which has none."""
    if window.start is None or window.end is None:
        raise ConfigError(f"window {window.name}: found no bounds; a backfill goes over windows of time")
    return Span(window.start, window.end)


def _shown(window: Window, work: Work, need: Need, plan: RunPlan, begun: Found | None) -> WindowPlan:
    option = next((found for found in plan.options if found.chosen), None)
    low = option.cost_low_usd if option else plan.cost_usd
    high = option.cost_high_usd if option else plan.cost_usd
    left = plan.cost_usd
    if begun is not None and plan.price is not None:
        # Of a run that is under way, only what is left will be spent.
        gone = spent(begun.state, plan.price.price())
        left = max(expected_usd(plan, begun.state) - gone, Decimal(0))
        low, high = max(low - gone, Decimal(0)), max(high - gone, left)
    worst = worst_usd(work, plan, option)
    documents, span = plan.documents, bounds_of(window)
    return WindowPlan(
        window.name,
        span.start,
        span.end,
        needs=need.word,
        why=need.why,
        run_id=plan.run_id,
        documents=documents.documents if documents else plan.files,
        requests=option.requests if option else 0,
        cached=option.cached if option else 0,
        twins=option.twins if option else 0,
        cost_low_usd=min(low, left),
        cost_usd=left,
        cost_high_usd=high,
        worst_usd=worst,
        least_usd=min(worst, _up(high + worst / max(option.shards if option else 1, 1))),
        backend=plan.backend,
        model=plan.model,
        replaces_rows=plan.replaces.rows if plan.replaces else 0,
        begun=begun is not None,
        exact=documents.exact if documents else True,
        late=option is not None and not option.fits_deadline,
    )


def worst_usd(work: Work, plan: RunPlan, option: PlannedOption | None) -> Decimal:
    """USD that the engine may have to reserve for all requests of the run together, and some more.

    That is each byte taken for a token, and each answer as long as it may be.
    """
    candidate = _candidate(work, plan)
    if option is None or candidate is None or not option.requests:
        return Decimal(0)
    price = candidate.price.of(on_demand=option.on_demand)
    every = max(option.requests + option.cached + option.twins, 1)
    texts = (plan.documents.text_bytes if plan.documents else plan.bytes) * len(work.operations)
    prompts = max(
        sum(map(len, line_template(candidate.backend, operation).literals)) + _NAME_BYTES
        for operation in work.operations
    )
    size = texts * option.requests // every + option.requests * prompts
    longest = max(operation.max_output_tokens for operation in work.operations)
    asked = money.product(max(price.unit("input"), price.unit("cached_input")), size)
    answered = money.product(max(price.unit("output"), price.unit("reasoning")), option.requests * longest)
    return _up((asked + answered) * MARGIN)


def _candidate(work: Work, plan: RunPlan) -> Candidate | None:
    named = [found for found in work.allowed if (found.backend.name, found.backend.model) == (plan.backend, plan.model)]
    return next((found for found in named if found.backend.region == plan.region), named[0] if named else None)


def _up(usd: Decimal) -> Decimal:
    return usd.quantize(_STEP, ROUND_UP)


def with_windows(backfill: Backfill, planned: Collection[PlannedWindow], *, at: float) -> Backfill:
    """The record of what was planned, windows in their order of time."""
    shown = sorted((found.shown for found in planned), key=lambda found: found.start)
    return msgspec.structs.replace(backfill, windows=tuple(shown), asked_at=at)
