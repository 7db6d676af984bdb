"""The columns that a shard's outcomes are kept in, from answers and from one attempt to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lowtide.operations import Invalid, Output
from lowtide.prices import Price
from lowtide.records import Answer
from lowtide.sharding.strings import string_array

LOST = "answered and charged by the provider, and its answer cannot be read or found: not asked again"
"""The reason of a record that was paid for in vain. Only who asks for it has it asked, and pays for it, again."""


class Outcome(NamedTuple):
    """One record. `status` is ok, invalid, refused, error or unanswered; `retryable` says that asking again may help.

    Tokens, and `cost` in 1e-12 USD, are summed over the attempts so far; `attempt` is the last one that said
    anything of the record. `lost` says that its answer was charged, and was not to be had.
    """

    status: str
    reason: str | None
    text: str | None
    document: str | None
    label: str | None
    confidence: float | None
    language: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    answered_at: float
    attempt: int
    retryable: bool
    lost: bool
    cost: int


SCHEMA = pa.schema(
    [
        ("status", pa.string()),
        ("reason", pa.string()),
        ("text", pa.string()),
        ("document", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float64()),
        ("language", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("answered_at", pa.float64()),
        ("attempt", pa.int32()),
        ("retryable", pa.bool_()),
        ("lost", pa.bool_()),
        ("cost", pa.int64()),
    ]
)
"""The columns of `Outcomes.table`: those of Outcome."""

TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_SUMMED = (*TOKENS, "cost")
_FROM_ANSWER = ("status", *TOKENS, "answered_at")
_FROM_OUTPUT = ("label", "confidence", "language")


def outcome_table(
    answers: Sequence[Answer], outputs: Sequence[Output], invalid: dict[int, Invalid], attempt: int, price: Price
) -> pa.Table:
    """Rows of SCHEMA. Whole columns first, as if all were well; then those records that are not."""
    total = len(answers)
    columns: dict[str, list[object]] = {name: list(map(attrgetter(name), answers)) for name in _FROM_ANSWER}
    columns |= {name: list(map(attrgetter(name), outputs)) for name in _FROM_OUTPUT}
    columns["text"] = [output.text or None for output in outputs]
    columns["document"] = [output.document or None for output in outputs]
    columns["reason"] = [None] * total
    columns["attempt"] = [attempt] * total
    columns["retryable"] = [False] * total
    columns["lost"] = [False] * total
    tokens = {name: np.asarray(columns[name], dtype=np.int64) for name in TOKENS}
    columns["cost"] = cost_of(tokens, price).tolist()
    for at, verdict in invalid.items():
        columns["status"][at] = "invalid"
        columns["reason"][at] = verdict.reason or None
        columns["text"][at] = answers[at].text
        columns["retryable"][at] = True
    for at, answer in enumerate(answers):
        if answer.status == "ok":
            continue
        columns["reason"][at] = answer.error or None
        columns["retryable"][at] = answer.status == "unanswered" or (answer.status == "error" and answer.retryable)
        if answer.status == "refused":
            columns["text"][at] = answer.text or None
    return pa.table([_array(columns[column.name], column.type) for column in SCHEMA], schema=SCHEMA)


def cost_of(counted: Mapping[str, npt.NDArray[np.int64]], price: Price) -> npt.NDArray[np.int64]:
    """What each answer costs, in 1e-12 USD, from columns of its TOKENS."""
    cached, reasoning = counted["cached_tokens"], counted["reasoning_tokens"]
    cost = (counted["input_tokens"] - cached) * price.pico("input") + cached * price.pico("cached_input")
    return cost + (counted["output_tokens"] - reasoning) * price.pico("output") + reasoning * price.pico("reasoning")


def _array(values: list[object], kind: pa.DataType) -> pa.Array:
    return string_array(values) if kind == pa.string() else pa.array(values, kind)  # type: ignore[arg-type]  # as SCHEMA says


def merged(old: pa.Table, new: pa.Table) -> pa.Table:
    """The later attempt's word on each record that it has said something of, and the tokens of both.

    An answer that was not valid is kept, with its text, where the later attempt has brought no answer at all.
    """
    said = pc.is_valid(new["status"])
    nothing = pc.and_(pc.is_in(new["status"], pa.array(["unanswered", "error"])), pc.fill_null(new["retryable"], False))
    kept = pc.and_(pc.equal(pc.fill_null(old["status"], ""), "invalid"), nothing)
    word = pc.and_not(said, kept)
    columns = []
    for column in SCHEMA:
        later = new[column.name]
        if column.name in _SUMMED:
            later = pc.add(later, pc.fill_null(old[column.name], 0))
        counted = column.name in _SUMMED or column.name == "attempt"
        columns.append(pc.if_else(said if counted else word, later, old[column.name]))
    return pa.table(columns, schema=SCHEMA)
