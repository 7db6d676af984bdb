"""Calendars: the windows that a schedule goes through, one after the other, without gap or overlap.

A window begins and ends at wall-clock bounds of the calendar's zone, as `lowtide.windows` says. All bounds are
half-open: a window [start, end) holds its start and not its end, which is the start of the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from lowtide.errors import ConfigError
from lowtide.windows import Named, Window, month_after, parse_window

Unit = Literal["hour", "day", "week", "month", "year"]
EVERY = "hour, day, week, month, year, or a number of days or weeks such as 10d or 2w"
LONGEST_DAYS = 366
LAST = "last"
"""Stands for the last window that has ended, wherever a window of a job may be named."""

_UNITS: tuple[Unit, ...] = ("hour", "day", "week", "month", "year")
_COUNTED = re.compile(r"([0-9]{1,3})([dw])")
# Where windows of several days or weeks are counted from: the epoch, and the first Monday after it.
_FIRST_DAY, _FIRST_MONDAY = date(1970, 1, 1), date(1970, 1, 5)


@dataclass(frozen=True, slots=True)
class Every:
    """How long a calendar's windows are: an hour, day, ISO week (from Monday), month or year, or N days or N weeks.

    Windows of N days are counted from 1970-01-01, those of N weeks from Monday 1970-01-05, both as local dates.
    """

    unit: Unit
    count: int = 1

    def __str__(self) -> str:
        return self.unit if self.count == 1 else f"{self.count}{self.unit[0]}"


def parse_every(text: str) -> Every:
    """The length that a text names: one of the units, or a number of days or weeks (`1d` is `day`, `1w` is `week`).

    Raises ConfigError.
    """
    wanted = text.strip().lower()
    for unit in _UNITS:
        if wanted == unit:
            return Every(unit)
    counted = _COUNTED.fullmatch(wanted)
    if counted:
        count, weeks = int(counted[1]), counted[2] == "w"
        if 1 <= count <= (LONGEST_DAYS // 7 if weeks else LONGEST_DAYS):
            return Every("week" if weeks else "day", count)
    raise ConfigError(f"every: found {text[:60]!r}; expected {EVERY}, at most {LONGEST_DAYS} days")


def is_last(text: str) -> bool:
    """Whether a text stands for the calendar's last window, whichever that is now."""
    return text.strip().lower() == LAST


@dataclass(frozen=True, slots=True)
class Calendar:
    """The windows of one length in one zone: each moment lies in exactly one of them.

    `lateness` is how long after its end a window is still looked at again for documents that came late. Moments that
    name no zone are taken as UTC.
    """

    every: Every
    zone: ZoneInfo
    lateness: timedelta = timedelta()

    def window_at(self, moment: datetime) -> Window:
        """The window [start, end) that holds the moment.

        Raises ConfigError at the ends of what a datetime can hold, in the years 1 and 9999.
        """
        instant = _utc(moment)
        try:
            start = self._start(instant.astimezone(self.zone))
            # Clocks that were turned back over a bound show the window before once more, which is over by then.
            while not (window := self._window(start)).contains(instant):
                start = self._next(start)
        except (OverflowError, ValueError):
            raise ConfigError(f"found {moment.isoformat()}; expected a time between the years 2 and 9998") from None
        return window

    def last(self, now: datetime) -> Window:
        """The last window that has ended: its end is `now` or before."""
        return self._before(self.window_at(now))

    def due(self, now: datetime) -> tuple[Window, ...]:
        """The last window that has ended, and before it those that ended at most `lateness` ago; oldest first."""
        found, latest = [self.last(now)], _utc(now) - self.lateness
        # A window's start is the end of the one before it.
        while (end := found[-1].start) is not None and end >= latest:
            found.append(self._before(found[-1]))
        return tuple(reversed(found))

    def between(self, start: datetime, end: datetime) -> Iterator[Window]:
        """The windows that begin in [start, end), oldest first."""
        first, last = _utc(start), _utc(end)
        while first < last:
            window = self.window_at(first)
            if window.start is None or window.end is None:
                return
            if window.start >= first:
                yield window
            first = window.end

    def named(self, text: str, now: datetime) -> Window:
        """The window that a user names in the calendar's zone: `last`, or what `parse_window` takes.

        Raises ConfigError.
        """
        return self.last(now) if is_last(text) else parse_window(text, self.zone)

    def _before(self, window: Window) -> Window:
        return window if window.start is None else self.window_at(window.start - timedelta.resolution)

    def _window(self, start: datetime) -> Window:
        following = self._next(start)
        match self.every:
            case Every("hour"):
                name = f"{start:%Y-%m-%dT%H}".zfill(13)
            case Every("day", 1):
                name = f"{start.date()}"
            case Every("week", 1):
                year, week, _ = start.isocalendar()
                name = f"{year:04d}-W{week:02d}"
            case Every("month"):
                name = f"{start.date()}"[:7]
            case Every("year"):
                name = f"{start.date()}"[:4]
            case _:
                name = f"{start.date()}--{following.date()}"
        return Named(name, start, following).window()

    def _start(self, shown: datetime) -> datetime:
        """The beginning, on the zone's clocks, of the window that holds what they show."""
        hour = shown.replace(minute=0, second=0, microsecond=0)
        midnight = hour.replace(hour=0)
        match self.every.unit:
            case "hour":
                return hour
            case "day":
                return midnight - timedelta(days=(shown.date() - _FIRST_DAY).days % self.every.count)
            case "week":
                return midnight - timedelta(days=(shown.date() - _FIRST_MONDAY).days % (7 * self.every.count))
            case "month":
                return midnight.replace(day=1)
            case "year":
                return midnight.replace(month=1, day=1)

    def _next(self, start: datetime) -> datetime:
        """The beginning of the window after the one that begins then. Sums are those of clocks that nobody changes."""
        match self.every.unit:
            case "hour":
                return start + timedelta(hours=1)
            case "day":
                return start + timedelta(days=self.every.count)
            case "week":
                return start + timedelta(weeks=self.every.count)
            case "month":
                return month_after(start)
            case "year":
                return start.replace(year=start.year + 1)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
