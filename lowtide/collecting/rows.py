"""One row for each document and operation of a shard: the index and the outcomes, joined, priced and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lowtide.collecting.outcomes import Outcomes
from lowtide.schemas import MOMENT, MONEY

BATCH_ROWS = 256
"""Rows to a batch of a shard's rows file: the publisher reads whole batches, some of them twice."""

_FINAL = ("ok", "refused", "invalid")
_COUNTED = ("input_tokens", "output_tokens", "cached_tokens", "attempt", "answered_at", "cost")


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
    requested_at: float,
    field_names: Sequence[str],
    leftover: Verdict,
) -> pa.Table:
    """The shard's rows, sorted by document and operation, with the columns of results that differ within a run.

    `op` is the operation's ordinal; `requested_at` is in seconds since the epoch, 0 if nothing was asked. A record
    without a final answer gets the verdict `leftover`.
    """
    index = index.take(pc.sort_indices(index["document_id"]))
    first = np.repeat(index["first"].to_numpy(), operations)
    op = np.tile(np.arange(operations, dtype=np.int32), len(index))
    documents = pa.array(np.repeat(np.arange(len(index)), operations))
    readable = first >= 0
    answers = outcomes.take(np.where(readable, first + op, -1))
    status, reason = _verdicts(answers, pa.array(readable), index["reason"].take(documents), leftover)
    counted = {name: pc.fill_null(answers[name], 0).to_numpy() for name in _COUNTED}
    cost = counted["cost"]
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"op": pa.array(op)}
    for name in ("document_id", "document_uri", "document_modified", "content_sha256"):
        columns[name] = index[name].take(documents)
    columns |= {"status": status, "status_reason": reason}
    columns |= {"output_text": answers["text"], "output": answers["document"]}
    for name in ("label", "confidence", "language"):
        columns[name] = answers[name]
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        columns[name] = pa.array(counted[name])
    columns["cost_usd"] = money(cost)
    columns["cost_usd_float"] = pa.array(cost / 1e12)
    columns["attempts"] = pa.array(counted["attempt"].astype(np.int32))
    asked = pa.scalar(int(requested_at * 1e6) if requested_at else None, pa.int64())
    columns["requested_at"] = pa.repeat(asked, len(op)).cast(MOMENT)
    columns["answered_at"] = _moments(counted["answered_at"])
    for name in field_names:
        columns[name] = index[f"field:{name}"].take(documents)
    return pa.table(columns)


def _verdicts(
    answers: pa.Table, readable: pa.Array, why_not: pa.ChunkedArray, leftover: Verdict
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Status and reason of each row: the answer's own if it is final, else `leftover`, or what kept it unreadable."""
    status, reason = answers["status"], answers["reason"]
    final = pc.is_in(status, value_set=pa.array(_FINAL))
    if pc.all(final, min_count=0).as_py():
        return status, reason
    stays = pc.fill_null(pc.equal(status, "error"), fill_value=False)
    if leftover.status != "error":
        stays = pc.and_(stays, pc.invert(pc.fill_null(answers["retryable"], fill_value=True)))
    left = pc.invert(pc.or_(final, stays))
    spelled = pc.if_else(
        pc.is_valid(reason),
        pc.binary_join_element_wise(leftover.reason, reason, ": ", null_handling="skip"),
        leftover.reason,
    )
    status = pc.if_else(left, leftover.status, status)
    reason = pc.if_else(left, spelled, reason)
    return pc.if_else(readable, status, "skipped"), pc.if_else(readable, reason, why_not)


def money(pico: npt.NDArray[np.int64]) -> pa.Array:
    """Whole steps of 1e-12 USD as decimal128(38, 12), without a Python object for each."""
    words = np.empty((len(pico), 2), dtype="<i8")
    words[:, 0] = pico
    words[:, 1] = pico >> 63
    return pa.Array.from_buffers(MONEY, len(pico), [None, pa.py_buffer(words)])


def _moments(seconds: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array((seconds * 1e6).astype(np.int64), mask=seconds == 0).cast(MOMENT)


def write_rows(rows: pa.Table, out: BinaryIO) -> None:
    """Store a shard's rows, to be read again in batches of BATCH_ROWS.

    Not compressed: they are read once, and LZ4 would cost more CPU than all the rest of the join.
    """
    with pa.ipc.new_file(out, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=BATCH_ROWS)
