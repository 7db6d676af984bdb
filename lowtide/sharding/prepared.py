"""A stretch of documents made ready for their request lines: hashed, escaped and measured, column by column.

Whole columns at a time: a loop of Python over documents costs more than everything that is done to them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, repeat

import orjson

from lowtide import ids
from lowtide.records import DocumentBatch
from lowtide.sharding.lines import LineFormat, escape
from lowtide.sharding.strings import whole

HALF_A_PAIR = "the text holds half a surrogate pair, which UTF-8 cannot carry"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents number `start` and following of a batch.

    `reasons` and `sha256` have an entry for each document; `columns` one for each document without a reason, and so do
    the running totals `ends`: bytes of all request lines of the documents up to that one. `readable` holds those
    documents' places.
    """

    start: int
    reasons: list[str | None]
    sha256: list[str | None]
    readable: Sequence[int]
    checks: list[bytes]
    columns: Mapping[str, list[bytes]]
    ends: list[int]

    def __len__(self) -> int:
        return len(self.reasons)

    def fitting(self, done: int, room: int) -> int:
        """How many documents behind the first `done` have lines that fit into so many bytes together."""
        first = bisect_left(self.readable, done)
        before = self.ends[first - 1] if first else 0
        last = max(first, bisect_right(self.ends, before + room))
        return (self.readable[last] if last < len(self.readable) else len(self)) - done

    def lines(self, formats: Sequence[LineFormat], start: int, stop: int, ordinal: int) -> list[bytes]:
        """The lines of documents `start` to `stop`, document by document, as records from `ordinal` on."""
        places = slice(bisect_left(self.readable, start), bisect_left(self.readable, stop))
        checks, width = self.checks[places], len(formats)
        columns = {name: values[places] for name, values in self.columns.items()}
        lines = [b""] * (len(checks) * width)
        for offset, line_format in enumerate(formats):
            ordinals = range(ordinal + offset, ordinal + len(lines) + offset, width)
            columns["record_id"] = list(map(b"r%07dx%b".__mod__, zip(ordinals, checks, strict=True)))
            lines[offset::width] = line_format.fill(columns)
        return lines

    def firsts(self, start: int, stop: int, ordinal: int, width: int) -> list[int]:
        """The ordinals of the documents' first records, -1 where there are none."""
        if isinstance(self.readable, range):
            return list(range(ordinal, ordinal + (stop - start) * width, width))
        firsts = [-1] * (stop - start)
        places = self.readable[bisect_left(self.readable, start) : bisect_left(self.readable, stop)]
        for place in places:
            firsts[place - start] = ordinal
            ordinal += width
        return firsts


@dataclass(frozen=True, slots=True)
class Preparer:
    """What is the same for all of a run's documents. `fields` are those that prompts use."""

    formats: tuple[LineFormat, ...]
    fields: tuple[str, ...]
    salt: bytes
    request_bytes: int

    def prepare(self, batch: DocumentBatch, start: int, stop: int) -> Prepared:
        """Documents `start` to `stop` of the batch."""
        reasons = batch.reasons[start:stop]
        texts = batch.texts[start:stop]
        columns = {"text": _escaped(texts, reasons)}
        # Escaping has left each text's UTF-8 inside its str, so that encoding it again is a copy.
        hashes = [found.hexdigest() for found in map(hashlib.sha256, map(str.encode, texts))]
        sha256 = [found if reason is None else None for found, reason in zip(hashes, reasons, strict=True)]
        if any("marker" in line_format.slots for line_format in self.formats):
            columns["marker"] = list(map(str.encode, map(ids.marker, repeat(self.salt), hashes)))
        for name in self.fields:
            columns[name] = [escape(_one_line(value)) for value in batch.fields[name][start:stop]]
        sizes = [line_format.sizes(columns, len(texts)) for line_format in self.formats]
        for at, longest in enumerate(map(max, *sizes) if len(sizes) > 1 else sizes[0]):
            if longest > self.request_bytes and reasons[at] is None:
                reasons[at] = _too_long(longest, self.request_bytes)
        totals = list(map(sum, zip(*sizes, strict=True)))
        checks = [found[:8].encode() for found in hashes]
        readable: Sequence[int] = range(len(reasons))
        kept = [reason is None for reason in reasons]
        if not all(kept):
            columns = {name: list(compress(values, kept)) for name, values in columns.items()}
            readable = list(compress(readable, kept))
            totals = list(compress(totals, kept))
            checks = list(compress(checks, kept))
        return Prepared(start, reasons, sha256, readable, checks, columns, list(accumulate(totals)))


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


def _one_line(value: str | None) -> str:
    """A field's value as prompts hold it: on one line, so that it cannot pose as part of the prompt's structure."""
    return " ".join(whole(value).split()) if value else ""
