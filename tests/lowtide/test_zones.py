"""Windows in a time zone: where they begin and end when clocks are changed, and which files and rows are theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.zones import ZONES, moments

from lowtide.errors import ConfigError
from lowtide.records import FileInfo
from lowtide.windows import Window, file_filter, names_utc, parse_window, path_times, row_filter

PARIS = ZoneInfo("Europe/Paris")
HOUR = timedelta(hours=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def file(path: str, modified: datetime) -> FileInfo:
    return FileInfo(path=path, uri=f"s3://bucket/{path}", size=1, etag="e", modified=modified)


@pytest.mark.parametrize(
    ("zone", "text", "start", "hours"),
    [
        ("Europe/Paris", "2026-W47", utc(2026, 11, 15, 23), 168),
        ("Europe/Paris", "2026-W13", utc(2026, 3, 22, 23), 167),
        ("Europe/Paris", "2026-W43", utc(2026, 10, 18, 22), 169),
        ("Europe/Paris", "2026-03-29", utc(2026, 3, 28, 23), 23),
        ("Europe/Paris", "2026-10-25", utc(2026, 10, 24, 22), 25),
        ("Europe/Paris", "2026-10-25T01", utc(2026, 10, 24, 23), 1),
        ("Europe/Paris", "2026-10-25T02", utc(2026, 10, 25, 0), 2),
        ("Europe/Paris", "2026-10-25T03", utc(2026, 10, 25, 2), 1),
        ("Europe/Paris", "2026-03-29T01", utc(2026, 3, 29, 0), 1),
        ("Europe/Paris", "2026-03-29T03", utc(2026, 3, 29, 1), 1),
        ("Europe/Paris", "2026-10", utc(2026, 9, 30, 22), 31 * 24 + 1),
        ("Europe/Paris", "2026", utc(2025, 12, 31, 23), 365 * 24),
        ("Europe/Paris", "2028-02-29", utc(2028, 2, 28, 23), 24),
        ("Europe/Paris", "2026-W53", utc(2026, 12, 27, 23), 168),
        ("Europe/Paris", "2026-03-28..2026-03-30", utc(2026, 3, 27, 23), 47),
        ("Europe/Paris", "2026-03-29T02..2026-03-29T05", utc(2026, 3, 29, 1), 2),
        ("America/New_York", "2026-W10", utc(2026, 3, 2, 5), 167),
        ("America/New_York", "2026-W44", utc(2026, 10, 26, 4), 169),
        ("America/New_York", "2026-11-01T01", utc(2026, 11, 1, 5), 2),
        # Lord Howe's clocks go by half an hour.
        ("Australia/Lord_Howe", "2026-W14", utc(2026, 3, 29, 13), 168.5),
        ("Australia/Lord_Howe", "2026-W40", utc(2026, 9, 27, 13, 30), 167.5),
        ("Australia/Lord_Howe", "2026-10-04T02", utc(2026, 10, 3, 15, 30), 0.5),
        ("Australia/Lord_Howe", "2026-04-05T01", utc(2026, 4, 4, 14), 1.5),
        # No midnight: the day begins at one.
        ("Africa/Cairo", "2026-04-24", utc(2026, 4, 23, 22), 23),
        ("Africa/Cairo", "2026-10-29", utc(2026, 10, 28, 21), 25),
        ("America/Sao_Paulo", "2018-11-04", utc(2018, 11, 4, 3), 23),
        ("Asia/Beirut", "2026-03-29", utc(2026, 3, 28, 22), 23),
        # The day that Samoa left out is no part of its week, month and year.
        ("Pacific/Apia", "2011-12-29", utc(2011, 12, 29, 10), 24),
        ("Pacific/Apia", "2011-12-31", utc(2011, 12, 30, 10), 24),
        ("Pacific/Apia", "2011-W52", utc(2011, 12, 26, 10), 6 * 24),
        ("Pacific/Apia", "2011-12", utc(2011, 12, 1, 10), 30 * 24),
        ("Asia/Kathmandu", "2026-11-20", utc(2026, 11, 19, 18, 15), 24),
    ],
)
def test_a_window_begins_and_ends_at_local_times(zone: str, text: str, start: datetime, hours: float) -> None:
    window = parse_window(text, ZoneInfo(zone))
    assert window.start == start
    assert window.end == start + hours * HOUR
    assert window.name == text.replace("..", "--")
    assert parse_window(window.name, ZoneInfo(zone)) == window


@pytest.mark.parametrize(
    ("zone", "text", "why"),
    [
        (
            "Europe/Paris",
            "2026-03-29T02",
            "Europe/Paris has no such hour: its clocks go from 2026-03-29 02:00 to 2026-03-29 03:00",
        ),
        (
            "Africa/Cairo",
            "2026-04-24T00",
            "Africa/Cairo has no such hour: its clocks go from 2026-04-24 00:00 to 2026-04-24 01:00",
        ),
        (
            "Pacific/Apia",
            "2011-12-30",
            "Pacific/Apia has no such day: its clocks go from 2011-12-30 00:00 to 2011-12-31 00:00",
        ),
        ("Pacific/Apia", "2011-12-30T12", "no such hour: its clocks go from 2011-12-30 00:00 to 2011-12-31 00:00"),
        ("Pacific/Apia", "2011-12-30..2011-12-31", "needs an A that starts before B"),
        ("Europe/Paris", "2026-W54", "expected all, 2026"),
        ("Asia/Tokyo", "0001-01-01", "expected all, 2026"),
        ("America/New_York", "9999-12-31T20", "expected all, 2026"),
    ],
)
def test_what_the_clocks_leave_out_is_an_error_that_says_why(zone: str, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_window(text, ZoneInfo(zone))
    assert str(raised.value).startswith(f"window: found '{text}'")
    assert why in str(raised.value)


@pytest.mark.parametrize("text", ["2026", "2026-11", "2026-W47", "2026-11-20", "2026-11-20T05", "2026-W47..2026-12"])
def test_utc_by_any_name_is_what_it_was(text: str) -> None:
    for zone in (UTC, ZoneInfo("UTC"), ZoneInfo("Etc/UTC"), timezone(timedelta(0))):
        assert parse_window(text, zone) == parse_window(text)
    assert names_utc(parse_window(text))
    assert not names_utc(parse_window(text, PARIS))


def test_all_is_all_in_every_zone() -> None:
    assert parse_window("all", PARIS) == Window("all", None, None)
    assert names_utc(Window("all", None, None))


def test_a_winter_day_of_london_is_one_of_utc_and_a_summer_day_is_not() -> None:
    london = ZoneInfo("Europe/London")
    assert names_utc(parse_window("2026-11-20", london))
    assert not names_utc(parse_window("2026-07-20", london))


ROWS = [
    # Without an offset: what clocks in Paris showed.
    ("2026-10-25", "2026-10-25"),
    ("2026-10-25T00:00:00", "2026-10-25"),
    ("2026-10-24T23:59:59.999999", "2026-10-24"),
    ("2026-10-25 23:59:59", "2026-10-25"),
    ("2026-10-26T00:00", "2026-10-26"),
    ("20261025T120000", "2026-10-25"),
    # With one: that instant.
    ("2026-10-24T21:59:59Z", "2026-10-24"),
    ("2026-10-24T22:00:00Z", "2026-10-25"),
    ("2026-10-25T22:59:59+00:00", "2026-10-25"),
    ("2026-10-25T23:00:00+00:00", "2026-10-26"),
    ("2026-10-25T18:59:59-04:00", "2026-10-25"),
    ("2026-10-25T19:00:00-04:00", "2026-10-26"),
    ("1792879200", "2026-10-25"),
    ("1792879199", "2026-10-24"),
    ("1792879200000", "2026-10-25"),
]


@pytest.mark.parametrize(("value", "day"), ROWS)
def test_a_rows_time_without_an_offset_is_that_of_the_zones_clocks(value: str, day: str) -> None:
    for other in ("2026-10-24", "2026-10-25", "2026-10-26"):
        rows = row_filter("field:created_at", parse_window(other, PARIS), PARIS)
        assert rows is not None
        assert rows[1](value) is (other == day)


def test_a_rows_time_that_was_shown_twice_is_the_first_one() -> None:
    first = Window("first", utc(2026, 10, 25, 0), utc(2026, 10, 25, 1))
    rows = row_filter("field:at", first, PARIS)
    assert rows is not None
    assert rows[1]("2026-10-25T02:30")
    assert rows[1]("2026-10-25T02:30+02:00")
    assert not rows[1]("2026-10-25T02:30+01:00")


def test_a_rows_time_that_was_never_shown_is_what_unchanged_clocks_would_have_shown() -> None:
    rows = row_filter("field:at", parse_window("2026-03-29T03", PARIS), PARIS)
    assert rows is not None
    assert rows[1]("2026-03-29T02:30")
    assert rows[1]("2026-03-29T03:30")


@given(st.data())
def test_a_row_is_in_the_day_that_its_own_text_names(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(ZONES))
    zone = ZoneInfo(key)
    shown = data.draw(moments(key)).astimezone(zone).replace(fold=0)
    rows = row_filter("field:at", parse_window(f"{shown:%Y-%m-%d}", zone), zone)
    assert rows is not None
    assert rows[1](shown.replace(tzinfo=None).isoformat())
    assert rows[1](f"{shown:%Y-%m-%d}")
    assert rows[1](shown.isoformat())


@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("a/2026/10/25/02/x", utc(2026, 10, 25, 0)),
        ("a/2026/10/25/03/x", utc(2026, 10, 25, 2)),
        ("a/2026/03/29/03/x", utc(2026, 3, 29, 1)),
        # A folder for the hour that was left out: its file is in that day, and not lost.
        ("a/2026/03/29/02/x", utc(2026, 3, 29, 1)),
    ],
)
def test_a_folder_is_a_time_of_the_zone(path: str, start: datetime) -> None:
    found = path_times("{year}/{month}/{day}/{hour}", PARIS)(path)
    assert found is not None
    assert found.start == start
    by = "path:{year}/{month}/{day}/{hour}"
    name = start.astimezone(PARIS).strftime("%Y-%m-%d")
    assert file_filter(by, parse_window(name, PARIS), PARIS)(file(path, utc(2000, 1, 1)))
    assert file_filter(by, parse_window(f"{name}T03", PARIS), PARIS)(file(path, utc(2000, 1, 1))) is (
        start in (utc(2026, 10, 25, 2), utc(2026, 3, 29, 1))
    )


@given(st.data())
def test_a_dated_folder_is_in_the_window_of_its_day_in_every_zone(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(ZONES))
    zone = ZoneInfo(key)
    day = data.draw(moments(key)).astimezone(zone).date()
    window = parse_window(str(day), zone)
    week = parse_window(f"{day.isocalendar().year:04d}-W{day.isocalendar().week:02d}", zone)
    dated = file(f"logs/{day:%Y/%m/%d}/a.txt", utc(2000, 1, 1))
    by = "path:{year}/{month}/{day}/"
    assert file_filter(by, window, zone)(dated)
    assert file_filter(by, week, zone)(dated)
    before = Window("before", window.start - timedelta(days=300), window.start)  # type: ignore[operator]
    assert not file_filter(by, before, zone)(dated)


def test_the_time_of_a_file_is_an_instant_in_every_zone() -> None:
    inside = file_filter("modified", parse_window("2026-10-25", PARIS), PARIS)
    assert inside(file("a", utc(2026, 10, 24, 22)))
    assert inside(file("a", utc(2026, 10, 25, 22, 59)))
    assert not inside(file("a", utc(2026, 10, 25, 23)))
    assert not inside(file("a", utc(2026, 10, 24, 21, 59)))
