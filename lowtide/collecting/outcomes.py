"""What became of each record of a shard, over all attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from lowtide.events import Tally
from lowtide.ids import ordinal_of
from lowtide.operations import Operation, Output
from lowtide.protocols import Backend
from lowtide.records import Answer


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


_SCHEMA = pa.schema(
    [
        ("ordinal", pa.int32()),
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


class Outcomes:
    """The outcomes of one shard by ordinal; None where no attempt has said anything yet.

    `checks[i]` is the start of the content hash of the i-th readable document, which its record ids must carry.
    """

    def __init__(self, checks: Sequence[str], operations: Sequence[Operation]) -> None:
        self._checks = checks
        self._operations = operations
        self.records: list[Outcome | None] = [None] * (len(checks) * len(operations))
        self.tallies: Counter[tuple[str, str]] = Counter()
        self.malformed = 0

    def collect(self, backend: Backend, lines: Iterable[bytes], attempt: int) -> None:
        """Take in one attempt's output lines, in any order. A second answer for a record counts as waste.

        The very same answer twice is the delivery's doing, not a second call, and counts as nothing.
        """
        parse, checks, width = backend.parse, self._checks, len(self._operations)
        validators = [operation.validate for operation in self._operations]
        before, records = self.records, list(self.records)
        total = len(records)
        repeated: dict[int, Answer] = {}
        fresh: list[Answer | None] = [None] * total
        kept: list[tuple[int, int, int, int]] = []
        invalid: list[Answer] = []
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
            record = answer.record_id
            ordinal = ordinal_of(record)
            if not 0 <= ordinal < total or checks[ordinal // width] != record[9:]:
                self._waste(answer, "duplicate")
                continue
            if fresh[ordinal] is not None:
                if fresh[ordinal] != answer and repeated.get(ordinal) != answer:
                    repeated[ordinal] = answer
                    self._waste(answer, "duplicate")
                continue
            fresh[ordinal] = answer
            if answer.status == "ok":
                verdict = validators[ordinal % width](answer.text)
                if isinstance(verdict, Output):
                    kept.append((answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.reasoning_tokens))
                    records[ordinal] = Outcome(
                        "ok",
                        None,
                        verdict.text or None,
                        verdict.document or None,
                        verdict.label,
                        verdict.confidence,
                        verdict.language,
                        answer.input_tokens,
                        answer.output_tokens,
                        answer.cached_tokens,
                        answer.reasoning_tokens,
                        answer.answered_at,
                        attempt,
                        False,
                    )
                else:
                    invalid.append(answer)
                    records[ordinal] = _without_output("invalid", verdict.reason, answer.text, answer, attempt, True)
            elif answer.status == "refused":
                kept.append((answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.reasoning_tokens))
                records[ordinal] = _without_output("refused", answer.error, answer.text or None, answer, attempt, False)
            else:
                self._waste(answer, "expired" if answer.status == "unanswered" else "retried")
                status, again = answer.status, answer.status == "unanswered" or answer.retryable
                records[ordinal] = _without_output(status, answer.error, None, answer, attempt, again)
        for answer in invalid:
            self._waste(answer, "invalid")
        if kept:
            tokens = [sum(column) for column in zip(*kept, strict=True)]
            self._count(tokens[0], tokens[1], tokens[2], tokens[3], "")
        self.records = [_sum(old, new) for old, new in zip(before, records, strict=True)] if any(before) else records

    def remaining(self, asked: Iterable[int]) -> list[int]:
        """Of the records that an attempt asked, those that may be asked again."""
        records = self.records
        return [at for at in asked if (outcome := records[at]) is None or outcome.retryable]

    def counts(self, asked: Iterable[int]) -> dict[str, int]:
        """How many of the attempt's records came to which end."""
        records = self.records
        return dict(Counter(outcome.status if (outcome := records[at]) else "unanswered" for at in asked))

    def tally(self) -> tuple[Tally, ...]:
        """Tokens counted so far, one entry for each type and kind of waste."""
        return tuple(
            Tally(token_type, quantity, waste) for (token_type, waste), quantity in sorted(self.tallies.items()) if quantity
        )

    def save(self, out: BinaryIO) -> None:
        """Store the outcomes, so that the next attempt's can be joined to them."""
        known = [(at, *outcome) for at, outcome in enumerate(self.records) if outcome is not None]
        columns = list(zip(*known, strict=True)) if known else [()] * len(_SCHEMA)
        arrays = [pa.array(values, kind.type) for values, kind in zip(columns, _SCHEMA, strict=True)]
        with pa.ipc.new_file(out, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(pa.table(arrays, schema=_SCHEMA))

    def load(self, source: BinaryIO) -> None:
        """Read what `save` has stored."""
        table = pa.ipc.open_file(source).read_all()
        columns = [column.to_pylist() for column in table.columns]
        for at, *values in zip(*columns, strict=True):
            self.records[at] = Outcome(*values)

    def _waste(self, answer: Answer, waste: str) -> None:
        self._count(answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.reasoning_tokens, waste)

    def _count(self, input_tokens: int, output_tokens: int, cached: int, reasoning: int, waste: str) -> None:
        self.tallies["input", waste] += input_tokens - cached
        self.tallies["cached_input", waste] += cached
        self.tallies["output", waste] += output_tokens - reasoning
        self.tallies["reasoning", waste] += reasoning


def _without_output(
    status: str, reason: str, text: str | None, answer: Answer, attempt: int, retryable: bool
) -> Outcome:
    return Outcome(
        status,
        reason or None,
        text,
        None,
        None,
        None,
        None,
        answer.input_tokens,
        answer.output_tokens,
        answer.cached_tokens,
        answer.reasoning_tokens,
        answer.answered_at,
        attempt,
        retryable,
    )


def _sum(old: Outcome | None, new: Outcome | None) -> Outcome | None:
    """The later attempt's word, and the tokens of both."""
    if old is None or new is None or old is new:
        return new or old
    return new._replace(
        input_tokens=old.input_tokens + new.input_tokens,
        output_tokens=old.output_tokens + new.output_tokens,
        cached_tokens=old.cached_tokens + new.cached_tokens,
        reasoning_tokens=old.reasoning_tokens + new.reasoning_tokens,
    )


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream of bytes, without their ends. Only `\\n` ends a line: U+2028 may stand inside a JSON string."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest
