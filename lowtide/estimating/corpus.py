"""Statistics over documents, in bounded memory: their sizes, and a sample of their text.

Text is cut into pieces of 1,024 characters. Each has a key, drawn from its document, and the sample is the pieces with
the smallest keys, up to 320 K characters: a fair sample, and the same in whatever order and batches documents come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import numpy.typing as npt

PIECE = 1024
"""Characters of a piece."""
SAMPLE = 320 << 10
"""Characters of all pieces that are kept."""
MEASURED = 4096
"""Up to so many documents beyond ASCII, `text_bytes` is exact; of more, at least half as many are measured."""

_SLACK = 96 << 10
_BATCH = 512
_BUFFERED_CHARACTERS = 1 << 20
_BUCKETS = 192
# What a document is drawn by: its size and some text from its middle, as headers and footers are often the same.
_LOOK = 48
_KEYS = 1 << 64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)

Integers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@dataclass(slots=True)
class Group:
    """The documents of one format: how many, their characters, and both by size, in quarters of powers of two.

    `cuts` is how often a text was cut into pieces.
    """

    documents: int = 0
    characters: int = 0
    cuts: int = 0
    counts: Integers = field(default_factory=lambda: np.zeros(_BUCKETS, np.int64))
    sums: Integers = field(default_factory=lambda: np.zeros(_BUCKETS, np.int64))

    def add(self, sizes: Integers) -> None:
        """Count documents of so many characters."""
        buckets = (4 * np.log2(np.maximum(sizes, 1))).astype(np.int64)
        self.documents += len(sizes)
        self.characters += int(sizes.sum())
        self.cuts += int((np.maximum(sizes - 1, 0) // PIECE).sum())
        self.counts += np.bincount(buckets, minlength=_BUCKETS)
        self.sums += np.bincount(buckets, sizes, minlength=_BUCKETS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text of the sample, and how often it came."""

    group: str
    text: str
    times: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The pieces, by their keys, and the share of all different pieces that they are; 1 if nothing was left out."""

    pieces: tuple[Piece, ...]
    share: float


class Corpus:
    """Counts documents and keeps a sample of them. Memory is bounded, however many are added."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._kept: dict[tuple[int, str, str], int] = {}
        self._kept_characters = 0
        self._limit: tuple[int, str, str] = (_KEYS - 1, "\U0010ffff", "")
        self._complete = True
        self._bytes = _Bytes()
        self._waiting: dict[str, list[str]] = {}
        self._characters = 0

    def add(self, group: str, texts: Sequence[str]) -> None:
        """Take in documents of a format, such as `md`, `jsonl` or `pdf`."""
        if len(texts) >= _BATCH:
            self._take(group, texts)
            return
        # Few at a time would cost more in calls than in work.
        self._waiting.setdefault(group, []).extend(texts)
        self._characters += sum(map(len, texts))
        if self._characters >= _BUFFERED_CHARACTERS or len(self._waiting[group]) >= _BATCH:
            self._settle()

    @property
    def documents(self) -> int:
        """How many documents were added."""
        self._settle()
        return sum(group.documents for group in self._groups.values())

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of their text; within about 1 % where there are more than MEASURED documents beyond ASCII."""
        self._settle()
        return self._bytes.total

    @property
    def groups(self) -> tuple[tuple[str, Group], ...]:
        """What is known of each format, by name."""
        self._settle()
        return tuple(sorted(self._groups.items()))

    def sample(self) -> Sample:
        """The sample as it stands."""
        self._settle()
        self._trim()
        pieces = tuple(Piece(group, _clean(text), times) for (_, group, text), times in sorted(self._kept.items()))
        return Sample(pieces, 1.0 if self._complete else self._limit[0] / _KEYS)

    def _settle(self) -> None:
        for group, texts in self._waiting.items():
            if texts:
                self._take(group, texts)
        self._waiting.clear()
        self._characters = 0

    def _take(self, group: str, texts: Sequence[str]) -> None:
        plain = [text for text in texts if text.isascii()]
        other = [text for text in texts if not text.isascii()]
        ordered = plain + other
        keys = [crc32(text[(size := len(text)) >> 1 : (size >> 1) + _LOOK].encode(), size) for text in plain]
        keys += [
            crc32(text[(size := len(text)) >> 1 : (size >> 1) + _LOOK].encode("utf-8", "replace"), size)
            for text in other
        ]
        sizes = np.fromiter(map(len, ordered), np.int64, len(ordered))
        drawn = np.array(keys, np.uint64)
        self._groups.setdefault(group, Group()).add(sizes)
        self._bytes.add_plain(int(sizes[: len(plain)].sum()))
        self._bytes.add(other, sizes[len(plain) :], _mixed(drawn[len(plain) :]))
        counts = -(-sizes // PIECE)
        document = np.repeat(np.arange(len(sizes)), counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        drawn = _mixed(drawn[document] + number.astype(np.uint64) * _GOLDEN)
        for at in np.flatnonzero(drawn <= np.uint64(self._limit[0])).tolist():
            begin = int(number[at]) * PIECE
            self._keep((int(drawn[at]), group, ordered[document[at]][begin : begin + PIECE]))

    def _keep(self, entry: tuple[int, str, str]) -> None:
        if entry > self._limit:
            return
        if entry not in self._kept:
            self._kept_characters += len(entry[2])
        self._kept[entry] = self._kept.get(entry, 0) + 1
        if self._kept_characters > SAMPLE + _SLACK:
            self._trim()

    def _trim(self) -> None:
        """Let go of the pieces with the largest keys. What has gone can never be among the smallest again."""
        if self._kept_characters <= SAMPLE:
            return
        kept: dict[tuple[int, str, str], int] = {}
        room = SAMPLE
        for entry in sorted(self._kept):
            room -= len(entry[2])
            if room < 0:
                break
            kept[entry] = self._kept[entry]
            self._limit = entry
        self._kept, self._complete = kept, False
        self._kept_characters = sum(len(text) for _, _, text in kept)


class _Bytes:
    """UTF-8 bytes of all texts. Those beyond ASCII would have to be encoded, so of many only some are measured.

    These are the ones with the smallest keys; the others are taken to have as many bytes a character.
    """

    def __init__(self) -> None:
        self._plain = 0
        self._characters = 0
        self._limit = _KEYS - 1
        self._keys: Keys = np.zeros(0, np.uint64)
        self._sizes: Integers = np.zeros((0, 2), np.int64)

    def add_plain(self, characters: int) -> None:
        """Texts that are all ASCII."""
        self._plain += characters

    def add(self, texts: Sequence[str], sizes: Integers, keys: Keys) -> None:
        """Texts that are not, their characters and their keys."""
        self._characters += int(sizes.sum())
        chosen = np.flatnonzero(keys <= np.uint64(self._limit))
        measured = _encoded_sizes(texts[at] for at in chosen.tolist())
        self._keys = np.concatenate([self._keys, keys[chosen]])
        self._sizes = np.concatenate([self._sizes, np.stack([sizes[chosen], measured], axis=1)])
        if len(self._keys) > MEASURED:
            self._thin_out()

    def _thin_out(self) -> None:
        """Put those with the same key, such as the same text, together; if that is not enough, halve the limit."""
        self._keys, place = np.unique(self._keys, return_inverse=True)
        self._sizes = np.stack(
            [np.bincount(place, column, len(self._keys)).astype(np.int64) for column in self._sizes.T], axis=1
        )
        while len(self._keys) > MEASURED:
            self._limit //= 2
            kept = self._keys <= np.uint64(self._limit)
            self._keys, self._sizes = self._keys[kept], self._sizes[kept]

    @property
    def total(self) -> int:
        """Bytes of all."""
        characters, size = (int(value) for value in self._sizes.sum(axis=0))
        rest = self._characters - characters
        return self._plain + size + (rest * size // characters if characters else 2 * rest)


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _encoded_sizes(texts: Iterable[str]) -> Integers:
    return np.array([len(text.encode("utf-8", "replace")) for text in texts], np.int64)


def _mixed(keys: Keys) -> Keys:
    """Keys spread evenly over 64 bits (the last steps of SplitMix64)."""
    keys = (keys ^ (keys >> np.uint64(30))) * _MIX
    keys = (keys ^ (keys >> np.uint64(27))) * _MIX2
    return keys ^ (keys >> np.uint64(31))
