"""New prices into an older book: what has changed ends on the day when the new price begins, and nothing is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import msgspec

from lowtide.prices.entries import Entry, Key


@dataclass(frozen=True)
class Change:
    """A price that differs between two books. `before` or `after` is None where only one of them states it."""

    before: Entry | None
    after: Entry | None

    @property
    def percent(self) -> Decimal | None:
        """By how much it has risen, in percent; None where there is no price above zero to compare with."""
        if self.before is None or self.after is None or not self.before.price:
            return None
        return (self.after.price - self.before.price) / self.before.price * 100


@dataclass(frozen=True)
class Merged:
    """The entries of both, and what became of the new ones."""

    entries: tuple[Entry, ...]
    added: tuple[Entry, ...]
    changed: tuple[Change, ...]
    unchanged: int


def merge(old: Iterable[Entry], new: Iterable[Entry]) -> Merged:
    """Put newly stated prices into a book. Neither may hold two prices for the same thing on one day.

    A new price that is the old one leaves it as it is. One that differs ends the old one on its own first day, or
    replaces it when that is the old one's first day too. What the new source does not state stays as it was.
    """
    known: defaultdict[Key, list[Entry]] = defaultdict(list)
    for entry in old:
        known[entry.key].append(entry)
    added: list[Entry] = []
    changed: list[Change] = []
    unchanged = 0
    for entry in sorted(new, key=lambda each: each.valid_from):
        history = known[entry.key]
        current = next((each for each in history if each.holds(entry.valid_from)), None)
        stated = _until_next(entry, history)
        if current is None:
            added.append(stated)
        elif current.price == stated.price and current.valid_to == stated.valid_to:
            unchanged += 1
            continue
        else:
            history.remove(current)
            if current.price == stated.price:
                stated = msgspec.structs.replace(current, valid_to=stated.valid_to)
                unchanged += 1
            else:
                changed.append(Change(current, stated))
                if current.valid_from < stated.valid_from:
                    history.append(msgspec.structs.replace(current, valid_to=stated.valid_from))
        history.append(stated)
    entries = sorted((each for each in _all(known)), key=lambda each: (each.key, each.valid_from))
    return Merged(tuple(entries), tuple(added), tuple(changed), unchanged)


def differences(old: Iterable[Entry], new: Iterable[Entry]) -> list[Change]:
    """The prices that stand last in one book and differ from, or are missing among, those of the other."""
    before, after = _latest(old), _latest(new)
    found = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was is None or now is None or was.price != now.price:
            found.append(Change(was, now))
    return found


def chained(entries: Sequence[Entry]) -> list[Entry]:
    """Prices for the same thing from different days on: each ends where the next begins."""
    ordered = sorted(entries, key=lambda each: each.valid_from)
    ended = [
        msgspec.structs.replace(each, valid_to=following.valid_from)
        if each.valid_to is None or each.valid_to > following.valid_from
        else each
        for each, following in pairwise(ordered)
    ]
    return [*ended, *ordered[-1:]]


def _until_next(entry: Entry, history: Iterable[Entry]) -> Entry:
    """An entry that gives way to one that is known to begin later."""
    later = min((each.valid_from for each in history if each.valid_from > entry.valid_from), default=None)
    if later is None or (entry.valid_to is not None and entry.valid_to <= later):
        return entry
    return msgspec.structs.replace(entry, valid_to=later)


def _latest(entries: Iterable[Entry]) -> dict[Key, Entry]:
    """For each thing that has a price without an end, that price."""
    return {each.key: each for each in sorted(entries, key=lambda each: each.valid_from) if each.valid_to is None}


def _all(known: dict[Key, list[Entry]]) -> list[Entry]:
    return [each for history in known.values() for each in history]
