"""Crontab lines for a job's schedule, and the times at which Prefect starts what they name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from lowtide.calendars import Every
from lowtide.errors import ConfigError
from lowtide.job import Job
from lowtide.job.times import check_cron, parse_at

MINUTE = 10
"""Minutes after a window's end at which its run is due, if the job names no time: what was written in its last minutes
is listed then, also by writers whose clocks are slow, and minute 0 is when everybody else's jobs start."""

_FIRST, _LAST = date(2026, 1, 1), date(2037, 12, 31)
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class _Grid(NamedTuple):
    """Where starts may lie in a window: every `step`, the last one `most` steps behind its beginning."""

    step: timedelta
    most: int
    length: timedelta


_GRIDS = {
    "hour": _Grid(timedelta(minutes=1), 59, timedelta(hours=1)),
    "day": _Grid(timedelta(hours=1), 23, timedelta(days=1)),
    "week": _Grid(timedelta(days=1), 6, timedelta(weeks=1)),
    "month": _Grid(timedelta(days=1), 27, timedelta(days=31)),
    "year": _Grid(timedelta(days=1), 27, timedelta(days=366)),
}


def cron_of(every: Every, at: str | None, zone: ZoneInfo, lateness: timedelta = timedelta()) -> str:
    """The crontab line, in the zone, of the times at which runs over windows of that length are due.

    Without `at`, 10 minutes after a window has ended; where the zone's clocks are changed around midnight, 10 minutes
    past the first full hour that they neither leave out nor show twice on any day until 2037. Windows of N days are
    looked after every day, those of N weeks every Monday. Where the next window's run would come too late for it, one
    more is due in each window, when `lateness` is over. Raises ConfigError.
    """
    return _looking_again(parse_at(_by_default(every, zone) if at is None else at, every), every, lateness)


def cron_of_job(job: Job) -> str:
    """The crontab line of a job's schedule, in the job's time zone: its `cron`, or what its `at` means."""
    if job.schedule.cron is not None:
        return check_cron(job.schedule.cron)
    return cron_of(job.schedule.length, job.schedule.at, job.zone, job.schedule.lateness)


def next_runs(cron: str, zone: ZoneInfo, after: datetime, n: int) -> tuple[datetime, ...]:
    """The first `n` times after `after` at which Prefect starts a deployment with that line, as instants in UTC.

    They are reckoned by Prefect's own schedule, so that they are those that it keeps, also on days with 23 or 25 hours.
    """
    from prefect.server.schemas.schedules import CronSchedule

    schedule = CronSchedule(cron=check_cron(cron), timezone=zone.key)
    start = after.astimezone(UTC) + timedelta.resolution
    # In a thread of its own, since whoever asks may be inside an event loop.
    with ThreadPoolExecutor(1) as threads:
        moments = threads.submit(asyncio.run, schedule.get_dates(n, start)).result()
    # Prefect's are of a class of its own.
    return tuple(datetime.fromtimestamp(moment.timestamp(), UTC) for moment in moments)


def _by_default(every: Every, zone: ZoneInfo) -> str:
    if every.unit == "hour":
        return f":{MINUTE:02d}"
    time_of_day = f"{_quiet_hour(zone):02d}:{MINUTE:02d}"
    return {"day": "", "week": "mon ", "month": "1 ", "year": "01-01 "}[every.unit] + time_of_day


def _looking_again(cron: str, every: Every, lateness: timedelta) -> str:
    """The line with a second start in each window, if there is room for it between the first and the next window's.

    It is the first one, in whole minutes of an hour, hours of a day, or days, that lies at or behind the end of
    `lateness`; or the last one there is. Windows of several days or weeks are looked after often enough.
    """
    minute, hour, day, month, weekday = cron.split()
    if not lateness or every.count > 1 or (every.unit == "year" and month != "1"):
        return cron
    match every.unit:
        case "hour":
            first, rest = int(minute), timedelta()
        case "day":
            first, rest = int(hour), timedelta(minutes=int(minute))
        case "week":
            first, rest = _WEEK.index(weekday), timedelta(hours=int(hour), minutes=int(minute))
        case _:
            first, rest = int(day) - 1, timedelta(hours=int(hour), minutes=int(minute))
    grid = _GRIDS[every.unit]
    second = min(-(-(lateness - rest) // grid.step), grid.most)
    # A window that is late for longer is due with the next one's.
    if second <= first or lateness >= grid.length + first * grid.step + rest:
        return cron
    match every.unit:
        case "hour":
            minute += f",{second}"
        case "day":
            hour += f",{second}"
        case "week":
            weekday += f",{_WEEK[second]}"
        case _:
            day += f",{second + 1}"
    return f"{minute} {hour} {day} {month} {weekday}"


@lru_cache
def _quiet_hour(zone: tzinfo) -> int:
    """The first hour of the day whose minute is one instant on each of the days."""
    for hour in range(24):
        if all(_is_one_instant(shown) for shown in _days(time(hour, MINUTE, tzinfo=zone))):
            return hour
    raise ConfigError(f"timezone: found {zone}, whose clocks keep no hour of the day; name a time with schedule.at")


def _days(at: time) -> Iterator[datetime]:
    day = _FIRST
    while day <= _LAST:
        yield datetime.combine(day, at)
        day += timedelta(days=1)


def _is_one_instant(shown: datetime) -> bool:
    return shown.utcoffset() == shown.replace(fold=1).utcoffset()
