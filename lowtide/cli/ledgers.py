"""`ledger`: what all runs of a root have cost, and the same for the tools that know the bills of clouds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar

import click

from lowtide.cli.options import ends_well, json_option
from lowtide.cli.roots import NOTHING, TIMES, open_root, say_no_ledger, since_until

if TYPE_CHECKING:
    from lowtide.billing.reading import Selection
    from lowtide.protocols import Store

R = TypeVar("R")

DONE, BROKEN = 0, 2
_BY = "day, job, model, backend, window, run, kind, waste, token or tag:NAME; give it again for more than one"


@dataclass(frozen=True, slots=True)
class _Which:
    """Which ledgers, and which of their entries, as the options say."""

    job: str | None
    root: str | None
    only: tuple[str, ...]
    since: str | None
    until: str | None

    def below(self, above: _Which) -> _Which:
        """These options of a subcommand; where they are not given, those that stand before its name."""
        named = above if self.job is None and self.root is None else self
        return _Which(
            named.job, named.root, self.only or above.only, self.since or above.since, self.until or above.until
        )

    def selection(self) -> Selection:
        from lowtide.billing.reading import Selection

        return Selection(frozenset(self.only), *since_until(self.since, self.until))

    def store(self) -> Store:
        store, _ = open_root(self.job, self.root, given_as="--job")
        return store


def _selecting(command: Callable[..., R]) -> Callable[..., R]:
    """The options that say which ledgers, given to the command as its first argument."""
    options = (
        click.option("--job", type=click.Path(), help="The job file that names the root.  [default: lowtide.yaml]"),
        click.option("--root", metavar="ADDRESS", help="The root itself, instead of a job file."),
        click.option(
            "--only", metavar="JOBNAME", multiple=True, help="Of these jobs only, and not of all in the root."
        ),
        click.option("--since", metavar="TIME", help=f"From then on: {TIMES}."),
        click.option("--until", metavar="TIME", help="Before that begins."),
    )

    @wraps(command)
    def selected(
        *,
        job: str | None,
        root: str | None,
        only: tuple[str, ...],
        since: str | None,
        until: str | None,
        **rest: object,
    ) -> R:
        return command(_Which(job, root, only, since, until), **rest)

    for option in reversed(options):
        selected = option(selected)
    return selected


@click.group(invoke_without_command=True)
@_selecting
@click.option("--by", metavar="KEY", multiple=True, help=f"A line for each {_BY}.  [default: job]")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, every digit included.")
def ledger(which: _Which, by: tuple[str, ...], as_json: bool, as_csv: bool) -> None:
    """Add up what all runs of a root have cost: tokens, money, waste, and what was saved."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: one of them")
    context = click.get_current_context()
    context.obj = which
    if context.invoked_subcommand is None:
        _show(which, by, "json" if as_json else "csv" if as_csv else "text")


@ends_well
def _show(which: _Which, by: tuple[str, ...], form: Literal["text", "json", "csv"]) -> int:
    from lowtide.billing.sums import check_keys, sum_ledger
    from lowtide.cli import ledger_views as views

    by = by or ("job",)
    check_keys(by)
    selection, store = which.selection(), which.store()
    sums = sum_ledger(store, by, selection)
    if not sums.lines:
        return _nothing(store, sums.files, selection)
    if form == "text":
        views.show(sums)
    elif form == "json":
        views.show_json(sums, store.uri, selection)
    else:
        views.show_csv(sums)
    return DONE


@ledger.command()
@_selecting
@click.option("--focus", type=click.Choice(["1.2"]), required=True, help="The version of the specification.")
@click.option(
    "--out",
    default="focus.parquet",
    show_default=True,
    help="A file that ends in .parquet or .csv, or - to print CSV.",
)
@click.option(
    "--basis",
    type=click.Choice(["actual", "billed"]),
    default="actual",
    show_default=True,
    help="What was processed, at the prices of the ledger, or what the bills say that were reconciled.",
)
@click.option("--account", default="", metavar="ID", help="The provider's billing account.  [default: its name]")
@ends_well
def export(which: _Which, focus: str, out: str, basis: Literal["actual", "billed"], account: str) -> int:
    """Write the ledger as rows of FOCUS, the FinOps Open Cost and Usage Specification.

    Every row is checked by the rules of FOCUS first; if one breaks a rule, nothing is written.
    """
    from itertools import chain

    from lowtide.billing.focus import focus_rows
    from lowtide.billing.focus_files import Form, write_focus
    from lowtide.billing.reading import ledger_files
    from lowtide.errors import ConfigError

    which = which.below(click.get_current_context().obj)
    form: Form | None = "csv" if out == "-" or out.casefold().endswith(".csv") else None
    form = "parquet" if out.casefold().endswith(".parquet") else form
    if form is None:
        raise ConfigError(f"--out: found {out!r}; expected a file that ends in .parquet or .csv, or -")
    selection, store = which.selection(), which.store()
    rows = focus_rows(store, selection, basis=basis, account=account)
    first = next(rows, None)
    if first is None:
        return _nothing(store, sum(1 for _ in ledger_files(store, selection.jobs)), selection)
    with _replacing(out) as target:
        written = write_focus(chain([first], rows), target, form)
    if written.unpriced:
        click.echo(f"warning: {written.unpriced:,} rows have no known price: their cost of 0 says nothing", err=True)
    click.echo(f"{out}: {written.rows:,} rows of FOCUS {focus}", err=True)
    return DONE


@ledger.command()
@click.argument("file", type=click.Path())
@ends_well
def check(file: str) -> int:
    """Check a file of FOCUS 1.2 rows, Parquet or CSV, by the rules of the specification.

    Prints a line for each rule that is broken, with its row and its section; then the exit code is 2.
    """
    broken = 0
    for violation in _violations(file):
        broken += 1
        click.echo(violation)
    if broken:
        click.echo(f"{file}: {broken:,} violation{'' if broken == 1 else 's'} of FOCUS 1.2", err=True)
        return BROKEN
    click.echo(f"{file}: keeps the rules of FOCUS 1.2", err=True)
    return DONE


def _violations(file: str) -> Iterator[str]:
    """What breaks a rule, a line each. What the reader of these lines raises is none of the file's errors."""
    from pathlib import Path

    from lowtide.billing.focus_files import check_focus
    from lowtide.errors import ConfigError

    try:
        with Path(file).open("rb") as source:
            yield from map(str, check_focus(source, Path(file).name))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def _nothing(store: Store, files: int, selection: Selection) -> int:
    """Say why there is nothing, and what to do."""
    only = sorted(selection.jobs)
    if not files:
        return say_no_ledger(store, only)
    whose = f" of {', '.join(only)}" if only else ""
    there = "the only ledger" if files == 1 else f"none of the {files:,} ledgers"
    has = "has no such entry" if files == 1 else "has such an entry"
    given = [f"--{name}" for name in ("since", "until") if getattr(selection, name) is not None]
    advice = f"try without {' and '.join(given)}" if given else "what it adds up to is nothing that was bought or saved"
    click.echo(f"{there}{whose} under {store.uri} {has}: {advice}", err=True)
    return NOTHING


@contextmanager
def _replacing(out: str) -> Iterator[BinaryIO]:
    """A stream whose file appears in one step when the block ends, and never if it raises; `-` is standard output."""
    from pathlib import Path

    from lowtide.errors import ConfigError

    if out == "-":
        yield sys.stdout.buffer
        return
    path = Path(out)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        stream = beside.open("wb")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        with stream:
            yield stream
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
