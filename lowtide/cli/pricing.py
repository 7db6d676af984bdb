"""`prices`: what stands in a price book, what is wrong with it, and how it is brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lowtide.cli.options import ends_well, json_option

if TYPE_CHECKING:
    from lowtide.connectors.prices import Imported, Skipped
    from lowtide.prices.book import PriceBook
    from lowtide.prices.entries import Entry, Provider
    from lowtide.prices.merging import Change, Merged

_PROVIDERS = ("aws", "azure", "openai")
_MODES = ("batch", "on_demand", "provisioned", "spot")
_COLUMNS = ("input", "cached_input", "cache_write", "output")
_WIDTH = 80


@click.group()
def prices() -> None:
    """Show, compare, check and refresh price books."""


@prices.command("list")
@click.option("--provider", type=click.Choice(_PROVIDERS), help="Only of this provider.")
@click.option("--model", help="Only models whose name contains this.")
@click.option("--mode", type=click.Choice(_MODES), help="Only of this mode.")
@click.option("--region", help="Only prices that are stated for this region.")
@click.option("--book", type=click.Path(), help="The price book.  [default: the bundled one]")
@json_option
@ends_well
def show(
    provider: str | None, model: str | None, mode: str | None, region: str | None, book: str | None, as_json: bool
) -> int:
    """Show prices, in USD for a million tokens. With --json, for one token, those of other days included."""
    found = _book(book)
    wanted = [
        each
        for each in found.entries
        if provider in (None, each.provider)
        and mode in (None, each.mode)
        and region in (None, each.region)
        and (model or "").lower() in each.model.lower()
    ]
    if as_json:
        return _print_json({"book": found.book_id, "made": found.made, "sources": found.sources, "prices": wanted})
    today = max(_today(), found.made)
    wanted = [each for each in wanted if each.holds(today)]
    click.echo(f"{found.name}, {found.book_id}: USD for a million tokens")
    for line in _table(wanted):
        click.echo(line)
    if not wanted:
        click.echo("no such prices", err=True)
    return 0


@prices.command()
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@json_option
@ends_well
def diff(old: str, new: str, as_json: bool) -> int:
    """Show which prices of two books differ."""
    from lowtide.prices.merging import differences

    found = differences(_book(old).entries, _book(new).entries)
    if as_json:
        return _print_json([_change(each) for each in found])
    for line in _difference_lines(found):
        click.echo(line)
    return 0


@prices.command()
@click.argument("file", type=click.Path())
@ends_well
def check(file: str) -> int:
    """Say what is wrong with a price book, a line each (exit code 2)."""
    from lowtide.prices.entries import problems

    data = _bytes(file)
    found = problems(data, file)
    for line in found:
        click.echo(line)
    if found:
        return 2
    book = _book(file)
    it = "it" if len(book.entries) == 1 else "them"
    click.echo(f"{file}: {_prices(len(book.entries))}, nothing is wrong with {it}: {book.book_id}")
    return 0


@prices.command("import")
@click.option("--litellm", type=click.Path(), help="litellm's JSON file of prices, or its wheel.")
@click.option("--aws", type=click.Path(), multiple=True, help="An offer file of the AWS price list; any number.")
@click.option("--azure", type=click.Path(), multiple=True, help="A page of the Azure retail prices API; any number.")
@click.option("--out", type=click.Path(), required=True, help="The price book: made, or brought up to date.")
@click.option("--provider", type=click.Choice(_PROVIDERS), multiple=True, help="Only of this provider; any number.")
@click.option("--batched", is_flag=True, help="From litellm, only models that have a batch price.")
@click.option(
    "--date",
    "made",
    metavar="YYYY-MM-DD",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The day that the prices are valid from.  [default: today]",
)
@json_option
@ends_well
def import_(
    litellm: str | None,
    aws: tuple[str, ...],
    azure: tuple[str, ...],
    out: str,
    provider: tuple[Provider, ...],
    batched: bool,
    made: datetime | None,
    as_json: bool,
) -> int:
    """Bring a price book up to date from the providers' price lists.

    Prices that have changed end on the day when the new ones begin. What no source states is left out, never guessed.
    """
    from lowtide.connectors.prices.imported import united
    from lowtide.errors import ConfigError
    from lowtide.prices.merging import merge

    day = made.date() if made else _today()
    old = _book(out) if Path(out).exists() else None
    if old and day < old.made:
        raise ConfigError(
            f"--date: found {day}; {out} is of {old.made}: prices of an earlier day cannot follow its own"
        )
    imports = _imports(litellm, aws, azure, day, provider, batched=batched)
    stated, skipped = united(imports)
    merged = merge(old.entries if old else (), [each for each in stated if not provider or each.provider in provider])
    sources = dict.fromkeys([*(old.sources if old else ()), *(each.source for each in imports)])
    news = merged.added or merged.changed
    _write(out, day if news or old is None else old.made, list(sources), merged.entries)
    if as_json:
        return _print_json({
            "book": _book(out).book_id, "added": len(merged.added), "unchanged": merged.unchanged,
            "changed": [_change(each) for each in merged.changed], "skipped": skipped,
        })  # fmt: skip
    for line in _import_lines(out, imports, merged, skipped):
        click.echo(line)
    return 0


def _imports(
    litellm: str | None, aws: Iterable[str], azure: Iterable[str], day: date, provider: Iterable[Provider], *,
    batched: bool,
) -> list[Imported]:  # fmt: skip
    """Read the files; the providers' own come first, since they count where litellm's says something else."""
    from lowtide.connectors.prices import read_aws, read_azure, read_litellm
    from lowtide.errors import ConfigError

    found = [read_aws(_bytes(path), path, made=day) for path in aws]
    found += [read_azure(_bytes(path), path, made=day) for path in azure]
    if litellm:
        found.append(read_litellm(_bytes(litellm), litellm, made=day, providers=provider, batched=batched))
    if not found:
        raise ConfigError("nothing to import: give --litellm, --aws or --azure with a file")
    return found


def _table(entries: Sequence[Entry]) -> Iterator[str]:
    """A model's name, and beneath it a line for each region and mode."""
    from itertools import groupby

    if entries:
        yield f"{'':2}{'region':<15}{'mode':<11}" + "".join(f"{kind.replace('_', ' '):>13}" for kind in _COLUMNS)
    ordered = sorted(entries, key=lambda each: each.key)
    for (provider, model), of_model in groupby(ordered, key=lambda each: (each.provider, each.model)):
        yield f"{model} ({provider})"
        for (region, mode), group in groupby(of_model, key=lambda each: (each.region, each.mode)):
            unit = {each.token_type: each.price for each in group}
            cells = "".join(f"{_million(unit[kind]) if kind in unit else '-':>13}" for kind in _COLUMNS)
            yield f"{'':2}{region or 'any':<15}{mode:<11}{cells}"
            for kind in sorted(unit.keys() - set(_COLUMNS)):
                yield f"{'':6}{kind}: {_million(unit[kind])}"


def _difference_lines(found: Sequence[Change]) -> Iterator[str]:
    for each in found:
        entry = each.after or each.before
        if entry is None:
            continue
        before, after = (_million(side.price) if side else "not stated" for side in (each.before, each.after))
        percent = "" if each.percent is None else f" ({each.percent:+.1f} %)"
        what = "added" if each.before is None else "removed" if each.after is None else "changed"
        yield f"{what:<8}{entry.provider} {entry.model}"
        yield f"{'':8}{entry.region or 'any'} {entry.mode} {entry.token_type}: {before} -> {after}{percent}"
    kinds = [sum(1 for each in found if fits(each)) for fits in _KINDS]
    yield f"{kinds[0]:,} added, {kinds[1]:,} removed, {kinds[2]:,} changed; USD for a million tokens"


_KINDS: tuple[Callable[[Change], bool], ...] = (
    lambda each: each.before is None,
    lambda each: each.after is None,
    lambda each: each.before is not None and each.after is not None,
)


def _import_lines(out: str, imports: Sequence[Imported], merged: Merged, skipped: Sequence[Skipped]) -> Iterator[str]:
    for each in imports:
        yield from _folded("read", f"{each.source}: {_prices(len(each.entries))}")
    yield from _folded("wrote", f"{out}: {_prices(len(merged.entries))}, {_book(out).book_id}")
    yield f"         {len(merged.added):,} new, {len(merged.changed):,} changed, {merged.unchanged:,} as they were"
    yield from _difference_lines(merged.changed) if merged.changed else ()
    reasons: dict[str, list[str]] = {}
    for one in skipped:
        reasons.setdefault(one.why, []).append(one.what)
    for why, whats in sorted(reasons.items(), key=lambda each: -len(each[1])):
        yield from _folded("skipped", f"{len(whats):,}: {why}")
        yield _cut(f"         such as {whats[0]}")
    if skipped:
        yield "         all of them with --json"


def _change(each: Change) -> dict[str, object]:
    return {"before": each.before, "after": each.after, "percent": each.percent}


def _million(price: Decimal) -> str:
    """USD for a million units, with as many decimals as it has, and two at least."""
    scaled = (price * 1_000_000).normalize()
    exponent = scaled.as_tuple().exponent
    return f"{scaled:,.{max(2, -exponent if isinstance(exponent, int) else 2)}f}"


def _folded(name: str, said: str) -> list[str]:
    """A name and what is said of it, in lines of 80 columns where words allow it."""
    from textwrap import wrap

    indent = " " * 9
    return wrap(
        said, _WIDTH, initial_indent=f"{name:<9}", subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _prices(number: int) -> str:
    return f"{number:,} price{'' if number == 1 else 's'}"


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _book(path: str | None) -> PriceBook:
    from lowtide.prices.book import PriceBook

    return PriceBook.bundled() if path is None else PriceBook.read(_bytes(path), path)


def _bytes(path: str) -> bytes:
    from lowtide.errors import ConfigError

    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _write(path: str, made: date, sources: Sequence[str], entries: Iterable[Entry]) -> None:
    """Replace the file in one step, so that nobody reads half of it."""
    from lowtide.errors import ConfigError
    from lowtide.prices.entries import encode

    target = Path(path)
    half = target.with_name(f"{target.name}.new")
    try:
        half.write_bytes(encode(made, sources, entries))
        half.replace(target)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _print_json(value: object) -> int:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))
    return 0


def _today() -> date:
    return datetime.now(UTC).date()
