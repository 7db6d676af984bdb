"""What each backend of a job charges: by its job file, the root's own price book, or the one that comes along."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property

from lowtide.errors import ConfigError
from lowtide.job.model import BackendSpec, LocalBackend, PriceSpec
from lowtide.prices import LOCAL, PICO, Price
from lowtide.prices.book import PriceBook
from lowtide.prices.lookup import backend_price, on_demand_price
from lowtide.protocols import Backend, Store

UNPRICED = Price("not looked up", "none")
"""Stands in where prices do not matter: a run that was planned carries its own."""

BOOK = "prices/book.json"
"""Where a root's own price book lies: its entries go before those that come with Lowtide."""


class Book:
    """The prices that hold for a root, read when the first one is asked for. `book_id` is "" if none was."""

    def __init__(self, root: Store) -> None:
        self._root = root

    @cached_property
    def prices(self) -> PriceBook:
        """Raises ConfigError for a book that cannot be read."""
        bundled = PriceBook.bundled()
        if self._root.info(BOOK) is None:
            return bundled
        return PriceBook.read(self._root.read(BOOK), self._root.uri_of(BOOK)).over(bundled)

    @property
    def book_id(self) -> str:
        return self.prices.book_id if "prices" in self.__dict__ else ""


def price_of(spec: BackendSpec, backend: Backend, book: Book, where: str) -> Price:
    """What the backend charges today. Raises ConfigError, naming the place in the job file, if nobody says."""
    if isinstance(spec, LocalBackend):
        return LOCAL
    place = f"{where}.{spec.kind}"
    today = datetime.now(UTC).date()
    provider, model, region = backend.provider, backend.model, backend.region
    demanded = None
    if spec.on_demand_price is not None:
        demanded = _of_contract(spec.on_demand_price, f"{place}.on_demand_price", f"{spec.model} on demand")
    if spec.price is None:
        try:
            found = backend_price(book.prices, provider=provider, model=model, region=region, at=today)
        except ConfigError as error:
            raise ConfigError(f"{place}.price: missing, and the price book does not help: {error}") from error
        price = replace(found, on_demand=demanded or found.on_demand)
    else:
        demanded = demanded or on_demand_price(book.prices, provider=provider, model=model, region=region, at=today)
        price = _of_contract(spec.price, f"{place}.price", f"{spec.model} batch", demanded)
    if price.on_demand is None and backend.limits.minimum_records > 1:
        raise ConfigError(
            f"{place}.on_demand_price: missing: requests that are too few for a batch are charged by it, and the price "
            f"book has none for {model!r} in {region!r}; set USD for a million tokens, such as "
            "on_demand_price: {input: 0.30, output: 1.20}"
        )
    return price


def _of_contract(spec: PriceSpec, place: str, price_id: str, on_demand: Price | None = None) -> Price:
    given = {"input": spec.input, "cached_input": spec.cached_input, "output": spec.output}
    each = {kind: _one(amount, spec.per, f"{place}.{kind}") for kind, amount in given.items() if amount is not None}
    usd = {
        "input": each["input"],
        "cached_input": each.get("cached_input", each["input"]),
        "cache_write": each["input"],
        "output": each["output"],
        "reasoning": each["output"],
    }
    return Price(price_id, spec.reason, usd, on_demand)


def _one(amount: Decimal, per: int, place: str) -> Decimal:
    """USD for one token. Raises ConfigError if that is finer than the ledger can hold."""
    pico, rest = divmod(int(amount * PICO), per)
    if rest:
        raise ConfigError(
            f"{place}: found {amount:f} USD for {per:,} tokens, which does not come to whole steps of 0.000000000001 "
            "USD for one token: round the price, or give it for another number of tokens (per)"
        )
    return Decimal(f"{Decimal(pico).scaleb(-12).normalize():f}")
