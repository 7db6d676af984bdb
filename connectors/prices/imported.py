"""What an importer has read: prices for the book, and what it left out, with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from lowtide.prices.entries import Entry, Key, Mode, Provider, TokenType, usd
from lowtide.prices.merging import chained


@dataclass(frozen=True, order=True)
class Skipped:
    """Something that was not taken: the key, SKU or meter in the source, and why."""

    why: str
    what: str


@dataclass(frozen=True)
class Imported:
    """The prices that a source states, each once, and everything of it that was left out."""

    source: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Stated:
    """One price, as found in a source: USD for one unit, valid from a day on, or before another."""

    provider: Provider
    model: str
    region: str
    mode: Mode
    token_type: TokenType
    usd: Decimal
    valid_from: date
    source: str
    valid_to: date | None = None


def collected(source: str, stated: Iterable[Stated], skipped: Iterable[Skipped]) -> Imported:
    """Bring what was found into entries: once each, in steps that the ledger holds.

    A price that is stated twice for the same days with different numbers is left out: which one counts is not known.
    """
    left_out = list(skipped)
    found: defaultdict[tuple[Key, date], dict[str, Entry]] = defaultdict(dict)
    for each in stated:
        text = usd(each.usd)
        if text is None or not each.usd:
            why = "0 is no price" if not each.usd else "cannot be kept in steps of 0.000000000001 USD"
            left_out.append(Skipped(why, f"{each.source} {each.mode} {each.token_type}"))
            continue
        entry = Entry(
            each.provider, each.model, each.region, each.mode, each.token_type, text, each.valid_from, each.source,
            each.valid_to,
        )  # fmt: skip
        found[entry.key, entry.valid_from].setdefault(text, entry)
    keys: defaultdict[Key, list[Entry]] = defaultdict(list)
    for (key, _), prices in found.items():
        if len(prices) == 1:
            keys[key].extend(prices.values())
        else:
            what = "; ".join(f"{each.source}: {each.usd}" for each in prices.values())
            left_out.append(Skipped("different prices are stated for the same thing", what))
    entries = [each for history in keys.values() for each in chained(history)]
    return Imported(source, tuple(entries), tuple(sorted(set(left_out))))


def united(imports: Iterable[Imported]) -> tuple[list[Entry], list[Skipped]]:
    """The prices of several sources. Where two state the same, the earlier one counts, and the other is left out."""
    known: dict[Key, list[Entry]] = {}
    left_out: list[Skipped] = []
    for each in imports:
        left_out += each.skipped
        stated: defaultdict[Key, list[Entry]] = defaultdict(list)
        for entry in each.entries:
            stated[entry.key].append(entry)
        for key, history in stated.items():
            first = known.setdefault(key, history)
            if first is not history and {entry.usd for entry in first} != {entry.usd for entry in history}:
                what = "; ".join(f"{entry.source}: {entry.usd}" for entry in (*history, *first))
                left_out.append(Skipped("another source states another price, which was taken", what))
    return [entry for history in known.values() for entry in history], left_out
