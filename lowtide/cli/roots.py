"""Which root a command reads, and from when to when: the same checks and answers for all that read ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from datetime import datetime

    from lowtide.job import Job
    from lowtide.protocols import Store

NOTHING = 3
TIMES = "a day, week, month or year (UTC), such as 2026-11-20, 2026-W47 or 2026-11"
_JOB = "lowtide.yaml"


def open_root(job: str | None, root: str | None, *, given_as: str = "JOB") -> tuple[Store, Job | None]:
    """The root that is named, or that of the job file (by default ./lowtide.yaml), with its job.

    `given_as` is how the command takes the job file: `JOB` or `--job`. Raises ConfigError where both are given, or
    neither is there.
    """
    from pathlib import Path

    from lowtide.connectors.stores import open_store
    from lowtide.errors import ConfigError
    from lowtide.job import load_job

    if root is not None:
        if job is not None:
            raise ConfigError(f"{given_as} and --root: one of them; a job file names its root")
        return open_store(root), None
    if job is None and not Path(_JOB).exists():
        how = "with --job" if given_as == "--job" else "after the command"
        raise ConfigError(f"{_JOB}: no such file; name a job file {how}, or a root with --root")
    loaded = load_job(Path(job or _JOB))
    return open_store(loaded.output.root), loaded


def since_until(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """When the two begin. Raises ConfigError for what is no time, and where nothing lies between them."""
    from lowtide.errors import ConfigError

    start, end = _start("--since", since), _start("--until", until)
    if start and end and start >= end:
        raise ConfigError(f"--until: {until} begins before there is anything since {since}; nothing lies between them")
    return start, end


def _start(option: str, text: str | None) -> datetime | None:
    """When a day, a month and so on begins. Raises ConfigError."""
    from lowtide.errors import ConfigError
    from lowtide.windows import parse_window

    if text is None:
        return None
    try:
        window = parse_window(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: found {text!r}; expected {TIMES}") from error
    if ".." in text or "--" in text:
        raise ConfigError(f"{option}: found {text!r}; expected {TIMES}: --since and --until make a range together")
    return window.start


def has_ledger(store: Store) -> bool:
    """Whether any run has written a ledger under this root."""
    from lowtide.billing.reading import ledger_files

    return next(ledger_files(store), None) is not None


def say_no_ledger(store: Store, only: Sequence[str] = ()) -> int:
    """Say that no run has ended under this root, or of these jobs; the exit code."""
    whose = f" of {', '.join(only)}" if only else ""
    click.echo(
        f"there is no ledger{whose} under {store.uri}: a run writes one when it ends, so `lowtide run` comes first",
        err=True,
    )
    return NOTHING
