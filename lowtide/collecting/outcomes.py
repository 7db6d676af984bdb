"""What became of each record of a shard, over all attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lowtide import ids
from lowtide.events import Tally
from lowtide.operations import Invalid, Operation, Output
from lowtide.protocols import Backend
from lowtide.records import Answer
from lowtide.sharding.strings import string_array


class Outcome(NamedTuple):
    """One record. `status` is ok, invalid, refused, error or unanswered; `retryable` says that asking again may help.

    Tokens are summed over the attempts so far; `attempt` is the last one that included the record.
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
    ]
)
"""The columns of `Outcomes.table`: those of Outcome."""

_STORED = pa.schema([("ordinal", pa.int32()), *SCHEMA])
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_FROM_ANSWER = ("status", *_TOKENS, "answered_at")
_FROM_OUTPUT = ("label", "confidence", "language")
_NOBODY = Answer("", "unanswered")
"""Stands where no answer has come. Told apart by identity: a provider may well say `unanswered` itself."""
_NOTHING = Output()


class Outcomes:
    """The outcomes of one shard by ordinal, as columns: a Python object for each would cost more than the parsing.

    `checks[i]` is the start of the content hash of the i-th readable document, which its record ids must carry.
    """

    def __init__(self, checks: Sequence[str], operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._total = len(checks) * len(operations)
        self._checks = checks
        self._table: pa.Table | None = None
        self.tallies: Counter[tuple[str, str]] = Counter()
        self.malformed = 0

    @property
    def table(self) -> pa.Table:
        """A row for each record, in the order of the ordinals; `status` is null where no attempt has said anything."""
        if self._table is None:
            return pa.table([pa.nulls(self._total, column.type) for column in SCHEMA], schema=SCHEMA)
        return self._table

    @property
    def records(self) -> list[Outcome | None]:
        """The same as one object a record, None where no attempt has said anything yet."""
        columns = [column.to_pylist() for column in self.table.columns]
        return [None if row[0] is None else Outcome(*row) for row in zip(*columns, strict=True)]

    def collect(self, backend: Backend, lines: Iterable[bytes], attempt: int) -> None:
        """Take in one attempt's output lines, in any order. A second answer for a record counts as waste.

        The very same answer twice is the delivery's doing, not a second call, and counts as nothing.
        """
        answers = self._answers(backend, lines)
        outputs: list[Output] = [_NOTHING] * self._total
        invalid: dict[int, Invalid] = {}
        width = len(self._operations)
        for offset, operation in enumerate(self._operations):
            validate = operation.validate
            for at in range(offset, self._total, width):
                answer = answers[at]
                if answer.status == "ok":
                    verdict = validate(answer.text)
                    if isinstance(verdict, Output):
                        outputs[at] = verdict
                    else:
                        invalid[at] = verdict
        self._count_tokens(answers, invalid)
        fresh = _table(answers, outputs, invalid, attempt)
        self._table = fresh if self._table is None else _merged(self._table, fresh)

    def remaining(self, asked: Iterable[int]) -> list[int]:
        """Of the records that an attempt asked, those that may be asked again."""
        table = self.table
        open_ones = pc.or_(pc.is_null(table["status"]), pc.fill_null(table["retryable"], fill_value=True))
        if not pc.any(open_ones, min_count=0).as_py():
            return []
        again = open_ones.to_pylist()
        return [at for at in asked if again[at]]

    def counts(self, asked: Iterable[int]) -> dict[str, int]:
        """How many of the attempt's records came to which end."""
        statuses: list[str] = pc.fill_null(self.table["status"], "unanswered").to_pylist()
        return dict(Counter(map(statuses.__getitem__, asked)))

    def tally(self) -> tuple[Tally, ...]:
        """Tokens counted so far, one entry for each type and kind of waste."""
        return tuple(
            Tally(token_type, quantity, waste)
            for (token_type, waste), quantity in sorted(self.tallies.items())
            if quantity
        )

    def save(self, out: BinaryIO) -> None:
        """Store the outcomes, so that the next attempt's can be joined to them."""
        ordinals = pa.array(np.arange(self._total, dtype=np.int32))
        table = self.table.add_column(0, "ordinal", ordinals)
        known = table.filter(pc.is_valid(table["status"]))
        with pa.ipc.new_file(out, _STORED, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(known)

    def load(self, source: BinaryIO) -> None:
        """Read what `save` has stored."""
        known = pa.ipc.open_file(source).read_all()
        places = np.full(self._total, -1, dtype=np.int64)
        places[known["ordinal"].to_numpy()] = np.arange(len(known))
        self._table = known.drop_columns("ordinal").take(pa.array(places, mask=places < 0))

    def _answers(self, backend: Backend, lines: Iterable[bytes]) -> list[Answer]:
        """This attempt's answers by ordinal."""
        parse, width = backend.parse, len(self._operations)
        ordinals = {ids.record_id(at, self._checks[at // width]): at for at in range(self._total)}
        answers = [_NOBODY] * self._total
        repeated: dict[int, Answer] = {}
        for line in lines:
            if not line:
                continue
            try:
                answer = parse(line)
            except ValueError:
                self.malformed += 1
                continue
            if answer is None:
                continue
            at = ordinals.get(answer.record_id)
            if at is None:
                self._count(answer, "duplicate")
            elif answers[at] is _NOBODY:
                answers[at] = answer
            elif answers[at] != answer and repeated.get(at) != answer:
                repeated[at] = answer
                self._count(answer, "duplicate")
        return answers

    def _count_tokens(self, answers: Sequence[Answer], invalid: Iterable[int]) -> None:
        """Put every answer's tokens where they belong: those of all of them together first, then what was waste."""
        sums = {name: sum(map(attrgetter(name), answers)) for name in _TOKENS}
        self._count(Answer("", "ok", **sums), "")
        for at in invalid:
            self._move(answers[at], "invalid")
        for answer in answers:
            if answer.status == "error":
                self._move(answer, "retried")
            elif answer.status == "unanswered":
                self._move(answer, "expired")

    def _move(self, answer: Answer, waste: str) -> None:
        self._count(answer, "", -1)
        self._count(answer, waste)

    def _count(self, answer: Answer, waste: str, sign: int = 1) -> None:
        tallies = self.tallies
        tallies["input", waste] += sign * (answer.input_tokens - answer.cached_tokens)
        tallies["cached_input", waste] += sign * answer.cached_tokens
        tallies["output", waste] += sign * (answer.output_tokens - answer.reasoning_tokens)
        tallies["reasoning", waste] += sign * answer.reasoning_tokens


def _table(answers: Sequence[Answer], outputs: Sequence[Output], invalid: dict[int, Invalid], attempt: int) -> pa.Table:
    """One attempt's outcomes. Whole columns first, as if all were well; then those records that are not."""
    total = len(answers)
    columns: dict[str, list[object]] = {name: list(map(attrgetter(name), answers)) for name in _FROM_ANSWER}
    columns |= {name: list(map(attrgetter(name), outputs)) for name in _FROM_OUTPUT}
    columns["text"] = [output.text or None for output in outputs]
    columns["document"] = [output.document or None for output in outputs]
    columns["reason"] = [None] * total
    columns["attempt"] = [attempt] * total
    columns["retryable"] = [False] * total
    for at, verdict in invalid.items():
        columns["status"][at] = "invalid"
        columns["reason"][at] = verdict.reason or None
        columns["text"][at] = answers[at].text
        columns["retryable"][at] = True
    for at, answer in enumerate(answers):
        if answer.status == "ok":
            continue
        if answer is _NOBODY:
            columns["status"][at], columns["attempt"][at] = None, 0
            continue
        columns["reason"][at] = answer.error or None
        columns["retryable"][at] = answer.status == "unanswered" or (answer.status == "error" and answer.retryable)
        if answer.status == "refused":
            columns["text"][at] = answer.text or None
    return pa.table([_array(columns[column.name], column.type) for column in SCHEMA], schema=SCHEMA)


def _array(values: list[object], kind: pa.DataType) -> pa.Array:
    return string_array(values) if kind == pa.string() else pa.array(values, kind)  # type: ignore[arg-type]  # as SCHEMA says


def _merged(old: pa.Table, new: pa.Table) -> pa.Table:
    """The later attempt's word on each record that it has said something of, and the tokens of both."""
    said = pc.is_valid(new["status"])
    columns = []
    for column in SCHEMA:
        later = new[column.name]
        if column.name in _TOKENS:
            later = pc.add(later, pc.fill_null(old[column.name], 0))
        columns.append(pc.if_else(said, later, old[column.name]))
    return pa.table(columns, schema=SCHEMA)


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream of bytes, without their ends. Only `\\n` ends one: U+2028 may stand in a JSON string."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest
