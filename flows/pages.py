"""What a person sees on the page of a flow run: progress, counts and cost, and a summary with links.

Prefect is not the truth: a page that cannot be written is logged and passed over.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ParamSpec
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from lowtide.engine.run import Listener, Progress
from lowtide.schemas import STATUSES
from lowtide.summary import Summary

_LOG = logging.getLogger("lowtide.flows")

P = ParamSpec("P")

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


def write_summary(summary: Summary) -> None:
    """The table of counts and cost, and the summary with links."""
    rows = [[status, f"{summary.counts.get(status, 0):,}"] for status in STATUSES]
    rows += [
        ["requests", f"{summary.requests:,}"],
        ["input tokens", f"{summary.input_tokens:,}"],
        ["output tokens", f"{summary.output_tokens:,}"],
        ["tokens wasted", f"{summary.wasted_tokens:,}"],
        ["cost, USD", f"{summary.cost_usd:,.6f}"],
    ]
    table = [{"what": what, "how many": number} for what, number in rows]
    words = f"Rows, tokens and cost of {summary.job}, window {summary.window}"
    _tolerated(create_table_artifact, table, key=_key("counts", summary.job, summary.window), description=words)
    _tolerated(
        create_markdown_artifact,
        markdown(summary),
        key=_key("summary", summary.job, summary.window),
        description=f"{summary.job}, window {summary.window}: {summary.state}",
    )


def markdown(summary: Summary) -> str:
    """The run on half a page."""
    counts = ", ".join(f"{summary.counts[status]:,} {status}" for status in STATUSES if summary.counts.get(status))
    return "\n".join(
        [
            f"# {summary.job}, window {summary.window}",
            "",
            f"Run `{summary.run_id}` is **{summary.state}**.",
            "",
            f"- **{summary.documents:,}** documents, **{summary.rows:,}** rows: {counts or 'none yet'}",
            f"- **{summary.cost_usd:,.6f} USD** at {summary.backend}, model {summary.model}: "
            f"{summary.input_tokens:,} tokens in, {summary.output_tokens:,} out",
            f"- results: {_link(summary.results)}",
            f"- ledger: {_link(summary.ledger)}",
            "",
            "```python",
            "import pandas as pd",
            f"pd.read_parquet({summary.results!r})",
            "```",
        ]
    )


def _link(uri: str) -> str:
    return f"[{uri}]({uri})" if "://" in uri else f"`{uri}`"
