"""A month of spending as one HTML page, in the look of the report: it loads nothing, and runs no script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import BinaryIO

from lowtide.billing.spend import CapSpend, JobSpend, SpendMonth
from lowtide.money import exact
from lowtide.report import costs
from lowtide.report.charts import Series, scale, stacked
from lowtide.report.heading import Fact, Tile
from lowtide.report.page import style, template
from lowtide.report.shards import money_ticks
from lowtide.report.tables import Saving
from lowtide.report.text import count, instant, minute, moment, money, percent, plural, visible
from lowtide.report.views import UNKNOWN, Bars, Cell, Columns, Segment, Strip, cash, number, table, words

_JOBS, _CAPS = 30, 40
_NOTHING = Decimal(0)


def write_spend_page(month: SpendMonth, out: BinaryIO) -> None:
    """Write the page in UTF-8: every number on it is one of the record's. The same record gives the same bytes."""
    gained = saving_of(month)
    page = template("spend.html.j2").render(
        month=month,
        style=style(),
        state="" if month.over else "so far",
        facts=_facts(month),
        tiles=_tiles(month, gained),
        jobs=_job_bars(month),
        caps=tuple(_cap_strip(cap) for cap in month.caps[:_CAPS]),
        caps_left=max(0, len(month.caps) - _CAPS),
        days=_day_columns(month),
        saved=costs.saving_strip(gained) if gained else None,
        dearer=costs.saving_in_words(gained) if gained and gained.saved < 0 else "",
        notes=notes(month),
        generated=(instant(month.at), moment(month.at)),
    )
    out.write(page.lstrip().encode("utf-8"))


def saving_of(month: SpendMonth) -> Saving | None:
    """The month against real time, over what can be compared; None if nothing can."""
    total = month.total
    if total.realtime_usd is None:
        return None
    return Saving(total.realtime_usd, total.compared_usd, total.wasted_usd)


def notes(month: SpendMonth) -> list[str]:
    """What the reader of the numbers has to know, in words."""
    total, said = month.total, list[str]()
    if total.unpriced:
        said.append(
            f"{plural(total.unpriced, 'ledger line')} without a price: their cost is not known, and not in here."
        )
    if total.realtime_usd is not None and total.compared_usd != total.spent_usd:
        rest = total.spent_usd - total.compared_usd
        said.append(f"Of {money(rest)} it is not known what they would have cost in real time.")
    said += [
        f"{exact(amount)} {currency} were spent as well, and are in no other number."
        for currency, amount in sorted(month.other_currencies.items())
    ]
    said += [
        f"Cap {cap.name!r}: the account that stops runs counts {exact(cap.spent_usd)} USD, "
        f"the ledgers say {exact(cap.ledger_usd)} USD."
        for cap in month.caps
        if cap.ledger_usd != cap.spent_usd
    ]
    return said


def _facts(month: SpendMonth) -> list[Fact]:
    total = month.total
    told = [Fact("Root", month.root), Fact("As of", minute(month.at), instant(month.at))]
    told.append(Fact("Runs", plural(total.runs, "run"), note=f"of {plural(len(month.jobs), 'job')}"))
    if total.tokens:
        wasted = percent(total.wasted_tokens, total.tokens)
        told.append(Fact("Tokens", count(total.tokens), note=f"{wasted} wasted" if total.wasted_tokens else ""))
    return told


def _tiles(month: SpendMonth, gained: Saving | None) -> list[Tile]:
    total = month.total
    share = f"{percent(total.wasted_usd, total.spent_usd)} in vain" if total.spent_usd else ""
    made = [_tile("Spent", total.spent_usd, share or "nothing was charged")]
    if month.forecast:
        made.append(_tile("Forecast", month.forecast.usd, f"for the month, after {plural(month.forecast.days, 'day')}"))
    made.append(
        _tile("Reserved now", total.reserved_usd, "by batches that are out" if total.reserved_usd else "nothing")
    )
    if gained and gained.realtime:
        less = f"{percent(abs(gained.saved), gained.realtime)} {'below' if gained.saved >= 0 else 'above'} real time"
        made.append(_tile("Saved" if gained.saved >= 0 else "Paid on top", abs(gained.saved), less))
    if total.cached_usd or total.cached_tokens:
        made.append(_tile("Saved by the cache", total.cached_usd, plural(total.cached_tokens, "token")))
    if total.billed_usd is not None:
        made.append(_tile("Billed", total.billed_usd, "by the providers' bills read so far"))
    return made


def _tile(name: str, amount: Decimal, note: str) -> Tile:
    shown, _, unit = money(amount).partition(" ")
    return Tile(name, Cell(shown, f"{amount:f}"), note, unit)


def _job_bars(month: SpendMonth) -> Bars | None:
    """Jobs by what they cost, waste apart, and what is reserved; on one scale, so that they can be compared."""
    shown = [job for job in month.jobs if job.spent_usd or job.reserved_usd][:_JOBS]
    if not shown:
        return None
    parts = (
        _Part("cost", "paid for answers", [job.spent_usd - job.wasted_usd for job in shown]),
        _Part("waste", "paid in vain", [job.wasted_usd for job in shown]),
        _Part("reserved", "reserved", [job.reserved_usd for job in shown]),
    )
    series = _series(parts, [job.job for job in shown], money)
    longest = max(job.spent_usd + job.reserved_usd for job in shown)
    first, total = month.jobs[0], month.total
    said = f"{words(first.job, 40).text} spent most: {money(first.spent_usd)}"
    said += f", {percent(first.spent_usd, total.spent_usd)} of all." if total.spent_usd else "."
    return Bars(
        title="",
        summary=visible(said),
        marks=stacked(series, float(longest), horizontal=True, gap=0.34, label="Spending by job"),
        names=tuple(words(job.job, 48) for job in shown),
        counts=tuple(_job_count(job, total) for job in shown),
        table=table(_JOB_HEADS, [_job_row(job) for job in month.jobs]),
        legend=_legend(parts),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """What every bar, or column, of a chart shows of one kind of money: its amounts, bar by bar."""

    role: str
    name: str
    usds: Sequence[Decimal]


def _series(parts: Sequence[_Part], bars: Sequence[str], written: Callable[[Decimal], str]) -> list[Series]:
    """The parts as a chart takes them. `bars` are what its bars are called."""
    return [
        Series(
            part.role,
            part.name,
            [float(usd) for usd in part.usds],
            [f"{bar}: {part.name} {written(usd)}" for bar, usd in zip(bars, part.usds, strict=True)],
        )
        for part in parts
    ]


def _legend(parts: Sequence[_Part]) -> tuple[Segment, ...]:
    return tuple(Segment(part.role, part.name, Cell("")) for part in parts if any(part.usds))


def _job_count(job: JobSpend, total: JobSpend) -> Cell:
    share = percent(job.spent_usd, total.spent_usd) if total.spent_usd else ""
    return Cell(money(job.spent_usd), f"{job.spent_usd:f}", True, share)


_JOB_HEADS = ["Job", "Runs", "Spent", "In vain", "Reserved", "Cap", "Saved against real time", "By the cache", "Billed"]


def _job_row(job: JobSpend) -> list[Cell]:
    def amount(usd: Decimal | None, unknown: str) -> Cell:
        return Cell(unknown, number=True) if usd is None else cash({"USD": usd})

    spent = Cell(UNKNOWN, number=True) if job.unpriced and not job.spent_usd else cash({"USD": job.spent_usd})
    return [
        words(job.job, 60),
        number(job.runs),
        spent,
        amount(None if job.unpriced and not job.spent_usd else job.wasted_usd, UNKNOWN),
        cash({"USD": job.reserved_usd}),
        amount(job.cap_usd, "none known"),
        amount(job.saved_usd, UNKNOWN),
        cash({"USD": job.cached_usd}),
        amount(job.billed_usd, "no bill read"),
    ]


def _cap_strip(cap: CapSpend) -> Strip:
    covers = f"job {cap.job}" if cap.job else "all jobs"
    if cap.tags:
        covers += " tagged " + ", ".join(f"{name}={value}" for name, value in sorted(cap.tags.items()))
    return _against_cap(f"{cap.name}, {covers}", cap.usd, cap.spent_usd, cap.reserved_usd)


def _against_cap(title: str, cap: Decimal, spent: Decimal, reserved: Decimal) -> Strip:
    """How much of a cap is used. What is over it, as after it was lowered, is drawn to its end, and said."""
    left = cap - spent - reserved
    parts = [("cost", "spent", spent), ("reserved", "reserved", reserved), ("left", "left", max(left, _NOTHING))]
    shown = [part for part in parts if part[2]]
    whole = max(cap, spent + reserved) or Decimal(1)
    series = [Series(role, name, [float(usd)], [f"{name}: {money(usd)}"]) for role, name, usd in shown]
    said = f"{money(spent)} of {money(cap)} spent ({percent(spent, cap)})"
    said += f", {money(reserved)} reserved" if reserved else ""
    said += f": {money(left)} left." if left >= 0 else f": {money(-left)} over it."
    return Strip(
        marks=stacked(series, float(whole), horizontal=True, gap=0, label=f"{title}: {said}"),
        segments=tuple(
            Segment(role, name, cash({"USD": usd}, precise=False), percent(usd, cap)) for role, name, usd in shown
        ),
        table=table(
            ["", "Amount"],
            [
                [Cell(name), cash({"USD": usd})]
                for name, usd in (("spent", spent), ("reserved", reserved), ("left", left), ("cap", cap))
            ],
        ),
        title=visible(title),
        summary=said,
    )


def _day_columns(month: SpendMonth) -> Columns | None:
    days = month.days
    if not any(day.spent_usd for day in days):
        return None
    axis = scale(float(max(day.spent_usd for day in days)))
    parts = (
        _Part("cost", "paid for answers", [day.spent_usd - day.wasted_usd for day in days]),
        _Part("waste", "paid in vain", [day.wasted_usd for day in days]),
    )
    series = _series(parts, [str(day.day) for day in days], lambda usd: f"{exact(usd)} USD")
    dearest = max(days, key=lambda day: day.spent_usd)
    said = [f"Most on {dearest.day.day} {dearest.day:%b}: {money(dearest.spent_usd)}.", in_words(month)]
    body = [[Cell(str(day.day)), cash({"USD": day.spent_usd}), cash({"USD": day.wasted_usd})] for day in days]
    return Columns(
        title="USD a day",
        summary=" ".join(filter(None, said)),
        marks=stacked(series, axis.top, horizontal=False, gap=0.2, label="Spending by day"),
        ticks=tuple(money_ticks(axis)),
        positions=(f"{days[0].day.day} {days[0].day:%b}", f"{days[-1].day.day} {days[-1].day:%b}")
        if len(days) > 1
        else (f"{days[0].day.day} {days[0].day:%b}",),
        legend=_legend(parts),
        table=table(["Day", "Spent", "In vain"], body),
    )


def in_words(month: SpendMonth) -> str:
    """The forecast in a sentence, or why there is none."""
    if month.forecast:
        days = plural(month.forecast.days, "day")
        return (
            f"Forecast, if the rest of the month goes like what is over: {money(month.forecast.usd)} "
            f"(from {days} with spending)."
        )
    return "" if month.over else f"No forecast: {month.no_forecast.removeprefix('a forecast ')}."
