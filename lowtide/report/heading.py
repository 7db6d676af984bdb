"""The top of the page: which run this is, its key numbers, and what does not add up between the tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from lowtide.money import exact
from lowtide.prices.naming import price_named
from lowtide.report.ledger import Ledger
from lowtide.report.records import ReportMeta
from lowtide.report.tables import Saving, Tables
from lowtide.report.text import (
    amounts,
    aware,
    count,
    duration,
    instant,
    minute,
    money,
    percent,
    period,
    plural,
    shorten,
    span,
)
from lowtide.report.views import Cell, cash


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the heading. `when` is set for a time, `note` says more in the same breath."""

    name: str
    text: str
    when: str = ""
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """One key number and a line below it."""

    name: str
    number: Cell
    note: str
    unit: str = ""


def facts(meta: ReportMeta, tables: Tables) -> list[Fact]:
    """Window, run, begin, end, deadline."""
    run = tables.run
    told = [Fact("Window", meta.window, note=_window(tables)), Fact("Run", meta.run_id, note=_answered_by(tables))]
    started, finished = (run.started, run.finished) if run else (None, None)
    if started:
        told.append(Fact("Started", minute(started), instant(started)))
    if finished:
        took = span(started, finished)
        told.append(
            Fact(
                "Finished",
                minute(finished),
                instant(finished),
                f"took {duration(took.total_seconds())}" if took else "",
            )
        )
    else:
        told.append(Fact("Finished", "not yet"))
    told.append(_deadline((run and run.deadline) or meta.deadline, finished, meta.generated_at))
    return told + _planned(meta)


def _planned(meta: ReportMeta) -> list[Fact]:
    """What the plan says of prices, caps, and the results that were there before."""
    plan = meta.plan
    if plan is None:
        return []
    said = price_named(plan)
    told = [Fact("Prices", said)] if said else []
    if plan.run_usd is not None:
        asked = plan.approve_above_usd
        note = f"to be approved above {exact(asked)} USD" if asked is not None else ""
        told.append(Fact("Cap", f"{exact(plan.run_usd)} USD for this run", note=note))
    elif plan.approve_above_usd is not None:
        told.append(Fact("Approval", f"above {exact(plan.approve_above_usd)} USD"))
    if plan.replaces is not None:
        told.append(Fact("Replaces", plan.replaces.run_id, note=plural(plan.replaces.rows, "row")))
    return told


def _window(tables: Tables) -> str:
    for known in (tables.results, tables.run):
        if known and known.window_start and known.window_end:
            return period(known.window_start, known.window_end)
    return ""


def _answered_by(tables: Tables) -> str:
    named = [key for key, _ in tables.results.answered_by.ranked()] if tables.results else []
    if not named and tables.run:
        named = [(tables.run.backend, tables.run.model)]
    said = [" · ".join(filter(None, (shorten(part, 60) for part in pair))) for pair in named[:2]]
    more = f", {count(len(named) - 2)} more" if len(named) > 2 else ""
    return ", ".join(filter(None, said)) + more


def state(meta: ReportMeta, tables: Tables) -> str:
    """One word for where the run stands."""
    if meta.state:
        return meta.state
    if tables.run and tables.run.cancelled:
        return "cancelled"
    return "finished" if tables.run and tables.run.finished else "not finished"


def _deadline(deadline: datetime | None, finished: datetime | None, now: datetime) -> Fact:
    if deadline is None:
        return Fact("Deadline", "none given")
    deadline = aware(deadline)
    spare = (deadline - (finished or aware(now))).total_seconds()
    if finished:
        note, tone = ("met, with {} to spare", "good") if spare >= 0 else ("missed by {}", "bad")
    else:
        note, tone = ("{} left", "") if spare >= 0 else ("passed {} ago", "bad")
    return Fact("Deadline", minute(deadline), instant(deadline), note.format(duration(abs(spare))), tone)


def tiles(tables: Tables, gained: Saving | None, *, priced: bool = True) -> list[Tile]:
    """The numbers that are looked at first. Without `priced`, amounts are not known and not told."""
    unknown = Tile("Cost", Cell("—"), "not known: no price in the job file")
    made = [*_rows(tables), _cost(tables) if priced else unknown]
    run = tables.run
    if gained and gained.realtime:
        share = f"{percent(abs(gained.saved), gained.realtime)} {'below' if gained.saved >= 0 else 'above'} real time"
        made.append(_money("Saving" if gained.saved >= 0 else "Extra cost", abs(gained.saved), share))
    made.append(_tokens(tables))
    if run and run.seconds_waiting is not None and run.seconds_working is not None:
        worked = f"{duration(run.seconds_working)} of our own work"
        made.append(
            Tile("Waiting on providers", Cell(duration(run.seconds_waiting), f"{run.seconds_waiting:g}"), worked)
        )
    return made


def _rows(tables: Tables) -> list[Tile]:
    results, run = tables.results, tables.run
    documents = f"from {plural(run.documents, 'document')}" if run and run.documents is not None else ""
    if results is None:
        return [Tile("Rows", Cell("—"), documents or "no results yet")]
    ok = results.statuses.get("ok")
    rest = results.rows - ok
    earlier = f"{count(results.bought_earlier)} bought by earlier runs" if results.bought_earlier else ""
    rows = Tile("Rows", Cell(count(results.rows), str(results.rows)), ", ".join(filter(None, (documents, earlier))))
    said = f"{count(rest)} not ok" if rest else "every row is ok"
    return [
        rows,
        Tile("Rows that are ok", Cell(percent(ok, results.rows), str(ok)), said if results.rows else "no rows"),
    ]


def _cost(tables: Tables) -> Tile:
    run, ledger = tables.run, tables.ledger
    planned = f"planned {amounts({'USD': run.planned_cost})}" if run and run.planned_cost is not None else ""
    if ledger is not None and ledger.unknown:
        planned = "and more: not every price is known"
    if run and run.cost is not None:
        return _money("Cost", run.cost, planned)
    if ledger is not None:
        charged = ledger.cost
        note = planned or "so far, by the ledger"
        if charged.keys() <= {"USD"}:
            return _money("Cost", charged.get("USD", Decimal(0)), note)
        return Tile("Cost", cash(charged, precise=False), note)
    return Tile("Cost", Cell("—"), planned or "no ledger yet")


def _money(name: str, amount: Decimal, note: str) -> Tile:
    number, _, unit = money(amount).partition(" ")
    return Tile(name, Cell(number, f"{amount:f}"), note, unit)


def _tokens(tables: Tables) -> Tile:
    run, ledger = tables.run, tables.ledger
    if ledger is not None:
        whole = ledger.tokens()
        return Tile("Tokens", Cell(_short(whole), str(whole)), _wasted(ledger))
    if run and run.input_tokens is not None and run.output_tokens is not None:
        whole = run.input_tokens + run.output_tokens
        return Tile("Tokens", Cell(_short(whole), str(whole)), f"{count(run.output_tokens)} of them written")
    return Tile("Tokens", Cell("—"), "no ledger yet")


def _wasted(ledger: Ledger) -> str:
    """The part that bought nothing, of tokens, and of machine time where that is paid."""
    whole, wasted = ledger.tokens(), ledger.tokens(wasted=True)
    said = [f"{percent(wasted, whole)} wasted"] if whole and (wasted or not ledger.by_time) else []
    if ledger.by_time:
        lost = percent(ledger.seconds(wasted=True), ledger.seconds())
        said.append(f"{lost} of machine time" if said else f"{lost} of machine time wasted")
    return ", ".join(said) or "none used"


def _short(number: int) -> str:
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return count(number)


def disagreements(meta: ReportMeta, tables: Tables) -> list[str]:
    """Where two tables say different things of the same run, in words."""
    run, results, ledger = tables.run, tables.results, tables.ledger
    said: list[str] = []
    of_this_run = results is not None and (not results.rows or bool(results.run_ids.get(meta.run_id)))
    if results is not None and not of_this_run:
        others = ", ".join(name or "an unnamed run" for name, _ in results.run_ids.ranked()[:3])
        said.append(f"The rows below were published by {others}; run {meta.run_id} has published none yet.")
    if run and results is not None and of_this_run:
        said += [
            f"The runs table counts {count(number)} rows with status {status}, the results table {count(held)}."
            for status, number in run.statuses.items()
            if number != (held := results.statuses.get(status))
        ]
    if run and run.cost is not None and ledger is not None:
        charged = ledger.cost.get("USD", Decimal(0))
        if charged != run.cost:
            said.append(
                f"The runs table says {exact(run.cost)} USD, the ledger's entries add up to {exact(charged)} USD."
            )
    return said
