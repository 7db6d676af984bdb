"""How plans, runs and rows look in a terminal. Everything fits 80 columns and reads well without colour."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import unquote

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lowtide import money
from lowtide.billing.reading import is_priced
from lowtide.cli.reasons import Reason
from lowtide.plan import PlannedDocuments, PlannedOption, Range, RunPlan
from lowtide.planning.making import LATE
from lowtide.prices.naming import price_named
from lowtide.refusals import by_cap
from lowtide.schemas import STATUSES
from lowtide.summary import Summary

_NAMES = 11
"""Columns that the names of `print_pairs` take."""

_UNKNOWN = "not known: no price is given"

_COLOURS = {"ok": "green", "skipped": "yellow", "invalid": "red", "refused": "red", "error": "red"}


def console() -> Console:
    """Standard output, at most 100 columns wide."""
    found = Console(highlight=False)
    return found if found.width <= 100 else Console(highlight=False, width=100)


def print_pairs(lines: Sequence[tuple[str, str | Text]]) -> None:
    """Names and values, a line each. Long values are left to the terminal to wrap, so that they can be copied whole."""
    out = console()
    for name, value in lines:
        # What has no name, and would not fit, begins further left.
        room = out.width - len(value)
        line = Text(f"{name:<10} " if name else " " * min(_NAMES, max(room, 0)), style="dim")
        line.append_text(value if isinstance(value, Text) else Text(value, style="not dim"))
        out.print(line, soft_wrap=True)


def show_plan(plan: RunPlan, caps: Sequence[str], following: str) -> None:
    """What a run would do. `caps` are limits on more than this run, `following` says what to do next."""
    asked = ", ".join(op.name if op.name == op.kind else f"{op.name} ({op.kind})" for op in plan.operations)
    chosen = next((option for option in plan.options if option.chosen), None)
    lines: list[tuple[str, str | Text]] = [
        ("job", f"{plan.job}, window {plan.window}"),
        ("run", plan.run_id + (f", everything asked anew for the {plan.refresh}. time" if plan.refresh else "")),
        ("reads", f"{count(plan.files, 'file')}, {size(plan.bytes)}"),
        ("asks", f"{count(len(plan.operations), 'operation')}: {asked}"),
    ]
    if plan.documents is not None:
        lines += _documents(plan.documents)
    if chosen is None:
        lines.append(("tokens", f"about {plan.input_tokens:,} in, {plan.output_tokens:,} out"))
    else:
        lines += [
            ("tokens", f"{_range(chosen.input_tokens)} in"),
            ("", f"{_range(chosen.output_tokens)} out"),
            ("", f"known by {chosen.basis}"),
        ]
    print_pairs(lines)
    _show_options(plan.options)
    print_pairs(_promises(plan, chosen, caps))
    print_pairs([*_notes(plan), ("next", following)])


def _documents(found: PlannedDocuments) -> list[tuple[str, str | Text]]:
    about = "" if found.exact else "about "
    kinds = ((found.new, "new"), (found.changed, "changed"), (found.unchanged, "unchanged"))
    counted = ", ".join(f"{number:,} {kind}" for number, kind in kinds)
    spared = f"{found.cached:,} cached, {found.twins:,} the same as another"
    return [
        ("documents", f"{about}{found.documents:,}: {counted}, {found.unreadable:,} unreadable"),
        ("requests", f"{about}{found.asked:,} to ask; {spared}"),
    ]


def _range(tokens: Range) -> str:
    return f"about {tokens.expected:,} ({tokens.low:,} to {tokens.high:,})"


def _show_options(options: Sequence[PlannedOption]) -> None:
    """The backends: a line of figures each, and one that says why it was chosen or not."""
    if not options:
        return
    out = console()
    head = f"  {'backend':<14} {'cost, USD':>13} {'in real time':>13} {'saved':>6}  {'done by (UTC)':<16}"
    out.print(Text(head, style="dim"), soft_wrap=True)
    for option in options:
        figures = f"{'-':>13} {'-':>13} {'-':>6}  -"
        if option.finish:
            realtime = "-" if option.realtime_usd is None else money.usd(option.realtime_usd)
            finish = moment(option.finish).removesuffix(" UTC")
            cost = money.usd(option.cost_usd) if is_priced(option.price_id, option.cost_usd) else "not known"
            figures = f"{cost:>13} {realtime:>13} {_saved(option):>6}  {finish}"
        mark = "*" if option.chosen else " "
        out.print(Text(f"{mark} {option.backend:<14} {figures}", style="bold" if option.chosen else ""), soft_wrap=True)
        region = f", {option.region}" if option.region else ""
        said = f"chosen; {option.finish_basis}" if option.chosen else option.why_not
        line = Text(f"    {option.model}{region}: ", style="dim")
        out.print(line.append(said, style="not dim"), soft_wrap=True)
        if option.break_even:
            out.print(Text(f"    {option.break_even}", style="not dim"), soft_wrap=True)


def _saved(option: PlannedOption) -> str:
    """The part of what it would cost in real time that is not spent."""
    if not option.realtime_usd or not is_priced(option.price_id, option.cost_usd):
        return "-"
    return f"{(1 - option.cost_usd / option.realtime_usd) * 100:.0f} %"


def _promises(plan: RunPlan, chosen: PlannedOption | None, caps: Sequence[str]) -> list[tuple[str, str | Text]]:
    lines: list[tuple[str, str | Text]] = []
    if not is_priced(plan.price_id, plan.cost_usd):
        lines.append(("cost", _UNKNOWN))
    elif chosen is not None:
        cost = f"{usd(chosen.cost_low_usd)} to {usd(chosen.cost_high_usd)}"
        between = f"; with 90 % from {cost}" if chosen.cost_high_usd > chosen.cost_low_usd else ""
        lines.append(("cost", f"about {usd(chosen.cost_usd)}{between}"))
    else:
        lines.append(("cost", f"about {usd(plan.cost_usd)}"))
    if priced := price_named(plan):
        lines += _wrapped("prices", Text(printable(priced), style="not dim"))
    lines.append(("deadline", moment(plan.deadline)))
    if chosen is not None:
        lines.append(("shards", f"{chosen.shards:,}; {chosen.quota}"))
    if plan.run_usd is not None:
        lines.append(("cap", f"{plan.run_usd:,} USD for this run"))
    lines += [("cap", cap) for cap in caps]
    if plan.approve_above_usd is not None:
        needed = "needed" if plan.cost_usd > plan.approve_above_usd else "not needed"
        lines.append(("approval", f"{needed}: asked for above {plan.approve_above_usd:,} USD"))
    if plan.replaces is not None:
        there = plan.replaces
        lines.append(
            ("replaces", f"{count(there.rows, 'row')} of run {there.run_id}, published {moment(there.published_at)}")
        )
    return lines


def _notes(plan: RunPlan) -> list[tuple[str, str | Text]]:
    notes = [Text(note, style="bold red" if note.startswith(LATE) else "not dim") for note in plan.notes]
    return [line for note in notes for line in _wrapped("note", note)]


def _wrapped(name: str, said: Text) -> list[tuple[str, str | Text]]:
    """Words that nobody copies, in as many lines as the terminal's width makes of them."""
    out = console()
    room = max(out.width - _NAMES, 20)
    longest = max(map(cell_len, said.plain.split()), default=0)
    # An address that would fit into a line of its own is left whole there, so that it can be followed.
    lines = said.divide(_between_words(said.plain, room)) if room < longest <= out.width else said.wrap(out, room)
    for line in lines:
        line.rstrip()
    return [("" if number else name, line) for number, line in enumerate(lines)]


def _between_words(text: str, room: int) -> list[int]:
    """Where to break lines, so that only a word that is longer is wider than `room`."""
    breaks, start = [], 0
    for word in re.finditer(r"\S+", text):
        if word.start() > start and cell_len(text[start : word.end()]) > room:
            start = word.start()
            breaks.append(start)
    return breaks


def usd(amount: Decimal) -> str:
    """`0.0123 USD`, as `money.usd` has it."""
    return f"{money.usd(amount)} USD"


def show_reasons(reasons: Sequence[Reason], advice: Sequence[str]) -> None:
    """Why rows have no answer, a line for each of the most frequent reasons, and what to do next."""
    lines: list[tuple[str, str | Text]] = []
    for found in reasons:
        said = Text(f"{found.rows:,} {found.status}", style=_COLOURS.get(found.status, ""))
        said.append(f": {printable(found.reason or 'no reason given')}", style="not dim")
        lines += _wrapped("why", said)
    print_pairs([*lines, *(("next", command) for command in advice)])


def show_summary(summary: Summary) -> None:
    """Where a run stands, or how it ended."""
    counts = Text("  ").join(
        Text(f"{summary.counts[status]:,} {status}", style=_COLOURS[status])
        for status in STATUSES
        if summary.counts.get(status)
    )
    phases = ", ".join(f"{number} {phase}" for phase, number in sorted(summary.shards.items()))
    lines: list[tuple[str, str | Text]] = [
        ("job", f"{summary.job}, window {summary.window}"),
        ("run", f"{summary.run_id}, {summary.state}"),
        ("documents", f"{summary.documents:,}"),
        ("rows", counts if counts.plain else "none yet"),
        (
            "answers",
            f"{summary.answered:,} of {summary.requests:,} requests, {count(summary.batches, 'batch', 'batches')}",
        ),
        ("shards", phases or "none yet"),
        *_spared(summary),
        ("tokens", _tokens(summary)),
        *_machines(summary),
        ("cost", f"{_cost(summary)}, {summary.backend}, model {summary.model}"),
    ]
    if summary.finished:
        late = summary.finished - summary.deadline
        missed = f", {duration(late)} past the deadline" if late > 0 else ""
        lines.append(("took", duration(summary.finished - summary.started) + missed))
        lines.append(("results", place(summary.results)))
        lines.append(("ledger", place(summary.ledger)))
    else:
        lines.append(("deadline", moment(summary.deadline)))
    lines += [line for said in _waits(summary.waiting_for) for line in _wrapped("waits", Text(said, style="not dim"))]
    print_pairs(lines)


def _waits(waiting: Sequence[str]) -> list[str]:
    """What shards wait for; those that wait for room under the same cap are counted together."""
    shards: dict[str, list[str]] = {}
    for said in waiting:
        shards.setdefault(by_cap(said.partition(": ")[2]), []).append(said)
    return [each[0] if len(each) == 1 else f"{len(each):,} shards: {why}" for why, each in list(shards.items())[:3]]


def _spared(summary: Summary) -> list[tuple[str, str | Text]]:
    """Requests that were not asked, since their answers were there or on their way."""
    spared = []
    if summary.reused:
        spared.append(f"{count(summary.reused, 'answer')} from earlier runs, which saved {usd(summary.saved_usd)}")
    if summary.twins:
        spared.append(f"{count(summary.twins, 'request')} the same as another")
    return [("cached", "; ".join(spared))] if spared else []


def _tokens(summary: Summary) -> str:
    words = f"{summary.input_tokens:,} in, {summary.output_tokens:,} out"
    if summary.wasted_tokens:
        words += f", {summary.wasted_tokens:,} of them wasted"
    if summary.compute_seconds:
        words += f"; {count(summary.compute_seconds, 'CPU second')}"
    return words


def _machines(summary: Summary) -> list[tuple[str, str | Text]]:
    """Time of machines that are paid by the clock, and what of it bought no answer."""
    if not summary.machine_seconds:
        return []
    share = _share(Decimal(summary.wasted_seconds), Decimal(summary.machine_seconds))
    lost = f", {duration(summary.wasted_seconds)} ({share}) of it wasted" if summary.wasted_seconds else ", none wasted"
    return [("machines", duration(summary.machine_seconds) + lost)]


def _cost(summary: Summary) -> str:
    """What it came to; where time is paid, waste is no matter of tokens, and is told beside it."""
    if not is_priced(summary.price_id, summary.cost_usd):
        return _UNKNOWN
    said = usd(summary.cost_usd)
    if summary.machine_seconds and summary.wasted_usd:
        said += f", {usd(summary.wasted_usd)} ({_share(summary.wasted_usd, summary.cost_usd)}) of it wasted"
    return said


def _share(part: Decimal, whole: Decimal) -> str:
    """`46 %`, and never `0 %` or `100 %` for what is not quite that."""
    share = part * 100 / whole
    if 0 < share < 1:
        return "< 1 %"
    return "> 99 %" if 99 < share < 100 else f"{share:.0f} %"


def show_rows(rows: Sequence[Mapping[str, object]], *, key: str = "") -> None:
    """A few rows of results, under the document that they are about. `key` is the field that tells rows of a file."""
    out = console()
    document = None
    for row in rows:
        if row["document_id"] != document:
            document = row["document_id"]
            name = str(row["document_uri"]) + (f" · {row[key]}" if row.get(key) else "")
            out.print(Text(tail(printable(name), out.width), style="bold"), soft_wrap=True)
        line = Text(f"{row['operation']}: ", style="dim")
        status = str(row["status"])
        if status != "ok":
            line.append(f"{status} ", style=_COLOURS.get(status, ""))
        line.append(printable(_said(row)), style="not dim")
        for wrapped in line.wrap(out, out.width - 2):
            wrapped.rstrip()
            out.print(Text("  ").append_text(wrapped), soft_wrap=True)


def _said(row: Mapping[str, object]) -> str:
    confidence = row["confidence"]
    if row["label"] and isinstance(confidence, float):
        return f"{row['label']} ({confidence:.2f})"
    return str(row["output_text"] or row["label"] or row["output"] or row["status_reason"] or "")


def tail(text: str, longest: int) -> str:
    """The end of an address says more than its beginning."""
    return text if len(text) <= longest else f"…{text[1 - longest :]}"


def place(uri: str) -> str:
    """An address as a person would type it."""
    return unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri


def printable(text: str, longest: int = 600) -> str:
    """Text from a document, with what would steer a terminal made visible, and cut at `longest` characters."""
    safe = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return safe if len(safe) <= longest else f"{safe[:longest]}…"


def count(number: int, one: str, many: str | None = None) -> str:
    """`3 files`, `1 file`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Bytes for people, in powers of 1000."""
    if number < 1000:
        return f"{number} bytes"
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} bytes"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s`, `14 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def moment(seconds: float) -> str:
    """A time in UTC, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
