"""Results and ledger as figures: rows by status, labels by operation, tokens by type."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from lowtide.report.charts import Series, stacked
from lowtide.report.ledger import COMPUTE, TOKEN_TYPES, Ledger, Use
from lowtide.report.results import Operation, Results
from lowtide.report.text import amounts, count, percent, plural, visible
from lowtide.report.views import Bars, Cell, Segment, Strip, Table, number, paid, table, words
from lowtide.schemas import STATUSES

LABEL_BARS = 15
_TABLE_ROWS = 200
_REASONS = 10
WASTE = {
    "lost": "charged, and the answer is lost",
    "expired": "expired before an answer",
    "invalid": "answer did not fit the schema",
    "duplicate": "answered twice",
    "retried": "asked again",
    "preempted": "machine was taken back",
    "idle": "machine stood idle",
    "boot": "machine was starting",
}
_KINDS_NOTE = "Only actual is what was charged: nothing else is added to it."
TYPES = {
    "input": "input",
    "cached_input": "cached input",
    "cache_write": "cache write",
    "output": "output",
    "reasoning": "reasoning",
    COMPUTE: "compute",
}


def status_strip(results: Results) -> Strip:
    """How many rows are ok, and how many are not; the table breaks it down by operation."""
    counted = _by_status(results.statuses.ranked())
    series = [Series(role(status), status, [rows], [f"{status}: {plural(rows, 'row')}"]) for status, rows in counted]
    said = "Rows by status: " + ", ".join(f"{status} {count(rows)}" for status, rows in counted)
    marks = stacked(series, float(results.rows), horizontal=True, gap=0, label=said)
    segments = [
        Segment(role(status), words(status, 30).text, number(rows), percent(rows, results.rows))
        for status, rows in counted
    ]
    heads = ["Operation", *(words(status, 30).text for status, _ in counted), "All"]
    body = [
        [words(operation.name), *(number(operation.statuses.get(status)) for status, _ in counted), _all(operation)]
        for operation in sorted(results.operations.values(), key=lambda one: one.name)
    ]
    return Strip(marks, tuple(segments), table(heads, body))


def label_bars(operation: Operation) -> Bars:
    """The most frequent labels of one operation, the rest of them counted together."""
    ranked = [(label, rows) for label, rows in operation.labels.ranked() if label is not None]
    beyond, without = operation.labels.beyond, operation.labels.get(None)
    whole = operation.labels.total
    shown, rest = ranked[:LABEL_BARS], ranked[LABEL_BARS:]
    bars = [("label", words(label, 48), rows) for label, rows in shown]
    if rest or beyond:
        said = f"{plural(len(rest), 'other label')}" if not beyond else "all other labels"
        bars.append(("rest", Cell(said), sum(rows for _, rows in rest) + beyond))
    if without:
        bars.append(("none", Cell("no label"), without))
    titles = [f"{name.title or name.text}: {plural(rows, 'row')}" for _, name, rows in bars]
    series = [
        Series(kind, kind, [rows if mine == kind else 0 for mine, _, rows in bars], titles)
        for kind in ("label", "none")
    ]
    # The labels that are counted together get no bar: theirs would be the longest, and say the least.
    top = float(max((rows for kind, _, rows in bars if kind != "rest"), default=1))
    said = f"{plural(len(ranked), 'label')} over {plural(whole, 'row')}"
    if ranked:
        said += f"; the most frequent is “{words(ranked[0][0] or '', 48).text}” with {percent(ranked[0][1], whole)}"
    body = [[words(label or "", 200), number(rows), Cell(percent(rows, whole), number=True)] for label, rows in ranked]
    if without:
        body.append([Cell("no label"), number(without), Cell(percent(without, whole), number=True)])
    return Bars(
        title=visible(operation.name),
        summary=said + ".",
        marks=stacked(series, top, horizontal=True, gap=0.34, label=said),
        names=tuple(name for _, name, _ in bars),
        counts=tuple(Cell(count(rows), str(rows), True, percent(rows, whole)) for _, _, rows in bars),
        table=_cut(["Label", "Rows", "Share"], body, len(ranked)),
    )


def reasons(results: Results) -> Table | None:
    """Why rows are not ok: the most frequent reasons; None if all rows are."""
    ranked = [(key, rows) for key, rows in results.reasons.ranked() if key[0] != "ok"]
    if not ranked:
        return None
    body = [
        [words(status, 30), words(reason or "no reason given", 160), number(rows)]
        for (status, reason), rows in ranked[:_REASONS]
    ]
    left = sum(rows for _, rows in ranked[_REASONS:]) + results.reasons.beyond
    note = f"{plural(left, 'more row')} for other reasons." if left else ""
    return table(["Status", "Reason", "Rows"], body, note)


def token_strip(ledger: Ledger) -> Strip | None:
    """What the provider processed, by type, with waste apart; None if no token was."""
    whole = ledger.tokens()
    if not whole:
        return None
    parts = [(kind, sum(_useful(ledger, kind))) for kind in TOKEN_TYPES]
    wasted = ledger.tokens(wasted=True)
    parts += [("other", whole - wasted - sum(tokens for _, tokens in parts)), ("waste", wasted)]
    parts = [(kind, tokens) for kind, tokens in parts if tokens or kind == "waste"]
    named = [(kind, TYPES.get(kind, kind), tokens) for kind, tokens in parts]
    series = [Series(kind, name, [tokens], [f"{name}: {plural(tokens, 'token')}"]) for kind, name, tokens in named]
    said = "Tokens by type: " + ", ".join(f"{name} {count(tokens)}" for _, name, tokens in named)
    segments = [Segment(kind, name, number(tokens), percent(tokens, whole)) for kind, name, tokens in named]
    marks = stacked(series, float(whole), horizontal=True, gap=0, label=said)
    return Strip(marks, tuple(segments), use_table(ledger))


def use_table(ledger: Ledger) -> Table:
    """Everything of kind `actual`, by token type and purpose: what adds up to the provider's bill."""
    ordered = sorted(ledger.uses.items(), key=lambda item: (bool(item[0][1]), _order(item[0][0]), item[0]))
    body = [
        [
            words(TYPES.get(token_type, token_type)),
            words(f"waste: {WASTE.get(waste, waste)}" if waste else "answers kept"),
            number(use.quantity),
            words(use.unit or ("seconds" if token_type == COMPUTE else "tokens")),
            paid(use.cost, use.unknown),
        ]
        for (token_type, waste), use in ordered
    ]
    return _cut(["Type", "Purpose", "Quantity", "Unit", "Cost"], body, len(body))


def kinds_table(ledger: Ledger) -> Table:
    """Every kind of ledger entry, estimates and reservations included."""
    known = ("estimate", "reserved", "released", "actual", "saved", "billed", "correction")
    ordered = sorted(ledger.kinds.items(), key=lambda item: (known.index(item[0]) if item[0] in known else 9, item[0]))
    body = [[words(kind or "no kind"), number(use.entries), paid(use.cost, use.unknown)] for kind, use in ordered]
    return _cut(["Kind", "Entries", "Amount"], body, len(body), note=_KINDS_NOTE)


def models_table(ledger: Ledger) -> Table:
    """What each backend and model processed and cost, the dearest first."""

    def weight(item: tuple[tuple[str, str], Use]) -> tuple[Decimal, int, tuple[str, str]]:
        return -max(item[1].cost.values(), default=Decimal(0)), -item[1].quantity, item[0]

    body = [
        [words(backend), words(model), number(use.quantity), paid(use.cost, use.unknown)]
        for (backend, model), use in sorted(ledger.models.items(), key=weight)
    ]
    return _cut(["Backend", "Model", "Tokens", "Cost"], body, len(body))


def waste_sentence(ledger: Ledger) -> str:
    """Tokens and machine time that bought nothing, in words; their cost, where it is known."""
    tokens, seconds = ledger.tokens(wasted=True), ledger.seconds(wasted=True)
    if not tokens and not seconds:
        return "No token and no machine second was wasted." if ledger.by_time else "No token was wasted."
    spent = [f"{plural(tokens, 'token')} ({percent(tokens, ledger.tokens())})"] if tokens else []
    spent += [f"{plural(seconds, 'machine second')} ({percent(seconds, ledger.seconds())})"] if seconds else []
    said = "" if tokens else "No token was wasted; "
    return visible(f"{said}{' and '.join(spent)} bought no answer that was kept{_lost(ledger)}.")


def _lost(ledger: Ledger) -> str:
    """What it has cost; of machines, whose seconds differ in price, also which part of the cost that is."""
    lost, cost = ledger.wasted_cost, ledger.cost
    if not any(lost.values()) and (ledger.unknown or ledger.by_time):
        return ""
    share = ""
    if ledger.by_time and len(cost) == 1 and any(cost.values()):
        share = f", {percent(sum(lost.values(), Decimal(0)), sum(cost.values(), Decimal(0)))} of the cost"
    return f": {amounts(lost)}{share}"


def _useful(ledger: Ledger, kind: str) -> list[int]:
    return [use.quantity for (token_type, waste), use in ledger.uses.items() if token_type == kind and not waste]


def _by_status(ranked: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    found = dict(ranked)
    known = [(status, found.pop(status)) for status in STATUSES if status in found]
    return [*known, *((status or "no status", rows) for status, rows in found.items())]


def _all(operation: Operation) -> Cell:
    return number(operation.statuses.total)


def role(status: str) -> str:
    """The CSS class of a status: one of a fixed set, whatever stands in the table."""
    return status if status in STATUSES else "other"


def _order(token_type: str) -> int:
    return TOKEN_TYPES.index(token_type) if token_type in TOKEN_TYPES else len(TOKEN_TYPES)


def _cut(columns: Sequence[str], rows: Sequence[Sequence[Cell]], whole: int, note: str = "") -> Table:
    left = whole - _TABLE_ROWS
    said = f"{count(left)} more not shown." if left > 0 else ""
    return table(columns, rows[:_TABLE_ROWS], f"{note} {said}".strip())
