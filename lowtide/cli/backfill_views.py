"""How a backfill looks: its plan, its progress, a line for each window that ends, and what came of it all."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Protocol

import click
from rich.text import Text

from lowtide import money
from lowtide.backfill import Backfill, Ended, Standing, WindowPlan, WindowState
from lowtide.cli.progress import LINE_EVERY
from lowtide.cli.views import console, count, moment, print_pairs, usd
from lowtide.windows import Window

_COLOURS = {"done": "green", "incomplete": "yellow", "over budget": "red", "failed": "red", "approval": "yellow"}


class Shown(Protocol):
    """A view of a backfill that goes on."""

    def listen(self, standing: Standing) -> None:
        """Where everything stands."""

    def ended(self, ended: Ended) -> None:
        """A window has ended."""

    def close(self) -> None:
        """Show no more."""


# ---- the plan


def show_plan(found: Backfill, gone: Decimal) -> None:
    """All windows, a line each, and what they cost together. `gone` is what this backfill has spent already."""
    wanted, to_do = found.wanted, found.to_do
    print_pairs(
        [
            ("job", f"{wanted.job}, from {wanted.start:%Y-%m-%d %H:%M} to {wanted.end:%Y-%m-%d %H:%M} UTC"),
            ("backfill", f"{found.id}, by {wanted.every}, published windows: {wanted.reprocess}"),
        ]
    )
    _show_windows(found)
    passed = len(found.windows) - len(to_do)
    print_pairs(
        [
            ("windows", f"{count(len(to_do), 'window')} to run, {passed:,} passed over"),
            *_totals(found),
            *_costs(found, gone),
            *_notes(found),
        ]
    )


def _show_windows(found: Backfill) -> None:
    out = console()
    head = f"  {'window':<24} {'documents':>10} {'to ask':>9} {'cached':>9} {'cost, USD':>12}  why"
    out.print(Text(head, style="dim"), soft_wrap=True)
    for window in found.windows:
        if not window.needs:
            line = Text(f"  {window.window:<24} {'-':>10} {'-':>9} {'-':>9} {'-':>12}  {window.why}", style="dim")
        else:
            about = "" if window.exact else "~"
            figures = f"{about}{window.documents:,}"
            line = Text(
                f"* {window.window:<24} {figures:>10} {window.requests:>9,} {window.cached + window.twins:>9,} "
                f"{money.usd(window.cost_usd):>12}  {window.why}"
            )
        out.print(line, soft_wrap=True)


def _totals(found: Backfill) -> list[tuple[str, str]]:
    to_do = found.to_do
    if not to_do:
        return []
    asked, cached = sum(each.requests for each in to_do), sum(each.cached for each in to_do)
    twins, about = sum(each.twins for each in to_do), "" if all(each.exact for each in to_do) else "about "
    lines = [
        ("documents", f"{about}{sum(each.documents for each in to_do):,}"),
        ("requests", f"{about}{asked:,} to ask; {cached:,} cached, {twins:,} the same as another"),
    ]
    if asked and cached and found.cost_usd:
        saved = found.cost_usd * cached / asked
        lines.append(("saved", f"about {money.rough(saved)} USD, which the cached ones would cost again"))
    where = Counter((each.backend, each.model) for each in to_do)
    lines += [("where", f"{backend}, model {model}: {count(n, 'window')}") for (backend, model), n in where.items()]
    replaced = [each for each in to_do if each.replaces_rows]
    if replaced:
        rows = sum(each.replaces_rows for each in replaced)
        lines.append(("replaces", f"{count(rows, 'row')} of {count(len(replaced), 'published window')}"))
    return lines


def _costs(found: Backfill, gone: Decimal) -> list[tuple[str, str]]:
    if not found.to_do:
        return []
    low, high = found.cost_low_usd, found.cost_high_usd
    between = f"; with 90 % from {usd(low)} to {usd(high)}" if high > low else ""
    lines = [("cost", f"about {usd(found.cost_usd)}{between}")]
    if gone:
        lines.append(("spent", f"{usd(gone)} by this backfill before"))
    if found.max_usd is not None:
        lines.append(("cap", f"{money.exact(found.max_usd)} USD for all windows: {_fits(found, found.max_usd - gone)}"))
    if found.approve_above_usd is not None:
        above = found.cost_usd > found.approve_above_usd
        lines.append(
            ("approval", f"{'above' if above else 'below'} approve_above_usd, {usd(found.approve_above_usd)} a run")
        )
    if found.covers(money.total((gone, found.cost_usd))):
        lines.append(("approved", f"up to {usd(found.approved_usd or Decimal(0))} by {found.approved_by}"))
    return lines


def _fits(found: Backfill, left: Decimal) -> str:
    """Whether so much is enough, as far as can be told: a window begins only where its worst shards fit as well."""
    dearest = max(found.to_do, key=lambda window: window.least_usd)
    if dearest.least_usd > left:
        return (
            f"too low. {dearest.window} needs up to {money.rough(dearest.least_usd)} USD set aside to be sent, "
            "which smaller shards make less (limits.shard_records)"
        )
    if found.cost_usd > left:
        return "too low"
    return "covers it" if found.cost_high_usd + dearest.least_usd <= left else "may leave windows undone"


def _notes(found: Backfill) -> list[tuple[str, str]]:
    lines = []
    if any(not window.exact for window in found.to_do):
        lines.append(("note", "~ is estimated from a sample of the documents; --exact reads them all"))
    for window in found.to_do:
        reaches = [
            *(["begins before --from"] if window.start < found.wanted.start else []),
            *(["ends behind --to"] if window.end > found.wanted.end else []),
        ]
        if reaches:
            lines.append(("note", f"{window.window} {' and '.join(reaches)}, and is run whole"))
    if late := [window.window for window in found.to_do if window.late]:
        lines.append(("note", f"no backend is expected to meet the deadline in {count(len(late), 'window')}"))
    return lines


# ---- progress


@contextmanager
def planning(windows: int, *, quiet: bool) -> Iterator[Callable[[Window, WindowPlan], None]]:
    """Shows how many windows are planned, where somebody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda window, shown: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TextColumn("windows"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("planning", total=windows)
        yield lambda window, shown: bar.advance(task)


@contextmanager
def shown(*, quiet: bool) -> Iterator[Shown]:
    """A view of the backfill on standard error: a bar in a terminal, plain lines in a log."""
    if quiet:
        yield _Quiet()
    elif sys.stderr.isatty():
        view = _Bar()
        try:
            yield view
        finally:
            view.close()
    else:
        yield _Lines()


class _Quiet:
    def listen(self, standing: Standing) -> None:
        pass

    def ended(self, ended: Ended) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    """A line for each window, and one now and then in between."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def listen(self, standing: Standing) -> None:
        if time.monotonic() - self._at < LINE_EVERY:
            return
        self._at = time.monotonic()
        click.echo(f"lowtide: {_stands(standing)}", err=True)

    def ended(self, ended: Ended) -> None:
        self._at = time.monotonic()
        click.echo(f"lowtide: {_line(ended)}", err=True)

    def close(self) -> None:
        pass


class _Bar:
    """A bar over all windows, and above it a line for each that has ended."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("windows; {task.description}"),
            TimeElapsedColumn(),
        )
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("beginning", total=None)
        self._bar.start()

    def listen(self, standing: Standing) -> None:
        self._bar.update(
            self._task, total=standing.windows, completed=standing.ended, description=_stands(standing, short=True)
        )

    def ended(self, ended: Ended) -> None:
        self._bar.console.print(Text(_line(ended), style=_COLOURS.get(ended.stand, "")), soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def _stands(standing: Standing, *, short: bool = False) -> str:
    answers = f"{standing.answered:,} of {standing.records:,} answers" if standing.records else standing.step
    opened = f"{len(standing.open)} open" if short else f"open: {', '.join(standing.open) or 'none'}"
    whole = "" if short else f"{standing.ended} of {standing.windows} windows, "
    return f"{whole}{opened}, {answers}, {money.usd(standing.usd)} USD"


def _line(ended: Ended) -> str:
    rows = f", {count(ended.rows, 'row')}" if ended.rows else ""
    paid = f", {usd(ended.usd)}" if ended.run_id else ""
    why = f": {ended.why}" if ended.why else ""
    return f"{ended.window} {_SAID.get(ended.stand, ended.stand)}{rows}{paid}{why}"


_SAID: Mapping[str, str] = {
    "done": "published",
    "incomplete": "published, rows are without an answer",
    "over budget": "left for the budget",
    "approval": "waits for approval",
    "cancelled": "cancelled",
    "failed": "could not go on",
}


# ---- the end


def show_result(
    found: Backfill, states: Sequence[WindowState], ended: Sequence[Ended], spent: Decimal, command: str
) -> None:
    """What came of it, and what is left to do."""
    stands = Counter(each.stand for each in ended)
    said = ", ".join(f"{number:,} {_SAID.get(stand, stand)}" for stand, number in stands.most_common())
    rows = Counter[str]()
    for state in states:
        rows.update(state.counts)
    planned = f" (the plan: {usd(found.cost_usd)})" if found.cost_usd else ""
    lines = [
        ("job", f"{found.wanted.job}, backfill {found.id}"),
        ("windows", said or "none"),
        ("rows", ", ".join(f"{number:,} {status}" for status, number in rows.most_common()) or "none"),
        ("cost", f"{usd(spent)}{planned}"),
    ]
    if found.max_usd is not None:
        lines.append(
            ("cap", f"{money.exact(found.max_usd)} USD, {money.exact(max(found.max_usd - spent, Decimal(0)))} left")
        )
    if found.finished_at:
        lines.append(("finished", moment(found.finished_at)))
    elif left := [each.window for each in ended if each.stand not in ("done", "incomplete")]:
        shown_left = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        how = ", with a higher --max-usd," if stands["over budget"] and found.max_usd is not None else ""
        lines += [("left", shown_left), ("next", f"{command}{how} goes on with them")]
    print_pairs(lines)


def plan_in_json(found: Backfill, gone: Decimal) -> dict[str, object]:
    """The plan for programs."""
    return {
        "id": found.id,
        "wanted": found.wanted,
        "windows": found.windows,
        "to_do": len(found.to_do),
        "cost_usd": found.cost_usd,
        "cost_low_usd": found.cost_low_usd,
        "cost_high_usd": found.cost_high_usd,
        "spent_usd": gone,
        "max_usd": found.max_usd,
    }


def result_in_json(
    found: Backfill, states: Sequence[WindowState], ended: Sequence[Ended], spent: Decimal
) -> dict[str, object]:
    """What came of it, for programs."""
    return {
        "id": found.id,
        "planned_usd": found.cost_usd,
        "spent_usd": spent,
        "max_usd": found.max_usd,
        "finished_at": found.finished_at,
        "windows": list(states),
        "ended": [
            {"window": each.window, "stand": each.stand, "rows": each.rows, "cost_usd": each.usd, "why": each.why}
            for each in ended
        ],
    }
