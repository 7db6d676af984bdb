"""What became of each record of a shard, over all attempts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lowtide import ids
from lowtide.events import Tally
from lowtide.operations import Invalid, Operation, Output
from lowtide.prices import LOCAL, Price
from lowtide.protocols import Backend
from lowtide.records import Answer, Usage
from lowtide.sharding.strings import string_array

LOST = "answered and charged by the provider, and its answer cannot be read or found: not asked again"
"""The reason of a record that was paid for in vain. Only who asks for it has it asked, and pays for it, again."""


class Outcome(NamedTuple):
    """One record. `status` is ok, invalid, refused, error or unanswered; `retryable` says that asking again may help.

    Tokens, and `cost` in 1e-12 USD, are summed over the attempts so far; `attempt` is the last one that included the
    record. `lost` says that its answer was charged, and was not to be had.
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

_STORED = pa.schema([("ordinal", pa.int32()), *SCHEMA])
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_SUMMED = (*_TOKENS, "cost")
_FROM_ANSWER = ("status", *_TOKENS, "answered_at")
_FROM_OUTPUT = ("label", "confidence", "language")
_NOTHING = Output()
_RECORD = re.compile(rb"r[0-9]{7}x[0-9a-f]{8}")
_CHUNK = 1024
"""Answers that are Python objects at a time: so few that each uses the memory of the one before."""


class Outcomes:
    """The outcomes of one shard by ordinal, as columns: a Python object for each would cost more than the parsing.

    `checks[i]` is the start of the content hash of the i-th readable document, which its record ids must carry.
    """

    def __init__(self, checks: Sequence[str], operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._checks = checks
        self._total = len(checks) * len(operations)
        # Rows as they came, and where among them each ordinal's is: -1 if nowhere.
        self._rows = SCHEMA.empty_table()
        self._places = np.full(self._total, -1, dtype=np.int64)
        # What the attempt at hand has said something of, charged or not, and what only a broken line speaks of.
        self._heard = np.zeros(self._total, dtype=np.bool_)
        self._charged = 0
        self._torn: set[int] = set()
        self._given_up = False
        self._price = LOCAL
        self.tallies: Counter[tuple[str, str]] = Counter()
        self.malformed = 0

    @property
    def records(self) -> list[Outcome | None]:
        """Each record as an object, None where no attempt has said anything yet."""
        columns = [column.to_pylist() for column in self.take(np.arange(self._total)).columns]
        return [None if row[0] is None else Outcome(*row) for row in zip(*columns, strict=True)]

    def take(self, ordinals: npt.NDArray[np.int64], columns: Sequence[str] = SCHEMA.names) -> pa.Table:
        """A row of SCHEMA for each of these ordinals; all null for -1, and where no attempt has said anything."""
        places = np.append(self._places, -1)[ordinals]
        return self._rows.select(columns).take(pa.array(places, mask=places < 0))

    def collect(self, backend: Backend, lines: Iterable[bytes], attempt: int, price: Price = LOCAL) -> None:
        """Take in one attempt's output lines, in any order. A second answer for a record counts as waste.

        The very same answer twice is the delivery's doing, not a second call, and counts as nothing.
        """
        self._price = price
        places = np.full(self._total, -1, dtype=np.int64)
        tables = [SCHEMA.empty_table()]
        done = 0
        for ordinals, answers in self._answers(backend, lines):
            tables.append(self._judged(ordinals, answers, attempt))
            places[ordinals] = np.arange(done, done + len(ordinals))
            done += len(ordinals)
        self._heard = places >= 0
        before = self.take(np.arange(self._total)) if len(self._rows) else None
        self._rows, self._places = pa.concat_tables(tables), places
        if before is not None:
            self._rows = _merged(before, self.take(np.arange(self._total)))
            self._places = np.where(pc.is_valid(self._rows["status"]).to_numpy(), np.arange(self._total), -1)

    @property
    def heard(self) -> bool:
        """Whether the attempt at hand has said anything of any record, or given it up."""
        return bool(self._heard.any()) or self._given_up

    def find_lost(self, asked: Iterable[int], charged: int | None, *, completed: bool = False) -> list[int]:
        """Of the records that the attempt asked, those that were answered, as far as the provider says, in vain.

        `charged` is the number of records that it has answered, None if it does not say: then a `completed` batch is
        taken at its word. Where it is left open which of the records without a line were answered, all of them count as
        lost: none is ever paid twice.
        """
        unheard = [at for at in asked if not self._heard[at]]
        if charged is None:
            return unheard if completed else [at for at in unheard if at in self._torn]
        return unheard if charged > self._charged else []

    def give_up(self, lost: Sequence[int], attempt: int) -> None:
        """Settle what `find_lost` has found as errors that are not to be asked again."""
        if not lost:
            return
        self._given_up = True
        found = [Answer("", "error", error=LOST)] * len(lost)
        table = _table(found, [_NOTHING] * len(lost), {}, attempt, self._price)
        at = table.schema.get_field_index("lost")
        table = table.set_column(at, SCHEMA.field("lost"), pa.array([True] * len(lost)))
        places = np.full(self._total, -1, dtype=np.int64)
        places[list(lost)] = np.arange(len(lost))
        before = self.take(np.arange(self._total))
        self._rows, self._places = table, places
        self._rows = _merged(before, self.take(np.arange(self._total)))
        self._places = np.where(pc.is_valid(self._rows["status"]).to_numpy(), np.arange(self._total), -1)

    def reconcile(self, usage: Usage | None, waste: str = "lost") -> None:
        """Count as waste what the provider counts for the attempt's batch beyond what its lines do."""
        if usage is None:
            return
        known: Counter[str] = Counter()
        for (token_type, _), quantity in self.tallies.items():
            known[token_type] += quantity
        # Totals count; who gives no details has counted what they stand for as plain tokens.
        for plain, special, total, detail in (
            ("input", "cached_input", usage.input_tokens, usage.cached_tokens),
            ("output", "reasoning", usage.output_tokens, usage.reasoning_tokens),
        ):
            beyond = max(0, total - known[plain] - known[special])
            of_special = min(beyond, max(0, detail - known[special]))
            self.tallies[special, waste] += of_special
            self.tallies[plain, waste] += beyond - of_special

    def remaining(self, asked: Iterable[int], *, lost: bool = False) -> list[int]:
        """Of the records that an attempt asked, those that may be asked again; with `lost`, those paid in vain too."""
        table = self.take(np.arange(self._total), ["retryable", "lost"])
        again = pc.fill_null(table["retryable"], fill_value=True)
        if lost:
            again = pc.or_(again, pc.fill_null(table["lost"], fill_value=False))
        if not pc.any(again, min_count=0).as_py():
            return []
        wanted = again.to_pylist()
        return [at for at in asked if wanted[at]]

    def counts(self, asked: Iterable[int]) -> dict[str, int]:
        """How many of the attempt's records came to which end."""
        found = self.take(np.arange(self._total), ["status"])["status"]
        statuses: list[str] = pc.fill_null(found, "unanswered").to_pylist()
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
        known = np.flatnonzero(self._places >= 0)
        table = self.take(known).add_column(0, "ordinal", pa.array(known.astype(np.int32)))
        with pa.ipc.new_file(out, _STORED, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)

    def load(self, source: BinaryIO) -> None:
        """Read what `save` has stored."""
        table = pa.ipc.open_file(source).read_all()
        self._places[table["ordinal"].to_numpy()] = np.arange(len(table))
        stored = table.drop_columns("ordinal")
        for name, nothing in (("lost", False), ("cost", 0)):
            if name not in stored.column_names:  # an earlier version's
                stored = stored.append_column(
                    SCHEMA.field(name), pa.array([nothing] * len(stored), SCHEMA.field(name).type)
                )
        self._rows = stored.select(SCHEMA.names)

    def _torn_line(self, line: bytes) -> None:
        """Note which record a line speaks of that cannot be read, as far as that can be told."""
        self.malformed += 1
        found = _RECORD.search(line)
        record = found[0].decode() if found else ""
        at = ids.ordinal_of(record)
        if 0 <= at < self._total and ids.record_id(at, self._checks[at // len(self._operations)]) == record:
            self._torn.add(at)

    def _answers(self, backend: Backend, lines: Iterable[bytes]) -> Iterator[tuple[list[int], list[Answer]]]:
        """This attempt's answers, one for each record that has any, and their ordinals: some at a time."""
        parse, width = backend.parse, len(self._operations)
        # An answer that is final is not lost to one that nobody has asked for.
        open_ = self.remaining(range(self._total), lost=True)
        known = {ids.record_id(at, self._checks[at // width]): at for at in open_}
        # Hashes, and not the answers themselves, so that memory is theirs for a moment only.
        seen: list[int | None] = [None] * self._total
        weak = bytearray(self._total)
        repeated: set[tuple[int, int | None]] = set()
        ordinals: list[int] = []
        answers: list[Answer] = []
        for line in lines:
            if not line:
                continue
            try:
                answer = parse(line)
            except ValueError:
                self._torn_line(line)
                continue
            if answer is None:
                continue
            at = known.get(answer.record_id)
            if at is None:
                self.count(answer, "duplicate")
            elif seen[at] is None or (weak[at] and answer.status == "ok"):
                # An answer takes the place of an error that the same record had before it.
                repeated.add((at, seen[at]))
                seen[at] = hash(answer)
                weak[at] = answer.status in ("error", "unanswered")
                ordinals.append(at)
                answers.append(answer)
                if len(answers) == _CHUNK:
                    yield ordinals, answers
                    ordinals, answers = [], []
            elif seen[at] != hash(answer) and (at, hash(answer)) not in repeated:
                repeated.add((at, hash(answer)))
                self.count(answer, "duplicate")
        yield ordinals, answers

    def _judged(self, ordinals: Sequence[int], answers: Sequence[Answer], attempt: int) -> pa.Table:
        """The rows of these answers; their tokens are counted on the way."""
        validators = [operation.validate for operation in self._operations]
        width = len(validators)
        outputs = [_NOTHING] * len(answers)
        invalid: dict[int, Invalid] = {}
        for row, answer in enumerate(answers):
            if answer.status == "ok":
                verdict = validators[ordinals[row] % width](answer.text)
                if isinstance(verdict, Output):
                    outputs[row] = verdict
                else:
                    invalid[row] = verdict
        self._count_tokens(answers, invalid)
        self._charged += sum(answer.status == "ok" or answer.input_tokens > 0 for answer in answers)
        return _table(answers, outputs, invalid, attempt, self._price)

    def _count_tokens(self, answers: Sequence[Answer], invalid: Iterable[int]) -> None:
        """Put every answer's tokens where they belong: those of all of them together first, then what was waste."""
        self.count(Answer("", "ok", **{name: sum(map(attrgetter(name), answers)) for name in _TOKENS}), "")
        for row in invalid:
            self._move(answers[row], "invalid")
        for answer in answers:
            if answer.status == "error":
                self._move(answer, "retried" if answer.retryable else "invalid")
            elif answer.status == "unanswered":
                self._move(answer, "expired")

    def _move(self, answer: Answer, waste: str) -> None:
        self.count(answer, "", -1)
        self.count(answer, waste)

    def count(self, answer: Answer, waste: str, sign: int = 1) -> None:
        """Add one answer's tokens to the tallies."""
        for token_type, quantity in _by_type(answer):
            self.tallies[token_type, waste] += sign * quantity


def waste_of(backend: Backend, lines: Iterable[bytes], usage: Usage | None, waste: str) -> tuple[Tally, ...]:
    """All tokens of a batch whose answers nobody wants, as waste of one kind."""
    outcomes = Outcomes((), ())
    seen: set[tuple[str, int]] = set()
    for line in lines:
        try:
            answer = backend.parse(line) if line else None
        except ValueError:
            continue
        if answer is not None and (answer.record_id, hash(answer)) not in seen:
            seen.add((answer.record_id, hash(answer)))
            outcomes.count(answer, waste)
    outcomes.reconcile(usage, waste)
    return outcomes.tally()


def _by_type(counted: Answer) -> tuple[tuple[str, int], ...]:
    """Tokens by the ledger's types, none of which is part of another."""
    return (
        ("input", counted.input_tokens - counted.cached_tokens),
        ("cached_input", counted.cached_tokens),
        ("output", counted.output_tokens - counted.reasoning_tokens),
        ("reasoning", counted.reasoning_tokens),
    )


def _table(
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
    columns["cost"] = list(cost_of(columns, price))
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


def cost_of(counted: Mapping[str, Sequence[object]], price: Price) -> Iterable[int]:
    """What each answer cost, in 1e-12 USD, from columns of its tokens."""
    tokens = {name: np.asarray(counted[name], dtype=np.int64) for name in _TOKENS}
    cached, reasoning = tokens["cached_tokens"], tokens["reasoning_tokens"]
    cost = (tokens["input_tokens"] - cached) * price.pico("input") + cached * price.pico("cached_input")
    cost += (tokens["output_tokens"] - reasoning) * price.pico("output") + reasoning * price.pico("reasoning")
    return cost.tolist()  # type: ignore[no-any-return]  # a list of int


def _array(values: list[object], kind: pa.DataType) -> pa.Array:
    return string_array(values) if kind == pa.string() else pa.array(values, kind)  # type: ignore[arg-type]  # as SCHEMA says


def _merged(old: pa.Table, new: pa.Table) -> pa.Table:
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


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream of bytes, without their ends. Only `\\n` ends one: U+2028 may stand in a JSON string."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest
