"""`reconcile`: a provider's bill against the ledger, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from lowtide.cli.options import ends_well, json_option
from lowtide.cli.roots import TIMES, has_ledger, open_root, say_no_ledger, since_until

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal

    from lowtide.billing.bill import BillLine
    from lowtide.billing.billed import Written
    from lowtide.billing.matching import Comparison
    from lowtide.billing.reconcile import Reconciliation

DONE, DRIFT = 0, 4
_WIDTH, _INDENT = 80, 17


@click.command()
@click.argument("job", type=click.Path(), required=False)
@click.option(
    "--bill",
    "bills",
    type=click.Path(),
    required=True,
    multiple=True,
    help="An export: AWS CUR 2.0, FOCUS or Azure costs. Once for each file of it.",
)
@click.option("--root", metavar="ADDRESS", help="The root whose ledger is compared.  [default: the job's]")
@click.option("--since", metavar="TIME", help=f"From then on: {TIMES}.")
@click.option("--until", metavar="TIME", help="Before that begins.")
@click.option("--map", "names", type=click.Path(), help="A YAML file: which models and units the bill's words mean.")
@click.option("--tolerance", metavar="USD", default="0", show_default=True, help="Let lines pass that differ by less.")
@click.option("--dry-run", is_flag=True, help="Compare, and write nothing.")
@json_option
@ends_well
def reconcile(
    job: str | None,
    bills: tuple[str, ...],
    root: str | None,
    since: str | None,
    until: str | None,
    names: str | None,
    tolerance: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compare a provider's bill with the ledger, and write what was billed into it.

    Shows every line that differs, with its file and row, and what could not be understood. Ends with 0 if nothing does,
    and with 4 otherwise. The same bill again writes nothing new.
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from lowtide.billing.billed import write_billed
    from lowtide.billing.reconcile import reconcile as compare
    from lowtide.connectors.bills import open_bill, read_names

    allowed = _dollars(tolerance)
    known = read_names(Path(names)) if names else None
    first, last = _days(since, until)
    opened = [open_bill(path, known) for path in bills]
    _check_files(bills)
    store, _ = open_root(job, root)
    if not has_ledger(store):
        return say_no_ledger(store)
    found = compare(store, opened, since=first, until=last)
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


def _days(since: str | None, until: str | None) -> tuple[date | None, date | None]:
    from lowtide.errors import ConfigError

    moments = since_until(since, until)
    for option, text, moment in zip(("--since", "--until"), (since, until), moments, strict=True):
        if moment and (moment.hour or moment.minute):
            raise ConfigError(f"{option}: found {text!r}; bills go by days (UTC): give a whole day")
    start, end = (moment.date() if moment else None for moment in moments)
    return start, end


def _check_files(bills: Sequence[str]) -> None:
    """Raises ConfigError for a file that is given twice, under whatever name: its lines would count twice."""
    from filecmp import cmp
    from itertools import combinations

    from lowtide.errors import ConfigError

    for first, second in combinations(bills, 2):
        if cmp(first, second, shallow=False):
            raise ConfigError(f"--bill: {first} and {second} hold the same: give each file of a bill once")


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
    from lowtide.money import usd

    return f"{'+' if amount >= 0 else ''}{usd(amount)}".rjust(width)


def _summary(found: Reconciliation, written: Written, *, dry_run: bool) -> Iterator[tuple[str, str]]:
    from lowtide.billing.matching import ROUNDING
    from lowtide.cli import views
    from lowtide.money import total

    compared = [comparison for comparison in found.comparisons if comparison.line]
    yield "days", f"{found.span.first} to {found.span.last} (UTC)"
    yield "lines", f"{found.read:,} read, {found.passed_over:,} of them for other services"
    kinds = {kind: len(found.of_kind(kind)) for kind in ("equal", "changed", "price", "extra", "missing")}
    said = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number or kind == "equal")
    yield "compared", f"{views.count(len(compared), 'line')}, {views.usd(found.billed_usd)}: {said}"
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
    new = f"{written.billed:,} billed, {views.count(written.corrections, 'correction')}"
    if not written.files:
        matched = any(comparison.shares for comparison in compared)
        held = "nothing new: the ledger holds this bill already"
        yield "written", held if matched else "nothing: no line is for a batch of this root"
    else:
        yield "written", f"nothing, as asked; it would be {new}" if dry_run else new


def _print_json(found: Reconciliation, written: Written, tolerance: Decimal, *, dry_run: bool) -> None:
    from lowtide.plainjson import plain_json

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
    click.echo(plain_json(data).decode())


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
