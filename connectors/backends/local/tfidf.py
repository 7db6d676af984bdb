"""Sentence vectors by TF-IDF over hashed word stems: what is left when the MiniLM package is not installed."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lowtide.connectors.backends.local.engine import TFIDF_NAME

if TYPE_CHECKING:
    from lowtide.connectors.backends.local.engine import Matrix

_FEATURES = 4096
_WORD = re.compile(r"[^\W_]+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_SUFFIX = re.compile(r"(?:ations?|ements?|ings?|ions?|ities|ity|iers?|ies|ers?|ed|es|ly|s)$")
_COMMON = frozenset(
    """
    a about after all also an and any are as at be because been before being but by can could did do does doing for
    from get had has have he her here him his how i if in into is it its just like may me more most my no not now of
    on one only or other our out over she so some such than that the their them then there these they this those to
    too up us use used using very was we were what when where which while who will with without would you your
    """.split()  # noqa: SIM905 (a list of one word a line is nothing to read)
)


class TfIdf:
    """The engine without a model: two texts are near if they share words, weighted by how few texts of the call do."""

    name = TFIDF_NAME

    def prepare(self, texts: Iterable[str]) -> None:
        """Nothing: a vector costs microseconds."""

    def vectors(self, texts: Sequence[str]) -> Matrix:
        """One row of unit length per text, or of zeros if it holds common words only.

        Unlike a model's, these vectors depend on the texts of the same call: words that most of them share count less.
        """
        counts = [_counts(text) for text in texts]
        spread = Counter(feature for found in counts for feature in found)
        rows = np.zeros((len(texts), _FEATURES), np.float32)
        for row, found in zip(rows, counts, strict=True):
            for feature, count in found.items():
                row[feature] = (1 + np.log(count)) * (1 + np.log((1 + len(texts)) / (1 + spread[feature])))
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(lengths == 0, 1, lengths), np.float32)

    def count_tokens(self, text: str) -> int:
        """Words, and marks that are no part of one: fewer than a model's tokens, and the same everywhere."""
        return sum(1 for _ in _TOKEN.finditer(text))


def _counts(text: str) -> Counter[int]:
    stems = (_stem(word) for word in _WORD.findall(text.lower()) if word not in _COMMON)
    # crc32 is the same in every process, which Python's own hash is not.
    return Counter(zlib.crc32(stem.encode(errors="replace")) % _FEATURES for stem in stems)


def _stem(word: str) -> str:
    short = _SUFFIX.sub("", word)
    return short if len(short) >= 4 else word
