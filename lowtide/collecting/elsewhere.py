"""Rows whose answers are to be had elsewhere: an earlier run has bought them, or the run asks the same already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowtide.collecting.rows import money, realtime_cost, write_rows
from lowtide.collecting.tallies import Tallies
from lowtide.events import Tally
from lowtide.operations import Operation
from lowtide.prices import Price
from lowtide.records import Answer
from lowtide.schemas import MOMENT
from lowtide.sharding.reuse import fields_of, one_line, request_keys
from lowtide.sharding.shard import BuiltShard

_DOCUMENT = ("document_id", "document_uri", "document_modified", "content_sha256")
_ANSWER = ("status", "status_reason", "output_text", "output", "label", "confidence", "language", "answered_at")
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
GONE = "the answer that an earlier run has bought is no longer where it was: run again with --refresh"
"""The reason of a row whose source was damaged between two looks at it."""
UNMATCHED = "the request that this one repeats is not in the run"
"""The reason of a row that repeats a request which is not there: two requests had the same half of a key."""
_TOGETHER = 100_000
"""Repeated requests that are held at a time while their answers are looked for."""
_CHUNK_BYTES = 64 << 20

Opener = Callable[[], BinaryIO]


class Reused(NamedTuple):
    """Rows of a shard, and the tokens that their answers had cost."""

    rows: pa.Table
    saved: tuple[Tally, ...]


def reused_rows(
    shard: BuiltShard,
    index: pa.Table,
    open_source: Callable[[int], BinaryIO],
    field_names: Sequence[str],
    on_demand: Price | None,
) -> Reused:
    """The rows of the shard's requests that earlier runs have bought. `open_source` opens a source by its number."""
    picks = [(at, *pick) for at, picks in enumerate(shard.reused) for pick in picks]
    document, op, source, ordinal = np.array(picks, dtype=np.int64).reshape(-1, 4).T
    parts: list[pa.Table] = []
    order: list[npt.NDArray[np.int64]] = []
    for number in np.unique(source).tolist():
        here = np.flatnonzero(source == number)
        with open_source(number) as stream:
            rows = pa.ipc.open_file(stream).read_all()
        parts.append(_taken(rows, ordinal[here]))
        order.append(here)
    back = pa.array(np.argsort(np.concatenate(order)))
    answers = pa.concat_tables(parts).take(back)
    rows = placed(answers, index.take(pa.array(document)), op, field_names, on_demand, cached=True)
    tallies = Tallies()
    counted = [int(pc.sum(answers[name]).as_py() or 0) for name in _TOKENS]
    tallies.add(
        Answer(
            "",
            "ok",
            input_tokens=counted[0],
            output_tokens=counted[1],
            cached_tokens=counted[2],
            reasoning_tokens=counted[3],
        ),
        "",
    )
    return Reused(_sorted(rows), tallies.entries())


def _taken(rows: pa.Table, ordinals: npt.NDArray[np.int64]) -> pa.Table:
    """The answers with these ordinals; an error where there is none that may be used again."""
    known = rows["ordinal"].to_numpy()
    places = np.full(max(int(known.max(initial=-1)), int(ordinals.max(initial=-1))) + 2, -1, dtype=np.int64)
    places[known[known >= 0]] = np.flatnonzero(known >= 0)
    there = places[ordinals]
    taken = rows.select([*_ANSWER, *_TOKENS]).take(pa.array(there, mask=there < 0))
    usable = pc.fill_null(pc.equal(taken["status"], "ok"), fill_value=False)
    if pc.all(usable, min_count=0).as_py():
        return taken
    return _failed(taken, usable, GONE)


def _failed(answers: pa.Table, usable: pa.ChunkedArray, reason: str) -> pa.Table:
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for field in answers.schema:
        nothing = {"status": "error", "status_reason": reason}.get(field.name, 0 if field.name in _TOKENS else None)
        columns[field.name] = pc.if_else(usable, answers[field.name], pa.scalar(nothing, field.type))
    return pa.table(columns)


def placed(
    answers: pa.Table,
    documents: pa.Table,
    op: npt.NDArray[np.int64],
    field_names: Sequence[str],
    on_demand: Price | None,
    *,
    cached: bool,
) -> pa.Table:
    """Rows for these documents with these answers, one by one. Nothing was bought for them, so they cost nothing."""
    total = len(answers)
    nothing = np.zeros(total, dtype=np.int64)
    bought = {name: answers[name] for name in _TOKENS}
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "op": pa.array(op.astype(np.int32)),
        "ordinal": pa.array(np.full(total, -1, dtype=np.int32)),
    }
    columns |= {name: documents[name] for name in _DOCUMENT}
    columns |= {name: answers[name] for name in _ANSWER if name != "answered_at"}
    columns |= {name: pa.array(nothing) for name in _TOKENS}
    columns["cost_usd"] = money(nothing)
    columns["cost_usd_float"] = pa.array(np.zeros(total))
    columns["cost_if_realtime_usd"] = realtime_cost(bought, on_demand)
    columns["cached"] = pa.array(np.full(total, cached))
    columns["attempts"] = pa.array(np.zeros(total, dtype=np.int32))
    columns["requested_at"] = pa.nulls(total, MOMENT)
    columns["answered_at"] = answers["answered_at"]
    columns |= {name: documents[f"field:{name}"] for name in field_names}
    columns |= {name: pa.array(nothing.astype(np.uint64)) for name in ("key_hi", "key_lo")}
    return pa.table(columns)


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.take(pc.sort_indices(rows, [("document_id", "ascending"), ("op", "ascending")]))


def twin_table(
    shard: BuiltShard, index: pa.Table, operations: Sequence[Operation], questions: Sequence[str]
) -> pa.Table:
    """The shard's requests that repeat another one of the run: document columns, `op`, and what they are known by.

    `asks` is the first operation that asks the same.
    """
    bits = (np.array(shard.twins, dtype=np.int64)[:, None] >> np.arange(len(operations))) & 1
    parts = []
    for op, operation in enumerate(operations):
        here = np.flatnonzero(bits[:, op])
        if not len(here):
            continue
        documents = index.take(pa.array(here)).drop_columns(["first", "asked", "reason"])
        fields = {name: list(map(one_line, documents[f"field:{name}"].to_pylist())) for name in fields_of(operation)}
        keys = request_keys(operation, documents["content_sha256"].to_pylist(), fields)
        for name, values in (
            ("op", np.full(len(here), op, dtype=np.int32)),
            ("asks", np.full(len(here), questions.index(questions[op]), dtype=np.int32)),
            ("key_hi", keys[:, 0]),
            ("key_lo", keys[:, 1]),
        ):
            documents = documents.append_column(name, pa.array(values))
        parts.append(documents)
    return pa.concat_tables(parts)


def twin_rows(
    twins: Sequence[Opener],
    rows: Sequence[Opener],
    questions: Sequence[str],
    folder: Path,
    *,
    total: int,
    field_names: Sequence[str],
    on_demand: Price | None,
) -> Iterator[Path]:
    """Files of rows, each sorted, for the `total` requests in the tables `twins`, with the answers that `rows` hold.

    Memory is bounded: the repeated requests are gone through part by part, and the rows shard by shard.
    """
    parts = max(1, -(-total // _TOGETHER))
    for part in range(parts):
        asked = _part(twins, part, parts)
        if not len(asked):
            continue
        wanted = _Wanted(asked)
        chunks: list[pa.Table] = []
        held = 0
        for number, source in enumerate(rows):
            matched = wanted.answered(source, [questions.index(question) for question in questions])
            if matched is None:
                continue
            ops = asked["op"].to_numpy()[matched.at].astype(np.int64)
            documents = asked.take(pa.array(matched.at))
            chunks.append(placed(matched.answers, documents, ops, field_names, on_demand, cached=False))
            held += chunks[-1].nbytes
            if held > _CHUNK_BYTES:
                yield _written(chunks, folder / f"twins-{part}-{number}.arrow")
                chunks, held = [], 0
        lost = np.flatnonzero(~wanted.found)
        if len(lost):
            chunks.append(_unmatched(asked.take(pa.array(lost)), field_names))
        if chunks:
            yield _written(chunks, folder / f"twins-{part}.arrow")


def _part(twins: Sequence[Opener], part: int, parts: int) -> pa.Table:
    found = []
    for open_table in twins:
        with open_table() as source:
            table = pq.read_table(source, pre_buffer=False, use_threads=False)
        found.append(table.filter(pa.array(table["key_hi"].to_numpy() % np.uint64(parts) == part)))
    return pa.concat_tables(found)


class _Matched(NamedTuple):
    """Places among the repeated requests, and the answer of each."""

    at: list[int]
    answers: pa.Table


class _Wanted:
    """Repeated requests by what they are known by. `found` says of which the answers have been met."""

    def __init__(self, asked: pa.Table) -> None:
        self.found = np.zeros(len(asked), dtype=np.bool_)
        self._halves = asked["key_hi"].to_numpy()
        self._names = list(zip(asked["document_id"].to_pylist(), asked["op"].to_pylist(), strict=True))
        self._places: dict[tuple[int, int, int], list[int]] = {}
        columns = (asked[name].to_pylist() for name in ("key_hi", "key_lo", "asks"))
        for at, key in enumerate(zip(*columns, strict=True)):
            self._places.setdefault(key, []).append(at)

    def answered(self, source: Opener, first: Sequence[int]) -> _Matched | None:
        """Those that one shard's rows answer; `first` gives the first operation that asks what each one does."""
        with source() as stream:
            rows = pa.ipc.open_file(stream).read_all()
            known = np.isin(rows["key_hi"].to_numpy(), self._halves) & (rows["ordinal"].to_numpy() >= 0)
            if not known.any():
                return None
            here = np.flatnonzero(known)
            keys = rows.select(["key_hi", "key_lo", "op", "document_id"]).take(pa.array(here))
            places: list[int] = []
            answering: list[int] = []
            for row, hi, lo, op, name in zip(
                here.tolist(), *(column.to_pylist() for column in keys.columns), strict=True
            ):
                for at in self._places.get((hi, lo, first[op]), []):
                    self.found[at] = True
                    # One that has taken over the record of a forgotten document has its row there.
                    if self._names[at] != (name, op):
                        places.append(at)
                        answering.append(row)
            answers = rows.select([*_ANSWER, *_TOKENS]).take(pa.array(answering, pa.int64()))
        return _Matched(places, answers) if places else None


def _unmatched(documents: pa.Table, field_names: Sequence[str]) -> pa.Table:
    total = len(documents)
    answers: dict[str, pa.Array] = {name: pa.nulls(total, pa.string()) for name in _ANSWER}
    answers |= {"confidence": pa.nulls(total, pa.float64()), "answered_at": pa.nulls(total, MOMENT)}
    answers |= {"status": pa.array(["error"] * total), "status_reason": pa.array([UNMATCHED] * total)}
    answers |= {name: pa.array(np.zeros(total, dtype=np.int64)) for name in _TOKENS}
    ops = documents["op"].to_numpy().astype(np.int64)
    return placed(pa.table(answers), documents, ops, field_names, None, cached=False)


def _written(chunks: list[pa.Table], path: Path) -> Path:
    with path.open("wb") as out:
        write_rows(_sorted(pa.concat_tables(chunks)), out)
    return path
