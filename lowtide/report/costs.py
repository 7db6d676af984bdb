"""What the run cost beside what it might have cost: at other backends, in real time, without cache or waste."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from lowtide.plan import PlannedOption
from lowtide.report.charts import Series, stacked
from lowtide.report.figures import TYPES, WASTE
from lowtide.report.gauges import finish_of
from lowtide.report.ledger import COMPUTE, Ledger, Use
from lowtide.report.records import ReportMeta
from lowtide.report.tables import Saving, Tables, chosen, cost, has_price
from lowtide.report.text import amounts, change, count, divided, money, percent, plural, visible
from lowtide.report.views import UNKNOWN, Bars, Cell, Segment, Strip, Table, cash, number, paid, table, words

_BACKENDS = 12
_NAME = 60
_ROLES = {"cost": "this run", "planned": "as planned", "realtime": "in real time"}


@dataclass(frozen=True, slots=True)
class _Bar:
    """What 1,000 documents cost, in USD, at one backend; `role` says whether that is planned or was paid."""

    role: str
    name: str
    usd: Decimal


def backend_bars(meta: ReportMeta, tables: Tables, gained: Saving | None, *, priced: bool) -> Bars | None:
    """Cost per 1,000 documents: this run's, every backend's as planned, and in real time; None if none is known."""
    plan, option = meta.plan, chosen(meta.plan)
    options = plan.options if plan else ()
    names = _names(options)
    documents = tables.asked_documents
    planned_for = (plan.documents.documents if plan and plan.documents else None) or (
        tables.run.documents if tables.run else None
    )
    here = names[id(option)] if option else (tables.run.backend if tables.run else "") or "this run"
    bars: list[_Bar] = []
    came_to = cost(tables, priced=priced)
    if came_to is not None and documents:
        bars.append(_Bar("cost", f"{here}, this run", _thousand(came_to, documents)))
    if planned_for:
        bars += [
            _Bar("planned", f"{names[id(one)]}, planned", _thousand(one.cost_usd, planned_for))
            for one in sorted(options, key=lambda one: (not one.chosen, one.cost_usd, one.backend))[:_BACKENDS]
            if has_price(one)
        ]
    if gained and documents:
        bars.append(_Bar("realtime", f"{here}, real time", _thousand(gained.realtime, documents)))
    elif option and option.realtime_usd is not None and planned_for:
        bars.append(_Bar("realtime", f"{here}, real time", _thousand(option.realtime_usd, planned_for)))
    if not any(bar.usd for bar in bars):
        return None
    series = [
        Series(
            role,
            role,
            [float(bar.usd) if bar.role == role else 0.0 for bar in bars],
            [f"{bar.name}: {money(bar.usd)}" for bar in bars],
        )
        for role in ("cost", "planned", "realtime")
    ]
    return Bars(
        title="Cost per 1,000 documents" + (" that were asked" if tables.unasked else ""),
        summary=_backends_in_words(bars, options),
        marks=stacked(
            series,
            float(max(bar.usd for bar in bars)),
            horizontal=True,
            gap=0.34,
            label="Cost per 1,000 documents by backend",
        ),
        names=tuple(words(bar.name) for bar in bars),
        counts=tuple(_beside(bar, bars[0]) for bar in bars),
        table=_options_table(options, planned_for) if options else _bars_table(bars),
        legend=tuple(
            Segment(role, name, Cell("")) for role, name in _ROLES.items() if any(bar.role == role for bar in bars)
        ),
    )


def _thousand(usd: Decimal, documents: int) -> Decimal:
    return divided(usd * 1000, documents)


def _names(options: Sequence[PlannedOption]) -> dict[int, str]:
    """The options' backends, with what tells two of the same kind apart."""
    kinds, models = Counter(one.backend for one in options), Counter((one.backend, one.model) for one in options)

    def name(one: PlannedOption) -> str:
        if kinds[one.backend] == 1:
            return one.backend
        return f"{one.backend} {one.model}" if models[one.backend, one.model] == 1 else f"{one.backend} {one.region}"

    return {id(one): name(one) for one in options}


def _beside(bar: _Bar, first: _Bar) -> Cell:
    beside = change(bar.usd, first.usd) if bar is not first and first.usd else ""
    return Cell(money(bar.usd), f"{bar.usd:f}", True, beside)


def _backends_in_words(bars: Sequence[_Bar], options: Sequence[PlannedOption]) -> str:
    said = [f"{money(bars[0].usd)} at {bars[0].name}."]
    said += [f"{money(bar.usd)} in real time." for bar in bars[1:] if bar.role == "realtime"]
    passed = [f"{one.backend}: {one.why_not}" for one in options if one.why_not]
    if passed:
        said.append(f"Not chosen: {'; '.join(passed[:3])}{', and more' if len(passed) > 3 else ''}.")
    unpriced = sum(not has_price(one) for one in options)
    if unpriced:
        said.append(f"No price is known for {plural(unpriced, 'backend')}.")
    return visible(" ".join(said))


def _bars_table(bars: Sequence[_Bar]) -> Table:
    return table(["Backend", "Per 1,000 documents"], [[words(bar.name), cash({"USD": bar.usd})] for bar in bars])


def _options_table(options: Sequence[PlannedOption], documents: int | None) -> Table:
    def amount(usd: Decimal | None, one: PlannedOption) -> Cell:
        return cash({"USD": usd}) if usd is not None and has_price(one) else Cell(UNKNOWN, number=True)

    body = [
        [
            words(one.backend, 30),
            words(one.model, 40),
            words(one.region, 30),
            amount(_thousand(one.cost_usd, documents) if documents else None, one),
            amount(one.cost_low_usd, one),
            amount(one.cost_usd, one),
            amount(one.cost_high_usd, one),
            cash({"USD": one.realtime_usd}) if one.realtime_usd is not None else Cell(UNKNOWN, number=True),
            Cell(finish_of(one.finish) or UNKNOWN),
            words("chosen" if one.chosen else one.why_not or "not chosen", 160),
        ]
        for one in options
    ]
    money_heads = ["Per 1,000 documents", "Cost, low", "Cost, expected", "Cost, high", "In real time"]
    return table(["Backend", "Model", "Region", *money_heads, "Done by", "Choice"], body, "All of it as planned.")


def saving_strip(gained: Saving) -> Strip | None:
    """What the same work costs in real time, parted into what was paid and what was saved; None if nothing was."""
    if gained.saved < 0 or not gained.realtime:
        return None
    parts = [
        ("cost", "paid for answers", gained.paid - gained.wasted),
        ("waste", "paid in vain", gained.wasted),
        ("reused", "saved by the cache", gained.cached),
        ("saved", "saved by the batch price" if gained.cached else "saved", gained.saved - gained.cached),
    ]
    parts = [part for part in parts if part[2]]
    series = [Series(role, name, [float(usd)], [f"{name}: {money(usd)}"]) for role, name, usd in parts]
    return Strip(
        marks=stacked(series, float(gained.realtime), horizontal=True, gap=0, label=saving_in_words(gained)),
        segments=tuple(
            Segment(role, name, cash({"USD": usd}, precise=False), percent(usd, gained.realtime))
            for role, name, usd in parts
        ),
        table=table(
            ["", "Amount"],
            [
                *([Cell(name), cash({"USD": usd})] for _, name, usd in parts),
                [Cell("the same work in real time"), cash({"USD": gained.realtime})],
            ],
        ),
        title="Against real time",
        summary=saving_in_words(gained),
    )


def saving_in_words(gained: Saving) -> str:
    """What was saved, or paid on top."""
    without = " and without the cache" if gained.cached else ""
    said = f"In real time{without} the same work costs {money(gained.realtime)}; {money(gained.paid)} were paid"
    said += f", {money(gained.wasted)} of it in vain" if gained.wasted else ""
    if gained.saved >= 0:
        return f"{said}: {money(gained.saved)} or {percent(gained.saved, gained.realtime)} saved."
    return f"{said}: {money(-gained.saved)} more than in real time."


def cache_strip(tables: Tables) -> Strip | None:
    """Requests that were asked, and those that were not, since the answer was there; None if that is not known."""
    run = tables.run
    if run is None or run.requests is None or run.reused_requests is None or run.twin_requests is None:
        return None
    parts = [
        ("asked", "asked", run.requests - tables.unasked),
        ("reused", "answered by earlier runs", run.reused_requests),
        ("twin", "same as another of this run", run.twin_requests),
        *([("skipped", "not asked: over the cap", tables.unasked)] if tables.unasked else []),
    ]
    whole = sum(requests for _, _, requests in parts)
    if not whole:
        return None
    shown = [part for part in parts if part[2]]
    series = [Series(role, name, [size], [f"{name}: {plural(size, 'request')}"]) for role, name, size in shown]
    body = [[Cell(f"requests {name}"), number(size), Cell("", number=True)] for _, name, size in parts]
    body += [
        [words(f"tokens saved: {TYPES.get(kind, kind)}"), number(use.quantity), paid(use.cost, use.unknown)]
        for kind, use in sorted((tables.ledger.saved if tables.ledger else {}).items())
    ]
    return Strip(
        marks=stacked(series, float(whole), horizontal=True, gap=0, label=_cache_in_words(tables, whole)),
        segments=tuple(Segment(role, name, number(size), percent(size, whole)) for role, name, size in shown),
        table=table(["", "How many", "Worth"], body),
        summary=_cache_in_words(tables, whole),
    )


def _cache_in_words(tables: Tables, whole: int) -> str:
    run, ledger = tables.run, tables.ledger
    reused, twins = (run.reused_requests or 0, run.twin_requests or 0) if run else (0, 0)
    if not reused and not twins and tables.unasked:
        asked = f"{count(whole - tables.unasked)} of {plural(whole, 'request')} were asked"
        return f"{asked}: no earlier run had the answer, and no two were the same. The others were over the cap."
    if not reused and not twins:
        return "Every request was asked: no earlier run had the answer, and no two were the same."
    said = [f"Of {plural(whole, 'request')}, {count(reused + twins)} ({percent(reused + twins, whole)}) cost nothing."]
    saved = Use()
    for use in ledger.saved.values() if ledger else ():
        saved.quantity += use.quantity
        saved.unknown += use.unknown
        for currency, amount in use.cost.items():
            saved.add(0, 0, amount, currency)
    if run and not saved.cost and run.saved is not None:
        saved.cost = {"USD": run.saved}
    if any(saved.cost.values()):
        tokens = f" for {plural(saved.quantity, 'token')}" if saved.quantity else ""
        said.append(f"That saved {amounts(saved.cost)}{tokens}, at this run's prices.")
    elif saved.quantity:
        worth = "; what they are worth is not known: no price." if saved.unknown else "."
        said.append(f"That saved {plural(saved.quantity, 'token')}{worth}")
    return visible(" ".join(said))


def cap_in_words(tables: Tables) -> str:
    """That a cap has stopped the run, and how much was not asked; "" where none has."""
    if not tables.unasked:
        return ""
    requests = tables.run.requests if tables.run else None
    of = f" of {plural(requests, 'request')}" if requests is not None else ""
    were = "was" if tables.unasked == 1 else "were"
    return f"Stopped at its cap: {count(tables.unasked)}{of} {were} not asked."


def waste_bars(ledger: Ledger) -> Bars | None:
    """What bought no answer that was kept, by kind: its cost, or its tokens where costs are not known."""
    kinds: dict[str, Use] = defaultdict(Use)
    seconds = Counter[str]()
    for (token_type, waste), use in ledger.uses.items():
        if waste:
            into = kinds[waste]
            into.unknown += use.unknown
            if token_type == COMPUTE:
                seconds[waste] += use.quantity
            else:
                into.quantity += use.quantity
            for currency, amount in use.cost.items():
                into.add(0, 0, amount, currency)
    if not kinds:
        return None
    by_cost = any(use.cost.get("USD") for use in kinds.values())

    def size(use: Use) -> Decimal:
        return use.cost.get("USD", Decimal(0)) if by_cost else Decimal(use.quantity)

    ranked = sorted(kinds.items(), key=lambda item: (-size(item[1]), item[0]))
    whole = sum((size(use) for _, use in ranked), Decimal(0))
    if not whole:
        return None
    shown = ranked[:_BACKENDS]
    titles = [f"{WASTE.get(kind, kind)}: {_worth(use, by_cost=by_cost).text}" for kind, use in shown]
    series = [Series("waste", "waste", [float(size(use)) for _, use in shown], titles)]
    body = [
        [
            words(kind, 30),
            words(WASTE.get(kind, ""), _NAME),
            number(use.quantity),
            *([number(seconds[kind])] if ledger.by_time else []),
            paid(use.cost, use.unknown),
        ]
        for kind, use in ranked
    ]
    time = ["Machine seconds"] if ledger.by_time else []
    worst, use = ranked[0]
    return Bars(
        title="Waste by kind",
        summary=f"Most of it: {words(WASTE.get(worst, worst)).text}, {_worth(use, by_cost=by_cost).text}.",
        marks=stacked(series, float(size(ranked[0][1])), horizontal=True, gap=0.34, label="Waste by kind"),
        names=tuple(words(WASTE.get(kind, kind), 48) for kind, _ in shown),
        counts=tuple(_share(use, percent(size(use), whole), by_cost=by_cost) for _, use in shown),
        table=table(["Kind", "Meaning", "Tokens", *time, "Cost"], body),
    )


def _worth(use: Use, *, by_cost: bool) -> Cell:
    if by_cost:
        return cash({"USD": use.cost.get("USD", Decimal(0))}, precise=False)
    return Cell(plural(use.quantity, "token"), str(use.quantity), number=True)


def _share(use: Use, share: str, *, by_cost: bool) -> Cell:
    cell = _worth(use, by_cost=by_cost)
    return Cell(cell.text, cell.value.removesuffix(" USD"), True, share)
