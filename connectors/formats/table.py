"""CSV and TSV: rows by the standard library's reader, which can be set right again after a broken one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Protocol

from lowtide.connectors.formats.gzipped import Readable
from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes, names
from lowtide.connectors.formats.rows import PIECE_ROWS, Asked, Lines, Rows, refuse_utf16, unread
from lowtide.errors import LowtideError

_DELIMITERS = ",;\t|"
_RETRIES = 100
"""How often the lines behind a quote that nobody closed are read again as rows: each costs up to a row's limit."""


class _Csv(Protocol):
    """What csv.reader returns."""

    @property
    def line_num(self) -> int: ...

    def __next__(self) -> list[str]: ...


def read_csv(stream: Readable, asked: Asked, limits: ReadLimits, *, tabs: bool) -> Iterator[Rows]:
    """All rows under the header, in order. Commas, semicolons, tabs or bars: what makes the text's column appear.

    A broken row has its reason; a header without the text's column, or a broken stream, gives one entry for the file.
    """
    csv.field_size_limit(max(csv.field_size_limit(), limits.row_bytes))
    reader = _Reader(stream, asked, limits)
    try:
        reader.open("\t" if tabs else None)
        yield from reader.rows()
    except Unreadable as error:
        yield from reader.rest()
        yield unread(reader.number, str(error), asked)


class _Lines:
    """Feeds csv.reader. Remembers the lines of the row that is being read, so that they can be read again."""

    def __init__(self, stream: Readable, longest: int) -> None:
        self._blocks = iter(Lines(stream, longest))
        self._lines: list[bytes | None] = []
        self._at = 0
        self._again: list[tuple[str, bool]] = []
        self._longest = longest
        self._held = 0
        self.number = 0
        self.row: list[tuple[str, bool]] = []

    @property
    def invalid(self) -> bool:
        """Whether the row has bytes that are no UTF-8."""
        return any(invalid for _, invalid in self.row)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line, invalid = self._again.pop() if self._again else self._decoded()
        self.number += 1
        self._held += len(line)
        self.row.append((line, invalid))
        if self._held > self._longest:
            raise _RowFault(
                f"longer than {megabytes(self._longest)}, the limit for a row: split it, or close its quote"
            )
        return line

    def _decoded(self) -> tuple[str, bool]:
        while self._at >= len(self._lines):
            self._lines, self._at = next(self._blocks), 0
        line = self._lines[self._at]
        self._at += 1
        if line is None:
            self.number += 1
            raise _RowFault(f"longer than {megabytes(self._longest)}, the limit for a row: split it")
        if not self.number:
            refuse_utf16(line)
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.decode() + "\n", False
        except UnicodeDecodeError:
            return line.decode("utf-8", "replace") + "\n", True

    def next_row(self) -> None:
        """Forget the lines of the row before."""
        self.row = []
        self._held = 0

    def read_again(self) -> None:
        """Give the lines of this row but its first once more."""
        again = self.row[1:]
        self.number -= len(again)
        self._again += reversed(again)


class _RowFault(LowtideError):
    """One row cannot be used."""


class _Reader:
    def __init__(self, stream: Readable, asked: Asked, limits: ReadLimits) -> None:
        self.number = 0
        self._lines = _Lines(stream, limits.row_bytes)
        self._asked = asked
        self._retries = _RETRIES
        self._piece = self._fresh()
        self._width = 0
        self._text = 0
        self._id: int | None = None
        self._fields: dict[str, int | None] = {}
        self._csv: _Csv

    def _fresh(self) -> Rows:
        return Rows(fields={name: [] for name in self._asked.fields})

    def open(self, delimiter: str | None) -> None:
        """Read the header. Raises Unreadable."""
        try:
            first = next(self._lines)
            while not first.strip():
                first = next(self._lines)
        except StopIteration:
            raise Unreadable("the file is empty") from None
        except _RowFault as error:
            raise Unreadable(f"header: {error}") from None
        if self._lines.invalid:
            raise Unreadable("invalid UTF-8 in the header: convert the file to UTF-8")
        headers = [_header(first, each) for each in ([delimiter] if delimiter else _DELIMITERS)]
        header = next((each for each in headers if self._asked.text in each), headers[0])
        for wanted in (self._asked.text, self._asked.id):
            if wanted is not None and header.count(wanted) != 1:
                found = f"no column {wanted!r}" if wanted not in header else f"more than one column {wanted!r}"
                raise Unreadable(f"{found}; the header has: {names(header)}")
        self._width = len(header)
        self._text = header.index(self._asked.text)
        self._id = None if self._asked.id is None else header.index(self._asked.id)
        self._fields = {name: header.index(name) if name in header else None for name in self._asked.fields}
        used = delimiter or _DELIMITERS[headers.index(header)]
        self._csv = csv.reader(self._lines, delimiter=used, strict=True)

    def rest(self) -> Iterator[Rows]:
        """What is left when there are no more rows."""
        if len(self._piece):
            yield self._piece
            self._piece = self._fresh()

    def rows(self) -> Iterator[Rows]:
        """The rows behind the header. Raises Unreadable when the stream breaks."""
        while True:
            self._lines.next_row()
            line = self._lines.number + 1
            try:
                row = next(self._csv)
            except StopIteration:
                break
            except (csv.Error, _RowFault) as error:
                self._fault(line, error)
            else:
                if row:
                    self._add(line, row)
            if len(self._piece) >= PIECE_ROWS:
                yield from self.rest()
        yield from self.rest()

    def _fault(self, line: int, error: Exception) -> None:
        """A row that the reader could not finish. If it has several lines, its quote is wrong and they are rows."""
        if isinstance(error, _RowFault):
            why = str(error)
        elif len(self._lines.row) > 1:
            why = "a quote is opened and never properly closed: close it, or double the quotes inside the field"
        else:
            why = "a quote stands inside a field, or a line end: quote the field and double the quotes in it"
        if len(self._lines.row) > 1 and self._retries:
            self._retries -= 1
            self._lines.read_again()
        self._skip(line, why)

    def _add(self, line: int, row: list[str]) -> None:
        if self._lines.invalid:
            self._skip(line, "invalid UTF-8: convert the file to UTF-8")
        elif len(row) != self._width:
            self._skip(line, f"{len(row)} fields where the header has {self._width}: quote or escape the delimiter")
        else:
            piece = self._piece
            piece.texts.append(row[self._text])
            piece.reasons.append(None)
            piece.ids.append(None if self._id is None else row[self._id])
            piece.numbers.append(self.number)
            for name, column in piece.fields.items():
                at = self._fields[name]
                column.append(None if at is None else row[at])
            self.number += 1

    def _skip(self, line: int, why: str) -> None:
        piece = self._piece
        piece.texts.append("")
        piece.reasons.append(f"line {line}: {why}")
        piece.ids.append(None)
        piece.numbers.append(self.number)
        for column in piece.fields.values():
            column.append(None)
        self.number += 1


def _header(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return []
