"""What is asked of a backfill: which windows, what about those that are published already, and which questions.

All bounds are half-open, as everywhere. But who names a last day, week or month means the whole of it: a backfill goes
to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Literal, get_args

import msgspec

from lowtide import ids
from lowtide.calendars import Calendar, Every
from lowtide.errors import ConfigError
from lowtide.plan import Work
from lowtide.windows import Window

Reprocess = Literal["missing", "failed", "changed", "all"]
"""Which of the published windows are run again. Windows that were never published are run in any case."""

REPROCESS: tuple[Reprocess, ...] = get_args(Reprocess)

MOST_WINDOWS = 2_000
"""Windows of one backfill: the source is listed once for each before anything is bought."""


@dataclass(frozen=True, slots=True)
class Span:
    """The half-open range [start, end) that is to be filled, two instants in UTC."""

    start: datetime
    end: datetime


class Wanted(msgspec.Struct, frozen=True):
    """What a backfill was asked for: the range [start, end), by which windows, and the questions of its job.

    `questions` is a hash of the operations, models and source: another prompt is another backfill. `every` is the
    length of the windows, in the time zone `zone`.
    """

    job: str
    start: datetime
    end: datetime
    every: str
    zone: str
    reprocess: Reprocess
    questions: str

    def id(self, number: int) -> str:
        """16 hex digits: the same for the same `number`th time that the same is asked."""
        return ids.run_id({**msgspec.structs.asdict(self), "round": number})


def span_of(calendar: Calendar, first: str, last: str, now: datetime) -> Span:
    """From the start of the first window to the end of the last one, each named as `--window` names one.

    Raises ConfigError.
    """
    begins, ends = (_bounded(calendar, name, text, now) for name, text in (("--from", first), ("--to", last)))
    if begins.start >= ends.end:
        raise ConfigError(f"--from {first} --to {last}: found a range that ends before it begins")
    return Span(begins.start, ends.end)


def windows_of(calendar: Calendar, span: Span, every: Every | None = None) -> tuple[Window, ...]:
    """The calendar's windows that overlap the range, oldest first; with `every`, those of another length.

    The first may begin before the range, and the last may end behind it. Raises ConfigError for more than
    MOST_WINDOWS.
    """
    calendar = calendar if every is None else replace(calendar, every=every)
    first = calendar.window_at(span.start)
    after = first.end or span.end
    found = tuple(islice(chain([first], calendar.between(after, span.end)), MOST_WINDOWS + 1))
    if len(found) > MOST_WINDOWS:
        raise ConfigError(
            f"found more than {MOST_WINDOWS:,} windows of a {calendar.every} between {span.start:%Y-%m-%d} and "
            f"{span.end:%Y-%m-%d}; expected fewer: name a shorter range, or longer windows with --by"
        )
    return found


def wanted(work: Work, calendar: Calendar, span: Span, every: Every | None, reprocess: Reprocess) -> Wanted:
    """What is asked, of a job that was put together for any of the windows."""
    return Wanted(
        work.job, span.start, span.end, str(every or calendar.every), str(calendar.zone), reprocess, _questions(work)
    )


def _questions(work: Work) -> str:
    backends = ((found.backend.name, found.backend.model, dict(found.backend.parameters)) for found in work.allowed)
    asked = {
        "operations": [[op.name, op.version] for op in work.operations],
        "backends": sorted([name, model, sorted(parameters.items())] for name, model, parameters in backends),
        "reading": dict(work.reading),
        "fields": list(work.fields),
    }
    return ids.run_id(asked)


def _bounded(calendar: Calendar, option: str, text: str, now: datetime) -> Span:
    try:
        window = calendar.named(text, now)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from error
    if window.start is None or window.end is None:
        raise ConfigError(f"{option}: found {text!r}; expected a day, week, month or year, such as 2026-01-31")
    return Span(window.start.astimezone(UTC), window.end.astimezone(UTC))


def in_order(windows: Sequence[Window], *, newest_first: bool) -> tuple[Window, ...]:
    """The windows as they are run."""
    return tuple(reversed(windows)) if newest_first else tuple(windows)
