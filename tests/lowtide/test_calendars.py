"""A calendar's windows tile time in every zone, whatever its clocks do, and each bears the name of what it covers."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.zones import FIRST, LAST, ZONES, changes, first_shown, moments

from lowtide.calendars import Calendar, Every, parse_every
from lowtide.errors import ConfigError
from lowtide.windows import Window, parse_window

LENGTHS = ("hour", "day", "week", "month", "year", "10d", "2w", "3d")
PARIS = ZoneInfo("Europe/Paris")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def bounds(window: Window) -> tuple[datetime, datetime]:
    assert window.start is not None
    assert window.end is not None
    return window.start, window.end


@st.composite
def asked(draw: st.DrawFn) -> tuple[Calendar, datetime]:
    key = draw(st.sampled_from(ZONES))
    lateness = timedelta(hours=draw(st.integers(0, 24 * 40)))
    return Calendar(parse_every(draw(st.sampled_from(LENGTHS))), ZoneInfo(key), lateness), draw(moments(key))


@given(asked())
def test_windows_follow_on_one_another_without_gap_or_overlap(case: tuple[Calendar, datetime]) -> None:
    windows, moment = case
    start, end = bounds(windows.window_at(moment))
    assert start <= moment < end
    assert bounds(windows.window_at(end))[0] == end
    assert bounds(windows.window_at(start - timedelta.resolution))[1] == start
    for inside in (start, end - timedelta.resolution):
        assert windows.window_at(inside) == windows.window_at(moment)


@given(asked())
def test_a_windows_name_names_it_again(case: tuple[Calendar, datetime]) -> None:
    windows, moment = case
    window = windows.window_at(moment)
    assert parse_window(window.name, windows.zone) == window
    assert windows.named(window.name, moment) == window
    assert windows.named("last", moment) == windows.last(moment)


@given(asked())
def test_the_last_window_is_the_last_that_has_ended(case: tuple[Calendar, datetime]) -> None:
    windows, now = case
    assert bounds(windows.last(now))[1] == bounds(windows.window_at(now))[0]
    at_its_end = bounds(windows.window_at(now))[1]
    assert windows.last(at_its_end) == windows.window_at(now)


@settings(deadline=None)
@given(asked())
def test_due_are_the_last_window_and_those_that_ended_within_lateness(case: tuple[Calendar, datetime]) -> None:
    windows, now = case
    ended, at = [], now - windows.lateness - timedelta(days=800 if windows.every.unit == "year" else 70)
    while bounds(window := windows.window_at(at))[1] <= now:
        ended.append(window)
        at = bounds(window)[1]
    wanted = [window for window in ended if bounds(window)[1] >= now - windows.lateness]
    assert list(windows.due(now)) == (wanted or ended[-1:])


@settings(deadline=None)
@given(asked(), st.integers(0, 400))
def test_between_are_the_windows_that_begin_in_the_range(case: tuple[Calendar, datetime], hours: int) -> None:
    windows, start = case
    end = start + timedelta(hours=hours)
    seen, at = [], start
    while at <= end + timedelta(hours=1):
        window = windows.window_at(at)
        if window not in seen:
            seen.append(window)
        at = bounds(window)[1]
    assert list(windows.between(start, end)) == [window for window in seen if start <= bounds(window)[0] < end]


def test_between_holds_what_begins_at_its_start_and_not_what_begins_at_its_end() -> None:
    windows = Calendar(Every("day"), PARIS)
    start, end = bounds(parse_window("2026-10-24..2026-10-27", PARIS))
    assert [window.name for window in windows.between(start, end)] == ["2026-10-24", "2026-10-25", "2026-10-26"]
    later = windows.between(start + timedelta.resolution, end + timedelta.resolution)
    assert [window.name for window in later] == ["2026-10-25", "2026-10-26", "2026-10-27"]
    assert not list(windows.between(start, start))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_day_begins_at_the_first_instant_that_shows_its_date(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(ZONES))
    day = data.draw(moments(key)).astimezone(ZoneInfo(key)).date()
    window = parse_window(str(day), ZoneInfo(key))
    assert bounds(window) == (first_shown(day, key), first_shown(day + timedelta(days=1), key))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weeks_months_and_years_begin_and_end_with_their_days(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(ZONES))
    moment, zone = data.draw(moments(key)), ZoneInfo(key)
    week = Calendar(Every("week"), zone).window_at(moment)
    year, number, _ = first_day(week, zone).isocalendar()
    assert week.name == f"{year:04d}-W{number:02d}"
    monday = date.fromisocalendar(year, number, 1)
    assert bounds(week) == (first_shown(monday, key), first_shown(monday + timedelta(days=7), key))
    month = Calendar(Every("month"), zone).window_at(moment)
    first = first_day(month, zone).replace(day=1)
    days = calendar.monthrange(first.year, first.month)[1]
    assert month.name == f"{first:%Y-%m}"
    assert bounds(month) == (first_shown(first, key), first_shown(first + timedelta(days=days), key))
    whole = Calendar(Every("year"), zone).window_at(moment)
    assert bounds(whole) == (first_shown(date(first.year, 1, 1), key), first_shown(date(first.year + 1, 1, 1), key))


def first_day(window: Window, zone: ZoneInfo) -> date:
    return bounds(window)[0].astimezone(zone).date()


@pytest.mark.slow
def test_every_change_of_every_zones_clocks_leaves_no_gap() -> None:
    checked = 0
    for key in ZONES:
        for every, reach in ((Every("hour"), timedelta(hours=2)), (Every("day"), timedelta(days=2))):
            windows = Calendar(every, ZoneInfo(key))
            for at in changes(key):
                around = list(windows.between(at - reach, at + reach))
                assert len({window.name for window in around}) >= 2, (key, at)
                assert all(one.end == other.start for one, other in pairwise(around)), (key, at)
                assert all(parse_window(window.name, windows.zone) == window for window in around), (key, at)
                checked += 1
    assert checked > 50_000


@pytest.mark.parametrize(
    ("every", "moment", "name", "start", "end"),
    [
        ("week", utc(2026, 12, 30), "2026-W53", utc(2026, 12, 27, 23), utc(2027, 1, 3, 23)),
        ("week", utc(2027, 1, 3, 22, 59), "2026-W53", utc(2026, 12, 27, 23), utc(2027, 1, 3, 23)),
        ("week", utc(2027, 1, 3, 23), "2027-W01", utc(2027, 1, 3, 23), utc(2027, 1, 10, 23)),
        ("week", utc(2028, 1, 1), "2027-W52", utc(2027, 12, 26, 23), utc(2028, 1, 2, 23)),
        ("day", utc(2028, 2, 29, 12), "2028-02-29", utc(2028, 2, 28, 23), utc(2028, 2, 29, 23)),
        ("month", utc(2028, 2, 29, 12), "2028-02", utc(2028, 1, 31, 23), utc(2028, 2, 29, 23)),
        ("year", utc(2027, 12, 31, 23), "2028", utc(2027, 12, 31, 23), utc(2028, 12, 31, 23)),
        ("year", utc(2027, 12, 31, 22), "2027", utc(2026, 12, 31, 23), utc(2027, 12, 31, 23)),
        ("hour", utc(2026, 10, 25, 1, 30), "2026-10-25T02", utc(2026, 10, 25), utc(2026, 10, 25, 2)),
        ("hour", utc(2026, 3, 29, 1), "2026-03-29T03", utc(2026, 3, 29, 1), utc(2026, 3, 29, 2)),
        ("2w", utc(2026, 11, 10), "2026-11-09--2026-11-23", utc(2026, 11, 8, 23), utc(2026, 11, 22, 23)),
        ("10d", utc(2026, 10, 25), "2026-10-24--2026-11-03", utc(2026, 10, 23, 22), utc(2026, 11, 2, 23)),
    ],
)
def test_year_ends_leap_days_and_changed_clocks_in_paris(
    every: str, moment: datetime, name: str, start: datetime, end: datetime
) -> None:
    assert Calendar(parse_every(every), PARIS).window_at(moment) == Window(name, start, end)


@pytest.mark.parametrize("every", ["2w", "10d", "3d"])
def test_windows_of_several_days_are_counted_from_the_epoch(every: str) -> None:
    anchor = date(1970, 1, 5) if every == "2w" else date(1970, 1, 1)
    length = {"2w": 14, "10d": 10, "3d": 3}[every]
    for moment in (utc(1969, 3, 1), utc(1970, 1, 12), utc(2026, 11, 21), utc(2037, 5, 5)):
        window = Calendar(parse_every(every), PARIS).window_at(moment)
        first = first_day(window, PARIS)
        assert (first - anchor).days % length == 0
        assert window.name == f"{first}--{first + timedelta(days=length)}"


def test_a_day_that_was_left_out_is_in_no_calendar() -> None:
    apia = ZoneInfo("Pacific/Apia")
    names = [w.name for w in Calendar(Every("day"), apia).between(utc(2011, 12, 29), utc(2012, 1, 2))]
    assert names == ["2011-12-29", "2011-12-31", "2012-01-01", "2012-01-02"]
    # 2011-12-30 begins a window of two days, which has but one.
    windows = Calendar(parse_every("2d"), apia)
    window = windows.window_at(utc(2011, 12, 30, 12))
    assert window.name == "2011-12-30--2012-01-01"
    assert bounds(window) == (utc(2011, 12, 30, 10), utc(2011, 12, 31, 10))
    assert parse_window(window.name, apia) == window


def test_an_hour_after_midnight_that_is_shown_twice_belongs_to_the_new_day() -> None:
    # Until 2011, St. John's turned its clocks back at 00:01: the new date was shown for a minute, then the old one.
    zone = ZoneInfo("America/St_Johns")
    day = Calendar(Every("day"), zone).window_at(utc(2010, 11, 7, 3))
    assert utc(2010, 11, 7, 3).astimezone(zone).date() == date(2010, 11, 6)
    assert day == Window("2010-11-07", utc(2010, 11, 7, 2, 30), utc(2010, 11, 8, 3, 30))


def test_a_moment_without_a_zone_is_utc() -> None:
    windows = Calendar(Every("day"), PARIS)
    assert windows.window_at(datetime(2026, 11, 20, 23, 30)).name == "2026-11-21"  # noqa: DTZ001
    assert windows.due(datetime(2026, 11, 20, 23, 30)) == windows.due(utc(2026, 11, 20, 23, 30))  # noqa: DTZ001


def test_what_ended_exactly_as_long_ago_as_lateness_is_due() -> None:
    windows = Calendar(Every("day"), PARIS, timedelta(days=1))
    on_time = utc(2026, 11, 20, 23)
    assert [window.name for window in windows.due(on_time)] == ["2026-11-19", "2026-11-20"]
    assert [window.name for window in windows.due(on_time + timedelta.resolution)] == ["2026-11-20"]


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
@pytest.mark.parametrize("every", LENGTHS)
def test_the_ends_of_time_are_told(every: str, moment: datetime) -> None:
    for key in ("Asia/Tokyo", "America/New_York"):
        try:
            Calendar(parse_every(every), ZoneInfo(key)).last(moment)
        except ConfigError as error:
            assert "between the years 2 and 9998" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("hour", Every("hour")), ("day", Every("day")), (" Week ", Every("week")), ("month", Every("month")),
        ("year", Every("year")), ("10d", Every("day", 10)), ("2w", Every("week", 2)), ("1d", Every("day")),
        ("1w", Every("week")), ("366d", Every("day", 366)), ("52w", Every("week", 52)),
    ],
)  # fmt: skip
def test_a_length_is_read_and_written_the_same(text: str, every: Every) -> None:
    assert parse_every(text) == every
    assert parse_every(str(every)) == every


@pytest.mark.parametrize("text", ["", "weekly", "0d", "0w", "367d", "53w", "12h", "2m", "-1d", "1.5d", "d", "١d"])
def test_what_is_no_length_is_told_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="hour, day, week, month, year, or a number of days or weeks"):
        parse_every(text)


def test_all_zones_are_looked_at() -> None:
    assert len(ZONES) > 500
    assert FIRST < LAST
