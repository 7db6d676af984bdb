"""When each shard was built, sent, answered and collected: a lane for each, or, for many, how many were open when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from lowtide.report.charts import Series, scale, stacked, time_scale
from lowtide.report.records import ShardTime
from lowtide.report.text import aware, count, duration, moment, plural
from lowtide.report.views import Cell, Columns, Lanes, Segment, Table, number, table, words

LANES = 30
_SLICES = 60
_TABLE_ROWS = 40
_PHASES = (("queued", "waiting to be sent"), ("provider", "at the provider"), ("collecting", "waiting to be collected"))
_STATES = ("built", "submitted", "ended", "collected")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt with its times as seconds from the start; `marks` has one more entry than there are phases."""

    time: ShardTime
    marks: tuple[float, ...]
    open: bool

    @property
    def begin(self) -> float:
        return self.marks[0]

    @property
    def length(self) -> float:
        return self.marks[-1] - self.marks[0]


def timeline(shards: Sequence[ShardTime], now: datetime) -> Lanes | Columns | None:
    """The timeline of all attempts; None if none of them has begun. What is still open goes on until `now`."""
    known = [one for one in shards if any(_times(one))]
    if not known:
        return None
    start = min(when for one in known for when in _times(one) if when)
    attempts = [_placed(one, start, aware(now)) for one in known]
    attempts.sort(key=lambda one: (one.time.number, one.time.attempt))
    end = max(one.marks[-1] for one in attempts)
    return _lanes(attempts, start, end) if len(attempts) <= LANES else _open_at_once(attempts, start, end)


def _times(one: ShardTime) -> tuple[datetime | None, ...]:
    return tuple(None if when is None else aware(when) for when in (one.built, one.submitted, one.ended, one.collected))


def _placed(one: ShardTime, start: datetime, now: datetime) -> _Attempt:
    """A state that was passed over took no time; one that has not been reached lasts until now."""
    times = _times(one)
    reached = [index for index, when in enumerate(times) if when]
    marks: list[float] = []
    for index, when in enumerate(times):
        if when:
            seconds = (when - start).total_seconds()
        elif index < reached[0]:
            first = times[reached[0]]
            seconds = (first - start).total_seconds() if first else 0.0
        elif index < reached[-1]:
            seconds = marks[-1]
        else:
            seconds = (now - start).total_seconds()
        # Clocks of several machines wrote these, so a later state may seem to be the earlier one.
        marks.append(max(seconds, marks[-1] if marks else 0.0))
    return _Attempt(one, tuple(marks), open=times[-1] is None)


def _lanes(attempts: Sequence[_Attempt], start: datetime, end: float) -> Lanes:
    axis = time_scale(end)
    series = [Series("", "offset", [one.begin for one in attempts])]
    for index, (role, name) in enumerate(_PHASES):
        lengths = [one.marks[index + 1] - one.marks[index] for one in attempts]
        titles = [f"{_name(one)}: {name} {duration(length)}" for one, length in zip(attempts, lengths, strict=True)]
        series.append(Series(role, name, lengths, titles))
    names = tuple(Cell(_name(one), title=_who(one)) for one in attempts)
    return Lanes(
        summary=_summary(attempts, start, end),
        marks=stacked(series, axis.top, horizontal=True, gap=0.4, label="Timeline of shards"),
        names=names,
        lengths=tuple(Cell(duration(one.length) + (" …" if one.open else ""), number=True) for one in attempts),
        ticks=tuple(duration(tick).replace("0 s", "0") if not tick else duration(tick) for tick in axis.ticks),
        legend=_legend(series[1:]),
        table=_table(attempts),
    )


def _open_at_once(attempts: Sequence[_Attempt], start: datetime, end: float) -> Columns:
    axis = time_scale(end)
    moments = [axis.top * (slot + 0.5) / _SLICES for slot in range(_SLICES)]
    series = []
    for index, (role, name) in enumerate(_PHASES):
        inside = [sum(one.marks[index] <= at < one.marks[index + 1] for one in attempts) for at in moments]
        titles = [f"{name} after {duration(at)}: {plural(n, 'shard')}" for at, n in zip(moments, inside, strict=True)]
        series.append(Series(role, name, inside, titles))
    most = max((sum(values) for values in zip(*(one.values for one in series), strict=True)), default=0)
    up = scale(float(most), whole=True)
    slowest = sorted(attempts, key=lambda one: -one.length)[:_TABLE_ROWS]
    left = len(attempts) - len(slowest)
    note = f"The {count(len(slowest))} that took longest; {count(left)} more not shown." if left else ""
    return Columns(
        title="Shards open at once",
        summary=f"{_summary(attempts, start, end)} At most {count(int(most))} were open at once.",
        marks=stacked(series, up.top, horizontal=False, gap=0.12, label="Shards open at once, over time"),
        ticks=tuple(f"{tick:,.0f}" for tick in up.ticks),
        positions=tuple("0" if not tick else duration(tick) for tick in axis.ticks),
        legend=_legend(series),
        table=_table(slowest, note),
    )


def _summary(attempts: Sequence[_Attempt], start: datetime, end: float) -> str:
    shards, still = len({one.time.number for one in attempts}), sum(one.open for one in attempts)
    said = f"{plural(len(attempts), 'attempt')} at {plural(shards, 'shard')} over {duration(end)}"
    said += f", from {moment(start)}."
    return f"{said} {count(still)} still open." if still else said


def _name(one: _Attempt) -> str:
    attempt = f" · attempt {one.time.attempt}" if one.time.attempt > 1 else ""
    return f"Shard {count(one.time.number)}{attempt}"


def _who(one: _Attempt) -> str:
    return f"{one.time.backend}, {plural(one.time.records, 'request')}"


def _legend(series: Sequence[Series]) -> tuple[Segment, ...]:
    return tuple(Segment(one.role, one.name, Cell("")) for one in series if any(one.values))


def _table(attempts: Sequence[_Attempt], note: str = "") -> Table:
    body = []
    for one in attempts:
        phases = [Cell(duration(after - before), number=True) for before, after in pairwise(one.marks)]
        begun = next(when for when in _times(one.time) if when)
        state = next(state for state, when in zip(_STATES[::-1], _times(one.time)[::-1], strict=True) if when)
        facts = [number(one.time.number), number(one.time.attempt), words(one.time.backend, 30)]
        body.append([*facts, number(one.time.records), Cell(moment(begun), number=True), *phases, Cell(state)])
    heads = ["Shard", "Attempt", "Backend", "Requests", "Begun", *(name.capitalize() for _, name in _PHASES), "State"]
    return table(heads, body, note)
