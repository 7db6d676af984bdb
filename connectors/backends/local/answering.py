"""What can be said about a document without a language model: its main sentences, and its nearest label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lowtide.connectors.backends.local.sentences import Sentence, candidates, cut, ended, words

if TYPE_CHECKING:
    from lowtide.connectors.backends.local.engine import Engine, Matrix

SUMMARY_WORDS = 60
"""Where the operation does not say."""

_NEARNESS = 0.75  # of a sentence's worth; the rest is its place in the document
_SAMENESS = 0.6  # how much a sentence loses by repeating one that was chosen
_SAME = 0.85  # similarity from which two sentences say the same thing
_BOILERPLATE = 0.3  # what a sentence loses that does not stand alone
_WORTHWHILE = 0.6  # of the best sentence's worth: less is left out though there is room
_BEST = 3  # sentences nearest to a label speak for the document, beside its centre
# Measured on the texts of the tests (docs/backends/local.md): texts with a fitting label get 0.79 on average, texts
# without one 0.31. An unrelated label is less similar than `_UNRELATED` in nine of ten cases.
_TEMPERATURE = 0.04
_UNRELATED = 0.1


class UnanswerableError(ValueError):
    """The document or the parameters leave nothing to answer; the message is the reason, and holds no text."""


@dataclass(frozen=True)
class Reading:
    """A document as far as it is looked at."""

    sentences: Sequence[Sentence]
    tokens: int

    @classmethod
    def of(cls, text: str, engine: Engine) -> Reading:
        return cls(candidates(text), engine.count_tokens(text))

    @cached_property
    def texts(self) -> list[str]:
        return [sentence.text for sentence in self.sentences]


def summarize(reading: Reading, engine: Engine, limit: int = SUMMARY_WORDS) -> dict[str, str]:
    """`{"summary": ...}` of at most `limit` words: sentences of the document, in its order and in its language."""
    if limit < 1:
        raise UnanswerableError(f"parameters.words is {limit}: a summary needs at least 1")
    if not reading.sentences:
        raise UnanswerableError("the document holds no words")
    vectors = engine.vectors(reading.texts)
    worth = _worth(reading.sentences, vectors)
    counts = [len(words(text)) for text in reading.texts]
    chosen = _choose(worth, vectors @ vectors.T, counts, limit)
    if not chosen:
        return {"summary": cut(reading.texts[int(np.argmax(worth))], limit)}
    return {"summary": " ".join(ended(reading.texts[index]) for index in sorted(chosen))}


def classify(reading: Reading, engine: Engine, labels: Mapping[str, str]) -> dict[str, str | float]:
    """`{"label": ..., "confidence": ...}`: the label whose name and description are nearest to the document.

    `confidence` is the label's share of all labels' similarities and that of an unrelated one (softmax): low where no
    label fits or several do, and no probability of being right.
    """
    if not labels:
        raise UnanswerableError("parameters.labels is empty")
    if not reading.sentences:
        raise UnanswerableError("the document holds no words")
    described = label_texts(labels)
    vectors = engine.vectors([*reading.texts, *described])
    scores = _nearness(vectors[: -len(described)], vectors[-len(described) :])
    best = int(np.argmax(scores))
    parts = np.exp((np.append(scores, _UNRELATED) - scores[best]) / _TEMPERATURE)
    return {"label": list(labels)[best], "confidence": round(float(1 / parts.sum()), 4)}


def label_texts(labels: Mapping[str, str]) -> list[str]:
    """What stands for each label when it is compared with a document."""
    return [f"{name.replace('_', ' ').replace('-', ' ')}: {told}" if told else name for name, told in labels.items()]


def _worth(sentences: Sequence[Sentence], vectors: Matrix) -> Matrix:
    nearness = vectors @ _centre(vectors)
    place = np.array([1 / (1 + 0.25 * sentence.place) for sentence in sentences], np.float32)
    alone = np.array([0.0 if sentence.plain else _BOILERPLATE for sentence in sentences], np.float32)
    return np.asarray(_NEARNESS * nearness + (1 - _NEARNESS) * place - alone, np.float32)


def _choose(worth: Matrix, similarity: Matrix, counts: Sequence[int], limit: int) -> list[int]:
    """Maximal marginal relevance: the sentence of most worth that repeats least, while there is room."""
    chosen: list[int] = []
    room = limit
    floor = _WORTHWHILE * float(worth.max())
    open_ = {index for index in range(len(counts)) if worth[index] >= floor}
    while True:
        open_ = {index for index in open_ if counts[index] <= room}
        if not open_:
            return chosen

        def gain(index: int) -> float:
            repeats = max((float(similarity[index, other]) for other in chosen), default=0.0)
            return float(worth[index]) - _SAMENESS * repeats

        best = max(sorted(open_), key=gain)
        chosen.append(best)
        open_ = {index for index in open_ if index != best and similarity[index, best] < _SAME}
        room -= counts[best]


def _nearness(sentences: Matrix, labels: Matrix) -> Matrix:
    each = sentences @ labels.T
    best = np.sort(each, axis=0)[-_BEST:].mean(axis=0)
    return np.asarray((labels @ _centre(sentences) + best) / 2, np.float32)


def _centre(vectors: Matrix) -> Matrix:
    # Documents say first what they are about.
    weights = 1 / (1 + 0.1 * np.arange(len(vectors), dtype=np.float32))
    centre = weights @ vectors
    length = float(np.linalg.norm(centre))
    return np.asarray(centre / length if length else centre, np.float32)
