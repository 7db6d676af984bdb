"""Windows: the half-open ranges of time that a run covers, and what lies in them.

A window is written `all`, `2026`, `2026-11`, `2026-W47` (ISO 8601 week, from Monday), `2026-11-20`, `2026-11-20T05`, or
as a range `A..B` from the start of A to the start of B. It is read in a time zone, UTC if none is named: it begins when
a clock there first shows its beginning, and ends when one first shows the beginning of what follows. So windows of a
kind tile time, whatever the clocks do: a week may have 167 or 169 hours, and an hour that is shown twice is one window
of two hours. All bounds are half-open: the start is part of a window, the end never is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING

from lowtide.errors import ConfigError

if TYPE_CHECKING:
    from lowtide.records import FileInfo

FORMS = "all, 2026, 2026-11, 2026-W47, 2026-11-20, 2026-11-20T05, or a range such as 2026-11-01..2026-11-15"
WINDOW_BY = "modified, field:<name>, or path:<pattern> such as path:{year}/{month}/{day}/"

_CALENDAR = re.compile(
    r"(?P<year>[0-9]{4})"
    r"(?:-W(?P<week>[0-9]{2})|-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})(?:T(?P<hour>[0-9]{2}))?)?)?",
    re.IGNORECASE,
)
# ISO 8601 allows "--" where "/" cannot stand; it is what a range is called in paths.
_RANGE = re.compile(r"\.\.|--")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("year", "month", "day", "hour", "week")
_PATTERNS = (
    {"year"},
    {"year", "month"},
    {"year", "month", "day"},
    {"year", "month", "day", "hour"},
    {"year", "week"},
)
_BASIC_DATE = re.compile(r"[0-9]{8}")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
# Below the first bound (March 1973) a number is likelier a year or a counter than a time. Milliseconds begin where
# seconds would be past the year 5138.
_SECONDS_FROM, _MILLISECONDS_FROM, _NUMBERS_TO = 1e8, 1e11, 1e14


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open range [start, end), two instants in UTC; both are None for `all`.

    `name` is safe as one part of a path in any store. It does not name the zone that the window was read in.
    """

    name: str
    start: datetime | None
    end: datetime | None

    def contains(self, moment: datetime) -> bool:
        """Whether the moment lies in [start, end). A moment without a time zone is taken as UTC."""
        if self.start is None or self.end is None:
            return True
        return self.start <= _utc(moment) < self.end


@dataclass(frozen=True, slots=True)
class Named:
    """What a name says: the range [start, end) as the clocks of a zone show it, whether or not they do."""

    name: str
    start: datetime
    end: datetime

    def window(self) -> Window:
        """The window; of no length where the clocks leave it out. Raises OverflowError at the ends of the calendar."""
        return Window(self.name, first_instant(self.start), first_instant(self.end))


def parse_window(text: str, zone: tzinfo = UTC) -> Window:
    """The half-open window [start, end) that a text names in a zone, with its bounds as instants in UTC.

    `parse_window(window.name, zone)` gives the same window again. Raises ConfigError, also for a day or an hour that
    the zone's clocks leave out. As a bound of a range it stands for the first instant after the gap.
    """
    wanted = text.strip()
    if wanted.lower() == "all":
        return Window("all", None, None)
    try:
        match [_calendar(part.strip(), zone) for part in _RANGE.split(wanted)]:
            case [Named() as named]:
                window = named.window()
                if window.start == window.end:
                    raise ConfigError(f"window: found {_short(text)}: {_why_skipped(named)}")
                return window
            case [Named() as first, Named() as last]:
                start, end = first_instant(first.start), first_instant(last.start)
                if start >= end:
                    raise ConfigError(f"window: found {_short(text)}: a range A..B needs an A that starts before B")
                return Window(f"{first.name}--{last.name}", start, end)
    except OverflowError:
        pass  # A zone ahead of UTC has days that are none in UTC, at both ends of the calendar.
    raise ConfigError(f"window: found {_short(text)}; expected {FORMS}")


def names_utc(window: Window) -> bool:
    """Whether the window is what its name means in UTC, as it is for a zone that keeps UTC at both of its bounds."""
    try:
        return parse_window(window.name) == window
    except ConfigError:
        return False


def first_instant(shown: datetime) -> datetime:
    """The instant, in UTC, from which on the clocks of `shown.tzinfo` have come to what `shown` shows.

    Where it is shown twice, that is the first time, and where it is left out, the moment at which the clocks pass it.
    """
    late, early = shown.replace(fold=0).astimezone(UTC), shown.replace(fold=1).astimezone(UTC)
    if late <= early:
        return late
    # It is left out: PEP 495 has one reading before the gap and one behind it. Clocks are changed at whole seconds.
    seconds = range(round((late - early).total_seconds()) + 1)
    passed = bisect_left(
        seconds, True, key=lambda after: (early + timedelta(seconds=after)).astimezone(shown.tzinfo) >= shown
    )
    return early + timedelta(seconds=passed)


def _why_skipped(named: Named) -> str:
    zone, at = named.start.tzinfo, first_instant(named.start)
    before = (at - timedelta(seconds=1)).astimezone(zone) + timedelta(seconds=1)
    what = "hour" if named.end - named.start < timedelta(days=1) else "day"
    return (
        f"{zone} has no such {what}: its clocks go from {before:%Y-%m-%d %H:%M} to {at.astimezone(zone):%Y-%m-%d %H:%M}"
    )


def path_times(pattern: str, zone: tzinfo = UTC) -> Callable[[str], Window | None]:
    """A function from a path to the half-open window that it stands for; None where no part of it fits the pattern.

    The pattern is literal text with {year}, {month}, {day}, {hour} or {week}, and may fit anywhere in a path; the
    leftmost fit that is a real date counts. Months, days, hours and weeks may stand without their leading zero unless
    another number follows at once. Dates and hours are those of the zone's clocks. A folder for a day or an hour that
    they leave out, as a writer with other clocks makes it, stands for the instant of the gap: a window of no length.
    Raises ConfigError on a pattern that cannot be read.
    """
    expression = _path_expression(pattern)

    # Many files lie in each folder.
    @lru_cache(maxsize=4096)
    def window_of(*numbers: str) -> Window | None:
        named = _named(dict(zip(expression.groupindex, numbers, strict=True)), zone)
        with suppress(OverflowError):
            return named.window() if named else None
        return None

    def find(path: str) -> Window | None:
        fit = expression.search(path)
        while fit:
            window = window_of(*fit.groups())
            if window is not None:
                return window
            fit = expression.search(path, fit.start() + 1)
        return None

    return find


def file_filter(window_by: str, window: Window, zone: tzinfo = UTC) -> Callable[[FileInfo], bool]:
    """Whether a file belongs to the half-open window, by its time or by its path. Raises ConfigError.

    With `path:`, what counts is the start of the range that the path stands for in the zone; the store's path is looked
    at first, then the whole address, since a store may begin below the dated folders. A file without a date belongs to
    `all` only. With `field:` every file passes: its rows are told apart by `row_filter`.
    """
    by, argument = split_window_by(window_by)
    if window.start is None or by == "field":
        return lambda info: True
    if by == "modified":
        return lambda info: window.contains(info.modified)
    find = path_times(argument, zone)

    def belongs(info: FileInfo) -> bool:
        found = find(info.path) or find(info.uri)
        return found is not None and found.start is not None and window.contains(found.start)

    return belongs


def row_filter(window_by: str, window: Window, zone: tzinfo = UTC) -> tuple[str, Callable[[str | None], bool]] | None:
    """The field that tells a row's time, and whether its value lies in [start, end); None where every row belongs.

    Read are ISO 8601 dates and times, and numbers of seconds or milliseconds since the epoch, from 1973 on. A time with
    an offset is exact. One without is what the zone's clocks showed: the first time, where they showed it twice, and
    where they left it out, what clocks that had not been changed yet would have shown (PEP 495, fold 0). A row whose
    value is none of these belongs to `all` only. Raises ConfigError.
    """
    by, name = split_window_by(window_by)
    if by != "field" or window.start is None:
        return None

    def belongs(value: str | None) -> bool:
        moment = _moment(value, zone)
        return moment is not None and window.contains(moment)

    return name, belongs


def split_window_by(window_by: str) -> tuple[str, str]:
    """`modified`, `path` or `field`, and its argument. Raises ConfigError."""
    by, _, argument = window_by.partition(":")
    if window_by == "modified" or (by == "field" and argument.strip()):
        return by, argument
    if by == "path" and argument:
        _path_expression(argument)
        return by, argument
    raise ConfigError(f"window_by: found {_short(window_by)}; expected {WINDOW_BY}")


def month_after(start: datetime) -> datetime:
    """The first day of the month after one that is given by its first day, at the same hour. Raises OverflowError."""
    return (start + timedelta(days=31)).replace(day=1)


def _calendar(text: str, zone: tzinfo) -> Named | None:
    fit = _CALENDAR.fullmatch(text)
    return _named(fit.groupdict(), zone) if fit else None


def _named(parts: Mapping[str, str | None], zone: tzinfo) -> Named | None:
    """What the parts of a date name; None if there is no such date, or its end is beyond what a datetime can hold."""
    year, month, day, hour, week = (int(parts.get(name) or -1) for name in _PLACEHOLDERS)
    # Sums of a time and a length are what clocks show that nobody changes in between.
    try:
        if week != -1:
            monday = date.fromisocalendar(year, week, 1)
            start = datetime(monday.year, monday.month, monday.day, tzinfo=zone)
            return Named(f"{year:04d}-W{week:02d}", start, start + timedelta(weeks=1))
        if month == -1:
            return Named(f"{year:04d}", datetime(year, 1, 1, tzinfo=zone), datetime(year + 1, 1, 1, tzinfo=zone))
        if day == -1:
            start = datetime(year, month, 1, tzinfo=zone)
            return Named(f"{year:04d}-{month:02d}", start, month_after(start))
        if hour == -1:
            start = datetime(year, month, day, tzinfo=zone)
            return Named(f"{start:%Y-%m-%d}".zfill(10), start, start + timedelta(days=1))
        start = datetime(year, month, day, hour, tzinfo=zone)
        return Named(f"{start:%Y-%m-%dT%H}".zfill(13), start, start + timedelta(hours=1))
    except (ValueError, OverflowError):
        return None


def _path_expression(pattern: str) -> re.Pattern[str]:
    pieces = _PLACEHOLDER.split(pattern)
    literals, names = pieces[0::2], pieces[1::2]
    for name in names:
        if name not in _PLACEHOLDERS:
            raise ConfigError(
                f"window_by: found {{{name}}} in {_short(pattern)}; a path pattern knows "
                + ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS)
            )
    if set(names) not in _PATTERNS:
        raise ConfigError(
            f"window_by: found {_short(pattern)}; a path pattern needs {{year}}, and with it {{month}}, {{month}} and "
            "{day}, {month} and {day} and {hour}, or {week}"
        )
    # At its edges a number must not go on as another number: {year} does not fit into 120261.
    expression = re.escape(literals[0]) or "(?<![0-9])"
    seen: set[str] = set()
    for position, name in enumerate(names):
        packed = (position > 0 and not literals[position]) or (position + 1 < len(names) and not literals[position + 1])
        digits = "[0-9]{4}" if name == "year" else "[0-9]{2}" if packed else "[0-9]{1,2}"
        expression += f"(?P={name})" if name in seen else f"(?P<{name}>{digits})"
        expression += re.escape(literals[position + 1])
        seen.add(name)
    return re.compile(expression if literals[-1] else f"{expression}(?![0-9])")


def _moment(value: str | None, zone: tzinfo) -> datetime | None:
    text = (value or "").strip()
    try:
        if _NUMBER.fullmatch(text) and not _BASIC_DATE.fullmatch(text):
            number = float(text)
            if not _SECONDS_FROM <= number < _NUMBERS_TO:
                return None
            return datetime.fromtimestamp(number if number < _MILLISECONDS_FROM else number / 1000, UTC)
        moment = datetime.fromisoformat(text)
        return (moment.replace(tzinfo=zone) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
