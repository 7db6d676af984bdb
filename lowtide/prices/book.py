"""The price book: what tokens cost, by provider, model, region, mode and day, and where each number comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import msgspec

from lowtide.errors import ConfigError
from lowtide.prices import entries as book_entries
from lowtide.prices.entries import Entry

AZURE_ZONES = frozenset({"us", "eu", "apac", "us-gov"})
"""Data Zones: deployments of a zone have prices of their own, and never those of a Global deployment."""

_SHOWN = 20
_Group: TypeAlias = tuple[str, str, str, str]


@dataclass(frozen=True)
class BookPrice:
    """What a book states: USD for one unit of each token type. A type that is absent is not stated, and not free.

    `model` and `region` are those of the entries that matched, and `book_id` is the book that has them.
    """

    per_unit: Mapping[str, Decimal]
    source: str
    valid_from: date
    region: str
    model: str
    book_id: str


@dataclass(frozen=True)
class PriceBook:
    """Dated prices, over those of a `base`.

    What a book states about a model in a region and mode on some day replaces everything that its base says of it:
    prices of two books are never mixed.
    """

    name: str
    made: date
    sources: tuple[str, ...]
    entries: tuple[Entry, ...] = field(repr=False)
    base: PriceBook | None = None

    @classmethod
    def bundled(cls) -> PriceBook:
        """The book that Lowtide comes with."""
        return _bundled()

    @classmethod
    def read(cls, data: bytes, name: str) -> PriceBook:
        """A book from its file. Raises ConfigError that names file, entry, field, and what was found."""
        try:
            file = book_entries.decode(data)
        except msgspec.DecodeError as error:
            raise _unreadable(book_entries.problems(data, name) or [f"{name}: {error}"]) from None
        if next(book_entries.clashes(enumerate(file.entries, start=1)), None) is not None:
            raise _unreadable(book_entries.problems(data, name))
        return cls(name, file.made, file.sources, file.entries)

    def over(self, base: PriceBook) -> PriceBook:
        """The two together: what this one states wins."""
        return replace(self, base=self.base.over(base) if self.base else base)

    @property
    def book_id(self) -> str:
        """Day and content, such as `2026-11-21-3fa9c1d2`, and after a `+` those of the base."""
        return self._own_id + (f"+{self.base.book_id}" if self.base else "")

    def find(self, *, provider: str, model: str, region: str, mode: str, at: date) -> BookPrice | None:
        """What is stated for exactly this model on that day: for the region, else for every region.

        For an Azure region that has no prices of its own, those of Global deployments count.
        """
        for place in _places(provider, region):
            holding = [each for each in self._groups.get((provider, model, place, mode), ()) if each.holds(at)]
            if holding:
                return BookPrice(
                    per_unit={each.token_type: each.price for each in holding},
                    source="; ".join(dict.fromkeys(each.source for each in holding)),
                    valid_from=max(each.valid_from for each in holding),
                    region=place,
                    model=model,
                    book_id=self._own_id,
                )
        return self.base.find(provider=provider, model=model, region=region, mode=mode, at=at) if self.base else None

    def stated(self, provider: str, model: str | None = None) -> Iterator[Entry]:
        """All entries of a provider, or of one of its models, those of the base and of other days included."""
        for each in self.entries:
            if each.provider == provider and model in (None, each.model):
                yield each
        if self.base:
            yield from self.base.stated(provider, model)

    @cached_property
    def _own_id(self) -> str:
        return f"{self.made}-{sha256(book_entries.encode_entries(self.entries)).hexdigest()[:8]}"

    @cached_property
    def _groups(self) -> Mapping[_Group, list[Entry]]:
        groups: defaultdict[_Group, list[Entry]] = defaultdict(list)
        for each in self.entries:
            groups[each.provider, each.model, each.region, each.mode].append(each)
        return dict(groups)


def _places(provider: str, region: str) -> tuple[str, ...]:
    """Where a price may stand that holds in the region, the nearest first."""
    if provider == "azure":
        # Data Zones and the government's clouds have other prices than Global deployments, so theirs are never taken.
        if region in AZURE_ZONES or region.startswith(("usgov", "usdod", "china")):
            return (region,)
        return tuple(dict.fromkeys((region, "global", ""))) if region else ("global", "")
    return (region, "") if region else ("",)


def _unreadable(found: list[str]) -> ConfigError:
    more = [f"and {len(found) - _SHOWN} more: see `lowtide prices check`"] if len(found) > _SHOWN else []
    return ConfigError("\n".join(found[:_SHOWN] + more))


@cache
def _bundled() -> PriceBook:
    return PriceBook.read(Path(__file__).with_name("book.json").read_bytes(), "the bundled price book")
