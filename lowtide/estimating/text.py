"""Tokens of the documents' text, from a sample of it: how many, how sure, and how they are spread over documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowtide.estimating import scripts
from lowtide.estimating.corpus import Corpus, Group, Piece
from lowtide.estimating.vocabularies import Count, Family

Z = 1.645
"""Standard deviations on either side within which 90 % lie."""
TABLE_SPREAD = 0.15
"""How far the ratios by script may be off, with 90 %: docs/operations/estimates.md."""

_FEW = 8
_LOOKED_AT = 128
# A word cut in two is one token more, nearly always. Measured on Python code: 0.88.
_TOKENS_PER_CUT = 0.88
_DOCUMENT_SPREAD = 1.0


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens of all documents of a corpus. `deviation` is the standard error from sampling text, as a share.

    `sizes` are tokens of typical documents and `weights` how many documents are like that. `pieces` were looked at, out
    of a corpus that they cover whole or not. `foreign` is the share of letters that are not Latin, `per_word` the
    tokens between two blanks.
    """

    documents: int
    text_bytes: int
    tokens: float
    deviation: float
    sizes: tuple[float, ...]
    weights: tuple[int, ...]
    pieces: int
    covered: bool
    foreign: float
    per_word: float

    @property
    def mean(self) -> float:
        """Tokens of a document."""
        return self.tokens / self.documents if self.documents else 0.0

    @property
    def spread(self) -> float:
        """Standard deviation of a document's tokens."""
        if self.documents < 2:
            return self.mean * _DOCUMENT_SPREAD
        squares = sum(weight * (size - self.mean) ** 2 for size, weight in zip(self.sizes, self.weights, strict=True))
        return math.sqrt(squares / (self.documents - 1))

    def mean_of(self, factor: float, most: float) -> float:
        """What is left of a document's tokens times `factor` where no more than `most` count, on average."""
        if not self.documents:
            return 0.0
        found = (weight * min(size * factor, most) for size, weight in zip(self.sizes, self.weights, strict=True))
        return sum(found) / self.documents


def count_text(corpus: Corpus, family: Family, count: Count | None) -> Text:
    """Count the corpus's sample, exactly with `count` or by script without it, and scale it up format by format."""
    sample = corpus.sample()
    pieces, groups = sample.pieces, corpus.groups
    texts = [piece.text for piece in pieces]
    found = np.array([float(count(text)) for text in texts]) if count else scripts.tokens(texts, family.encoding)
    found = found * family.factor
    ratios = _ratios(pieces, found.tolist(), sample.share)
    pooled = ratios.get("", _Ratio(0.0, 0.0))
    total = variance = 0.0
    sizes: list[float] = []
    weights: list[int] = []
    for name, group in groups:
        ratio = ratios.get(name, pooled)
        tokens = max(ratio.value * group.characters - _TOKENS_PER_CUT * family.factor * group.cuts, 0.0)
        total += tokens
        variance += (ratio.error * group.characters) ** 2
        scale = tokens / group.characters if group.characters else 0.0
        sizes += _typical(group, scale)
        weights += [int(weight) for weight in group.counts[group.counts > 0]]
    return Text(
        documents=corpus.documents,
        text_bytes=corpus.text_bytes,
        tokens=total,
        deviation=math.sqrt(variance) / total if total else 0.0,
        sizes=tuple(sizes),
        weights=tuple(weights),
        pieces=len(pieces),
        covered=sample.share >= 1,
        foreign=scripts.beyond_latin(texts[:_LOOKED_AT]),
        per_word=float(found[:_LOOKED_AT].sum()) / max(sum(len(text.split()) for text in texts[:_LOOKED_AT]), 1),
    )


def student(count: int) -> float:
    """About as many standard errors on either side as hold 90 % of what so few observations may mean."""
    return Z * (1 + 1.5 / (count - 1)) if count > 1 else 4 * Z


@dataclass(frozen=True, slots=True)
class _Ratio:
    """Tokens per character, and their standard error."""

    value: float
    error: float


def _ratios(pieces: Sequence[Piece], found: Sequence[float], share: float) -> dict[str, _Ratio]:
    """The ratio of each format with enough pieces, and under "" that of all."""
    rows = np.array(
        [(len(piece.text) * piece.times, tokens * piece.times) for piece, tokens in zip(pieces, found, strict=True)]
    )
    names = [piece.group for piece in pieces]
    ratios: dict[str, _Ratio] = {}
    for name in ("", *sorted(set(names))):
        chosen = rows[[name in ("", other) for other in names]] if len(rows) else rows
        if len(chosen) and (share >= 1 or not name or len(chosen) >= _FEW):
            ratios[name] = _ratio(chosen[:, 0], chosen[:, 1], share)
    return ratios


def _ratio(sizes: npt.NDArray[np.float64], tokens: npt.NDArray[np.float64], share: float) -> _Ratio:
    """The ratio estimator, and its error with the correction for having looked at `share` of everything."""
    count, value = len(sizes), float(tokens.sum() / sizes.sum())
    if share >= 1:
        return _Ratio(value, 0.0)
    if count == 1:
        return _Ratio(value, value * TABLE_SPREAD)
    residuals = float(((tokens - value * sizes) ** 2).sum()) / (count - 1)
    return _Ratio(value, math.sqrt((1 - share) * residuals / count) / float(sizes.mean()))


def _typical(group: Group, scale: float) -> list[float]:
    """The tokens of a typical document of each size that there is."""
    there = group.counts > 0
    return [float(size) for size in group.sums[there] / group.counts[there] * scale]
