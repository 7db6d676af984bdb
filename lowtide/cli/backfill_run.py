"""What `lowtide backfill` does: plan, ask, drive, and say how it ended."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import cast

import click
import msgspec

from lowtide import backfill as domain
from lowtide import money
from lowtide.backfill import Allotments, Backfill, Drive, Ended, PlannedWindow, Reprocess, Span, Wanted
from lowtide.budget.approval import this_user
from lowtide.calendars import Calendar, Every, parse_every
from lowtide.cli import backfill_views as views
from lowtide.cli.options import INTERRUPTED
from lowtide.cli.running import DONE, FAILED_ROWS, NOTHING_TO_DO, OVER_BUDGET, slim_arrow
from lowtide.connectors.assembly import assemble
from lowtide.errors import ConfigError
from lowtide.job import Job, load_job
from lowtide.ownership import this_owner
from lowtide.plainjson import plain_json
from lowtide.plan import Work
from lowtide.windows import Window

_MOST_USD = Decimal(10) ** 9


@dataclass(frozen=True)
class Asking:
    """The options of the command, as they were given."""

    job: str
    first: str
    last: str
    by: str | None = None
    reprocess: str = "missing"
    max_active: int = 3
    max_usd: str | None = None
    newest_first: bool = False
    exact: bool = False
    dry_run: bool = False
    yes: bool = False
    again: bool = False
    as_json: bool = False

    def command(self, *options: str) -> str:
        """The same command again, to be typed."""
        words = ["lowtide", "backfill", self.job, "--from", self.first, "--to", self.last]
        if self.by:
            words += ["--by", self.by]
        if self.reprocess != "missing":
            words += ["--reprocess", self.reprocess]
        if self.max_usd is not None:
            words += ["--max-usd", self.max_usd]
        words += ["--newest-first"] * self.newest_first
        return shlex.join([*words, *options])


class _Place:
    """The job and its root, and the windows that are meant."""

    def __init__(self, asking: Asking, *, writes: bool) -> None:
        self.job: Job = load_job(Path(asking.job))
        self.calendar: Calendar = self.job.calendar
        self.every: Every | None = _every(asking.by)
        now = datetime.now(UTC)
        self.span: Span = domain.span_of(self.calendar, asking.first, asking.last, now)
        self.windows = domain.windows_of(self.calendar, self.span, self.every)
        self.first: Work = self.work_of(self.windows[0], writes=writes)
        reprocess = cast("Reprocess", asking.reprocess)
        self.wanted: Wanted = domain.wanted(self.first, self.calendar, self.span, self.every, reprocess)

    def work_of(self, window: Window, *, writes: bool = False) -> Work:
        return assemble(self.job, window, try_root=writes)

    def allotments(self, found: Backfill) -> Allotments:
        work = self.first
        return Allotments(work.root, found.id, work.job, work.tags, this_owner(), cap=found.max_usd, clock=time.time)


def run(asking: Asking) -> int:
    """Plan, ask, and see it through."""
    slim_arrow()
    max_usd = _usd(asking.max_usd)
    place = _Place(asking, writes=not asking.dry_run)
    found = domain.going_on(place.first.root, place.wanted, job_file=str(place.job.file), again=asking.again)
    if found is None:
        return _asked_before(asking, place)
    found = msgspec.structs.replace(
        found, max_usd=max_usd, approve_above_usd=place.job.budget.approve_above_usd, cancelled_at=0.0
    )
    allotments = place.allotments(found)
    if not asking.dry_run:
        domain.settle_ended(place.first, allotments)
    planned = _plan(asking, place, found, allotments)
    found = domain.with_windows(found, planned, at=found.asked_at or time.time())
    gone = allotments.spent
    if asking.dry_run or not found.to_do:
        return _only_shown(asking, place, found, gone)
    if not asking.as_json:
        views.show_plan(found, gone)
    found = _approved(asking, found, gone)
    domain.write_backfill(place.first.root, found)
    return _drive(asking, place, found, allotments, planned)


def cancel(asking: Asking) -> int:
    """Stop what is open of the backfill, and keep what is done."""
    slim_arrow()
    place = _Place(asking, writes=False)
    found = domain.last_asked(place.first.root, place.wanted)
    if found is None or found.finished_at:
        said = "is finished" if found else "was never begun with this job file, range and --reprocess"
        click.echo(f"this backfill {said}: there is nothing to cancel", err=True)
        return NOTHING_TO_DO
    allotments = place.allotments(found)
    domain.settle_ended(place.first, allotments)
    found = msgspec.structs.replace(found, cancelled_at=time.time())
    domain.write_backfill(place.first.root, found)
    with views.shown(quiet=asking.as_json) as shown:
        drive = Drive(found, place.work_of, allotments, listen=shown.listen, ended=shown.ended)
        ended = drive.cancel(place.windows)
    _tell(asking, place, found, allotments, ended)
    if not asking.as_json:
        click.echo(f"stopped; what was answered is published. To go on: {asking.command()}", err=True)
    return DONE


def _plan(asking: Asking, place: _Place, found: Backfill, allotments: Allotments) -> tuple[PlannedWindow, ...]:
    ended = {line.run for line in allotments.lines() if line.settled}
    with views.planning(len(place.windows), quiet=asking.as_json) as heard:
        return domain.plan_backfill(
            found,
            domain.in_order(place.windows, newest_first=asking.newest_first),
            place.work_of,
            ended=ended,
            exact=asking.exact,
            clock=time.time,
            heard=heard,
        )


def _only_shown(asking: Asking, place: _Place, found: Backfill, gone: Decimal) -> int:
    """The plan, where nothing is done: since nobody wants it, or nothing is left to do."""
    if asking.as_json:
        click.echo(plain_json(views.plan_in_json(found, gone)).decode())
    else:
        views.show_plan(found, gone)
    if found.to_do:
        return DONE
    if not asking.dry_run and found.windows and domain.read_backfill(place.first.root, place.wanted.job, found.id):
        domain.conclude(place.first.root, found, [], at=time.time())
    if not asking.as_json:
        click.echo("Nothing new, nothing bought: no window needs anything.", err=True)
    return NOTHING_TO_DO


def _asked_before(asking: Asking, place: _Place) -> int:
    found = domain.last_asked(place.first.root, place.wanted)
    when = datetime.fromtimestamp(found.finished_at, UTC).strftime("%Y-%m-%d %H:%M UTC") if found else ""
    if asking.as_json and found is not None:
        click.echo(plain_json(views.plan_in_json(found, place.allotments(found).spent)).decode())
    click.echo(
        f"Nothing new, nothing bought: this was asked before, and was done on {when}. "
        f"To ask and pay once more: {asking.command('--again')}",
        err=True,
    )
    return NOTHING_TO_DO


def _approved(asking: Asking, found: Backfill, gone: Decimal) -> Backfill:
    """The record with what may be spent; asks whoever is there, once for all windows.

    Nobody is asked for what costs nothing, and not again for what was approved before. Raises ConfigError where
    somebody would have to be asked and nobody is there.
    """
    total = money.total((gone, found.cost_usd))
    if not any(window.worst_usd or window.cost_high_usd for window in found.to_do) or found.covers(total):
        return found
    if not asking.yes:
        if asking.as_json or not sys.stdin.isatty():
            raise ConfigError(
                f"the plan costs about {money.rough(found.cost_usd)} USD, and nobody is here to approve it: add --yes "
                "to spend it, or --dry-run to see the plan only; nothing was spent"
            )
        if not click.confirm(f"Spend about {money.rough(found.cost_usd)} USD?", default=False, err=True):
            click.echo("nothing was bought", err=True)
            raise click.exceptions.Exit(NOTHING_TO_DO)
    return msgspec.structs.replace(found, approved_usd=total, approved_by=this_user())


def _drive(
    asking: Asking, place: _Place, found: Backfill, allotments: Allotments, planned: Sequence[PlannedWindow]
) -> int:
    with views.shown(quiet=asking.as_json) as shown:
        drive = Drive(found, place.work_of, allotments, most=asking.max_active, listen=shown.listen, ended=shown.ended)
        try:
            ended = drive.run(planned)
        except KeyboardInterrupt:
            shown.close()
            click.echo(f"\nstopped; nothing is lost. To go on: {asking.command()}", err=True)
            click.echo(f"To stop what is open as well: {asking.command('--cancel')}", err=True)
            return INTERRUPTED
    found = domain.conclude(place.first.root, found, [each.stand for each in ended], at=time.time())
    _tell(asking, place, found, allotments, ended)
    return _code(ended)


def _tell(asking: Asking, place: _Place, found: Backfill, allotments: Allotments, ended: Sequence[Ended]) -> None:
    states = tuple(domain.window_states(place.first.root, found, allotments))
    if asking.as_json:
        click.echo(plain_json(views.result_in_json(found, states, ended, allotments.spent)).decode())
    else:
        views.show_result(found, states, ended, allotments.spent, asking.command())


def _code(ended: Sequence[Ended]) -> int:
    stands = {each.stand for each in ended}
    if stands & {"over budget", "approval"}:
        return OVER_BUDGET
    return DONE if stands <= {"done"} else FAILED_ROWS


def _every(text: str | None) -> Every | None:
    if text is None:
        return None
    try:
        return parse_every(text)
    except ConfigError as error:
        raise ConfigError(f"--by: {error}") from error


def _usd(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        usd = Decimal(text)
    except InvalidOperation:
        usd = Decimal("NaN")
    exponent = usd.as_tuple().exponent
    if not usd.is_finite() or not 0 < usd <= _MOST_USD or (isinstance(exponent, int) and -exponent > money.SCALE):
        raise ConfigError(f"--max-usd: found {text[:40]!r}; expected an amount of USD above 0, such as 200 or 12.50")
    return usd
