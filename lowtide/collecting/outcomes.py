"""What became of each record of a shard, over all attempts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lowtide import ids
from lowtide.collecting.columns import LOST, SCHEMA, TOKENS, Outcome, merged, outcome_table
from lowtide.collecting.tallies import Tallies
from lowtide.operations import Invalid, Operation, Output
from lowtide.prices import LOCAL, Price
from lowtide.protocols import Backend
from lowtide.records import Answer

_STORED = pa.schema([("ordinal", pa.int32()), *SCHEMA])
_NOTHING = Output()
_RECORD = re.compile(rb"r[0-9]{7}x[0-9a-f]{8}")
_CHUNK = 1024
"""Answers that are Python objects at a time: so few that each uses the memory of the one before."""


class Outcomes:
    """The outcomes of one shard by ordinal, as columns: a Python object for each would cost more than the parsing.

    `checks[i]` is the start of the content hash of the i-th document that has records, which their ids must carry.
    `asked[i]` are the operations of its records, as bits; by default, it has one for each.
    """

    def __init__(
        self, checks: Sequence[str], operations: Sequence[Operation], asked: Sequence[int] | None = None
    ) -> None:
        self._operations = operations
        width = len(operations)
        if asked is None:
            self._checks = [check for check in checks for _ in range(width)]
            self._ops = list(range(width)) * len(checks)
        else:
            spread = [[op for op in range(width) if mask >> op & 1] for mask in asked]
            self._checks = [check for check, ops in zip(checks, spread, strict=True) for _ in ops]
            self._ops = [op for ops in spread for op in ops]
        self._total = len(self._ops)
        # Rows as they came, and where among them each ordinal's is: -1 if nowhere.
        self._rows = SCHEMA.empty_table()
        self._places = np.full(self._total, -1, dtype=np.int64)
        # What the attempt at hand has said something of, charged or not, and what only a broken line speaks of.
        self._heard = np.zeros(self._total, dtype=np.bool_)
        self._charged: set[int] = set()
        self._torn: set[int] = set()
        self._given_up = False
        self._price = LOCAL
        self.tallies = Tallies()
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
            self._rows = merged(before, self.take(np.arange(self._total)))
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
        return unheard if charged > len(self._charged) else []

    def give_up(self, lost: Sequence[int], attempt: int) -> None:
        """Settle what `find_lost` has found as errors that are not to be asked again."""
        if not lost:
            return
        self._given_up = True
        found = [Answer("", "error", error=LOST)] * len(lost)
        table = outcome_table(found, [_NOTHING] * len(lost), {}, attempt, self._price)
        at = table.schema.get_field_index("lost")
        table = table.set_column(at, SCHEMA.field("lost"), pa.array([True] * len(lost)))
        places = np.full(self._total, -1, dtype=np.int64)
        places[list(lost)] = np.arange(len(lost))
        before = self.take(np.arange(self._total))
        self._rows, self._places = table, places
        self._rows = merged(before, self.take(np.arange(self._total)))
        self._places = np.where(pc.is_valid(self._rows["status"]).to_numpy(), np.arange(self._total), -1)

    def remaining(self, asked: Iterable[int], *, lost: bool = False) -> list[int]:
        """Of the records that an attempt asked, those that may be asked again; with `lost`, those paid in vain too."""
        table = self.take(np.arange(self._total), ["retryable", "lost"])
        again = pc.fill_null(table["retryable"], fill_value=True)
        if lost:
            again = pc.or_(again, pc.fill_null(table["lost"], fill_value=False))
        if not pc.any(again, min_count=0).as_py():
            return []
        wanted = again.to_pylist()
        # A record without a check is that of a document that was forgotten.
        return [at for at in asked if wanted[at] and self._checks[at]]

    def counts(self, asked: Iterable[int]) -> dict[str, int]:
        """How many of the attempt's records came to which end."""
        found = self.take(np.arange(self._total), ["status"])["status"]
        statuses: list[str] = pc.fill_null(found, "unanswered").to_pylist()
        return dict(Counter(map(statuses.__getitem__, asked)))

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
        if 0 <= at < self._total and ids.record_id(at, self._checks[at]) == record:
            self._torn.add(at)

    def _answers(self, backend: Backend, lines: Iterable[bytes]) -> Iterator[tuple[list[int], list[Answer]]]:
        """This attempt's answers, one for each record that has any, and their ordinals: some at a time."""
        parse = backend.parse
        # An answer that is final is not lost to one that nobody has asked for.
        open_ = self.remaining(range(self._total), lost=True)
        known = {ids.record_id(at, self._checks[at]): at for at in open_}
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
                self.tallies.add(answer, "duplicate")
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
                self.tallies.add(answer, "duplicate")
        yield ordinals, answers

    def _judged(self, ordinals: Sequence[int], answers: Sequence[Answer], attempt: int) -> pa.Table:
        """The rows of these answers; their tokens are counted on the way."""
        validators = [operation.validate for operation in self._operations]
        ops = self._ops
        outputs = [_NOTHING] * len(answers)
        invalid: dict[int, Invalid] = {}
        for row, answer in enumerate(answers):
            if answer.status == "ok":
                verdict = validators[ops[ordinals[row]]](answer.text)
                if isinstance(verdict, Output):
                    outputs[row] = verdict
                else:
                    invalid[row] = verdict
        self._count_tokens(answers, invalid)
        self._charged.update(
            at for at, answer in zip(ordinals, answers, strict=True) if answer.status == "ok" or answer.input_tokens > 0
        )
        return outcome_table(answers, outputs, invalid, attempt, self._price)

    def _count_tokens(self, answers: Sequence[Answer], invalid: Iterable[int]) -> None:
        """Put every answer's tokens where they belong: those of all of them together first, then what was waste."""
        self.tallies.add(Answer("", "ok", **{name: sum(map(attrgetter(name), answers)) for name in TOKENS}), "")
        for row in invalid:
            self.tallies.move(answers[row], "invalid")
        for answer in answers:
            if answer.status == "error":
                self.tallies.move(answer, "retried" if answer.retryable else "invalid")
            elif answer.status == "unanswered":
                self.tallies.move(answer, "expired")


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream of bytes, without their ends. Only `\\n` ends one: U+2028 may stand in a JSON string."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest
