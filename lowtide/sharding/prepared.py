"""A stretch of documents made ready for their request lines: hashed, escaped and measured, column by column.

Whole columns at a time: a loop of Python over documents costs more than everything that is done to them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, repeat
from typing import NamedTuple

import numpy as np
import orjson

from lowtide import ids
from lowtide.records import DocumentBatch
from lowtide.sharding.lines import LineFormat, escape
from lowtide.sharding.reuse import Known, Looked, one_line

HALF_A_PAIR = "the text holds half a surrogate pair, which UTF-8 cannot carry"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents number `start` and following of a batch.

    `reasons` and `sha256` have an entry for each document; `columns` one for each document without a reason, and so do
    the running totals `ends`: bytes of all request lines of the documents up to that one. `readable` holds those
    documents' places, `texts` the UTF-8 bytes of each one's text. `looked` says which of their requests are to be
    asked; None if all are.
    """

    start: int
    reasons: list[str | None]
    sha256: list[str | None]
    readable: Sequence[int]
    checks: list[bytes]
    columns: Mapping[str, list[bytes]]
    ends: list[int]
    texts: list[int]
    everything: int
    looked: Looked | None = None

    def __len__(self) -> int:
        return len(self.reasons)

    def fitting(self, done: int, room: int) -> int:
        """How many documents behind the first `done` have lines that fit into so many bytes together."""
        first = bisect_left(self.readable, done)
        before = self.ends[first - 1] if first else 0
        last = max(first, bisect_right(self.ends, before + room))
        return (self.readable[last] if last < len(self.readable) else len(self)) - done

    def lines(self, formats: Sequence[LineFormat], start: int, stop: int, ordinal: int) -> Lines:
        """The lines of documents `start` to `stop`, document by document, as records from `ordinal` on."""
        places = slice(bisect_left(self.readable, start), bisect_left(self.readable, stop))
        checks, width = self.checks[places], len(formats)
        columns = {name: values[places] for name, values in self.columns.items()}
        count = len(checks)
        if self.looked is None:
            firsts = list(range(ordinal, ordinal + count * width, width))
            lines = [b""] * (count * width)
            for offset, line_format in enumerate(formats):
                ordinals = range(ordinal + offset, ordinal + len(lines) + offset, width)
                columns["record_id"] = _record_ids(ordinals, checks)
                lines[offset::width] = line_format.fill(columns)
            ops = list(range(width)) * count
            return Lines(lines, ops, self._spread(firsts, start, stop))
        asked = self.looked.asked[places]
        bits = (asked[:, None] >> np.arange(width)) & 1
        flat = bits.ravel().cumsum()
        ordinals_of = (flat - bits.ravel()).reshape(count, width) + ordinal
        lines = [b""] * (int(flat[-1]) if count else 0)
        ops = [0] * len(lines)
        for op, line_format in enumerate(formats):
            here = np.flatnonzero(bits[:, op]).tolist()
            at = ordinals_of[here, op].tolist()
            chosen = {name: list(map(values.__getitem__, here)) for name, values in columns.items()}
            chosen["record_id"] = _record_ids(at, map(checks.__getitem__, here))
            for number, line in zip(at, line_format.fill(chosen), strict=True):
                lines[number - ordinal] = line
                ops[number - ordinal] = op
        firsts = np.where(asked > 0, ordinals_of[:, 0], -1).tolist() if count else []
        return Lines(lines, ops, self._spread(firsts, start, stop))

    def _spread(self, firsts: list[int], start: int, stop: int) -> list[int]:
        """An entry for each document, readable or not: -1 for those that are not."""
        if isinstance(self.readable, range):
            return firsts
        spread = [-1] * (stop - start)
        places = self.readable[bisect_left(self.readable, start) : bisect_left(self.readable, stop)]
        for place, first in zip(places, firsts, strict=True):
            spread[place - start] = first
        return spread

    def known(self, start: int, stop: int) -> KnownColumns:
        """What is asked, repeated and reused of documents `start` to `stop`."""
        places = slice(bisect_left(self.readable, start), bisect_left(self.readable, stop))
        texts = self.texts[places]
        width = self.everything.bit_count()
        looked = self.looked
        if looked is None:
            asked, twins = [self.everything] * len(texts), [0] * len(texts)
            reused: list[tuple[tuple[int, int, int], ...]] = [()] * len(texts)
            sizes = [size * width for size in texts] if width > 1 else texts
        else:
            asked, twins = looked.asked[places].tolist(), looked.twins[places].tolist()
            reused = [looked.reused.get(at, ()) for at in range(places.start, places.stop)]
            sizes = [size * mask.bit_count() for size, mask in zip(texts, asked, strict=True)]
        if isinstance(self.readable, range):
            return KnownColumns(asked, twins, reused, sizes)
        total = stop - start
        found = KnownColumns([0] * total, [0] * total, [()] * total, [0] * total)
        here = self.readable[places]
        for at, place in enumerate(here):
            row = place - start
            found.asked[row], found.twins[row] = asked[at], twins[at]
            found.reused[row], found.texts[row] = reused[at], sizes[at]
        return found


class Lines(NamedTuple):
    """Request lines, each one's operation, and the ordinal of each document's first one: -1 where it has none."""

    lines: list[bytes]
    ops: list[int]
    firsts: list[int]


class KnownColumns(NamedTuple):
    """One entry a document, as in `BuiltShard`."""

    asked: list[int]
    twins: list[int]
    reused: list[tuple[tuple[int, int, int], ...]]
    texts: list[int]


def _record_ids(ordinals: Iterable[int], checks: Iterable[bytes]) -> list[bytes]:
    return list(map(b"r%07dx%b".__mod__, zip(ordinals, checks, strict=False)))


@dataclass(frozen=True, slots=True)
class Preparer:
    """What is the same for all of a run's documents. `fields` are those that prompts use."""

    formats: tuple[LineFormat, ...]
    fields: tuple[str, ...]
    salt: bytes
    request_bytes: int
    known: Known | None = None

    def prepare(self, batch: DocumentBatch, start: int, stop: int) -> Prepared:
        """Documents `start` to `stop` of the batch."""
        reasons = batch.reasons[start:stop]
        texts = batch.texts[start:stop]
        columns = {"text": _escaped(texts, reasons)}
        # Escaping has left each text's UTF-8 inside its str, so that encoding it again is a copy.
        encoded = list(map(str.encode, texts))
        hashes = [found.hexdigest() for found in map(hashlib.sha256, encoded)]
        lengths = list(map(len, encoded))
        del encoded
        sha256 = [found if reason is None else None for found, reason in zip(hashes, reasons, strict=True)]
        if any("marker" in line_format.slots for line_format in self.formats):
            columns["marker"] = list(map(str.encode, map(ids.marker, repeat(self.salt), hashes)))
        fields = {name: [one_line(value) for value in batch.fields[name][start:stop]] for name in self.fields}
        columns |= {name: list(map(escape, values)) for name, values in fields.items()}
        sizes = [line_format.sizes(columns, len(texts)) for line_format in self.formats]
        for at, longest in enumerate(map(max, *sizes) if len(sizes) > 1 else sizes[0]):
            if longest > self.request_bytes and reasons[at] is None:
                reasons[at] = _too_long(longest, self.request_bytes)
        checks = [found[:8].encode() for found in hashes]
        readable: Sequence[int] = range(len(reasons))
        kept = [reason is None for reason in reasons]
        if not all(kept):
            columns = {name: list(compress(values, kept)) for name, values in columns.items()}
            fields = {name: list(compress(values, kept)) for name, values in fields.items()}
            sizes = [list(compress(found, kept)) for found in sizes]
            readable = list(compress(readable, kept))
            hashes, checks = list(compress(hashes, kept)), list(compress(checks, kept))
            lengths = list(compress(lengths, kept))
        looked = self.known.look(hashes, fields) if self.known is not None and hashes else None
        if looked is not None:
            sizes = [(np.asarray(found) * ((looked.asked >> op) & 1)).tolist() for op, found in enumerate(sizes)]
        totals = list(map(sum, zip(*sizes, strict=True))) if len(sizes) > 1 else sizes[0]
        everything = (1 << len(self.formats)) - 1
        return Prepared(
            start, reasons, sha256, readable, checks, columns, list(accumulate(totals)), lengths, everything, looked
        )


def _escaped(texts: list[str], reasons: list[str | None]) -> list[bytes]:
    """The texts as the insides of JSON strings. One that UTF-8 cannot carry is emptied, and gets a reason."""
    try:
        return [text[1:-1] for text in map(orjson.dumps, texts)]
    except TypeError:
        for at, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError:
                texts[at] = ""
                reasons[at] = HALF_A_PAIR
        return list(map(escape, texts))


def _too_long(found: int, allowed: int) -> str:
    return (
        f"the document is too long: {found:,} bytes as a request, and the backend takes {allowed:,}; "
        "split it before it is read"
    )
