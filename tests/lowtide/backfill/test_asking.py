"""Which windows a backfill goes over, and what makes two commands the same backfill."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.backfill import in_order, span_of, windows_of
from lowtide.calendars import Calendar, Every, parse_every
from lowtide.errors import ConfigError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WEEKLY = Calendar(Every("week"), ZoneInfo("UTC"))


def names(first: str, last: str, *, calendar: Calendar = WEEKLY, by: str | None = None) -> list[str]:
    span = span_of(calendar, first, last, NOW)
    return [window.name for window in windows_of(calendar, span, parse_every(by) if by else None)]


def test_the_last_day_belongs_to_it() -> None:
    assert names("2026-03-01", "2026-03-03", by="day") == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert names("2026-02", "2026-02", by="day")[-1] == "2026-02-28"
    assert names("2026-03-03", "2026-03-03", by="day") == ["2026-03-03"]


def test_windows_that_reach_over_the_ends_are_run_whole() -> None:
    found = names("2026-01-01", "2026-06-30")
    assert (found[0], found[-1], len(found)) == ("2026-W01", "2026-W27", 27)
    assert names("2026-W01", "2026-W26")[-1] == "2026-W26"
    assert names("2026-01-15", "2026-02-01", by="month") == ["2026-01", "2026-02"]


def test_days_are_those_of_the_job() -> None:
    paris = Calendar(Every("day"), ZoneInfo("Europe/Paris"))
    span = span_of(paris, "2026-03-29", "2026-03-29", NOW)
    assert (span.end - span.start).total_seconds() == 23 * 3600
    assert names("2026-03-28", "2026-03-30", calendar=paris) == ["2026-03-28", "2026-03-29", "2026-03-30"]


def test_last_is_the_last_window_that_has_ended() -> None:
    assert names("2026-W40", "last")[-1] == "2026-W46"


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("2026-06-30", "2026-01-01", "ends before it begins"),
        ("yesterday", "2026-01-01", "--from: window: found 'yesterday'"),
        ("2026-01-01", "2026-13", "--to: window: found '2026-13'"),
        ("all", "2026-01-01", "--from: found 'all'"),
    ],
)
def test_a_range_that_is_none_is_refused(first: str, last: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        names(first, last)
    assert said in str(refused.value)


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than 2,000 windows of a hour"):
        names("2020", "2026", by="hour")


@given(
    first=st.dates(date(2020, 1, 1), date(2026, 1, 1)),
    days=st.integers(0, 300),
    by=st.sampled_from(["day", "week", "month", "10d", "2w", "year"]),
    zone=st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Pacific/Apia"]),
)
def test_the_windows_cover_the_range_without_gap_or_overlap(first: date, days: int, by: str, zone: str) -> None:
    calendar = Calendar(Every("day"), ZoneInfo(zone))
    start = datetime.fromisoformat(f"{first}")
    last = datetime.fromordinal(start.toordinal() + days)
    span = span_of(calendar, f"{start:%Y-%m-%d}", f"{last:%Y-%m-%d}", NOW)
    found = windows_of(calendar, span, parse_every(by))
    bounds = [(window.start, window.end) for window in found]
    assert bounds[0][0] is not None
    assert bounds[-1][1] is not None
    assert bounds[0][0] <= span.start
    assert bounds[-1][1] >= span.end
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    assert all(end is not None and end > span.start for _, end in bounds)
    assert all(begin is not None and begin < span.end for begin, _ in bounds)
    assert in_order(found, newest_first=True) == found[::-1]
