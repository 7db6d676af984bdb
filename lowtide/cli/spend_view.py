"""A month of spending in the terminal. Fits 80 columns, and reads well without colour."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from lowtide.billing.spend import CapSpend, DaySpend, JobSpend, SpendMonth
from lowtide.billing.spend_page import notes
from lowtide.cli.views import console, count, place, print_pairs, printable
from lowtide.report.text import minute, money, percent

_NAME, _BAR, _HEIGHT = 18, 18, 4
_JOBS = 20
_NEAR = Decimal("0.8")
_NOTHING = Decimal(0)


def show_spend(month: SpendMonth) -> None:
    """Draw the month."""
    out = console()
    marks = _Marks(out)
    print_pairs(_heading(month))
    if month.jobs:
        out.print()
        out.print(Text("by job", style="bold"))
        for line in _jobs(month, marks):
            out.print(line, soft_wrap=True)
    out.print()
    out.print(Text("against caps", style="bold"))
    for line in _caps(month, marks):
        out.print(line, soft_wrap=True)
    if any(day.spent_usd for day in month.days):
        out.print()
        out.print(Text("day by day", style="bold"))
        for line in _days(month.days, marks):
            out.print(line, soft_wrap=True)
    for said in notes(month):
        print_pairs([("note", printable(said))])


class _Marks:
    """What bars are made of: blocks, or letters where the terminal's encoding has no blocks."""

    def __init__(self, out: Console) -> None:
        try:
            "█▒·▁".encode(out.encoding)
            self.full, self.held, self.empty, self.steps = "█", "▒", "·", "▁▂▃▄▅▆▇█"
        except UnicodeEncodeError:
            self.full, self.held, self.empty, self.steps = "#", "+", ".", ".:#"

    def bar(self, parts: Sequence[tuple[Decimal, str, str]], whole: Decimal, *, rest: bool) -> Text:
        """Parts of a whole, each with its mark and style, in `_BAR` columns; what is not nothing has at least one."""
        drawn, left = Text(), _BAR
        for size, mark, style in parts:
            columns = int((size * _BAR / whole).to_integral_value()) if whole else 0
            columns = min(max(columns, 1 if size > 0 else 0), left)
            drawn.append(mark * columns, style=style)
            left -= columns
        return drawn.append((self.empty if rest else " ") * left, style="dim")


def _heading(month: SpendMonth) -> list[tuple[str, str | Text]]:
    total = month.total
    lines: list[tuple[str, str | Text]] = [
        ("month", f"{month.month}{'' if month.over else f', as of {minute(month.at)}'}"),
        ("root", place(month.root)),
        ("spent", _spent(total)),
    ]
    if total.billed_usd is not None:
        lines.append(("billed", f"{money(total.billed_usd)} by the providers' bills read so far"))
    lines.append(
        ("reserved", f"{money(total.reserved_usd)} by batches that are out" if total.reserved_usd else "nothing")
    )
    lines += [("saved", said) for said in _saved(total)]
    if not month.over:
        lines.append(("forecast", _forecast(month)))
    return lines


def _spent(total: JobSpend) -> str:
    if not total.runs:
        return "nothing: no ledger has an entry of this month"
    if total.unpriced and not total.spent_usd:
        return f"not known: no price ({count(total.tokens, 'token')} in {count(total.runs, 'run')})"
    said = f"{money(total.spent_usd)} in {count(total.runs, 'run')}, {count(total.tokens, 'token')}"
    if total.wasted_tokens or total.wasted_usd:
        said += f"; {money(total.wasted_usd)} ({percent(total.wasted_usd, total.spent_usd)}) in vain"
    return said


def _saved(total: JobSpend) -> list[str]:
    said = []
    if total.saved_usd is not None and total.realtime_usd:
        share = percent(abs(total.saved_usd), total.realtime_usd)
        word = "less than" if total.saved_usd >= 0 else "more than"
        said.append(f"{money(abs(total.saved_usd))} ({share}) {word} in real time")
    if total.cached_usd or total.cached_tokens:
        worth = money(total.cached_usd) if total.cached_usd else "an unknown amount"
        said.append(f"{worth} by the cache, {count(total.cached_tokens, 'token')}")
    return said


def _forecast(month: SpendMonth) -> str:
    if month.forecast is None:
        return f"none: {month.no_forecast}"
    return f"{money(month.forecast.usd)} for the month, if the rest of it goes like what is over"


def _jobs(month: SpendMonth, marks: _Marks) -> list[Text]:
    shown = month.jobs[:_JOBS]
    longest = max((job.cap_usd or job.spent_usd + job.reserved_usd for job in shown), default=_NOTHING)
    lines = [_job_line(job, longest, marks) for job in shown]
    rest = month.jobs[_JOBS:]
    if rest:
        more = sum((job.spent_usd for job in rest), _NOTHING)
        lines.append(Text(f"{count(len(rest), 'more job')}: {money(more)}", style="dim"))
    return lines


def _job_line(job: JobSpend, longest: Decimal, marks: _Marks) -> Text:
    """A bar against the job's own cap if that is known, and else against the job that has spent most."""
    whole = job.cap_usd or longest
    parts = [(job.spent_usd, marks.full, _style(job.spent_usd + job.reserved_usd, job.cap_usd))]
    parts.append((job.reserved_usd, marks.held, ""))
    line = Text(_fitted(job.job, _NAME) + " ")
    line.append_text(marks.bar(parts, whole, rest=job.cap_usd is not None))
    known = job.spent_usd or not job.unpriced
    line.append(f" {money(job.spent_usd) if known else 'not known':>14}  ")
    if job.cap_usd:
        return line.append(f"{percent(job.spent_usd, job.cap_usd)} of {money(job.cap_usd)}", style="not dim")
    return line.append("no cap known", style="dim")


def _caps(month: SpendMonth, marks: _Marks) -> list[Text]:
    if not month.caps:
        return [
            Text("No cap is known: none in the root's lowtide.yaml, and no budget.month_usd of", style="dim"),
            Text("a job that was given.", style="dim"),
        ]
    return [line for cap in month.caps for line in _cap_lines(cap, marks)]


def _cap_lines(cap: CapSpend, marks: _Marks) -> list[Text]:
    used = cap.spent_usd + cap.reserved_usd
    line = Text(_fitted(_cap_name(cap), _NAME) + " ")
    parts = [(cap.spent_usd, marks.full, _style(used, cap.usd)), (cap.reserved_usd, marks.held, "")]
    line.append_text(marks.bar(parts, max(cap.usd, used), rest=True))
    left = f"{money(cap.left_usd)} left" if cap.left_usd >= 0 else f"{money(-cap.left_usd)} over"
    line.append(f" {money(cap.spent_usd):>14}  of {money(cap.usd)}")
    reserved = f"{money(cap.reserved_usd)} reserved, " if cap.reserved_usd else ""
    return [line, Text(" " * (_NAME + 1) + reserved + left, style="dim")]


def _cap_name(cap: CapSpend) -> str:
    return f"{cap.job} {cap.name}" if cap.job else cap.name


def _style(used: Decimal, cap: Decimal | None) -> str:
    if cap is None:
        return "cyan"
    return "red" if used >= cap else "yellow" if used >= cap * _NEAR else "green"


def _fitted(name: str, columns: int) -> str:
    text = Text(printable(name, 200))
    text.truncate(columns, overflow="ellipsis", pad=True)
    return text.plain


def _days(days: Sequence[DaySpend], marks: _Marks) -> list[Text]:
    """Two columns for each day, `_HEIGHT` lines high, and the dearest day in words."""
    most = max(day.spent_usd for day in days)
    dearest = max(days, key=lambda day: day.spent_usd)
    steps = len(marks.steps)
    heights = [int((day.spent_usd * _HEIGHT * steps / most).to_integral_value()) for day in days]
    heights = [max(height, 1) if day.spent_usd else 0 for height, day in zip(heights, days, strict=True)]
    lines = []
    for level in reversed(range(_HEIGHT)):
        filled = [min(max(height - level * steps, 0), steps) for height in heights]
        row = "".join((marks.steps[size - 1] if size else " ") + " " for size in filled)
        lines.append(Text(row.rstrip(), style="cyan"))
    lines.append(Text("".join(f"{day.day.day:<10}" for day in days if day.day.day % 5 == 1).rstrip(), style="dim"))
    said = f"most on {dearest.day.day} {dearest.day:%b}: {money(dearest.spent_usd)}"
    wasted = [day for day in days if day.wasted_usd]
    if wasted:
        said += f"; waste on {count(len(wasted), 'day')}"
    return [*lines, Text(said)]
