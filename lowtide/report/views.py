"""What the page's template is given: figures of four kinds, each with the table behind it. All of it is plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from markupsafe import Markup

from lowtide.report import text

UNKNOWN = "not known"
_NAME = 60
_AMOUNT = re.compile(r"(?P<whole>-?[\d,]+)\.(?P<decimals>\d+) (?P<unit>\S+)")


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table. `value` is what a machine reads, "" for text; `title` is the whole of what was cut."""

    text: str
    value: str = ""
    number: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers behind a figure. `note` says what was left out."""

    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a strip, or one entry of a legend."""

    role: str
    name: str
    count: Cell
    share: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """A whole and its parts."""

    marks: Markup
    segments: tuple[Segment, ...]
    table: Table
    title: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Named lengths, one below the other."""

    title: str
    summary: str
    marks: Markup
    names: tuple[Cell, ...]
    counts: tuple[Cell, ...]
    table: Table
    legend: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """Quantities side by side. `ticks` go from the bottom up, `positions` from left to right."""

    title: str
    summary: str
    marks: Markup
    ticks: tuple[str, ...]
    positions: tuple[str, ...]
    legend: tuple[Segment, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class Gauge:
    """One number between what was expected of it at least and at most, on an axis of its own that begins at 0."""

    name: str
    number: Cell
    change: str
    note: str
    marks: Markup


@dataclass(frozen=True, slots=True)
class Gauges:
    """Several numbers beside what was expected of them."""

    summary: str
    rows: tuple[Gauge, ...]
    legend: tuple[Segment, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class Lanes:
    """Spans of time, one below the other. `ticks` go from left to right."""

    summary: str
    marks: Markup
    names: tuple[Cell, ...]
    lengths: tuple[Cell, ...]
    ticks: tuple[str, ...]
    legend: tuple[Segment, ...]
    table: Table


def words(value: str, characters: int = _NAME) -> Cell:
    """Text, cut to fit, with the whole of it as a title."""
    seen = text.visible(value)
    short = text.shorten(seen, characters)
    return Cell(short or "—", title=seen if short != seen else "")


def number(value: int | None) -> Cell:
    """A whole number with separators."""
    return Cell("—", number=True) if value is None else Cell(text.count(value), str(value), number=True)


def cash(values: Mapping[str, Decimal], *, precise: bool = True) -> Cell:
    """Money, to the last digit unless said otherwise."""
    plain = " ".join(f"{amount:f} {currency}" for currency, amount in values.items())
    shown = text.visible(text.amounts(values, precise=precise))
    return Cell(shown, text.visible(plain) or "0 USD", number=True)


def paid(values: Mapping[str, Decimal], unknown: int) -> Cell:
    """Money to the last digit, where `unknown` amounts are missing in the sum: said in words, and never as 0."""
    if not unknown:
        return cash(values)
    known = {currency: amount for currency, amount in values.items() if amount}
    if not known:
        return Cell(UNKNOWN, number=True)
    return replace(cash(known), text=f"{cash(known).text} and more")


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = "") -> Table:
    """A table whose headings stand as their columns do, numbers to the right, with as many decimals as the longest."""
    numeric = [bool(rows) and all(row[index].number for row in rows) for index in range(len(columns))]
    heads = tuple(Cell(name, number=is_number) for name, is_number in zip(columns, numeric, strict=True))
    aligned = [_aligned([row[index] for row in rows]) for index in range(len(columns))]
    return Table(heads, tuple(zip(*aligned, strict=True)), note)


def _aligned(cells: Sequence[Cell]) -> Sequence[Cell]:
    found = [_AMOUNT.fullmatch(cell.text) if cell.number else None for cell in cells]
    longest = max((len(one["decimals"]) for one in found if one), default=0)
    return [
        replace(cell, text=f"{one['whole']}.{one['decimals']:0<{longest}} {one['unit']}") if one else cell
        for cell, one in zip(cells, found, strict=True)
    ]
