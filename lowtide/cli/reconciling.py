"""`reconcile`: a provider's bill against the ledger, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from lowtide.cli.options import ends_well, job_argument, json_option

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal

    from lowtide.billing.bill import BillLine
    from lowtide.billing.matching import Comparison
    from lowtide.billing.reconcile import Reconciliation, Written
    from lowtide.protocols import Store

DONE, DRIFT = 0, 4
_WIDTH, _INDENT = 80, 17
_DAY = click.DateTime(["%Y-%m-%d"])
"""Days are in UTC, as bills are."""


@click.command()
@job_argument
@click.option(
    "--bill",
    "bills",
    type=click.Path(),
    required=True,
    multiple=True,
    help="An export: AWS CUR 2.0, FOCUS or Azure costs. Once for each file of it.",
)
@click.option("--root", metavar="ADDRESS", help="The root whose ledger is compared.  [default: the job's]")
@click.option("--since", type=_DAY, metavar="YYYY-MM-DD", help="Only from this day (UTC) on.")
@click.option("--until", type=_DAY, metavar="YYYY-MM-DD", help="Only before this day (UTC).")
@click.option("--map", "names", type=click.Path(), help="A YAML file: which models and units the bill's words mean.")
@click.option("--tolerance", metavar="USD", default="0", show_default=True, help="Let lines pass that differ by less.")
@click.option("--dry-run", is_flag=True, help="Compare, and write nothing.")
@json_option
@ends_well
def reconcile(
    job: str,
    bills: tuple[str, ...],
    root: str | None,
    since: datetime | None,
    until: datetime | None,
    names: str | None,
    tolerance: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compare a provider's bill with the ledger, and write what was billed into it.

    Shows every line that differs, with its file and row, and what could not be understood. Ends with 0 if nothing does,
    and with 4 otherwise. The same bill again writes nothing new.
    """
    from datetime import UTC
    from pathlib import Path

    from lowtide.billing.reconcile import reconcile as compare
    from lowtide.billing.reconcile import write_billed
    from lowtide.connectors.bills import open_bill, read_names

    allowed = _dollars(tolerance)
    known = read_names(Path(names)) if names else None
    opened = [open_bill(path, known) for path in bills]
    store = _store(job, root)
    found = compare(store, opened, since=_date(since), until=_date(until))
    written = write_billed(store, found, datetime.now(UTC), dry_run=dry_run)
    if as_json:
        _print_json(found, written, allowed, dry_run=dry_run)
    else:
        _show(found, written, [bill.layout for bill in opened], dry_run=dry_run)
    return DONE if found.is_clean(allowed) else DRIFT


def _dollars(text: str) -> Decimal:
    from decimal import Decimal, InvalidOperation

    from lowtide.errors import ConfigError

    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"--tolerance: found {text!r}; an amount in USD is needed, such as 0.01")
    return amount


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def _store(job: str, root: str | None) -> Store:
    from pathlib import Path

    from lowtide.connectors.stores import open_store
    from lowtide.job import load_job

    return open_store(root if root is not None else load_job(Path(job)).output.root)


def _show(found: Reconciliation, written: Written, layouts: Sequence[str], *, dry_run: bool) -> None:
    """A table of the lines that differ, those that could not be understood, and the sums. Fits 80 columns."""
    from lowtide.cli import views

    out = views.console()
    for bill, layout in zip(found.bills, layouts, strict=True):
        out.print(f"bill       {bill} ({layout})", markup=False, soft_wrap=True)
    several = len(found.bills) > 1
    drifted = found.of_kind("changed", "price", "extra", "missing")
    if drifted:
        out.print(
            f"\n{'drift':<8}{'row':>7}  {'day':<10}  {'model':<22} {'billed - ledger':>15}{'USD':>13}", markup=False
        )
        for line in _drift_lines(drifted, several=several):
            out.print(line, markup=False, soft_wrap=True)
    if found.unknown:
        out.print("\nnot understood", markup=False)
        for unknown in found.unknown:
            out.print(
                f"{_where(unknown, several=several)}  {_usd(unknown.cost)} USD  {unknown.words}",
                markup=False,
                soft_wrap=True,
            )
            out.print(f"         {views.printable(unknown.unknown)}", markup=False, soft_wrap=True)
    if drifted or found.unknown:
        out.print("")
    views.print_pairs(list(_summary(found, written, dry_run=dry_run)))


def _where(line: BillLine, *, several: bool) -> str:
    from lowtide.cli import views

    return views.printable(f"{line.file}:{line.row}" if several else f"row {line.row}")


def _drift_lines(drifted: Sequence[Comparison], *, several: bool) -> Iterator[str]:
    """Figures, then what they are of."""
    from lowtide.cli import views

    for found in drifted:
        line, spent = found.line, found.shares[0].spent if found.shares else None
        row = str(line.row) if line else "-"
        day = str(line.first_day if line else spent.end if spent else "")
        model = spent.model if spent else line.model if line else ""
        kind, mode = (line.token_type, line.mode) if line else (spent.billed_as, spent.mode) if spent else ("", "")
        yield (
            f"{found.kind:<8}{row:>7}  {day:<10}  {views.tail(model, 22):<22} {found.tokens:>+15,}{_usd(found.usd, 13)}"
        )
        region = (line.region if line else "") or (spent.region if spent else "")
        said = ", ".join(part for part in (kind, mode.replace("_", " "), region) if part)
        if line:
            words = f"{line.file}: {line.words}" if several else line.words
        else:
            runs = sorted({share.spent.run_id for share in found.shares})
            words = f"on no line: run {', '.join(runs[:2])}{', …' if len(runs) > 2 else ''}"
        if len(said) + len(words) + _INDENT + 2 <= _WIDTH:
            yield views.printable(f"{'':>{_INDENT}}{said}; {words}")
        else:
            yield views.printable(f"{'':>{_INDENT}}{said}")
            yield views.printable(f"{'':>{_INDENT}}{words}")


def _usd(amount: Decimal, width: int = 0) -> str:
    """With its sign, and as many decimals as show that it is not nothing."""
    decimals = 4 if not amount or amount.adjusted() >= -4 else min(1 - amount.adjusted(), 12)
    return f"{amount:>+{width or 1},.{decimals}f}"


def _summary(found: Reconciliation, written: Written, *, dry_run: bool) -> Iterator[tuple[str, str]]:
    from lowtide.billing.matching import ROUNDING
    from lowtide.cli import views
    from lowtide.money import total

    compared = [comparison for comparison in found.comparisons if comparison.line]
    yield "days", f"{found.span.first} to {found.span.last} (UTC)"
    yield "lines", f"{found.read:,} read, {found.passed_over:,} of them for other services"
    kinds = {kind: len(found.of_kind(kind)) for kind in ("equal", "changed", "price", "extra", "missing")}
    said = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number or kind == "equal")
    yield "compared", f"{len(compared):,} lines, {views.usd(found.billed_usd)}: {said}"
    usd = found.usd if abs(found.usd) > ROUNDING * len(compared) else found.usd * 0
    yield "drift", f"{found.tokens:+,} tokens, {_usd(usd)} USD" if found.tokens or usd else "none"
    if found.unknown:
        yield "unknown", f"{views.count(len(found.unknown), 'line')}, {_usd(total(x.cost for x in found.unknown))} USD"
    if found.charges:
        names = ", ".join(sorted({line.charge for line in found.charges}))
        cost = _usd(total(line.cost for line in found.charges))
        yield "no usage", f"{views.count(len(found.charges), 'line')}, {cost} USD: {views.printable(names)}"
    if found.elsewhere:
        yield "elsewhere", f"{views.count(found.elsewhere, 'batch', 'batches')} in accounts that are not on this bill"
    new = f"{written.billed:,} billed, {written.corrections:,} corrections"
    if not written.files:
        yield "written", "nothing new: the ledger holds this bill already" if compared else "nothing"
    else:
        yield "written", f"nothing, as asked; it would be {new}" if dry_run else new


def _print_json(found: Reconciliation, written: Written, tolerance: Decimal, *, dry_run: bool) -> None:
    import orjson

    data = {
        "bills": list(found.bills),
        "first_day": found.span.first,
        "last_day": found.span.last,
        "lines_read": found.read,
        "lines_of_other_services": found.passed_over,
        "compared": sum(1 for comparison in found.comparisons if comparison.line),
        "equal": len(found.of_kind("equal")),
        "billed_usd": found.billed_usd,
        "drift_tokens": found.tokens,
        "drift_usd": found.usd,
        "clean": found.is_clean(tolerance),
        "drift": [_as_data(each) for each in found.of_kind("changed", "price", "extra", "missing")],
        "unknown": [{**_line_data(line), "reason": line.unknown} for line in found.unknown],
        "no_usage": [{**_line_data(line), "charge": line.charge} for line in found.charges],
        "batches_of_other_accounts": found.elsewhere,
        "written": {
            "dry_run": dry_run,
            "billed": written.billed,
            "corrections": written.corrections,
            "files": list(written.files),
        },
    }
    click.echo(orjson.dumps(data, default=str, option=orjson.OPT_INDENT_2).decode())


def _as_data(found: Comparison) -> dict[str, object]:
    spent = found.shares[0].spent if found.shares else None
    data: dict[str, object] = {"kind": found.kind, "tokens": found.tokens, "usd": found.usd}
    if found.line:
        data |= _line_data(found.line)
    elif spent:
        data |= {
            "day": spent.end,
            "provider": spent.provider,
            "region": spent.region,
            "model": spent.model,
            "token_type": spent.billed_as,
            "mode": spent.mode,
        }
    return {**data, "runs": sorted({share.spent.run_id for share in found.shares})}


def _line_data(line: BillLine) -> dict[str, object]:
    return {
        "file": line.file,
        "row": line.row,
        "day": line.first_day,
        "provider": line.provider,
        "account": line.sub_account or line.account,
        "region": line.region,
        "model": line.model,
        "token_type": line.token_type,
        "mode": line.mode,
        "quantity": line.quantity,
        "cost_usd": line.cost,
        "words": line.words,
    }
