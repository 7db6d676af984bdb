"""The tokens that a run will need: constant prompts, the documents' text and the answers, each with its error bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import orjson

from lowtide.estimating import scripts
from lowtide.estimating.corpus import Corpus
from lowtide.estimating.history import NO_HISTORY, History, PastRun
from lowtide.estimating.outputs import Guess, Measure, guess
from lowtide.estimating.text import TABLE_SPREAD, Text, Z, count_text, student
from lowtide.estimating.vocabularies import Count, Family, Tokenizers, counter, family_of
from lowtide.operations import Operation
from lowtide.plan import Range

_MARKERS = 8
_FIELD_TOKENS = Guess(0, 8, 24)
# Standard errors, as shares, of what one earlier run, and any number of them, say of the next.
_ONE_RUN, _ANY_RUNS = 0.04, 0.015
_DRIFT = 0.03


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens that are expected, and what the figures rest on, in a few words."""

    input: Range
    output: Range
    basis: str


def estimate(
    corpus: Corpus,
    *,
    provider: str,
    model: str,
    operations: Sequence[Operation],
    requests: Sequence[int],
    whole: bool,
    history: History = NO_HISTORY,
    tokenizers: Tokenizers = counter,
) -> Estimate:
    """Tokens of `requests[i]` requests of operation i, about documents like those of the corpus.

    With `whole` the corpus holds all documents that are asked about; else it is a sample of them, and how much
    documents differ goes into the range. `tokenizers` gives those that are at hand. Costs the same for any number of
    documents.
    """
    family = family_of(provider, model)
    count = tokenizers(family.encoding)
    text = count_text(corpus, family, count)
    asked = _Asked(family, tuple(operations), tuple(requests), whole, _measure(family, count))
    past = history.of(model)
    typical = _blended(_sampled(text, family, exactly=count is not None), _remembered(past, asked, text))
    again = max((run.again for run in past), default=0.0)
    return Estimate(
        input=_input(asked, text, typical, again),
        output=_output(asked, text, past, again),
        basis=_basis(family, text, past, exactly=count is not None, remembered=typical.remembered),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked, of whom, how often."""

    family: Family
    operations: tuple[Operation, ...]
    requests: tuple[int, ...]
    whole: bool
    measure: Measure

    def texts(self, operation: Operation) -> int:
        """How often the document stands in a request. Local models count it once, and nothing else."""
        return operation.user.slots.count("text") if self.family.framing else 1

    def constant(self, operation: Operation) -> Guess:
        """Tokens of a request without its document: prompts, marks, schema, and what chat puts around them.

        Whether the schema is sent along is the backend's to say: without it is the low end.
        """
        if not self.family.framing:
            return Guess(0, 0, 0)
        slots = operation.user.slots
        fields = sum(slot not in ("text", "marker") for slot in slots)
        marks = [sha256(bytes([number])).hexdigest()[:16] for number in range(_MARKERS)]
        users = [
            self.measure(operation.user.render(dict.fromkeys(slots, "") | {"marker": mark}))
            for mark in (marks if "marker" in slots else marks[:1])
        ]
        prompt = self.measure(operation.system) + sum(users) / len(users) + self.family.framing
        schema = self.measure(orjson.dumps(operation.schema).decode()) if operation.schema else 0.0
        return Guess(
            prompt + fields * _FIELD_TOKENS.low,
            prompt + fields * _FIELD_TOKENS.expected + schema,
            prompt + fields * _FIELD_TOKENS.high + schema,
        )


@dataclass(frozen=True, slots=True)
class _Typical:
    """Tokens of a document's text on average, the standard error of that, and the share of earlier runs in it."""

    mean: float
    error: float
    remembered: float = 0.0


def _measure(family: Family, count: Count | None) -> Measure:
    def measure(text: str) -> float:
        clean = text.encode("utf-8", "replace").decode()
        return family.factor * (count(clean) if count else float(scripts.tokens([clean], family.encoding)[0]))

    return measure


def _sampled(text: Text, family: Family, *, exactly: bool) -> _Typical:
    doubt = math.hypot(family.spread, 0.0 if exactly else TABLE_SPREAD) / Z
    return _Typical(text.mean, text.mean * math.hypot(text.deviation, doubt))


def _remembered(past: Sequence[PastRun], asked: _Asked, text: Text) -> _Typical | None:
    """The same from tokens per byte of earlier runs that asked what is asked now."""
    by_version = {operation.version: operation for operation in asked.operations}
    ratios = [
        ratio
        for run in past
        if by_version.keys() >= run.answers.keys() and (ratio := _past_ratio(run, by_version, asked))
    ]
    if not ratios:
        return None
    size = text.text_bytes / text.documents if text.documents else past[0].text_bytes / past[0].requests
    mean = float(np.mean(ratios))
    error = _ONE_RUN
    if len(ratios) > 1:
        error = max(_ANY_RUNS, float(np.std(ratios, ddof=1)) / mean * student(len(ratios)) / Z)
    return _Typical(mean * size, mean * size * error, 1.0)


def _past_ratio(run: PastRun, by_version: dict[str, Operation], asked: _Asked) -> float:
    """Tokens of text per byte of text; 0 where prompts would have left nothing."""
    constant = texts = 0.0
    for version, share in run.shares.items():
        constant += share * run.requests * asked.constant(by_version[version]).expected
        texts += share * asked.texts(by_version[version])
    left = run.input_tokens / (1 + run.again) - constant
    return max(left / run.text_bytes / texts, 0.0) if texts else 0.0


def _blended(sampled: _Typical, remembered: _Typical | None) -> _Typical:
    """Both, each by how sure it is."""
    if remembered is None:
        return sampled
    if not sampled.mean:
        return remembered
    ours, theirs = (1 / max(found.error, 1e-9) ** 2 for found in (sampled, remembered))
    share = theirs / (ours + theirs)
    mean = sampled.mean * (1 - share) + remembered.mean * share
    return _Typical(mean, 1 / math.sqrt(ours + theirs), share)


def _input(asked: _Asked, text: Text, typical: _Typical, again: float) -> Range:
    low = expected = high = texts = chance = 0.0
    for operation, requests in zip(asked.operations, asked.requests, strict=True):
        constant, times = asked.constant(operation), asked.texts(operation)
        low += requests * constant.low
        expected += requests * constant.expected
        high += requests * constant.high
        texts += requests * times
        chance += times * _chance(text, requests, whole=asked.whole)
    doubt = math.hypot(texts * typical.error, chance) * Z
    prompts = expected * asked.family.spread
    total = texts * typical.mean
    low += total - doubt - prompts
    high += total + doubt + prompts
    return _range(low, expected + total, high * (1 + again))


def _chance(text: Text, requests: int, *, whole: bool) -> float:
    """The standard error from not knowing which documents are asked about, or from having seen a part of them."""
    documents = text.documents
    if not documents or not requests:
        return 0.0
    if whole:
        unsure = min(requests / documents, 1.0)
        return text.spread * math.sqrt(requests * (1 - unsure))
    unseen = max(1 - documents / requests, 0.0)
    return requests * text.spread / math.sqrt(documents) * math.sqrt(unseen) * student(documents) / Z


def _output(asked: _Asked, text: Text, past: Sequence[PastRun], again: float) -> Range:
    low = expected = high = most = 0.0
    for operation, requests in zip(asked.operations, asked.requests, strict=True):
        found = guess(operation, text, asked.measure, factor=asked.family.factor, reasons=asked.family.reasons)
        found = _answered(operation, past, text, requests) or found
        low += requests * found.low
        expected += requests * found.expected
        high += requests * found.high
        most += requests * max(operation.max_output_tokens, found.expected)
    return _range(low, expected, min(high, most) * (1 + again))


_ENOUGH = 20


def _answered(operation: Operation, past: Sequence[PastRun], text: Text, requests: int) -> Guess | None:
    """What answers to the same operation were like, if enough of them were seen."""
    seen = [(run, run.answers[operation.version]) for run in past if operation.version in run.answers]
    rows = sum(answers.rows for _, answers in seen)
    if rows < _ENOUGH:
        return None
    means = [answers.output_mean * _growth(operation, run, text) for run, answers in seen]
    weights = [answers.rows / rows for _, answers in seen]
    mean = sum(mean * weight for mean, weight in zip(means, weights, strict=True))
    inside = sum(answers.output_deviation**2 * weight for (_, answers), weight in zip(seen, weights, strict=True))
    between = float(np.std(means, ddof=1)) * student(len(means)) / Z if len(means) > 1 else 0.0
    error = math.hypot(math.sqrt(inside * (1 / rows + 1 / max(requests, 1))), max(between, _DRIFT * mean)) * Z
    return Guess(max(mean - error, 0.0), mean, mean + error)


def _growth(operation: Operation, run: PastRun, text: Text) -> float:
    """A translation is as long as its document; other answers are not."""
    if operation.kind != "translate" or not text.documents:
        return 1.0
    return text.text_bytes / text.documents / (run.text_bytes / run.requests)


def _range(low: float, expected: float, high: float) -> Range:
    middle = round(expected)
    return Range(min(max(math.floor(low), 0), middle), middle, max(math.ceil(high), middle))


def _basis(family: Family, text: Text, past: Sequence[PastRun], *, exactly: bool, remembered: float) -> str:
    counted = "ratios by script"
    if exactly:
        counted = family.encoding if family.factor == 1 else f"{family.encoding} x {family.factor:g}"
        counted += " over all text" if text.covered else f" over {text.pieces} samples of text"
    if not family.exact:
        counted += f" for {family.name}"
    runs = f"{len(past)} earlier {'run' if len(past) == 1 else 'runs'} of this job" if past else ""
    if remembered > 0.5:
        return f"{runs}, {counted}"
    return f"{counted}, {runs}" if runs else counted
