"""What a month has cost under a root, by job, day and cap: one record that the terminal, the page and JSON all show.

Days and months are those of UTC, by when a batch was submitted. Amounts are USD.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal

from lowtide import money
from lowtide.budget.account import AccountState
from lowtide.budget.caps import Cap
from lowtide.errors import ConfigError

FORECAST_DAYS = 3
"""A forecast needs so many days on which something was spent."""

_NOTHING = Decimal(0)
_PICO = Decimal("0.000000000001")
_WIDE = Context(prec=76, rounding=ROUND_HALF_EVEN)
_TOKENS = frozenset({"input", "output", "cached_input", "cache_write", "reasoning"})


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in UTC."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Month:
        """`2026-11`. Raises ConfigError for anything else."""
        try:
            found = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
        except ValueError:
            raise ConfigError(f"--month {text!r} is no month: write it like 2026-11") from None
        return cls(found.year, found.month)

    @classmethod
    def of(cls, when: datetime) -> Month:
        """The month that a time is in."""
        return cls(when.astimezone(UTC).year, when.astimezone(UTC).month)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def days(self) -> int:
        """How many days it has."""
        return calendar.monthrange(self.year, self.month)[1]

    @property
    def start(self) -> datetime:
        """When it begins."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """When the next one begins."""
        return self.start + timedelta(days=self.days)


@dataclass(frozen=True, slots=True)
class LedgerSum:
    """Lines of one run's ledger that are alike in all that matters here, added up.

    `realtime` is None unless every line says what it would have cost in real time. `unpriced` counts lines whose price
    is not known: their amount of 0 says nothing.
    """

    job: str
    run_id: str
    day: date
    kind: str
    waste: str
    token_type: str
    quantity: int
    amount: Decimal
    realtime: Decimal | None = None
    currency: str = "USD"
    unpriced: int = 0
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class JobSpend:
    """What one job has spent, or, as a total, all of them; None for what is not known.

    `wasted_usd` is a part of `spent_usd`. `saved_usd` is what the same tokens would have cost more in real time, over
    the `compared_usd` for which a price in real time is known. `cached_usd` is what answers of earlier runs would have
    cost: it was never spent. `unpriced` counts ledger lines without a price.
    """

    job: str
    spent_usd: Decimal
    wasted_usd: Decimal
    reserved_usd: Decimal
    billed_usd: Decimal | None
    realtime_usd: Decimal | None
    compared_usd: Decimal
    saved_usd: Decimal | None
    cached_usd: Decimal
    cap_usd: Decimal | None
    runs: int
    tokens: int
    wasted_tokens: int
    cached_tokens: int
    unpriced: int


@dataclass(frozen=True, slots=True)
class DaySpend:
    """What one day has cost; `wasted_usd` is a part of it."""

    day: date
    spent_usd: Decimal
    wasted_usd: Decimal


@dataclass(frozen=True, slots=True)
class CapSpend:
    """A cap, and how much of it is used. `spent_usd` is what the root's account counts, by which runs are stopped.

    `ledger_usd` is what the ledgers say of the same runs, and `spent_usd` as well where the month has no account.
    """

    name: str
    source: str
    job: str
    tags: dict[str, str]
    usd: Decimal
    spent_usd: Decimal
    reserved_usd: Decimal
    left_usd: Decimal
    ledger_usd: Decimal


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the whole month will have cost if the rest of it goes like what is over. `days` had spending."""

    usd: Decimal
    days: int


@dataclass(frozen=True, slots=True)
class SpendMonth:
    """A month of spending under one root, as of `at`. `days` go from the first of the month to its end, or to `at`.

    `other_currencies` is what was spent in another currency than USD: it is in no other number.
    """

    root: str
    month: str
    at: datetime
    over: bool
    total: JobSpend
    jobs: tuple[JobSpend, ...]
    days: tuple[DaySpend, ...]
    caps: tuple[CapSpend, ...]
    forecast: Forecast | None
    no_forecast: str
    other_currencies: dict[str, Decimal]


@dataclass(slots=True)
class _Sums:
    """One job in the making."""

    spent: Decimal = _NOTHING
    wasted: Decimal = _NOTHING
    billed: Decimal | None = None
    realtime: Decimal | None = None
    compared: Decimal = _NOTHING
    cached: Decimal = _NOTHING
    tokens: int = 0
    wasted_tokens: int = 0
    cached_tokens: int = 0
    unpriced: int = 0
    runs: set[tuple[str, str]] = field(default_factory=set)

    def take(self, line: LedgerSum) -> None:
        """Add a sum of lines, each kind to where it belongs: only `actual` was spent."""
        tokens = line.quantity if line.token_type in _TOKENS else 0
        if line.kind in ("billed", "correction"):
            self.billed = _add(self.billed or _NOTHING, line.amount)
        elif line.kind == "saved":
            self.cached = _add(self.cached, line.amount)
            self.cached_tokens += tokens
        elif line.kind == "actual":
            self.runs.add((line.job, line.run_id))
            self.spent = _add(self.spent, line.amount)
            self.tokens += tokens
            self.unpriced += line.unpriced
            if line.waste:
                self.wasted = _add(self.wasted, line.amount)
                self.wasted_tokens += tokens
            if line.realtime is not None:
                self.realtime = _add(self.realtime or _NOTHING, line.realtime)
                self.compared = _add(self.compared, line.amount)

    def done(self, job: str, reserved: Decimal, cap: Decimal | None) -> JobSpend:
        return JobSpend(
            job=job,
            spent_usd=self.spent,
            wasted_usd=self.wasted,
            reserved_usd=reserved,
            billed_usd=self.billed,
            realtime_usd=self.realtime,
            compared_usd=self.compared,
            saved_usd=None if self.realtime is None else _add(self.realtime, -self.compared),
            cached_usd=self.cached,
            cap_usd=cap,
            runs=len(self.runs),
            tokens=self.tokens,
            wasted_tokens=self.wasted_tokens,
            cached_tokens=self.cached_tokens,
            unpriced=self.unpriced,
        )


def spend_month(
    root: str,
    month: Month,
    lines: Iterable[LedgerSum],
    *,
    caps: Sequence[Cap],
    account: AccountState,
    now: datetime,
) -> SpendMonth:
    """The month's record. Pure, and exact to 1e-12 USD. `lines` are read once, and may be of other months too.

    `account` is the root's account of that month; an empty one where nothing was reserved in it.
    """
    jobs: dict[str, _Sums] = defaultdict(_Sums)
    by_day: dict[date, _Sums] = defaultdict(_Sums)
    by_run: dict[tuple[str, tuple[tuple[str, str], ...]], Decimal] = defaultdict(Decimal)
    total, others = _Sums(), dict[str, Decimal]()
    for line in lines:
        if (line.day.year, line.day.month) != (month.year, month.month):
            continue
        if line.currency != "USD":
            if line.kind == "actual":
                others[line.currency] = _add(others.get(line.currency, _NOTHING), line.amount)
            continue
        for sums in (jobs[line.job], total):
            sums.take(line)
        if line.kind == "actual":
            by_day[line.day].take(line)
            by_run[line.job, line.tags] = _add(by_run[line.job, line.tags], line.amount)
    reserved = _reserved(account)
    shown = [jobs[job].done(job, reserved.get(job, _NOTHING), _cap_of(job, caps)) for job in {**jobs, **reserved}]
    whole = total.done("", money.total(reserved.values()), None)
    days = _days(month, by_day, now)
    forecast = _forecast(month, whole, days, now)
    return SpendMonth(
        root=root,
        month=str(month),
        at=now,
        over=now >= month.end,
        total=whole,
        jobs=tuple(sorted(shown, key=lambda one: (-one.spent_usd, -one.reserved_usd, one.job))),
        days=days,
        caps=tuple(_cap(cap, account, by_run) for cap in caps),
        forecast=forecast if isinstance(forecast, Forecast) else None,
        no_forecast=forecast if isinstance(forecast, str) else "",
        other_currencies=others,
    )


def _add(left: Decimal, right: Decimal) -> Decimal:
    return money.total((left, right))


def _reserved(account: AccountState) -> dict[str, Decimal]:
    found: dict[str, Decimal] = defaultdict(Decimal)
    for line in account.open.values():
        spender = account.spenders.get(line.run)
        if spender is not None and line.reserved:
            found[spender.job] += line.reserved
    return dict(found)


def _cap_of(job: str, caps: Sequence[Cap]) -> Decimal | None:
    """The tightest cap that is for this job alone; others may bind it too, and stand by themselves."""
    return min((cap.usd for cap in caps if cap.job == job and not cap.tags), default=None)


def _cap(cap: Cap, account: AccountState, by_run: dict[tuple[str, tuple[tuple[str, str], ...]], Decimal]) -> CapSpend:
    room = account.room(cap)
    ledger = money.total(usd for (job, tags), usd in by_run.items() if cap.covers(job, dict(tags)))
    spent = room.spent if account.entry else ledger
    return CapSpend(
        name=cap.name,
        source=cap.source,
        job=cap.job,
        tags=dict(cap.tags),
        usd=cap.usd,
        spent_usd=spent,
        reserved_usd=room.reserved,
        left_usd=cap.usd - spent - room.reserved,
        ledger_usd=ledger,
    )


def _days(month: Month, by_day: dict[date, _Sums], now: datetime) -> tuple[DaySpend, ...]:
    last = month.end - timedelta(days=1) if now >= month.end else now
    # A clock that is ahead of ours has written what is to come.
    until = max([last.date(), *by_day])
    found: list[DaySpend] = []
    for number in range(month.days):
        day = month.start.date() + timedelta(days=number)
        if day <= until:
            sums = by_day.get(day, _Sums())
            found.append(DaySpend(day, sums.spent, sums.wasted))
    return tuple(found)


def _forecast(month: Month, total: JobSpend, days: Sequence[DaySpend], now: datetime) -> Forecast | str:
    """The forecast, or why there is none."""
    spending = sum(1 for one in days if one.spent_usd)
    if now >= month.end:
        return "the month is over"
    if now < month.start or spending < FORECAST_DAYS:
        return f"a forecast needs {FORECAST_DAYS} days with spending"
    elapsed = Decimal(int((now - month.start).total_seconds()) or 1)
    whole = Decimal(int((month.end - month.start).total_seconds()))
    usd = _WIDE.quantize(_WIDE.divide(_WIDE.multiply(total.spent_usd, whole), elapsed), _PICO)
    return Forecast(usd, spending)
