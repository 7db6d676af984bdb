"""The time zone and the schedule of a job file: what they mean, and what is said of those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import jsonschema_rs
import pytest
import yaml

from lowtide.calendars import Calendar, Every, parse_every
from lowtide.errors import ConfigError
from lowtide.job import Job, job_schema
from lowtide.job.times import check_cron, parse_at

Load = Callable[..., Job]


def with_schedule(good: str, text: str) -> str:
    return good.replace("deadline: 24h\n", text)


def test_without_a_schedule_windows_are_weeks_of_utc(load: Load, good: str) -> None:
    job = load(good)
    assert job.zone == ZoneInfo("UTC")
    assert job.calendar == Calendar(Every("week"), ZoneInfo("UTC"), timedelta(0))
    assert load(with_schedule(good, "schedule:\ntimezone:\n")).calendar == job.calendar


def test_a_schedule_gives_the_calendar(load: Load, good: str) -> None:
    text = "timezone: Europe/Paris\nschedule: {every: 2w, at: fri 18:00, lateness: 2d}\n"
    job = load(with_schedule(good, text))
    assert job.calendar == Calendar(Every("week", 2), ZoneInfo("Europe/Paris"), timedelta(days=2))
    last = job.calendar.named("last", datetime(2026, 11, 22, 22, 59, tzinfo=UTC))
    assert last.name == "2026-10-26--2026-11-09"
    assert job.calendar.named(" LAST ", datetime(2026, 11, 22, 23, tzinfo=UTC)).name == "2026-11-09--2026-11-23"
    assert job.calendar.named("2026-11-20", datetime(2026, 1, 1, tzinfo=UTC)).start == datetime(
        2026, 11, 19, 23, tzinfo=UTC
    )


def test_a_zone_may_come_from_the_environment(load: Load, good: str) -> None:
    text = with_schedule(good, 'timezone: "${ZONE}"\nschedule: {every: "${EVERY}"}\n')
    job = load(text, {"ZONE": "Asia/Tokyo", "EVERY": "day"})
    assert job.calendar == Calendar(Every("day"), ZoneInfo("Asia/Tokyo"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "timezone: Europe/Pariss\n",
            "job.yaml:11: timezone: found 'Europe/Pariss'; expected an IANA time zone such as UTC, Europe/Paris or "
            "America/New_York; did you mean 'Europe/Paris'?",
        ),
        ("timezone: europe/paris\n", "job.yaml:11: timezone: found 'europe/paris'; expected an IANA time zone"),
        ("timezone: ../../etc/passwd\n", "job.yaml:11: timezone: found '../../etc/passwd'; expected an IANA"),
        ("timezone: Europe\n", "job.yaml:11: timezone: found 'Europe'; expected an IANA"),
        ("timezone: localtime\n", "job.yaml:11: timezone: found 'localtime'; expected an IANA"),
        ("timezone: right/Europe/Paris\n", "job.yaml:11: timezone: found 'right/Europe/Paris'; expected an IANA"),
        ("timezone: 1\n", "job.yaml:11: timezone: found 1; expected text"),
        ("schedule: week\n", "job.yaml:11: schedule: found 'week'; expected a mapping"),
        (
            "schedule: {evry: week}\n",
            "job.yaml:11: schedule.evry: unknown key; did you mean 'every'? Allowed: every",
        ),
        (
            "schedule: {every: weekly}\n",
            "job.yaml:11: schedule.every: found 'weekly'; expected hour, day, week, month, year, or a number of days",
        ),
        ("schedule: {every: 7}\n", "job.yaml:11: schedule.every: found 7; expected text"),
        (
            "schedule: {at: 18:00}\n",
            "job.yaml:11: schedule.at: found '18:00'; expected a time of a week: fri 18:00",
        ),
        (
            "schedule:\n  every: month\n  at: 31 18:00\n",
            "job.yaml:13: schedule.at: found '31 18:00'; expected a time of a month: 1 06:00 (the day of the month",
        ),
        (
            "schedule: {every: day, at: 18:00, cron: 0 18 * * *}\n",
            "job.yaml:11: schedule.cron: found '0 18 * * *' beside at: '18:00'; expected one of the two, or neither",
        ),
        (
            "schedule: {cron: 0 25 * * *}\n",
            "job.yaml:11: schedule.cron: found '25' as the hour; expected 0 to 23, *, a range, a step or a list",
        ),
        ("schedule: {cron: '@daily'}\n", "job.yaml:11: schedule.cron: found '@daily'; expected five fields"),
        ("schedule: {cron: 0 0 31 feb *}\n", "job.yaml:11: schedule.cron: found '0 0 31 feb *', which names a day"),
        ("schedule: {lateness: 2}\n", "job.yaml:11: schedule.lateness: found 2; expected a duration such as"),
        (
            "schedule: {lateness: 400d}\n",
            "job.yaml:11: schedule.lateness: found '400d'; expected a duration of at",
        ),
    ],
)
def test_a_schedule_that_cannot_be_read_is_told_with_what_is_expected(
    text: str, message: str, good: str, refused: Callable[..., list[str]]
) -> None:
    lines = refused(with_schedule(good, text))
    assert len(lines) == 1, lines
    assert lines[0].startswith(message)


@pytest.mark.parametrize(
    ("every", "at", "cron"),
    [
        ("hour", ":15", "15 * * * *"),
        ("hour", ":00", "0 * * * *"),
        ("day", "18:00", "0 18 * * *"),
        ("day", "6:05", "5 6 * * *"),
        ("10d", "18:00", "0 18 * * *"),
        ("week", "fri 18:00", "0 18 * * fri"),
        ("week", "Sun  00:30", "30 0 * * sun"),
        ("2w", "mon 06:00", "0 6 * * mon"),
        ("month", "1 06:00", "0 6 1 * *"),
        ("month", "28 23:59", "59 23 28 * *"),
        ("year", "01-15 06:00", "0 6 15 1 *"),
        ("year", "12-31 06:00", "0 6 31 12 *"),
    ],
)
def test_a_time_of_a_window_is_a_line_of_a_crontab(every: str, at: str, cron: str) -> None:
    assert parse_at(at, parse_every(every)) == cron
    assert check_cron(cron) == cron


@pytest.mark.parametrize(
    ("every", "at"),
    [
        ("hour", "15"), ("hour", ":60"), ("hour", "18:00"), ("day", "24:00"), ("day", "18:0"), ("day", ":15"),
        ("day", "18:00:00"), ("day", "6pm"), ("week", "18:00"), ("week", "friday 18:00"), ("week", "fri"),
        ("month", "0 06:00"), ("month", "29 06:00"), ("month", "mon 06:00"), ("year", "02-29 06:00"),
        ("year", "13-01 06:00"), ("year", "00-01 06:00"), ("year", "1 06:00"), ("week", ""), ("day", "١٨:٠٠"),
    ],
)  # fmt: skip
def test_a_time_that_not_every_window_has_is_refused(every: str, at: str) -> None:
    with pytest.raises(ConfigError, match=f"expected a time of a {parse_every(every).unit}"):
        parse_at(at, parse_every(every))


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *", "0 18 * * fri", "*/15 0-6,18-23 1,15 jan-jun 1-5", "5/20 0 29 2 *", "0 0 * * 7",
        "0 0 30,31 jan,feb *", "59 23 31 12 sun-sat",
    ],
)  # fmt: skip
def test_lines_that_a_crontab_takes(cron: str) -> None:
    assert check_cron(f"  {cron.upper()} ".replace(" ", "  ")) == cron


@pytest.mark.parametrize(
    "cron",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *",
        "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "* * * * mon#2", "* * L * *", "1,,2 * * * *",
        "-1 * * * *", "* * * feb-jan *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2 mon", "@hourly", "٥ * * * *",
    ],
)  # fmt: skip
def test_lines_that_no_crontab_takes(cron: str) -> None:
    with pytest.raises(ConfigError, match="five fields"):
        check_cron(cron)


@pytest.mark.parametrize(
    "text",
    [
        "timezone: Europe/Paris\nschedule: {every: 2w, at: fri 18:00, lateness: 2d}\n",
        "schedule: {cron: 0 18 * * fri}\n",
        "schedule:\n",
    ],
)
def test_what_loads_is_valid_under_the_schema(text: str, load: Load, good: str) -> None:
    whole = with_schedule(good, text)
    load(whole)
    jsonschema_rs.validator_for(job_schema()).validate(yaml.safe_load(whole))
