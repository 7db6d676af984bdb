"""One row for each document and operation of a shard: the index and the outcomes, joined, priced and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lowtide.collecting.outcomes import Outcome, Outcomes
from lowtide.prices import Price
from lowtide.schemas import MOMENT, MONEY

BATCH_ROWS = 1024
"""Rows to a batch of a shard's rows file: what the publisher holds of each shard at a time."""

_NEVER = Outcome("unanswered", None, None, None, None, None, None, 0, 0, 0, 0, 0.0, 0, True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to write where no answer was kept: `error` and why, or `skipped` and why."""

    status: str
    reason: str


def build_rows(
    index: pa.Table,
    outcomes: Outcomes,
    *,
    operations: int,
    price: Price,
    requested_at: float,
    field_names: Sequence[str],
    leftover: Verdict,
) -> pa.Table:
    """The shard's rows, sorted by document and operation, with the columns of results that differ within a run.

    `op` is the operation's ordinal; `requested_at` is in seconds since the epoch, 0 if nothing was asked. A record without a final answer gets the verdict `leftover`.
    """
    index = index.take(pc.sort_indices(index["document_id"]))
    first = index["first"].to_numpy()
    op = np.tile(np.arange(operations, dtype=np.int8), len(first))
    ordinals = np.repeat(first, operations) + np.where(np.repeat(first, operations) >= 0, op, 0)
    documents = np.repeat(np.arange(len(first)), operations)
    reasons = index["reason"].to_pylist()
    records = outcomes.records
    skipped: dict[str | None, Outcome] = {}
    chosen: list[Outcome] = []
    for document, ordinal in zip(documents.tolist(), ordinals.tolist(), strict=True):
        if ordinal < 0:
            reason = reasons[document]
            if reason not in skipped:
                skipped[reason] = _NEVER._replace(status="skipped", reason=reason, retryable=False)
            chosen.append(skipped[reason])
        else:
            outcome = records[ordinal] or _NEVER
            chosen.append(outcome if outcome.status in _FINAL else _left(outcome, leftover))
    answers = _columns(chosen)
    cost = _cost(answers, price)
    documents_column = pa.array(documents)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"op": pa.array(op)}
    for name in ("document_id", "document_uri", "document_modified", "content_sha256"):
        columns[name] = index[name].take(documents_column)
    for name in ("status", "reason", "text", "document", "label", "confidence", "language"):
        columns[{"reason": "status_reason", "text": "output_text", "document": "output"}.get(name, name)] = answers[name]
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        columns[name] = answers[name]
    columns["cost_usd"] = money(cost)
    columns["cost_usd_float"] = pa.array(cost / 1e12)
    columns["attempts"] = answers["attempt"]
    asked = pa.scalar(int(requested_at * 1e6) if requested_at else None, pa.int64())
    columns["requested_at"] = pa.repeat(asked, len(op)).cast(MOMENT)
    columns["answered_at"] = _moments(answers["answered_at"])
    for name in field_names:
        columns[name] = index[f"field:{name}"].take(documents_column)
    return pa.table(columns)


_FINAL = frozenset({"ok", "refused", "invalid"})


def _left(outcome: Outcome, leftover: Verdict) -> Outcome:
    """A record that was never answered, or whose last answer was an error."""
    if outcome.status == "error" and (not outcome.retryable or leftover.status == "error"):
        return outcome
    reason = f"{leftover.reason}: {outcome.reason}" if outcome.reason else leftover.reason
    return outcome._replace(status=leftover.status, reason=reason)


def _columns(chosen: Sequence[Outcome]) -> dict[str, pa.Array]:
    types = {
        "confidence": pa.float64(),
        "input_tokens": pa.int64(),
        "output_tokens": pa.int64(),
        "cached_tokens": pa.int64(),
        "reasoning_tokens": pa.int64(),
        "answered_at": pa.float64(),
        "attempt": pa.int32(),
        "retryable": pa.bool_(),
    }
    values = list(zip(*chosen, strict=True)) if chosen else [()] * len(Outcome._fields)
    return {
        name: pa.array(column, types.get(name, pa.string())) for name, column in zip(Outcome._fields, values, strict=True)
    }


def _cost(answers: dict[str, pa.Array], price: Price) -> npt.NDArray[np.int64]:
    """What each row cost, in 1e-12 USD."""
    cached = answers["cached_tokens"].to_numpy()
    reasoning = answers["reasoning_tokens"].to_numpy()
    cost: npt.NDArray[np.int64] = (
        (answers["input_tokens"].to_numpy() - cached) * price.pico("input")
        + cached * price.pico("cached_input")
        + (answers["output_tokens"].to_numpy() - reasoning) * price.pico("output")
        + reasoning * price.pico("reasoning")
    )
    return cost


def money(pico: npt.NDArray[np.int64]) -> pa.Array:
    """Whole steps of 1e-12 USD as decimal128(38, 12), without a Python object for each."""
    words = np.empty((len(pico), 2), dtype="<i8")
    words[:, 0] = pico
    words[:, 1] = pico >> 63
    return pa.Array.from_buffers(MONEY, len(pico), [None, pa.py_buffer(words)])


def _moments(seconds: pa.Array) -> pa.Array:
    values = seconds.to_numpy()
    micros = (values * 1e6).astype(np.int64)
    return pa.array(micros, pa.int64(), mask=values == 0).cast(MOMENT)


def write_rows(rows: pa.Table, out: BinaryIO) -> None:
    """Store a shard's rows, to be read again in batches of BATCH_ROWS."""
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(out, rows.schema, options=options) as writer:
        writer.write_table(rows, max_chunksize=BATCH_ROWS)
