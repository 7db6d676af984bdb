"""What the results table says: counts, labels, reasons, savings, and a few rows to look at."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from lowtide import money
from lowtide.refusals import FIGURES, UNASKED
from lowtide.report.parquet import Batch, TableReader, total
from lowtide.report.tally import Tally
from lowtide.report.text import aware
from lowtide.schemas import RESULT_COLUMNS, STATUSES

_COUNTED = (
    "run_id",
    "window_start",
    "window_end",
    "document_id",
    "operation",
    "operation_kind",
    "status",
    "status_reason",
    "label",
    "model",
    "backend",
    "cost_usd",
    "cost_if_realtime_usd",
    "cached",
)
_NAME = 200  # characters of a name, label or reason that are told apart
_COUNT_ROWS, _TEXT_ROWS = 8_192, 256
_GROUPS = 200
_FIELDS = 8
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One row to look at. Texts are cut to what the page shows of them."""

    document_uri: str
    operation: str
    status: str
    status_reason: str
    output: str
    label: str
    confidence: float | None
    model: str
    backend: str
    input_tokens: int | None
    output_tokens: int | None
    cost: Decimal | None
    cached: bool
    fields: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Operation:
    """The rows of one operation. `labels` counts None for rows without a label, `unasked` is for want of budget."""

    name: str
    kind: str = ""
    unasked: int = 0
    statuses: Tally[str] = field(default_factory=lambda: Tally(50))
    labels: Tally[str | None] = field(default_factory=Tally)

    @property
    def labelled(self) -> bool:
        """Whether labels mean something here."""
        return self.kind == "classify" or self.labels.total > self.labels.get(None)


@dataclass(slots=True)
class Results:
    """The results table in numbers. `realtime` and `batch` are sums over the rows that know what real time costs."""

    rows: int = 0
    statuses: Tally[str] = field(default_factory=lambda: Tally(50))
    operations: dict[str, Operation] = field(default_factory=dict)
    reasons: Tally[tuple[str, str]] = field(default_factory=Tally)
    answered_by: Tally[tuple[str, str]] = field(default_factory=lambda: Tally(50))
    run_ids: Tally[str] = field(default_factory=lambda: Tally(20))
    cost: Decimal = _NOTHING
    batch: Decimal = _NOTHING
    realtime: Decimal | None = None
    bought_earlier: int = 0
    window_start: datetime | None = None
    window_end: datetime | None = None
    samples: tuple[Sample, ...] = ()

    @property
    def unasked(self) -> int:
        """Rows that a cap kept from being asked."""
        return sum(operation.unasked for operation in self.operations.values())

    @property
    def unasked_documents(self) -> int:
        """Documents of which nothing was asked: a shard that does not fit a cap holds all questions about them."""
        return min((operation.unasked for operation in self.operations.values()), default=0)


def read_results(
    stream: BinaryIO, samples: int, characters: int, progress: Callable[[int, int], None] | None = None
) -> Results:
    """Read the table in two passes: numbers over narrow columns, then the texts of the rows that were drawn.

    At most `samples` rows are drawn, each text cut after `characters`. `progress` gets rows read and rows in all.
    """
    table = TableReader("results", stream)
    results, draw = Results(rows=table.rows), _Draw(samples)
    read = 0
    for batch in table.batches(_COUNTED, _COUNT_ROWS):
        _count(batch, results)
        draw.look_at(batch, read)
        read += batch.rows
        if progress:
            progress(read, table.rows)
    results.samples = _fetch(table, draw.rows(), characters)
    return results


def _count(batch: Batch, results: Results) -> None:
    names = {name: batch.text(name, _NAME) for name in ("operation", "operation_kind", "status", "label")}
    names |= {name: batch.text(name, _NAME) for name in ("status_reason", "model", "backend", "run_id")}
    capped = pc.and_kleene(
        pc.equal(names["status"], "skipped"), pc.match_substring_regex(names["status_reason"], UNASKED)
    )
    capped = pc.fill_null(capped, False)
    # Each shard's own figures would make a reason of its own of one and the same cap.
    plain = pc.replace_substring_regex(names["status_reason"], FIGURES, "")
    names["status_reason"] = pc.if_else(capped, plain, names["status_reason"])
    table = pa.table(names)
    for (name,), count in _grouped(table.filter(capped), "operation"):
        _operation(results, name or "").unasked += count
    for (kind, name, status), count in _grouped(table, "operation_kind", "operation", "status"):
        operation = _operation(results, name or "")
        operation.kind = operation.kind or kind or ""
        operation.statuses.add(status or "", count)
        results.statuses.add(status or "", count)
    for (name, label), count in _grouped(table, "operation", "label"):
        _operation(results, name or "").labels.add(label, count)
    for (status, reason), count in _grouped(table, "status", "status_reason"):
        if status != "ok" or reason:
            results.reasons.add((status or "", reason or ""), count)
    for (backend, model), count in _grouped(table, "backend", "model"):
        if backend or model:
            results.answered_by.add((backend or "", model or ""), count)
    for (run_id,), count in _grouped(table, "run_id"):
        results.run_ids.add(run_id or "", count)
    cost, realtime = batch.amount("cost_usd"), batch.amount("cost_if_realtime_usd")
    results.cost = money.total((results.cost, total(cost) or _NOTHING))
    compared = total(realtime)
    if compared is not None:
        results.realtime = money.total((results.realtime or _NOTHING, compared))
        results.batch = money.total((results.batch, total(pc.if_else(pc.is_valid(realtime), cost, None)) or _NOTHING))
    results.bought_earlier += pc.sum(batch.boolean("cached")).as_py() or 0
    if results.window_start is None and batch.rows:
        results.window_start = _time(batch.take([0]).values("window_start")[0])
        results.window_end = _time(batch.take([0]).values("window_end")[0])


def _grouped(table: pa.Table, *keys: str) -> list[tuple[tuple[str | None, ...], int]]:
    grouped = table.group_by(list(keys), use_threads=False).aggregate([([], "count_all")])
    names = zip(*(grouped.column(key).to_pylist() for key in keys), strict=True)
    return list(zip(names, grouped.column("count_all").to_pylist(), strict=True))


def _operation(results: Results, name: str) -> Operation:
    if name not in results.operations and len(results.operations) >= _GROUPS:
        name = "(further operations)"
    return results.operations.setdefault(name, Operation(name))


class _Draw:
    """Draws rows from all over the table, always the same: those of the lowest document ids, which are hashes.

    Operations take turns. Up to half of the rows are ones that are not ok, so that one among a million is seen.
    """

    def __init__(self, rows: int) -> None:
        self._wanted = rows
        self._best: dict[tuple[str, str], list[tuple[str, int]]] = {}

    def look_at(self, batch: Batch, offset: int) -> None:
        """Consider the rows of a batch that starts at this row of the table."""
        if not self._wanted:
            return
        ids = pc.fill_null(batch.text("document_id", 64), "")
        table = pa.table(
            {"operation": batch.text("operation", _NAME), "status": batch.text("status", _NAME), "id": ids}
        ).append_column("row", pa.array(range(offset, offset + batch.rows), pa.int64()))
        for (operation, status), _ in _grouped(table, "operation", "status"):
            key = (str(operation or ""), str(status or ""))
            if key not in self._best and len(self._best) >= _GROUPS:
                continue
            mine = table.filter(pc.and_(_equal(table, "operation", operation), _equal(table, "status", status)))
            lowest = mine.take(pc.select_k_unstable(mine, self._wanted, [("id", "ascending"), ("row", "ascending")]))
            found = zip(lowest.column("id").to_pylist(), lowest.column("row").to_pylist(), strict=True)
            self._best[key] = heapq.nsmallest(self._wanted, [*self._best.get(key, ()), *found])

    def rows(self) -> list[int]:
        """Positions in the table of the rows that were drawn."""
        pairs = sorted(self._best, key=lambda pair: (pair[0], _rank(pair[1])))
        good = self._turns([pair for pair in pairs if pair[1] == "ok"])
        bad = self._turns([pair for pair in pairs if pair[1] != "ok"])
        half = max(self._wanted // 2, self._wanted - len(good))
        return [*good[: self._wanted - len(bad[:half])], *bad[:half]]

    def _turns(self, pairs: list[tuple[str, str]]) -> list[int]:
        rows = [[row for _, row in self._best[pair]] for pair in pairs]
        return [column[turn] for turn in range(self._wanted) for column in rows if turn < len(column)]


def _equal(table: pa.Table, name: str, value: object) -> pa.Array:
    return pc.is_null(table[name]) if value is None else pc.fill_null(pc.equal(table[name], value), False)


def _rank(status: str) -> int:
    return STATUSES.index(status) if status in STATUSES else len(STATUSES)


def _fetch(table: TableReader, rows: list[int], characters: int) -> tuple[Sample, ...]:
    user_fields = [name for name in table.columns if name not in RESULT_COLUMNS][:_FIELDS]
    columns = [name for name in table.columns if name in RESULT_COLUMNS or name in user_fields]
    found: dict[int, Sample] = {}
    start, last = 0, max(rows, default=-1)
    for batch in table.batches(columns, _TEXT_ROWS) if rows else ():
        inside = sorted(row for row in rows if start <= row < start + batch.rows)
        if inside:
            chosen = _samples(batch.take([row - start for row in inside]), user_fields, characters)
            found.update(zip(inside, chosen, strict=True))
        start += batch.rows
        if start > last:
            break
    return tuple(sorted((found[row] for row in rows), key=lambda sample: (sample.operation, _rank(sample.status))))


def _samples(batch: Batch, user_fields: list[str], characters: int) -> list[Sample]:
    def texts(name: str, limit: int = characters) -> list[str]:
        return [value or "" for value in batch.text(name, limit + 1).to_pylist()]

    fields = {name: texts(name, _NAME) for name in user_fields}
    uris, operations, statuses = texts("document_uri"), texts("operation", _NAME), texts("status", _NAME)
    reasons, labels, models, backends = (texts(name, _NAME) for name in ("status_reason", "label", "model", "backend"))
    # The output of a classify operation says again what the label says.
    outputs = ["" if label else output for label, output in zip(labels, texts("output"), strict=True)]
    bodies = [text or output for text, output in zip(texts("output_text"), outputs, strict=True)]
    confidence = batch.values("confidence")
    costs = batch.amount("cost_usd").to_pylist()
    sent, received = (batch.integer(name).to_pylist() for name in ("input_tokens", "output_tokens"))
    cached = batch.boolean("cached").to_pylist()
    return [
        Sample(
            document_uri=uris[row],
            operation=operations[row],
            status=statuses[row],
            status_reason=reasons[row],
            output=bodies[row],
            label=labels[row],
            confidence=_number(confidence[row]),
            model=models[row],
            backend=backends[row],
            input_tokens=sent[row],
            output_tokens=received[row],
            cost=costs[row],
            cached=bool(cached[row]),
            fields=tuple((name, values[row]) for name, values in fields.items() if values[row]),
        )
        for row in range(batch.rows)
    ]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _time(value: object) -> datetime | None:
    return aware(value) if isinstance(value, datetime) else None
