"""One row for each document and operation of a shard: the index and the outcomes, joined, priced and sorted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lowtide.collecting.columns import cost_of
from lowtide.collecting.outcomes import Outcomes
from lowtide.operations import Operation
from lowtide.prices import Price
from lowtide.schemas import MOMENT, MONEY
from lowtide.sharding.reuse import fields_of, one_line, request_keys

BATCH_ROWS = 256
"""Rows to a batch of a shard's rows file: the publisher reads whole batches, some of them twice."""

_FINAL = ("ok", "refused", "invalid")
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens")
_COUNTED = (*_TOKENS, "reasoning_tokens", "attempt", "answered_at", "cost")
_NONE, _ELSEWHERE = -1, -2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to write where no answer was kept: `error` and why, or `skipped` and why."""

    status: str
    reason: str


def build_rows(
    index: pa.Table,
    outcomes: Outcomes,
    *,
    operations: Sequence[Operation],
    requested_at: float,
    attempts: int,
    field_names: Sequence[str],
    leftover: Verdict,
    on_demand: Price | None = None,
) -> pa.Table:
    """The shard's rows, sorted by document and operation, with the columns of results that differ within a run.

    `op` is the operation's ordinal, `ordinal` the record's (-1 if it has none); `key_hi` and `key_lo` are what its
    request is known by. Requests that an earlier run has bought, or that another one of this run stands for, have their
    rows elsewhere. `requested_at` is in seconds since the epoch, 0 if nothing was asked; `attempts` is the last attempt
    that was made, which asked every record that is still open. A record without a final answer gets the verdict
    `leftover`. `on_demand` is the price that the same tokens would have cost in real time.
    """
    index = index.take(pc.sort_indices(index["document_id"]))
    width = len(operations)
    places = record_places(index, width)
    document, op = np.nonzero(places >= _NONE)
    ordinal = places[document, op]
    documents = pa.array(document)
    answers = outcomes.take(ordinal)
    readable = pa.array(ordinal >= 0)
    status, reason = _verdicts(answers, readable, index["reason"].take(documents), leftover)
    counted = {name: pc.fill_null(answers[name], 0).to_numpy() for name in _COUNTED}
    cost = counted["cost"]
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "op": pa.array(op.astype(np.int32)),
        "ordinal": pa.array(ordinal.astype(np.int32)),
    }
    for name in ("document_id", "document_uri", "document_modified", "content_sha256"):
        columns[name] = index[name].take(documents)
    columns |= {"status": status, "status_reason": reason}
    columns |= {"output_text": answers["text"], "output": answers["document"]}
    for name in ("label", "confidence", "language"):
        columns[name] = answers[name]
    for name in (*_TOKENS, "reasoning_tokens"):
        columns[name] = pa.array(counted[name])
    columns["cost_usd"] = money(cost)
    columns["cost_usd_float"] = pa.array(cost / 1e12)
    columns["cost_if_realtime_usd"] = realtime_cost(columns, on_demand)
    columns["cached"] = pa.array(np.zeros(len(op), dtype=np.bool_))
    open_ = pc.fill_null(answers["retryable"], fill_value=True).to_numpy() & (ordinal >= 0)
    columns["attempts"] = pa.array(np.where(open_, attempts, counted["attempt"]).astype(np.int32))
    asked = pa.scalar(int(requested_at * 1e6) if requested_at else None, pa.int64())
    columns["requested_at"] = pa.repeat(asked, len(op)).cast(MOMENT)
    columns["answered_at"] = _moments(counted["answered_at"])
    for name in field_names:
        columns[name] = index[f"field:{name}"].take(documents)
    columns |= _keys(index, operations, document, op, ordinal)
    return pa.table(columns)


def asked_of(index: pa.Table, operations: int) -> npt.NDArray[np.int64]:
    """The operations that each document of an index has a record of, as bits."""
    if "asked" in index.column_names:
        found: npt.NDArray[np.int64] = index["asked"].to_numpy()
        return found
    # An earlier version's: everything was asked of what could be read.
    return np.where(index["first"].to_numpy() >= 0, (1 << operations) - 1, 0)


def record_places(index: pa.Table, operations: int) -> npt.NDArray[np.int64]:
    """The ordinal of each document's record for each operation, as documents by operations.

    -1 where the document could not be read, -2 where the answer is to be had elsewhere.
    """
    bits = (asked_of(index, operations)[:, None] >> np.arange(operations)) & 1
    ordinals = index["first"].to_numpy()[:, None] + bits.cumsum(axis=1) - bits
    unread = pc.is_valid(index["reason"]).to_numpy()
    # Records of a document that was forgotten stay, and are nobody's rows.
    forgotten = pc.equal(index["document_id"], "").to_numpy()
    nothing = np.where(unread & ~forgotten, _NONE, _ELSEWHERE)
    return np.where((bits > 0) & ~forgotten[:, None], ordinals, nothing[:, None]).astype(np.int64)


def realtime_cost(columns: Mapping[str, pa.Array | pa.ChunkedArray], on_demand: Price | None) -> pa.Array:
    """What the rows' tokens would have cost in real time; null where that price is not known."""
    counted = {name: columns[name].to_numpy() for name in (*_TOKENS, "reasoning_tokens")}
    if on_demand is None:
        return pa.nulls(len(counted["input_tokens"]), MONEY)
    return money(cost_of(counted, on_demand))


def _keys(
    index: pa.Table,
    operations: Sequence[Operation],
    document: npt.NDArray[np.int64],
    op: npt.NDArray[np.int64],
    ordinal: npt.NDArray[np.int64],
) -> dict[str, pa.Array]:
    found = np.zeros((len(op), 2), dtype=np.uint64)
    having = np.flatnonzero(ordinal >= 0)
    for number, operation in enumerate(operations):
        rows = having[op[having] == number]
        places = pa.array(document[rows])
        sha256 = index["content_sha256"].take(places).to_pylist()
        fields = {
            name: list(map(one_line, index[f"field:{name}"].take(places).to_pylist())) for name in fields_of(operation)
        }
        if len(rows):
            found[rows] = request_keys(operation, sha256, fields)
    return {"key_hi": pa.array(found[:, 0]), "key_lo": pa.array(found[:, 1])}


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


def pico_of(amounts: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    """A column of decimal128(38, 12) that holds no nulls as whole steps of 1e-12 USD."""
    column = amounts.combine_chunks() if isinstance(amounts, pa.ChunkedArray) else amounts
    words = np.frombuffer(column.buffers()[1] or b"", dtype="<i8")
    start = 2 * column.offset
    # The lower half of each decimal: no row costs nine million dollars.
    return words[start : start + 2 * len(column) : 2].copy()


def _moments(seconds: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array((seconds * 1e6).astype(np.int64), mask=seconds == 0).cast(MOMENT)


def write_rows(rows: pa.Table, out: BinaryIO) -> None:
    """Store a shard's rows, to be read again in batches of BATCH_ROWS.

    Not compressed: they are read once, and LZ4 would cost more CPU than all the rest of the join.
    """
    with pa.ipc.new_file(out, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=BATCH_ROWS)
