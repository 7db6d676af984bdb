"""What all readers of rows share: the piece of a file that they yield, lines of bounded length, and keys used once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lowtide.connectors.formats.gzipped import Readable
from lowtide.connectors.formats.limits import Unreadable

PIECE_ROWS = 1_000
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """Which fields of a row are wanted: its text, its key (None: rows are numbered), and others by name."""

    text: str
    id: str | None
    fields: Sequence[str]

    @property
    def all(self) -> list[str]:
        """Every name once, the text first."""
        return list(dict.fromkeys([self.text, *([] if self.id is None else [self.id]), *self.fields]))


@dataclass(slots=True)
class Rows:
    """A piece of a file as columns. `numbers` count the file's rows from 0; `ids` holds None where a row has no key.

    `texts` holds "" where `reasons` says why there is none. `whole` marks the one entry that stands for a file, or for
    the rest of one, and is no row.
    """

    numbers: list[int] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    fields: dict[str, list[str | None]] = field(default_factory=dict)
    whole: bool = False

    def __len__(self) -> int:
        return len(self.numbers)


def unread(number: int, why: str, asked: Asked) -> Rows:
    """The one entry for a file, or the rest of a file, that cannot be read."""
    return Rows([number], [None], [""], [why], {name: [None] for name in asked.fields}, whole=True)


class Lines:
    """The lines of a stream, ends cut off, a block at a time, in memory bounded by `longest` whatever the stream holds.

    Lines end at \\n alone: U+2028 and its like are text. A line of more than `longest` bytes is given as None.
    """

    def __init__(self, stream: Readable, longest: int) -> None:
        self._stream = stream
        self._longest = longest

    def __iter__(self) -> Iterator[list[bytes | None]]:
        rest = b""
        skipping = False
        while block := self._stream.read(_BLOCK):
            lines: list[bytes | None] = list((rest + block).split(b"\n"))
            last = lines.pop()
            if skipping and lines:
                lines[0], skipping = None, False
            if not skipping:
                rest = last or b""
            if len(rest) > self._longest:
                rest, skipping = b"", True
            yield (
                lines
                if _short(lines, self._longest)
                else [line if line is None or len(line) <= self._longest else None for line in lines]
            )
        if skipping:
            yield [None]
        elif rest:
            yield [rest]


def _short(lines: list[bytes | None], longest: int) -> bool:
    """Whether no line is too long; known without a look where blocks are shorter than the longest line."""
    return longest > 2 * _BLOCK and (not lines or lines[0] is None or len(lines[0]) <= longest)


def refuse_utf16(head: bytes) -> None:
    """Raises Unreadable for a file of lines in UTF-16 or UTF-32, whose line ends are not where they seem to be."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        raise Unreadable("UTF-16 or UTF-32: convert the file to UTF-8")


class SeenKeys:
    """Tells keys that came before, at eight bytes a key, a hash: of 10**7 files with a million rows each, about one has
    two different keys that are taken for the same, and a row that is skipped for it.
    """

    def __init__(self) -> None:
        self._runs: list[npt.NDArray[np.int64]] = []

    def repeated(self, keys: Sequence[str]) -> list[int]:
        """Positions of the keys that came before, in this call or in an earlier one; all are known from now on."""
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        again = np.zeros(len(keys), dtype=bool)
        again[order[1:]] = ordered[1:] == ordered[:-1]
        for run in self._runs:
            at = np.searchsorted(run, hashes)
            again |= run[np.minimum(at, len(run) - 1)] == hashes
        self._add(ordered)
        return [int(position) for position in np.flatnonzero(again)]

    def _add(self, run: npt.NDArray[np.int64]) -> None:
        """Runs are merged as soon as one is no larger than the next, so that there are few of them."""
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort(kind="stable")
        if len(run):
            self._runs.append(run)
