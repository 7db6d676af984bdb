"""How plans, runs and rows look in a terminal. Everything fits 80 columns and reads well without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import unquote

from rich.console import Console
from rich.text import Text

from lowtide.cli.reasons import Reason
from lowtide.plan import RunPlan
from lowtide.schemas import STATUSES
from lowtide.summary import UNPRICED, Summary

UNKNOWN = "not known: no price in the job file"
_COLOURS = {"ok": "green", "skipped": "yellow", "invalid": "red", "refused": "red", "error": "red"}


def console() -> Console:
    """Standard output, at most 100 columns wide."""
    found = Console(highlight=False)
    return found if found.width <= 100 else Console(highlight=False, width=100)


def print_pairs(lines: Sequence[tuple[str, str | Text]]) -> None:
    """Names and values, a line each. Long values are left to the terminal to wrap, so that they can be copied whole."""
    out = console()
    for name, value in lines:
        line = Text(f"{name:<10} ", style="dim")
        line.append_text(value if isinstance(value, Text) else Text(value, style="not dim"))
        out.print(line, soft_wrap=True)


def show_plan(plan: RunPlan) -> None:
    """What a run would do."""
    questions = len(plan.operations)
    asked = ", ".join(op.name if op.name == op.kind else f"{op.name} ({op.kind})" for op in plan.operations)
    lines: list[tuple[str, str | Text]] = [
        ("job", f"{plan.job}, window {plan.window}"),
        ("run", plan.run_id),
        ("reads", f"{count(plan.files, 'file')}, {size(plan.bytes)}"),
        ("asks", f"{count(questions, 'operation')}: {asked}"),
        ("where", f"{plan.backend}, model {plan.model}"),
        ("tokens", f"about {plan.input_tokens:,} in, {plan.output_tokens:,} out"),
        ("cost", _planned_cost(plan)),
        ("deadline", moment(plan.deadline)),
    ]
    if plan.run_usd is not None:
        lines.append(("cap", f"{plan.run_usd:,} USD"))
    lines += [("note", note) for note in plan.notes]
    print_pairs(lines)


def _planned_cost(plan: RunPlan) -> str:
    if plan.price_id.endswith(UNPRICED) and not plan.cost_usd:
        return UNKNOWN
    return f"about {usd(plan.cost_usd)} (prices: {plan.price_id})"


def usd(amount: Decimal) -> str:
    """Four decimals, or as many as two digits of an amount need that would show as nothing."""
    decimals = 4 if not amount or amount.adjusted() >= -4 else 1 - amount.adjusted()
    return f"{amount:,.{decimals}f} USD"


def show_reasons(reasons: Sequence[Reason], advice: Sequence[str]) -> None:
    """Why rows have no answer, a line for each of the most frequent reasons, and what to do next."""
    room = max(console().width - 11, 20)
    lines: list[tuple[str, str | Text]] = []
    for found in reasons:
        said = Text(f"{found.rows:,} {found.status}", style=_COLOURS.get(found.status, ""))
        said.append(f": {printable(found.reason or 'no reason given')}", style="not dim")
        said.truncate(room, overflow="ellipsis")
        lines.append(("why", said))
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
        ("tokens", _tokens(summary)),
        ("cost", f"{usd(summary.cost_usd) if summary.priced else UNKNOWN}, {summary.backend}, model {summary.model}"),
    ]
    if summary.finished:
        late = summary.finished - summary.deadline
        missed = f", {duration(late)} past the deadline" if late > 0 else ""
        lines.append(("took", duration(summary.finished - summary.started) + missed))
        lines.append(("results", place(summary.results)))
        lines.append(("ledger", place(summary.ledger)))
    else:
        lines.append(("deadline", moment(summary.deadline)))
    lines += [("waits", reason) for reason in summary.waiting_for[:3]]
    print_pairs(lines)


def _tokens(summary: Summary) -> str:
    words = f"{summary.input_tokens:,} in, {summary.output_tokens:,} out"
    if summary.wasted_tokens:
        words += f", {summary.wasted_tokens:,} of them wasted"
    if summary.compute_seconds:
        words += f"; {count(summary.compute_seconds, 'CPU second')}"
    return words


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
