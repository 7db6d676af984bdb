"""When a schedule starts a run: `at`, a time in the words of its windows, and `cron`, in the words of a crontab.

Both are times on the clocks of the job's zone.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator

from lowtide.calendars import Every
from lowtide.errors import ConfigError
from lowtide.job.problems import shown

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TIME = r"(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
_AT = {
    "hour": re.compile(r":(?P<minute>[0-5][0-9])"),
    "day": re.compile(_TIME),
    "week": re.compile(rf"(?P<weekday>{'|'.join(_WEEKDAYS)}) +{_TIME}"),
    "month": re.compile(rf"(?P<day>[0-9]{{1,2}}) +{_TIME}"),
    "year": re.compile(rf"(?P<month>[0-9]{{2}})-(?P<day>[0-9]{{2}}) +{_TIME}"),
}
_AT_FORM = {
    "hour": ":15 (the minute)",
    "day": "18:00",
    "week": "fri 18:00 (mon tue wed thu fri sat sun)",
    "month": "1 06:00 (the day of the month, 1 to 28)",
    "year": "01-15 06:00 (month and day, not 02-29)",
}
# A crontab's fields: what it is called, its least and greatest number, and the names that stand for numbers.
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("", *_MONTHS)),
    ("day of the week", 0, 7, _WEEKDAYS),
)
_ITEM = re.compile(r"(?:\*|(?P<first>[a-z0-9]{1,3})(?:-(?P<last>[a-z0-9]{1,3}))?)(?:/(?P<step>[0-9]{1,2}))?")
CRON_FORM = "five fields: minute, hour, day of the month, month, day of the week, such as '0 18 * * fri'"


def parse_at(at: str, every: Every) -> str:
    """The crontab line for a time in the words of its windows. Raises ConfigError.

    Windows of N days are looked after every day at that time, those of N weeks every week: a crontab cannot count
    them, and a run over a window that was run already does nothing.
    """
    fit = _AT[every.unit].fullmatch(at.strip().lower())
    parts = fit.groupdict() if fit else {}
    if not fit or not _every_time(parts):
        raise ConfigError(f"found {shown(at)}; expected a time of a {every.unit}: {_AT_FORM[every.unit]}")
    numbers = {name: int(text) for name, text in parts.items() if name != "weekday"}
    fields = (numbers["minute"], *(numbers.get(name, "*") for name in ("hour", "day", "month")))
    return " ".join(map(str, (*fields, parts.get("weekday", "*"))))


def check_cron(cron: str) -> str:
    """The same line with single spaces and small letters. Raises ConfigError for what is no crontab line.

    Read are numbers, names, `*`, ranges, steps and lists; no crontab's own additions, such as `@daily`, `L` or `#`.
    """
    fields = cron.lower().split()
    if len(fields) != len(_FIELDS):
        raise ConfigError(f"found {shown(cron)}; expected {CRON_FORM}")
    values: list[set[int]] = []
    for text, (called, least, greatest, names) in zip(fields, _FIELDS, strict=True):
        try:
            values.append({value for item in text.split(",") for value in _numbers(item, least, greatest, names)})
        except ValueError:
            raise ConfigError(
                f"found {shown(text)} as the {called}; expected {least} to {greatest}, *, a range, a step or a list: "
                f"{CRON_FORM}"
            ) from None
    _, _, days, months, _ = values
    # Prefect looks in vain for such a day, even where a day of the week is named beside it.
    if all(min(days) > monthrange(2028, month)[1] for month in months):
        raise ConfigError(f"found {shown(cron)}, which names a day that its months do not have; expected {CRON_FORM}")
    return " ".join(fields)


def _every_time(parts: dict[str, str | None]) -> bool:
    """Whether every month, or every year, has that day."""
    day, month = int(parts.get("day") or 1), int(parts.get("month") or 2)
    return 1 <= month <= 12 and 1 <= day <= monthrange(2026, month)[1]


def _numbers(item: str, least: int, greatest: int, names: tuple[str, ...]) -> Iterator[int]:
    """What one item of a field stands for. Raises ValueError."""
    fit = _ITEM.fullmatch(item)
    if fit is None:
        raise ValueError(item)
    step = int(fit["step"] or 1)
    first = _number(fit["first"], names) if fit["first"] else least
    # `5/15` is a start with a step, and goes on to the end of the field.
    open_end = not fit["first"] or (fit["step"] is not None and not fit["last"])
    last = greatest if open_end else _number(fit["last"] or fit["first"], names)
    if not (least <= first <= last <= greatest and step >= 1):
        raise ValueError(item)
    yield from range(first, last + 1, step)


def _number(text: str, names: tuple[str, ...]) -> int:
    return names.index(text) if text in names else int(text)
