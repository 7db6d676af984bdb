"""Every time zone, the moments at which its clocks were changed, and dates near them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import strategies as st

ZONES = sorted(available_timezones() - {"localtime", "Factory"})
FIRST, LAST = datetime(1970, 1, 3, tzinfo=UTC), datetime(2037, 12, 29, tzinfo=UTC)
_STEP = timedelta(days=5)


@cache
def changes(key: str) -> tuple[datetime, ...]:
    """The instants from 1970 to 2037 at which the zone's clocks were put forward or back."""
    zone, found, at = ZoneInfo(key), [], FIRST
    while at < LAST:
        following = min(at + _STEP, LAST)
        if at.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset():
            found.append(_change(zone, at, following))
        at = following
    return tuple(found)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


@st.composite
def moments(draw: st.DrawFn, key: str) -> datetime:
    """An instant in UTC, as often as not within a day or two of a change of the zone's clocks."""
    known = changes(key)
    if known and draw(st.booleans()):
        near = draw(st.sampled_from(known))
        seconds = draw(st.sampled_from([0, 1, 1800, 3600, 7200]) | st.integers(0, 3 * 86_400))
        return min(max(near + draw(st.sampled_from([1, -1])) * timedelta(seconds=seconds), FIRST), LAST)
    return FIRST + timedelta(seconds=draw(st.integers(0, int((LAST - FIRST).total_seconds()))))


def first_shown(day: date, key: str) -> datetime:
    """The first instant at which the zone's calendars show that day, or a later one where they leave it out.

    Looked for second by second: the slow way, that shares nothing with what it is there to check. No zone has shown a
    date for less than half a minute.
    """
    zone = ZoneInfo(key)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    step = timedelta(seconds=30)
    at = midnight - timedelta(hours=26)
    while at.astimezone(zone).date() < day:
        at += step
    at -= step
    while at.astimezone(zone).date() < day:
        at += timedelta(seconds=1)
    return at
