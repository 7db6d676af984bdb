"""Estimating tokens: what it costs beside building shards of the same documents, and how far it is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks import batch
from benchmarks.case import Case, Check, Plan, Results, Setting, Target, Work
from benchmarks.cases import shards
from benchmarks.figures import cpu_seconds
from benchmarks.jobs import SOURCE

MODEL = "gpt-4o-mini"
_BATCH = 1_000


def _texts(setting: Setting) -> Iterator[list[str]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - each variant pays for its own imports only

    source = pq.ParquetFile(setting.data / SOURCE, pre_buffer=False)
    for rows in source.iter_batches(batch_size=_BATCH, columns=["body"], use_threads=False):
        yield rows["body"].to_pylist()


def _reading(setting: Setting) -> Work:
    """What the plan does anyway: taken off from what it does with the estimate."""

    def work() -> Check:
        documents = sum(len(texts) for texts in _texts(setting))
        return lambda: _check(documents, setting.size * 1_000, setting.size)

    return work


def _lowtide(setting: Setting) -> Work:
    """The tokenizer is loaded already: that is a variant of its own."""
    from lowtide.estimating import Corpus, estimate  # noqa: PLC0415
    from lowtide.estimating.vocabularies import counter  # noqa: PLC0415

    counter("o200k_base")

    def work() -> Check:
        corpus = Corpus()
        for texts in _texts(setting):
            corpus.add("parquet", texts)
        found = estimate(
            corpus,
            provider="openai",
            model=MODEL,
            operations=[batch.OPERATION],
            requests=[corpus.documents],
            whole=True,
        )
        return lambda: _check(corpus.documents, found.input.expected, setting.size)

    return work


def _check(documents: int, tokens: int, size: int) -> None:
    assert documents == size, f"{documents} documents counted of {size}"
    # The documents are of made-up words, of two characters a token.
    assert size * 500 < tokens < size * 1_500, f"{tokens} tokens for {size} documents"


def _tokenizer(setting: Setting) -> Work:
    from lowtide.estimating.vocabularies import counter  # noqa: PLC0415

    def work() -> Check:
        count = counter("o200k_base")
        assert count is not None, "bpe-openai is not installed"
        assert count("Nothing is fetched.") == 4
        return lambda: None

    return work


def _targets(plan: Plan) -> list[Target]:
    from benchmarks.accuracy import Row, rows  # noqa: PLC0415 - it needs the tokenizer, and other cases do not

    def off(row: Row) -> Callable[[Results], float]:
        return lambda results: abs(row.error) * 100

    (size,) = plan.variants
    targets = [
        Target(
            f"estimating {size:,} documents, in building their shards",
            lambda results: _own(results, size) / results["shards", size].cpu,
            at_most=0.05,
        ),
        Target("CPU of loading the tokenizer, once", cpu_seconds(("tokenizer", size)), unit="s"),
    ]
    for row in rows():
        total = row.estimated.input.expected + row.estimated.output.expected
        basis = ", ".join(part.partition(" over ")[0] for part in row.estimated.basis.split(", "))
        words = f"{row.corpus}, {row.run} ({basis}): {_short(total)} for {_short(row.input + row.output)}"
        words += ", in its range" if row.inside else ", OUTSIDE its range"
        targets.append(Target(words, off(row), at_most=None if row.aim is None else row.aim * 100, unit="%"))
    return targets


def _own(results: Results, size: int) -> float:
    return results["lowtide", size].cpu - results["reading", size].cpu


def _short(tokens: int) -> str:
    return f"{tokens / 1e6:.2f} M"


_ALL = {"lowtide": _lowtide, "reading": _reading, "shards": shards.CASE.variants["lowtide"], "tokenizer": _tokenizer}

CASE = Case(
    name="estimates",
    title="Tokens of documents, estimated",
    variants=_ALL,
    full=Plan({200_000: tuple(_ALL)}, rounds=5),
    quick=Plan({20_000: tuple(_ALL)}, rounds=2),
    targets=_targets,
    setup=shards.CASE.setup,
)
