"""Progress for people: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lowtide.engine.progress import Listener, Progress

LINE_EVERY = 15.0
"""Seconds between two lines of a log while the step stays the same."""


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows what it hears on standard error."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar() as listener:
            yield listener
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("listing documents", total=None, unit="")

        def listen(progress: Progress) -> None:
            if progress.records:
                bar.update(
                    task, description=progress.step, total=progress.records, completed=progress.answered, unit="answers"
                )
            else:
                bar.update(task, description=progress.step, completed=progress.documents, unit="documents")

        yield listen


class _Lines:
    """One line whenever the step changes, and now and then in between."""

    def __init__(self) -> None:
        self._step = ""
        self._at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.step == self._step and now - self._at < LINE_EVERY:
            return
        self._step, self._at = progress.step, now
        detail = (
            f"{progress.answered:,} of {progress.records:,} answers, {progress.settled} of {progress.shards} shards"
            if progress.records
            else f"{progress.documents:,} documents"
        )
        print(f"lowtide: {progress.step}: {detail}", file=sys.stderr, flush=True)
