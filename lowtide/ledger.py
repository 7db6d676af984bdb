"""The cost ledger of a run: a pure function of its plan and its state, so that it can be written again at any time.

The provider's bill is the sum of `quantity` over `kind = actual`, by token type, rows of waste included. A line that is
there stays as it is while the run goes on: whatever comes later is a further line.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pyarrow as pa

from lowtide import money
from lowtide.plan import RunPlan
from lowtide.prices import Price
from lowtide.records import Compute
from lowtide.schemas import LEDGER
from lowtide.shards import Attempt, ShardState
from lowtide.states import RunState


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger, before the columns that are the same in all of the run's lines.

    `realtime_price` is what a unit would have cost on demand; None where nobody knows, and for all but actual lines.
    """

    kind: str
    scope: str
    at: float
    token_type: str
    quantity: int
    unit: str
    unit_price: Decimal
    price: Price
    waste: str = ""
    shard: int | None = None
    attempt: int | None = None
    batch_id: str | None = None
    period_start: float = 0.0
    period_end: float = 0.0
    region: str = ""
    surplus: bool = False
    zone: str = ""
    realtime_price: Decimal | None = None

    @property
    def amount(self) -> Decimal:
        return money.product(self.unit_price, self.quantity)

    @property
    def realtime_amount(self) -> Decimal | None:
        """What the same would have cost on demand."""
        return None if self.realtime_price is None else money.product(self.realtime_price, self.quantity)


def entries(plan: RunPlan, state: RunState, price: Price) -> Iterator[Entry]:
    """The run's lines: what was estimated, what need not be bought, then what each attempt reserved, used, released."""
    for token_type, quantity in (("input", plan.input_tokens), ("output", plan.output_tokens)):
        yield Entry("estimate", "run", plan.created_at, token_type, quantity, "token", price.unit(token_type), price)
    for shard in state.shards.values():
        yield from _saved(shard, price)
    for attempt in state.attempts.values():
        yield from _of_attempt(attempt, price)


def _saved(shard: ShardState, price: Price) -> Iterator[Entry]:
    """What the answers that an earlier run has bought would have cost again, in batches."""
    tokens = Counter[str]()
    for tally in shard.saved:
        tokens[tally.token_type] += tally.quantity
    for token_type, quantity in tokens.items():
        each = price.unit(token_type)
        yield Entry("saved", "shard", shard.built_at, token_type, quantity, "token", each, price, shard=shard.number)


def _of_attempt(attempt: Attempt, prices: Price) -> Iterator[Entry]:
    price = prices.of(on_demand=attempt.on_demand)
    realtime = price if attempt.on_demand else prices.on_demand

    def entry(kind: str, at: float, token_type: str, quantity: int, unit: str, each: Decimal, waste: str = "") -> Entry:
        # What is not known yet when money is reserved would change that line later.
        reserved, actual = kind == "reserved", kind == "actual"
        return Entry(
            kind,
            "shard",
            at,
            token_type,
            quantity,
            unit,
            each,
            price,
            waste,
            attempt.shard,
            attempt.attempt,
            attempt.batch_id,
            attempt.submitted_at,
            0.0 if reserved else attempt.ended_at,
            "" if reserved else attempt.region,
            attempt.surplus,
            realtime_price=realtime.unit(token_type) if actual and realtime is not None else None,
        )

    # A surplus batch reserves in the account alone: it may turn out to be the one that its attempt goes on with.
    reserves = attempt.reserved and not attempt.surplus
    if reserves:
        yield entry("reserved", attempt.submitted_at, "", 1, "batch", attempt.reserved)
    if not attempt.known_at:
        return
    for tally in attempt.tallies:
        # Where time is paid, tokens say what it went into.
        each = Decimal(0) if price.by_time else price.unit(tally.token_type)
        yield entry("actual", attempt.known_at, tally.token_type, tally.quantity, "token", each, tally.waste)
    if attempt.compute_seconds:
        each = price.unit("compute_second")
        waste = "duplicate" if attempt.surplus else "" if attempt.collected_at else "lost"
        yield entry("actual", attempt.known_at, "compute_second", attempt.compute_seconds, "second", each, waste)
    for part in _together(_by_use(attempt)):
        each = part.usd_per_second
        line = entry("actual", attempt.known_at, "compute_second", part.seconds, "second", each, part.waste)
        yield replace(line, price=Price(part.machine, part.source, by_time=True), zone=part.zone, realtime_price=None)
    if attempt.unknown:
        # Nobody has said that it was not billed: so nothing is released, and this line says why.
        yield entry("reserved", attempt.known_at, "", 0, "batch", attempt.reserved, "lost")
    elif reserves:
        yield entry("released", attempt.known_at, "", 1, "batch", attempt.reserved)


def _by_use(attempt: Attempt) -> Iterator[Compute]:
    """The attempt's machine time, where that which went into answers is divided by what their tokens were good for."""
    tokens = Counter[str]()
    for tally in attempt.tallies:
        tokens[tally.waste] += tally.quantity
    for part in attempt.compute:
        if attempt.surplus:
            yield msgspec.structs.replace(part, waste="duplicate")
        elif part.waste or not tokens.total():
            yield part
        else:
            yield from _divided(part, tokens)


def _divided(part: Compute, tokens: Mapping[str, int]) -> Iterator[Compute]:
    """Whole seconds that add up to the part's."""
    whole, done, before = sum(tokens.values()), 0, 0
    for waste, quantity in sorted(tokens.items()):
        done += quantity
        until = (2 * part.seconds * done + whole) // (2 * whole)
        if until > before:
            yield msgspec.structs.replace(part, seconds=until - before, waste=waste)
        before = until


def _together(parts: Iterable[Compute]) -> Iterator[Compute]:
    """Times at one price, of one kind of machine, for one purpose, added up."""
    seconds = Counter[Compute]()
    for part in parts:
        seconds[msgspec.structs.replace(part, seconds=0)] += part.seconds
    for part, added in seconds.items():
        yield msgspec.structs.replace(part, seconds=added)


def spent(state: RunState, price: Price) -> Decimal:
    """USD that the provider has earned on this run so far."""
    return money.total(
        entry.amount
        for attempt in state.attempts.values()
        for entry in _of_attempt(attempt, price)
        if entry.kind == "actual"
    )


@dataclass(frozen=True, slots=True)
class InVain:
    """`usd` bought nothing; nor did `seconds` of machines that are paid by the clock, out of `machine_seconds`."""

    usd: Decimal
    seconds: int
    machine_seconds: int


def in_vain(state: RunState, price: Price) -> InVain:
    """What the run has paid so far, and got nothing for."""
    usd, seconds = Decimal(0), Counter[bool]()
    for attempt in state.attempts.values():
        for line in _of_attempt(attempt, price):
            if line.kind != "actual":
                continue
            if line.waste:
                usd = money.total((usd, line.amount))
            if line.price.by_time and line.unit == "second":
                seconds[bool(line.waste)] += line.quantity
    return InVain(usd, seconds[True], seconds.total())


def saved(state: RunState, price: Price) -> Decimal:
    """USD that the answers of earlier runs would have cost again, in batches."""
    return money.total(entry.amount for shard in state.shards.values() for entry in _saved(shard, price))


def realtime(state: RunState, price: Price) -> Decimal | None:
    """USD that what was bought would have cost on demand; None where that is not known of all of it."""
    found = [
        entry.realtime_amount
        for attempt in state.attempts.values()
        for entry in _of_attempt(attempt, price)
        if entry.kind == "actual"
    ]
    known = [amount for amount in found if amount is not None]
    return money.total(known) if len(known) == len(found) else None


def ledger_table(plan: RunPlan, state: RunState, price: Price) -> pa.Table:
    """The run's ledger as a table of schema `schemas.LEDGER`, with unique `entry_id`."""
    lines = list(entries(plan, state, price))
    return pa.Table.from_pylist([_row(line, plan) for line in lines], schema=LEDGER)


def _row(line: Entry, plan: RunPlan) -> dict[str, object]:
    place = f"{plan.run_id}/{plan.nonce}/{line.scope}/{line.shard}/{line.attempt}"
    place += f"/{line.batch_id}" if line.surplus else ""
    identity = f"{place}/{line.kind}/{line.token_type}/{line.waste}"
    if line.price.by_time and line.unit == "second":
        identity += f"/{line.price.price_id}/{line.zone}/{line.unit_price}/{line.price.source}"
    return {
        "entry_id": hashlib.sha256(identity.encode()).hexdigest()[:32],
        "at": moment(line.at),
        "run_id": plan.run_id,
        "kind": line.kind,
        "waste": line.waste or None,
        "scope": line.scope,
        "shard": line.shard,
        "attempt": line.attempt,
        "backend": plan.backend,
        "provider": plan.provider,
        "region": line.zone or line.region or plan.region,
        "model": plan.model,
        "batch_id": line.batch_id,
        "token_type": line.token_type or None,
        "quantity": line.quantity,
        "unit": line.unit,
        "unit_price": line.unit_price,
        "amount": line.amount,
        "currency": "USD",
        "price_id": line.price.price_id,
        "price_source": line.price.source,
        "realtime_amount": line.realtime_amount,
        "period_start": moment(line.period_start),
        "period_end": moment(line.period_end),
        "tags": list(plan.tags.items()),
    }


def moment(seconds: float) -> datetime | None:
    """Seconds since the epoch as a time in UTC; None for 0, which stands for not yet."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
