"""How sums of the ledger look: a table in 80 columns, JSON, or CSV. The table rounds; JSON and CSV have every digit."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import click
import orjson

from lowtide.billing.cells import cell
from lowtide.billing.reading import Selection
from lowtide.billing.sums import TOKEN_TYPES, Line, Sums
from lowtide.cli.views import count, printable
from lowtide.money import usd

_WIDTH = 80
_LABEL = 44
_SHORTEST = 6
_BETWEEN = " / "
_GAP = "  "


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of numbers. One that `needed` finds in no line is left out; None for one that is always there."""

    title: str
    text: Callable[[Line], str]
    needed: Callable[[Line], object] | None = None


def _tokens(title: str, name: str, *, always: bool = False) -> _Column:
    return _Column(title, lambda line: f"{line.tokens[name]:,}", None if always else lambda line: line.tokens[name])


def _money(title: str, amount: Callable[[Line], Decimal | None], *, always: bool = False) -> _Column:
    return _Column(title, lambda line: _usd(amount(line)), None if always else amount)


def _usd(amount: Decimal | None) -> str:
    return "?" if amount is None else usd(amount) if amount else "0"


_TOKENS = (
    _tokens("input", "input", always=True),
    _tokens("cached", "cached_input"),
    _tokens("cache write", "cache_write"),
    _tokens("output", "output", always=True),
    _tokens("reasoning", "reasoning"),
    _Column(
        "other",
        lambda line: f"{sum(quantity for name, quantity in line.tokens.items() if name not in TOKEN_TYPES):,}",
        lambda line: any(quantity for name, quantity in line.tokens.items() if name not in TOKEN_TYPES),
    ),
    _Column("waste", lambda line: f"{line.waste_tokens:,}", lambda line: line.waste_tokens),
    _Column("seconds", lambda line: f"{line.seconds:,}", lambda line: line.seconds),
)
_MONEY = (
    _money("amount", lambda line: line.amount, always=True),
    _money("waste", lambda line: line.waste),
    _money("real time", lambda line: line.realtime),
    _money("saved", lambda line: line.saved_realtime),
    _money("by cache", lambda line: line.saved_cache),
    _money("billed", lambda line: line.billed),
    _Column("drift", lambda line: _usd(line.drift), lambda line: line.drift is not None),
)


def show(sums: Sums) -> None:
    """Tokens, then money, then what is not known."""
    lines = [*sums.lines, *sums.totals]
    several = len({line.currency for line in lines}) > 1
    labels = _labels([line.keys for line in sums.lines])
    labels += ["total"] * len(sums.totals)
    if several:
        labels = [f"{label} {line.currency}" for label, line in zip(labels, lines, strict=True)]
    title = " / ".join(sums.by)
    printed = [*_panels(f"{title}: tokens", _TOKENS, labels, lines)]
    printed += _panels(f"{title}: {'money' if several else lines[0].currency}", _MONEY, labels, lines)
    for number, panel in enumerate(printed):
        if number:
            click.echo()
        for row in panel:
            click.echo(row.rstrip())
    for note in _notes(sums):
        click.echo(note, err=True)


def _labels(keys: Sequence[Sequence[str | None]]) -> list[str]:
    """Keys side by side, each in a column of its own; the longest are shortened until a line has room for numbers.

    Values that differ look different, whatever has to be left out of them.
    """
    columns = [[printable(value) if value else "-" for value in column] for column in zip(*keys, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    room = _LABEL - len(_BETWEEN) * (len(columns) - 1)
    while sum(widths) > room and max(widths) > _SHORTEST:
        widths[widths.index(max(widths))] -= 1
    shown = [_shortened(column, width) for column, width in zip(columns, widths, strict=True)]
    return [_BETWEEN.join(parts).rstrip() for parts in zip(*shown, strict=True)]


def _shortened(values: Sequence[str], width: int) -> list[str]:
    """The values in so many characters: their beginning and end, or a number where these do not tell them apart."""
    half = (width - 1) // 2
    short = {text: text if len(text) <= width else f"{text[: width - 1 - half]}…{text[-half:]}" for text in values}
    seen: dict[str, int] = {}
    for text, said in short.items():
        seen[said] = seen.get(said, 0) + 1
        if seen[said] > 1:
            mark = f"…{seen[said]}"
            short[text] = f"{text[: width - len(mark)]}{mark}"
    return [short[text].ljust(width) for text in values]


def _panels(
    title: str, columns: Sequence[_Column], labels: Sequence[str], lines: Sequence[Line]
) -> Iterator[list[str]]:
    """The columns that are needed, in as many tables one below the other as their width takes."""
    shown = [column for column in columns if column.needed is None or any(map(column.needed, lines))]
    first = max(map(len, (title, *labels)))
    cells = [[column.title, *map(column.text, lines)] for column in shown]
    heads = [title, *labels]
    while cells:
        taken, width = 0, first
        while taken < len(cells) and (width := width + len(_GAP) + max(map(len, cells[taken]))) <= _WIDTH:
            taken += 1
        panel, cells = cells[: taken or 1], cells[taken or 1 :]
        widths = [max(map(len, column)) for column in panel]
        yield [
            _GAP.join(
                [head.ljust(first), *(column[at].rjust(width) for column, width in zip(panel, widths, strict=True))]
            )
            for at, head in enumerate(heads)
        ]


def _notes(sums: Sums) -> Iterator[str]:
    unpriced = sum(line.unpriced_tokens for line in sums.totals)
    unknown = sum(line.realtime_unknown for line in sums.totals)
    if "kind" in sums.by:
        yield "note: the totals add up what was processed (actual); billed and corrections stand under billed"
    if unpriced:
        yield f"note: no price is known for {count(unpriced, 'token')}: their cost is in no amount"
    if unknown and any(line.realtime is not None for line in sums.totals):
        yield f"note: no price on demand is known for {count(unknown, 'entry', 'entries')}: real time is without them"


def _numbers(line: Line) -> dict[str, object]:
    """All that a line says beside its keys."""
    return {
        "currency": line.currency,
        "entries": line.entries,
        **{f"{name}_tokens": quantity for name, quantity in line.tokens.items()},
        "compute_seconds": line.seconds,
        "amount": line.amount,
        "waste_tokens": line.waste_tokens,
        "waste": line.waste,
        "realtime": line.realtime,
        "saved_realtime": line.saved_realtime,
        "realtime_unknown_entries": line.realtime_unknown,
        "saved_cache_tokens": line.saved_cache_tokens,
        "saved_cache": line.saved_cache,
        "billed": line.billed,
        "drift": line.drift,
        "unpriced_tokens": line.unpriced_tokens,
    }


def show_json(sums: Sums, root: str, selection: Selection) -> None:
    """Money as text: JSON's numbers are read as floats."""
    found = {
        "root": root,
        "since": selection.since,
        "until": selection.until,
        "by": sums.by,
        "lines": [{"keys": dict(zip(sums.by, line.keys, strict=True)), **_numbers(line)} for line in sums.lines],
        "totals": [_numbers(line) for line in sums.totals],
    }
    click.echo(orjson.dumps(found, default=lambda amount: f"{amount:f}", option=orjson.OPT_INDENT_2).decode())


def show_csv(sums: Sums) -> None:
    """A line for each, without totals: who reads CSV adds up himself."""
    numbers = [_numbers(line) for line in sums.lines]
    names = list(dict.fromkeys(name for line in numbers for name in line))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*sums.by, *names])
    for line, found in zip(sums.lines, numbers, strict=True):
        writer.writerow([cell(value) for value in (*line.keys, *(found.get(name, 0) for name in names))])
