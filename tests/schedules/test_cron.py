"""A schedule's times: due once in each window, when Prefect itself says so, and never in an hour that is left out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.zones import ZONES, changes

from lowtide.calendars import Calendar, parse_every
from lowtide.errors import ConfigError
from lowtide.job import load_job
from lowtide.job.times import check_cron
from lowtide.schedules.cron import cron_of, cron_of_job, next_runs
from lowtide.windows import Window

PARIS, CAIRO, UTC_ZONE = ZoneInfo("Europe/Paris"), ZoneInfo("Africa/Cairo"), ZoneInfo("UTC")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("every", "paris", "cairo"),
    [
        ("hour", "10 * * * *", "10 * * * *"),
        ("day", "10 0 * * *", "10 1 * * *"),
        ("10d", "10 0 * * *", "10 1 * * *"),
        ("week", "10 0 * * mon", "10 1 * * mon"),
        ("2w", "10 0 * * mon", "10 1 * * mon"),
        ("month", "10 0 1 * *", "10 1 1 * *"),
        ("year", "10 0 1 1 *", "10 1 1 1 *"),
    ],
)
def test_a_run_is_due_shortly_after_its_window_if_no_time_is_named(every: str, paris: str, cairo: str) -> None:
    assert cron_of(parse_every(every), None, PARIS) == paris
    # Cairo's clocks go from midnight to one when summer begins, and from midnight back to eleven when it ends.
    assert cron_of(parse_every(every), None, CAIRO) == cairo


@pytest.mark.slow
def test_the_time_by_default_is_one_instant_on_every_day_of_every_zone() -> None:
    for key in ZONES:
        zone = ZoneInfo(key)
        minute, hour, *_ = cron_of(parse_every("day"), None, zone).split()
        for change in changes(key):
            shown = change.astimezone(zone).replace(hour=int(hour), minute=int(minute), second=0)
            if shown.year < 2026:
                continue
            assert shown.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == shown.replace(tzinfo=None)
            assert shown.utcoffset() == shown.replace(fold=1).utcoffset()


def test_a_named_time_counts() -> None:
    assert cron_of(parse_every("week"), "fri 18:00", PARIS) == "0 18 * * fri"
    with pytest.raises(ConfigError, match="a time of a day"):
        cron_of(parse_every("day"), "fri 18:00", PARIS)


@pytest.mark.parametrize("key", ["UTC", "Europe/Paris", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe"])
@pytest.mark.parametrize("every", ["day", "week", "month"])
def test_prefect_starts_a_run_once_after_each_window_has_ended(key: str, every: str) -> None:
    zone = ZoneInfo(key)
    windows = Calendar(parse_every(every), zone)
    number = {"day": 365, "week": 60, "month": 24}[every]
    moments = next_runs(cron_of(windows.every, None, zone), zone, utc(2026, 1, 10), number)
    seen = [windows.last(moment) for moment in moments]
    assert all(one.end == other.start for one, other in pairwise(seen))
    for moment, window in zip(moments, seen, strict=True):
        assert window.end is not None
        assert timedelta(0) < moment - window.end <= timedelta(hours=2, minutes=10)


def test_prefect_starts_a_run_once_for_each_hour_that_has_a_name() -> None:
    windows = Calendar(parse_every("hour"), PARIS)
    for day, hours in (((2026, 3, 28, 22, 59), 23), ((2026, 10, 24, 21, 59), 24)):
        moments = next_runs("10 * * * *", PARIS, utc(*day), hours)
        seen = [windows.last(moment) for moment in moments]
        assert all(one.end == other.start for one, other in pairwise(seen))


@pytest.mark.parametrize(
    ("every", "at", "lateness", "cron"),
    [
        ("week", "mon 02:00", timedelta(days=2), "0 2 * * mon,wed"),
        ("week", "mon 02:00", timedelta(days=2, hours=2), "0 2 * * mon,wed"),
        ("week", "mon 02:00", timedelta(days=2, hours=3), "0 2 * * mon,thu"),
        ("week", "mon 02:00", timedelta(hours=2), "0 2 * * mon"),
        ("week", "mon 02:00", timedelta(days=6, hours=20), "0 2 * * mon,sun"),
        # On Friday it is over already.
        ("week", "fri 18:00", timedelta(days=2), "0 18 * * fri"),
        # The week before is due on Monday again.
        ("week", "mon 02:00", timedelta(days=8), "0 2 * * mon"),
        # On Monday it ended longer ago than that.
        ("week", "mon 02:00", timedelta(days=7), "0 2 * * mon,sun"),
        ("week", None, timedelta(days=1), "10 0 * * mon,tue"),
        ("2w", "mon 02:00", timedelta(days=2), "0 2 * * mon"),
        ("10d", "02:00", timedelta(days=2), "0 2 * * *"),
        ("day", "00:10", timedelta(hours=12), "10 0,12 * * *"),
        ("day", "00:10", timedelta(days=2), "10 0 * * *"),
        ("month", "1 06:00", timedelta(days=3), "0 6 1,4 * *"),
        ("month", "1 06:00", timedelta(days=30), "0 6 1,28 * *"),
        ("year", "01-15 06:00", timedelta(days=20), "0 6 15,21 1 *"),
        ("year", "03-01 06:00", timedelta(days=20), "0 6 1 3 *"),
        ("hour", ":15", timedelta(minutes=30), "15,30 * * * *"),
        ("hour", ":15", timedelta(minutes=10), "15 * * * *"),
        ("hour", ":15", timedelta(hours=3), "15 * * * *"),
    ],
)
def test_a_window_is_looked_at_once_more_when_lateness_is_over(
    every: str, at: str | None, lateness: timedelta, cron: str
) -> None:
    assert cron_of(parse_every(every), at, PARIS, lateness) == cron


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["mon 02:00", "wed 18:30", "fri 00:00", "sun 23:00"]),
    st.integers(1, 24 * 13).map(lambda hours: timedelta(hours=hours)),
)
def test_lateness_is_kept_whatever_the_start_and_no_week_is_run_before_its_start(at: str, lateness: timedelta) -> None:
    windows = Calendar(parse_every("week"), UTC_ZONE, lateness)
    moments = next_runs(cron_of(windows.every, at, UTC_ZONE, lateness), UTC_ZONE, utc(2026, 1, 1), 40)
    starts: dict[Window, list[datetime]] = {window: [] for window in windows.between(utc(2026, 2, 2), utc(2026, 4, 6))}
    for moment in moments:
        for window in windows.due(moment):
            if window in starts:
                starts[window].append(moment)
    for window, seen in starts.items():
        assert window.end is not None
        assert f"{seen[0]:%a %H:%M}".lower() == at
        if lateness < seen[0] - window.end + timedelta(days=7):
            assert seen[-1] - window.end >= min(lateness, timedelta(days=6))
        else:
            # The next look would have come too late.
            assert seen[-1] - window.end > lateness - timedelta(days=7)


def test_next_runs_are_instants_after_a_moment() -> None:
    first, second, third = next_runs("0 18 * * FRI", PARIS, utc(2026, 11, 20, 17), 3)
    assert (first, second, third) == (utc(2026, 11, 27, 17), utc(2026, 12, 4, 17), utc(2026, 12, 11, 17))
    assert type(first) is datetime
    assert next_runs("0 18 * * fri", PARIS, utc(2026, 11, 20, 16, 59, 59), 1) == (utc(2026, 11, 20, 17),)


@pytest.mark.parametrize(
    ("schedule", "cron"),
    [
        ("", "10 0 * * mon"),
        ("schedule: {every: day, at: 18:00}", "0 18 * * *"),
        ("schedule: {every: day}", "10 0 * * *"),
        ("schedule: {every: week, at: mon 02:00, lateness: 2d}", "0 2 * * mon,wed"),
        ("schedule: {every: week, cron: 0 2 * * mon, lateness: 2d}", "0 2 * * mon"),
        ("schedule: {every: day, cron: 0  18 * * MON-FRI}", "0 18 * * mon-fri"),
    ],
)
def test_a_jobs_schedule_is_one_line(schedule: str, cron: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "version: 1\nname: a\nsource: {uri: ./a/*.txt}\noperations: [summarize: {}]\nbackends: [local: {}]\n"
        f"output: {{root: ./out}}\ntimezone: Europe/Paris\n{schedule}\n"
    )
    assert cron_of_job(load_job(file, environ={})) == cron


@pytest.mark.parametrize(
    "cron", ["*/15 0-6,18-23 1,15 jan-jun 1-5", "5/20 0 29 2 *", "0 0 * * 7", "0 0 1,31 2 mon", "59 23 31 dec sun-sat"]
)
def test_prefect_takes_the_lines_that_a_job_file_takes(cron: str) -> None:
    assert check_cron(cron) == cron
    moments = next_runs(cron, PARIS, utc(2026, 11, 20), 3)
    assert len(set(moments)) == 3
    assert list(moments) == sorted(moments)


def items(least: int, greatest: int) -> st.SearchStrategy[str]:
    number = st.integers(least, greatest)
    ranges = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(1, greatest).map(lambda step: f"/{step}")
    one = st.just("*") | number.map(str) | ranges | st.builds(str.__add__, st.just("*") | ranges, step)
    return st.lists(one, min_size=1, max_size=3).map(",".join)


@settings(max_examples=60, deadline=None)
@given(st.tuples(items(0, 59), items(0, 23), items(1, 31), items(1, 12), items(0, 6)).map(" ".join))
def test_whatever_line_a_job_file_takes_prefect_starts_by_it(cron: str) -> None:
    try:
        check_cron(cron)
    except ConfigError as error:
        assert "a day that its months do not have" in str(error)  # noqa: PT017
        return
    (moment,) = next_runs(cron, PARIS, utc(2026, 11, 20), 1)
    assert moment > utc(2026, 11, 20)


@pytest.mark.parametrize("key", ["Europe/Paris", "America/New_York", "Africa/Cairo", "America/Havana", "Asia/Beirut"])
@pytest.mark.parametrize("hour", range(4))
def test_a_time_that_is_left_out_or_shown_twice_starts_one_run_a_day(key: str, hour: int) -> None:
    zone = ZoneInfo(key)
    for change in changes(key):
        if change.year == 2026:
            moments = next_runs(f"30 {hour} * * *", zone, change - timedelta(days=2), 5)
            lengths = {later - earlier for earlier, later in pairwise(moments)}
            assert lengths <= {timedelta(hours=number) for number in (23, 24, 25)}
