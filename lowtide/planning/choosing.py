"""Where the work is done: what it would cost at each of the job's backends and when it would be done, and the choice.

The cheapest that is done by the deadline is chosen; where none is, the one that is done first. Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from lowtide.billing.reading import is_priced
from lowtide.money import rough
from lowtide.plan import Candidate, PlannedOption, Range
from lowtide.records import Limits
from lowtide.sharding.shard import TOKEN_BYTES

NOTHING = Range(0, 0, 0)

SLACK = 0.01
"""The part of the time until the deadline by which an estimate may miss it: no estimate is finer than that, and work
that a provider promises within a day would else never fit into one."""

ON_DEMAND_SECONDS = 5.0
"""Seconds for one request outside a batch, asked one after the other: an assumption, on the slow side."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What would be asked of one backend. `size` is in bytes of request lines; `basis` says what tokens are known by.

    `wave_seconds` is how long its batches have taken in earlier runs of the job, those that were open together, and
    `records_per_second` how fast it was; None where there are none. `runs` says how many there are.
    """

    requests: int
    cached: int
    twins: int
    size: int
    input: Range
    output: Range
    basis: str
    wave_seconds: float | None = None
    records_per_second: float | None = None
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Moments:
    """When the run would start, how long it works on its own, and when it should be done; seconds since the epoch."""

    now: float
    build_seconds: float
    deadline: float

    def fits(self, finish: float) -> bool:
        """Whether what is done by then is done by the deadline, as far as can be told."""
        return finish <= self.deadline + SLACK * max(self.deadline - self.now, 0.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """`options` in the job's order, one of them chosen; `late` says that it is not expected to be done in time."""

    options: tuple[PlannedOption, ...]
    chosen: int
    late: bool

    @property
    def option(self) -> PlannedOption:
        return self.options[self.chosen]


def option(candidate: Candidate, demand: Demand, moments: Moments, shard_records: int) -> PlannedOption:
    """What the work would cost at one backend, and when it would be done."""
    backend, limits = candidate.backend, candidate.backend.limits
    on_demand = 0 < demand.requests < limits.minimum_records
    price = candidate.price.of(on_demand=on_demand)
    realtime = candidate.price.on_demand
    shards = shards_of(demand, limits, shard_records)
    machines = max(min(candidate.machines_at_most, shards), 1)
    if price.tokens_per_second and demand.requests:
        seconds, basis = _machine_seconds(demand, limits, machines, price.tokens_per_second)
    else:
        seconds, basis = _seconds(demand, limits, shards, on_demand=on_demand)
    fixed = price.fixed * machines if demand.requests else Decimal(0)
    finish = moments.now + moments.build_seconds + seconds

    def cost(tokens_in: int, tokens_out: int) -> Decimal:
        return price.amount({"input": tokens_in, "output": tokens_out}) + fixed

    return PlannedOption(
        backend=backend.name,
        model=backend.model,
        region=backend.region,
        price_id=price.price_id,
        input_tokens=demand.input,
        output_tokens=demand.output,
        cost_low_usd=cost(demand.input.low, demand.output.low),
        cost_usd=cost(demand.input.expected, demand.output.expected),
        cost_high_usd=cost(demand.input.high, demand.output.high),
        realtime_usd=realtime.amount({"input": demand.input.expected, "output": demand.output.expected})
        if realtime
        else None,
        shards=shards,
        finish=finish,
        finish_basis=basis,
        fits_deadline=moments.fits(finish),
        basis=demand.basis,
        requests=demand.requests,
        cached=demand.cached,
        twins=demand.twins,
        on_demand=on_demand,
        quota=_quota(limits, shards, on_demand=on_demand),
        fixed_usd=fixed,
        by_time=price.by_time,
    )


def unable(candidate: Candidate, refusals: Sequence[str]) -> PlannedOption:
    """A backend that cannot do an operation."""
    backend = candidate.backend
    return PlannedOption(
        backend=backend.name,
        model=backend.model,
        region=backend.region,
        price_id=candidate.price.price_id,
        input_tokens=NOTHING,
        output_tokens=NOTHING,
        cost_low_usd=Decimal(0),
        cost_usd=Decimal(0),
        cost_high_usd=Decimal(0),
        realtime_usd=None,
        shards=0,
        finish=0.0,
        finish_basis="",
        fits_deadline=False,
        basis="",
        why_not=f"cannot do {'; '.join(refusals)}",
    )


def choose(options: Sequence[PlannedOption], moments: Moments) -> Choice:
    """The cheapest that fits the deadline: of equals the one that is done first, then the first in the job file.

    If none fits, the one that is done first. Raises ValueError if none can do the work.
    """
    able = [number for number, found in enumerate(options) if found.finish]
    if not able:
        raise ValueError("no backend can do the work")
    fitting = [number for number in able if options[number].fits_deadline]
    if fitting:
        best = min(fitting, key=lambda number: (options[number].cost_usd, options[number].finish, number))
    else:
        best = min(able, key=lambda number: (options[number].finish, options[number].cost_usd, number))
    told = [
        msgspec.structs.replace(
            found,
            chosen=number == best,
            why_not="" if number == best else found.why_not or _why_not(found, options[best], moments),
            break_even=_break_even(found, options),
        )
        for number, found in enumerate(options)
    ]
    return Choice(tuple(told), best, late=not fitting)


def _why_not(found: PlannedOption, best: PlannedOption, moments: Moments) -> str:
    if best.fits_deadline and not found.fits_deadline:
        return f"done {span(found.finish - moments.deadline)} after the deadline"
    if not best.fits_deadline and found.finish > best.finish:
        return f"done {span(found.finish - best.finish)} later"
    if not is_priced(found.price_id, found.cost_usd):
        later = f", and it is done {span(found.finish - best.finish)} later" if found.finish > best.finish else ""
        return f"what it costs is not known{later}"
    if not is_priced(best.price_id, best.cost_usd):
        return f"{rough(found.cost_usd)} USD; what {best.backend} costs is not known, and counts as nothing"
    if found.cost_usd > best.cost_usd:
        return f"{rough(found.cost_usd - best.cost_usd)} USD more"
    if found.finish > best.finish:
        return f"costs the same, done {span(found.finish - best.finish)} later"
    return "costs the same; the job file names the other one first"


def shards_of(demand: Demand, limits: Limits, shard_records: int) -> int:
    """How many shards the builder would cut, about: by records, by bytes, and by tokens where they are limited."""
    if not demand.requests:
        return 0
    size = limits.bytes if limits.tokens is None else min(limits.bytes, limits.tokens * TOKEN_BYTES)
    by_records = math.ceil(demand.requests / max(min(shard_records, limits.records), 1))
    return max(by_records, math.ceil(demand.size / size), 1)


def _seconds(demand: Demand, limits: Limits, shards: int, *, on_demand: bool) -> tuple[float, str]:
    """How long the backend takes, and what that is known by."""
    if not demand.requests:
        return 0.0, "nothing to ask"
    if on_demand:
        return demand.requests * ON_DEMAND_SECONDS, f"asked one by one, {ON_DEMAND_SECONDS:.0f} s each"
    earlier = f"{demand.runs} earlier run" + ("s" if demand.runs != 1 else "")
    if limits.records_per_second is not None:
        speed = demand.records_per_second or limits.records_per_second
        words = (
            f"at {speed:,.1f} requests a second, as in {earlier}"
            if demand.records_per_second
            else (f"at about {speed:,.0f} requests a second")
        )
        return demand.requests / speed, words
    waves = math.ceil(shards / limits.live_batches)
    if demand.wave_seconds is not None:
        return waves * demand.wave_seconds, f"as slow as the slowest of {earlier}"
    return waves * limits.turnaround_seconds, f"promised within {span(limits.turnaround_seconds)} a batch"


def _machine_seconds(demand: Demand, limits: Limits, machines: int, tokens_per_second: float) -> tuple[float, str]:
    """How long so many machines take that are started for it, each at one shard after the other."""
    tokens = demand.input.expected + demand.output.expected
    words = f"at {tokens_per_second:,.0f} tokens a second on {machines} machine" + ("s" if machines > 1 else "")
    return limits.boot_seconds + tokens / (tokens_per_second * machines), words


def _break_even(found: PlannedOption, options: Sequence[PlannedOption]) -> str:
    """Where machines are paid, which cost something before their first answer: from how many requests on they pay.

    Held against the cheapest of those that are paid by the token, request for request.
    """
    others = [other for other in options if other.finish and other.requests and not other.by_time]
    if not found.by_time or not found.requests or not others or not is_priced(found.price_id, found.cost_usd):
        return ""
    other = min(others, key=lambda other: other.cost_usd / other.requests)
    less = other.cost_usd / other.requests - (found.cost_usd - found.fixed_usd) / found.requests
    if less <= 0:
        return f"never cheaper than {other.backend}, at this pace and price"
    number = math.ceil(found.fixed_usd / less)
    return f"cheaper than {other.backend} from {f'about {number:,} requests' if number > 1 else 'the first request'} on"


def _quota(limits: Limits, shards: int, *, on_demand: bool) -> str:
    """How so many batches fit into what the backend takes at once."""
    if not shards:
        return "no batch"
    if on_demand:
        return f"too few for a batch of {limits.minimum_records}: on demand"
    if shards <= limits.live_batches:
        return "fits at once"
    return f"{limits.live_batches} at a time: {math.ceil(shards / limits.live_batches)} rounds"


def span(seconds: float) -> str:
    """A length of time in a word or two: `40 s`, `12 min`, `6 h`, `3 days`."""
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= length * (2 if unit == "days" else 1):
            number = f"{seconds / length:.{1 if seconds < 10 * length else 0}f}"
            return f"{number.removesuffix('.0')} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"
