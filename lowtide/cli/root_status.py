"""`status --all`: where all runs of a root stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from lowtide.cli.roots import open_root

if TYPE_CHECKING:
    from lowtide.status import RootStatus, RunStatus

F = TypeVar("F", bound=Callable[..., object])

NOTHING = 3
_DEFAULT = "lowtide.yaml"
_LAST = 3


def root_status_options(command: F) -> F:
    """The options by which `status` is asked about a whole root."""
    for option in (
        click.option("--last", default=_LAST, show_default=True, type=click.IntRange(0), help="Done runs a window."),
        click.option("--root", metavar="ADDRESS", help="All runs of this root, without a job file."),
        click.option("--all", "every", is_flag=True, help="All runs of the job's root, and not of one window."),
    ):
        command = option(command)
    return command


def show_root(job: str, root: str | None, *, last: int, as_json: bool) -> int:
    """Show all runs of a root: those that are open first, then the last that are done of each window."""
    import time

    from lowtide.status import root_status

    store, _ = open_root(None if job == _DEFAULT else job, root)
    now = time.time()
    found = root_status(store, now=now, last=last)
    if as_json:
        from lowtide.plainjson import plain_json

        click.echo(plain_json(found).decode())
    elif found.runs:
        _show(found, now)
    else:
        click.echo(f"no run has been begun under {store.uri}", err=True)
    return 0 if found.runs else NOTHING


def _show(found: RootStatus, now: float) -> None:
    from rich.text import Text

    from lowtide.cli.views import console

    out = console()
    head = f"{'job':<16} {'window':<12} {'run':<16} {'state':<21} {'age':>5} {'done':>6} {'cost, USD':>11}"
    out.print(Text(head, style="dim"), soft_wrap=True)
    for run in found.runs:
        line = Text(_line(run, now), style="" if run.open else "dim")
        out.print(line, soft_wrap=True)
        for said in _more(run):
            out.print(Text(f"    {said}", style="dim"), soft_wrap=True)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)


def _line(run: RunStatus, now: float) -> str:
    from lowtide import money
    from lowtide.status import age_in_words

    share = f"{100 * run.answered / run.requests:.0f} %" if run.requests else "-"
    age = age_in_words(now - run.started) if run.started else "-"
    cost = money.usd(run.cost_usd)
    return f"{run.job:<16} {run.window:<12} {run.run_id:<16} {run.state:<21} {age:>5} {share:>6} {cost:>11}"


def _more(run: RunStatus) -> list[str]:
    """What does not fit into the columns of an open run."""
    from lowtide.cli.views import moment

    if not run.open:
        return []
    asked = f"{run.documents:,} documents, {run.answered:,} of {run.requests:,} requests answered"
    said = [f"{asked}; {run.backend}, model {run.model}" if run.backend else asked]
    if run.deadline:
        late = " (late)" if run.late else ""
        expected = f"expected {moment(run.expected)}{late}, " if run.expected else ""
        said.append(f"{expected}deadline {moment(run.deadline)}")
    if run.job_file:
        said.append(f"begun with {run.job_file}" + (f", backfill {run.backfill}" if run.backfill else ""))
    if run.reason:
        said.append(run.reason)
    return said
