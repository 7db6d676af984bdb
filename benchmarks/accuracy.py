"""Estimates held against what was used: counted by the tokenizer, over every prompt and the emulators' answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import corpora
from lowtide.connectors.stores.local import LocalStore
from lowtide.emulators.answers import Tokens, answer, tokens_by
from lowtide.estimating import NO_HISTORY, Corpus, Estimate, History, estimate, read_history
from lowtide.estimating.vocabularies import Tokenizers, counter
from lowtide.job.model import Classify, Summarize
from lowtide.operations import Operation, build_operation
from lowtide.schemas import RUNS, results_schema

MODEL = "gpt-4o-mini"
_JOB = "accuracy"
_WHEN = datetime(2026, 11, 1, tzinfo=UTC)
_DOCUMENTS = 1_200


@dataclass(frozen=True, slots=True)
class Used:
    """The tokens of one request: what it was about is `operation`."""

    operation: Operation
    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Row:
    """One estimate, and what came of it. `aim` is the share by which it may be off."""

    corpus: str
    run: str
    estimated: Estimate
    input: int
    output: int
    aim: float | None

    @property
    def error(self) -> float:
        """By what share of the actual tokens the estimate is off; positive where it is too high."""
        total = self.input + self.output
        return (self.estimated.input.expected + self.estimated.output.expected) / total - 1

    @property
    def inside(self) -> bool:
        """Whether the actual tokens lie between low and high."""
        given, written = self.estimated.input, self.estimated.output
        return given.low + written.low <= self.input + self.output <= given.high + written.high


def operations() -> tuple[Operation, ...]:
    """What is asked of every document: a summary and a label."""
    labels = {"report": "says what happened", "manual": "explains how to do something", "program": "source code"}
    return (build_operation(Summarize(words=60), Path()), build_operation(Classify(labels=labels), Path()))


@cache
def rows() -> tuple[Row, ...]:
    """All that is measured: each corpus in halves, the first a first run, the second one with the first as history."""
    named = {
        "READMEs": corpora.readmes(),
        "standard library": corpora.standard_library(),
        "16 languages": corpora.multilingual(_DOCUMENTS),
    }
    return tuple(row for name, texts in named.items() for row in _rows_of(name, texts))


def _rows_of(name: str, texts: Sequence[str]) -> Iterator[Row]:
    tokens = tokens_by("o200k")
    first, second = corpora.halves(texts)
    before, after = (list(_used(part, tokens)) for part in (first, second))
    with tempfile.TemporaryDirectory(prefix="lowtide-accuracy-") as folder:
        keep(Path(folder), before, first)
        history = read_history(LocalStore(Path(folder)), _JOB)
    quarter = first[: len(first) // 4]
    yield _row(name, "first run", first, before, 0.15)
    yield _row(name, "first run, no tokenizer", first, before, 0.15, tokenizers=_none)
    yield _row(name, "first run, a quarter read", quarter, before, None, requests=len(first))
    yield _row(name, "second run", second, after, 0.05, history=history)
    yield _row(name, "second run, no tokenizer", second, after, 0.05, history=history, tokenizers=_none)


def _none(encoding: str) -> None:
    """As it is where the extra `tokens` is not installed."""


def _row(
    name: str,
    run: str,
    texts: Sequence[str],
    used: Sequence[Used],
    aim: float | None,
    *,
    history: History = NO_HISTORY,
    tokenizers: Tokenizers = counter,
    requests: int = 0,
) -> Row:
    corpus = Corpus()
    corpus.add("txt", texts)
    asked = operations()
    found = estimate(
        corpus,
        provider="openai",
        model=MODEL,
        operations=asked,
        requests=[requests or len(texts)] * len(asked),
        whole=not requests,
        history=history,
        tokenizers=tokenizers,
    )
    return Row(name, run, found, sum(one.input for one in used), sum(one.output for one in used), aim)


def _used(texts: Sequence[str], tokens: Tokens) -> Iterator[Used]:
    """Every request, counted by the tokenizer as a whole, and the emulators' answer to it."""
    for text in texts:
        mark = sha256(text.encode(errors="replace")).hexdigest()[:16]
        for operation in operations():
            user = operation.user.render({"text": text, "marker": mark})
            given = answer(operation.system, user, operation.schema, operation.max_output_tokens, tokens=tokens)
            yield Used(operation, given.input_tokens, given.output_tokens)


def keep(root: Path, used: Sequence[Used], texts: Sequence[str]) -> None:
    """Write what a run has used into the tables of a root, as a run does."""
    asked = len(used) // len(texts)
    run = {
        "run_id": "run-1",
        "model": MODEL,
        "documents": len(texts),
        "requests": len(used),
        "attempts": 1,
        "input_tokens": sum(one.input for one in used),
        "output_tokens": sum(one.output for one in used),
        "text_bytes": asked * sum(len(text.encode(errors="replace")) for text in texts),
        "cancelled": False,
        "finished": _WHEN,
    }
    results = [
        {
            "run_id": "run-1",
            "operation": one.operation.name,
            "operation_version": one.operation.version,
            "status": "ok",
            "model": MODEL,
            "input_tokens": one.input,
            "output_tokens": one.output,
            "cached": False,
            "attempts": 1,
        }
        for one in used
    ]
    for table, schema, content, name in (
        ("runs", RUNS, [run], "run-1"),
        ("results", results_schema(()), results, "results"),
    ):
        folder = root / "tables" / table / f"job={_JOB}" / "window=2026-W47"
        folder.mkdir(parents=True)
        full = [{field: row.get(field) for field in schema.names} for row in content]
        pq.write_table(pa.Table.from_pylist(full, schema=schema), folder / f"{name}.parquet")
