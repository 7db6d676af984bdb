"""What each backend of a job charges: by its job file, the root's own price book, or the one that comes along."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, cast

from lowtide.billing.reading import UNPRICED as NOT_GIVEN
from lowtide.errors import ConfigError, Terminal, Transient
from lowtide.job.backends import BackendSpec, LocalBackend, PriceSpec, SpotBackend
from lowtide.money import exact
from lowtide.planning.experience import Experience, read_experience
from lowtide.prices import LOCAL, PICO, Price
from lowtide.prices.book import PriceBook
from lowtide.prices.by_time import Pace, guess, price_by_time
from lowtide.prices.lookup import backend_price, on_demand_price
from lowtide.protocols import Backend, Store
from lowtide_worker.reckoning import LONGEST_BOOT

if TYPE_CHECKING:
    from lowtide.connectors.backends import spot

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

    def experience(self, job: str) -> Experience:
        """Earlier runs of a job under the root."""
        return read_experience(self._root, job)

    @property
    def book_id(self) -> str:
        return self.prices.book_id if "prices" in self.__dict__ else ""


def price_of(spec: BackendSpec, backend: Backend, book: Book, where: str, *, job: str = "") -> Price:
    """What the backend charges today. Raises ConfigError, naming the place in the job file, if nobody says.

    How fast machines are that are paid by the hour is known by earlier runs of the `job`.
    """
    if isinstance(spec, LocalBackend):
        return LOCAL
    place = f"{where}.{spec.kind}"
    if isinstance(spec, SpotBackend):
        return _of_time(spec, backend, book, job, place)
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


def _of_time(spec: SpotBackend, backend: Backend, book: Book, job: str, place: str) -> Price:
    """What tokens come to on machines that are paid by the hour. Raises ConfigError if price or pace is not known."""
    hourly = _hourly(spec, backend, place)
    pace = _pace(spec, book, job)
    if pace is None and hourly:
        raise ConfigError(
            f"{place}.tokens_per_second: missing: no earlier run of this job tells how fast a worker is, and there is "
            "no published figure for these instances; measure it, or guess low"
        )
    machines = ", ".join(spec.instances) or "machines of your own"
    if spec.launcher == "batch":
        source = f"{exact(hourly)} USD an hour of a worker, the highest Spot price now"
    elif spec.usd_per_hour is None:
        machines += NOT_GIVEN
        source = "not known: usd_per_hour is missing, and what workers cost counts as nothing"
    else:
        source = f"{exact(hourly)} USD an hour of a worker, by the job file"
    boot = backend.limits.boot_seconds
    # The engine's own limit goes for the model alone; what comes before is the machine's, unless it is one's own.
    longest = spec.engine.boot.total_seconds() + (0.0 if spec.launcher == "process" else LONGEST_BOOT)
    return price_by_time(hourly, pace, price_id=machines, source=source, boot_seconds=boot, longest_start=longest)


def _hourly(spec: SpotBackend, backend: Backend, place: str) -> Decimal:
    try:
        # It was made of this section.
        hourly = cast("spot.SpotBackend", backend).usd_per_hour()
    except (Transient, Terminal) as error:
        raise ConfigError(f"{place}: what an hour of {spec.model!r} costs cannot be told: {error}") from error
    if hourly is None:
        raise ConfigError(f"{place}.instances: missing; expected the instance types of the queue, such as g6.xlarge")
    return hourly


def machines_allowed(spec: BackendSpec, backend: Backend, where: str) -> int | None:
    """How many machines `max_usd_per_hour` allows at today's price; None where there is no such cap.

    Raises ConfigError as `price_of` does.
    """
    if not isinstance(spec, SpotBackend) or spec.max_usd_per_hour is None:
        return None
    hourly = _hourly(spec, backend, f"{where}.{spec.kind}")
    return int(spec.max_usd_per_hour / hourly) if hourly else None


def _pace(spec: SpotBackend, book: Book, job: str) -> Pace | None:
    """How fast one worker is: as the job file says, as earlier runs have shown, or as somebody has published."""
    if spec.tokens_per_second is not None:
        return Pace(spec.tokens_per_second, "tokens_per_second in the job file")
    measured = book.experience(job).at(spec.kind, spec.model).pace(spec.instances or ("",))
    guesses = [guess(instance) for instance in spec.instances]
    known = [found for found in guesses if found is not None]
    if measured is not None or len(known) < len(guesses):
        return measured
    return min(known, key=lambda found: found.tokens_per_second, default=None)


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
