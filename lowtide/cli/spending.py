"""`spend`: what a month has cost under a root, drawn in the terminal, as a page, or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lowtide.cli.options import ends_well, json_option
from lowtide.cli.roots import has_ledger, open_root, say_no_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lowtide.billing.spend import Month, SpendMonth
    from lowtide.budget.caps import Cap
    from lowtide.protocols import Store


@click.command()
@click.argument("job", type=click.Path(), required=False)
@click.option("--root", metavar="ADDRESS", help="The root itself, instead of a job that writes to it.")
@click.option("--month", metavar="MONTH", help="Such as 2026-11.  [default: this month, in UTC]")
@click.option(
    "--html", "page", metavar="FILE", type=click.Path(), help="Write one self-contained HTML page; - for stdout."
)
@json_option
@ends_well
def spend(job: str | None, root: str | None, month: str | None, page: str | None, as_json: bool) -> int:
    """Show what a month has cost under a root, by job and by day, against its caps.

    JOB names the root, and all jobs that write to it are shown; the cap of a job (budget.month_usd) is known only of
    the one that is given. Reads ledgers, caps and reservations; writes nothing there.
    """
    from datetime import UTC, datetime

    from lowtide.billing.spend import Month
    from lowtide.budget.caps import job_caps

    now = datetime.now(UTC)
    wanted = Month.parse(month) if month else Month.of(now)
    store, loaded = open_root(job, root)
    caps = job_caps(loaded.name, loaded.budget.month_usd) if loaded else ()
    found = _read(store, caps, wanted, now)
    if not found.jobs and not has_ledger(store):
        return say_no_ledger(store)
    _show(found, page=page, as_json=as_json)
    return 0


def _read(store: Store, caps: Sequence[Cap], month: Month, now: datetime) -> SpendMonth:
    from lowtide.billing.spend import spend_month
    from lowtide.billing.spend_lines import read_month
    from lowtide.budget.account import Account
    from lowtide.budget.rootfile import read_caps

    account = Account(store, str(month), "").refresh()
    every = [*read_caps(store), *caps]
    return spend_month(store.uri, month, read_month(store, month), caps=every, account=account, now=now)


def _show(found: SpendMonth, *, page: str | None, as_json: bool) -> None:
    from lowtide.plainjson import plain_json

    if page is not None:
        _write_page(found, page)
    if as_json:
        click.echo(plain_json(found).decode())
    elif page is None:
        from lowtide.cli.spend_view import show_spend

        show_spend(found)


def _write_page(found: SpendMonth, page: str) -> None:
    import sys
    from pathlib import Path

    from lowtide.billing.spend_page import write_spend_page
    from lowtide.errors import ConfigError

    if page == "-":
        write_spend_page(found, sys.stdout.buffer)
        return
    try:
        with Path(page).open("wb") as out:
            write_spend_page(found, out)
    except OSError as error:
        raise ConfigError(f"{page}: cannot be written: {error.strerror}") from error
    click.echo(page, err=True)
