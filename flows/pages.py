"""What a person sees on the page of a flow run: progress, counts and cost, and a summary with links.

Prefect is not the truth: a page that cannot be written is logged and passed over.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import ParamSpec
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from lowtide import ledger, money
from lowtide.billing.reading import is_priced
from lowtide.engine.progress import Listener, Progress
from lowtide.engine.run import Run
from lowtide.schemas import STATUSES
from lowtide.summary import Summary

_LOG = logging.getLogger("lowtide.flows")

P = ParamSpec("P")

UNKNOWN = "not known: no price in the job file"
EVERY = 5.0
"""Seconds between two updates of the progress artifact."""


def _tolerated(write: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> object:
    try:
        return write(*args, **kwargs)
    except Exception as error:
        # Whatever the server says, the run goes on.
        _LOG.warning("a Prefect page was not written: %s", type(error).__name__)
        return None


def _key(*words: str) -> str:
    """An artifact key: lower-case letters, digits and dashes (Prefect's rule)."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


class ProgressPage:
    """A listener that keeps a progress artifact, and passes on what it hears."""

    def __init__(self, job: str, window: str, then: Listener) -> None:
        key, words = _key("progress", job, window), f"{job}, window {window}"
        made = _tolerated(create_progress_artifact, 0.0, key=key, description=words)
        self._artifact = made if isinstance(made, UUID) else None
        self._then = then
        self._words = words
        self._at = datetime.min.replace(tzinfo=UTC)

    def __call__(self, progress: Progress) -> None:
        self._then(progress)
        now = datetime.now(UTC)
        if self._artifact is None or ((now - self._at).total_seconds() < EVERY and not progress.done):
            return
        self._at = now
        share = 100.0 * progress.answered / progress.records if progress.records else 0.0
        words = f"{self._words}: {progress.step}, {progress.answered:,} of {progress.records:,} answers"
        _tolerated(update_progress_artifact, self._artifact, progress=share, description=words)


@dataclass(frozen=True, slots=True)
class Money:
    """A run's money in USD, as far as it is known; None for what is not.

    `wasted` is a part of `cost`. `saved` is what the same tokens would have cost more in real time, `cached` what
    answers of earlier runs would have cost again. `cap` is the most that the run may cost.
    """

    planned: Decimal | None
    low: Decimal | None
    high: Decimal | None
    cost: Decimal | None
    wasted: Decimal | None
    saved: Decimal | None
    cached: Decimal | None
    cap: Decimal | None


def write_text(key: str, text: str, description: str) -> None:
    """A page of Markdown under a key of its own."""
    _tolerated(create_markdown_artifact, text, key=_key(key), description=description)


def money_of(summary: Summary, run: Run | None = None) -> Money:
    """What the run's summary says of money, and with the run itself, its ledger and its plan as well."""
    priced = is_priced(summary.price_id, summary.cost_usd)
    unplanned = not is_priced(summary.price_id, summary.planned_usd)
    wasted = realtime = None
    plan = None if run is None else run.plan
    if run is not None and priced:
        price = run.context.work.price
        lines = ledger.entries(run.plan, run.state, price)
        wasted = money.total(line.amount for line in lines if line.kind == "actual" and line.waste)
        realtime = ledger.realtime(run.state, price)
    option = next((one for one in plan.options if one.chosen), None) if plan else None
    return Money(
        planned=None if unplanned else summary.planned_usd,
        low=None if unplanned or option is None else option.cost_low_usd,
        high=None if unplanned or option is None else option.cost_high_usd,
        cost=summary.cost_usd if priced else None,
        wasted=wasted,
        saved=realtime - summary.cost_usd if realtime else None,
        cached=summary.saved_usd if priced and summary.reused else None,
        cap=plan.run_usd if plan else None,
    )


def write_summary(summary: Summary, run: Run | None = None) -> None:
    """The table of counts and cost, and the summary with links; with the run, also what only it knows of money."""
    known = money_of(summary, run)
    table = [{"what": what, "how many": number} for what, number in rows(summary, known)]
    words = f"Rows, tokens and cost of {summary.job}, window {summary.window}"
    _tolerated(create_table_artifact, table, key=_key("counts", summary.job, summary.window), description=words)
    _tolerated(
        create_markdown_artifact,
        markdown(summary, known),
        key=_key("summary", summary.job, summary.window),
        description=f"{summary.job}, window {summary.window}: {summary.state}",
    )


def rows(summary: Summary, known: Money) -> list[tuple[str, str]]:
    """What the table of counts says, line by line. What nobody knows is said in words, or left out."""
    said = [(status, f"{summary.counts.get(status, 0):,}") for status in STATUSES]
    said += [
        ("requests asked", f"{summary.requests:,}"),
        ("requests answered by earlier runs", f"{summary.reused:,}"),
        ("requests that repeat another", f"{summary.twins:,}"),
        ("input tokens", f"{summary.input_tokens:,}"),
        ("output tokens", f"{summary.output_tokens:,}"),
        ("tokens wasted", f"{summary.wasted_tokens:,}"),
        *_machines(summary),
        ("planned cost", _usd(known.planned)),
        ("cost", _usd(known.cost)),
    ]
    optional = (
        ("cost of waste", known.wasted),
        ("saved against real time", known.saved),
        ("saved by the cache", known.cached),
        ("cap of the run", known.cap),
    )
    said += [(name, _usd(usd)) for name, usd in optional if usd is not None]
    if summary.reserved_usd:
        said.append(("reserved now", _usd(summary.reserved_usd)))
    return said


def _machines(summary: Summary) -> list[tuple[str, str]]:
    """Time of machines that are paid by the clock."""
    if not summary.machine_seconds:
        return []
    return [
        ("machine seconds", f"{summary.machine_seconds:,}"),
        ("machine seconds wasted", f"{summary.wasted_seconds:,}"),
    ]


def markdown(summary: Summary, known: Money) -> str:
    """The run on half a page."""
    counts = ", ".join(f"{summary.counts[status]:,} {status}" for status in STATUSES if summary.counts.get(status))
    return "\n".join(
        [
            f"# {summary.job}, window {summary.window}",
            "",
            f"Run `{summary.run_id}` is **{summary.state}**.",
            "",
            f"- **{summary.documents:,}** documents, **{summary.rows:,}** rows: {counts or 'none yet'}",
            f"- cost **{_usd(known.cost)}** at {summary.backend}, model {summary.model}: "
            f"{summary.input_tokens:,} tokens in, {summary.output_tokens:,} out",
            *(f"- {line}" for line in _of_money(summary, known)),
            f"- results: {_link(summary.results)}",
            f"- ledger: {_link(summary.ledger)}",
            "",
            "```python",
            "import pandas as pd",
            f"pd.read_parquet({summary.results!r})",
            "```",
        ]
    )


def _of_money(summary: Summary, known: Money) -> list[str]:
    """Plan against actual, what was saved, what was wasted, and the cap, in words."""
    said: list[str] = []
    if known.planned is not None:
        between = (
            "" if known.low is None or known.high is None else f", between {_usd(known.low)} and {_usd(known.high)}"
        )
        said.append(f"planned: {_usd(known.planned)}{between}{_beside(known.cost, known.planned)}")
    if known.saved is not None:
        word = "saved against real time" if known.saved >= 0 else "paid more than in real time"
        said.append(f"{word}: {_usd(abs(known.saved))}")
    if summary.reused:
        worth = "" if known.cached is None else f": {_usd(known.cached)} saved"
        said.append(f"{summary.reused:,} requests answered by earlier runs{worth}")
    if summary.twins:
        said.append(f"{summary.twins:,} requests that repeat another one, bought once")
    lost = [f"{summary.wasted_tokens:,} tokens"] if summary.wasted_tokens else []
    if summary.wasted_seconds:
        lost.append(f"{summary.wasted_seconds:,} of {summary.machine_seconds:,} machine seconds")
    if lost:
        worth = "" if known.wasted is None else f": {_usd(known.wasted)}"
        said.append(f"{' and '.join(lost)} brought no answer that was kept{worth}")
    if known.cap is not None:
        used = (
            ""
            if known.cost is None
            else f", {_usd(max(known.cap - known.cost - summary.reserved_usd, Decimal(0)))} left"
        )
        said.append(f"cap of the run: {_usd(known.cap)}{used}" + (", reached" if summary.over_budget else ""))
    return said


def _beside(cost: Decimal | None, planned: Decimal) -> str:
    if cost is None or not planned:
        return ""
    share = (cost - planned) * 100 / planned
    return f"; it came to {abs(share):,.1f} % {'more' if share > 0 else 'less'}" if share else "; it came to that"


def _usd(amount: Decimal | None) -> str:
    """Six decimals, or as many as an amount needs that would show as nothing."""
    if amount is None:
        return UNKNOWN
    decimals = 6 if not amount or amount.adjusted() >= -6 else 1 - amount.adjusted()
    return f"{amount:,.{decimals}f} USD"


def _link(uri: str) -> str:
    return f"[{uri}]({uri})" if "://" in uri else f"`{uri}`"
