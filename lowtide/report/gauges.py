"""Plan against actual: tokens, cost and time, each between what was expected at least and at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from xml.etree import ElementTree

from markupsafe import Markup

from lowtide.plan import PlannedOption, Range, RunPlan
from lowtide.report.records import ReportMeta
from lowtide.report.tables import Tables, chosen, cost, has_price
from lowtide.report.text import aware, change, count, duration, minute, money, visible
from lowtide.report.views import Cell, Gauge, Gauges, Segment, cash, number, table

_WIDTH, _HEIGHT = 1_000, 40
_EXPECTED, _ACTUAL, _LIMIT = 5, 9, 5
_ROOM = 1.06  # so that no mark is cut at the right edge

Value = int | Decimal


@dataclass(frozen=True, slots=True)
class _Row:
    """One thing that was planned. `limit` is what it must not pass."""

    name: str
    low: Value | None
    expected: Value | None
    high: Value | None
    actual: Value | None
    limit: Value | None = None

    @property
    def inside(self) -> bool | None:
        """Whether it came out within the planned range; None where there is no range, or nothing came out yet."""
        if self.low is None or self.high is None or self.actual is None:
            return None
        return self.low <= self.actual <= self.high


def plan_gauges(meta: ReportMeta, tables: Tables, *, priced: bool) -> Gauges | None:
    """What was planned beside what it came to; None if no plan is known."""
    rows = [row for row in _amounts(meta, tables, priced=priced) if row.expected]
    time = _time(meta, tables)
    if not rows and time is None:
        return None
    gauges = [_gauge(row) for row in rows] + ([_time_gauge(time, chosen(meta.plan))] if time else [])
    roles = [
        ("planned", "planned, between low and high", any(row.low is not None for row in rows)),
        ("expected", "expected", bool(rows) or (time is not None and time.expected is not None)),
        ("actual", "actual", any(row.actual is not None for row in (*rows, *filter(None, [time])))),
        ("limit", "deadline", time is not None and time.limit is not None),
    ]
    body = [[Cell(row.name), *(_cell(row.name, one) for one in _values(row)), _changed(row)] for row in rows]
    if time:
        body.append([Cell(time.name), *(_length(one) for one in _values(time)), _changed(time)])
    return Gauges(
        summary=_in_words(rows, time, priced=priced),
        rows=tuple(gauges),
        legend=tuple(Segment(role, name, Cell("")) for role, name, there in roles if there),
        table=table(["", "Low", "Expected", "High", "Actual", "Difference"], body),
    )


def _values(row: _Row) -> tuple[Value | None, ...]:
    return row.low, row.expected, row.high, row.actual


def _amounts(meta: ReportMeta, tables: Tables, *, priced: bool) -> Sequence[_Row]:
    plan, run, option = meta.plan, tables.run, chosen(meta.plan)
    sent, written = (option.input_tokens, option.output_tokens) if option else (None, None)
    rows = [
        _tokens("Tokens in", sent, run.planned_input_tokens if run else None, run.input_tokens if run else None),
        _tokens("Tokens out", written, run.planned_output_tokens if run else None, run.output_tokens if run else None),
    ]
    if not priced:
        return rows
    paid = cost(tables, priced=priced)
    if option and has_price(option):
        rows.append(_Row("Cost", option.cost_low_usd, option.cost_usd, option.cost_high_usd, paid))
    else:
        rows.append(_Row("Cost", None, _planned_cost(plan, tables), None, paid))
    return rows


def _tokens(name: str, planned: Range | None, expected: int | None, actual: int | None) -> _Row:
    if planned:
        return _Row(name, planned.low, planned.expected, planned.high, actual)
    return _Row(name, None, expected, None, actual)


def _planned_cost(plan: RunPlan | None, tables: Tables) -> Decimal | None:
    if tables.run and tables.run.planned_cost is not None:
        return tables.run.planned_cost
    return plan.cost_usd if plan else None


def _time(meta: ReportMeta, tables: Tables) -> _Row | None:
    """Seconds from the start of the run; None if there is no end to compare with."""
    run, option = tables.run, chosen(meta.plan)
    if run is None or run.started is None:
        return None
    started = run.started

    def after(when: datetime | None) -> int | None:
        return None if when is None else max(round((aware(when) - started).total_seconds()), 0)

    expected = datetime.fromtimestamp(option.finish, UTC) if option and option.finish else None
    limit = after(run.deadline or meta.deadline)
    if not expected and not limit:
        return None
    return _Row("Time", None, after(expected), None, after(run.finished), limit)


def _gauge(row: _Row) -> Gauge:
    said = _dollars if row.name == "Cost" else _plain
    between = f", between {said(row.low)} and {said(row.high)}" if row.low is not None and row.high is not None else ""
    note = f"expected {said(row.expected)}{between}" if row.expected is not None else ""
    shown = Cell("—") if row.actual is None else _cell(row.name, row.actual, precise=False)
    return Gauge(row.name, shown, _changed(row).text, note, _marks(row, note))


def _time_gauge(row: _Row, option: PlannedOption | None) -> Gauge:
    basis = f" ({option.finish_basis})" if option and option.finish_basis else ""
    parts = [
        f"expected {duration(float(row.expected))}{basis}" if row.expected is not None else "",
        f"deadline after {duration(float(row.limit))}" if row.limit is not None else "",
    ]
    note = ", ".join(filter(None, parts))
    shown = Cell("not finished") if row.actual is None else _length(row.actual)
    return Gauge(row.name, shown, _changed(row).text, note, _marks(row, note))


def _plain(tokens: Value | None) -> str:
    return "" if tokens is None else count(int(tokens))


def _dollars(usd: Value | None) -> str:
    return "" if usd is None else money(Decimal(usd))


def _cell(name: str, value: Value | None, *, precise: bool = True) -> Cell:
    if value is None:
        return Cell("—", number=True)
    return cash({"USD": Decimal(value)}, precise=precise) if name == "Cost" else number(int(value))


def _length(seconds: Value | None) -> Cell:
    return Cell("—", number=True) if seconds is None else Cell(duration(float(seconds)), str(int(seconds)), number=True)


def _changed(row: _Row) -> Cell:
    if row.actual is None or not row.expected:
        return Cell("—", number=True)
    return Cell(change(row.actual, row.expected), number=True)


def _in_words(rows: Sequence[_Row], time: _Row | None, *, priced: bool) -> str:
    compared = [row for row in rows if row.actual is not None]
    parts = [f"{row.name.lower()} {_against(row.actual, row.expected)}" for row in compared]
    said: list[str] = []
    if parts:
        listed = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
        said.append(f"{listed[0].upper()}{listed[1:]}.")
    outside = [row.name.lower() for row in compared if row.inside is False]
    if outside:
        said.append(f"Outside of the planned range: {', '.join(outside)}.")
    elif compared and all(row.inside for row in compared):
        said.append("All of it is within the planned range.")
    if not priced:
        said.append("What it cost is not known: no price.")
    if time and time.actual is not None and time.limit is not None:
        spare = int(time.limit) - int(time.actual)
        end = "before" if spare >= 0 else "after"
        said.append(f"It finished {duration(abs(spare))} {end} its deadline.")
    return " ".join(said)


def _against(actual: Value | None, expected: Value | None) -> str:
    if actual is None or not expected or actual == expected:
        return "as expected"
    factor = change(actual, expected)
    if factor.endswith("times"):
        return f"{factor} the plan"
    return f"{factor.lstrip('+-')} {'over' if actual > expected else 'under'} plan"


def _marks(row: _Row, label: str) -> Markup:
    """A band from low to high, and a line each for what was expected, what came out and what must not be passed."""
    known = [float(one) for one in (*_values(row), row.limit) if one is not None]
    scale = _WIDTH / (max(known, default=1.0) * _ROOM or 1.0)
    picture = ElementTree.Element(
        "svg",
        {
            "class": "marks",
            "viewBox": f"0 0 {_WIDTH} {_HEIGHT}",
            "preserveAspectRatio": "none",
            "role": "img",
            "aria-label": visible(f"{row.name}: {label}"),
        },
    )

    def mark(role: str, start: float, width: float, top: float, title: str) -> None:
        group = ElementTree.SubElement(picture, "g", {"class": f"s-{role}"})
        shape = {"x": start, "y": top, "width": width, "height": _HEIGHT - 2 * top}
        drawn = ElementTree.SubElement(group, "rect", {name: f"{size:.2f}" for name, size in shape.items()})
        ElementTree.SubElement(drawn, "title").text = title

    if row.low is not None and row.high is not None:
        start = float(row.low) * scale
        mark("planned", start, max(float(row.high) * scale - start, 1.0), 10, "planned, between low and high")
    lines = (
        ("expected", row.expected, _EXPECTED, 5),
        ("limit", row.limit, _LIMIT, 0),
        ("actual", row.actual, _ACTUAL, 0),
    )
    for role, value, width, top in lines:
        if value is not None:
            mark(role, max(float(value) * scale - width / 2, 0.0), width, top, role)
    return Markup(ElementTree.tostring(picture, encoding="unicode"))  # noqa: S704 - built here, escaped by ElementTree


def finish_of(option_finish: float) -> str:
    """When an option would be done, in words; "" if that is not known."""
    return minute(datetime.fromtimestamp(option_finish, UTC)) if option_finish else ""
