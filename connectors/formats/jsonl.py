"""JSON Lines: one object a line, decoded in process: to take rows over from a worker would cost as much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from lowtide.connectors.formats.gzipped import Readable
from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes, names
from lowtide.connectors.formats.rows import PIECE_ROWS, Asked, Lines, Rows, refuse_utf16, unread

_BOM = b"\xef\xbb\xbf"
_NULL = msgspec.Raw(b"null")
_STRING = msgspec.json.Decoder(str)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_jsonl(stream: Readable, asked: Asked, limits: ReadLimits) -> Iterator[Rows]:
    """All rows, in order. A line that cannot be used is a row with its reason; blank lines are none.

    A stream that breaks gives one entry for the rest of the file.
    """
    reader = _Reader(asked, limits)
    try:
        for lines in Lines(stream, limits.row_bytes):
            yield from reader.rows(lines)
    except Unreadable as error:
        yield from reader.rest()
        yield unread(reader.number, f"line {reader.line + 1} on: {error}", asked)
        return
    yield from reader.rest()
    if not reader.number:
        yield unread(0, "the file is empty", asked)


class _Reader:
    """Turns lines into rows, PIECE_ROWS at a time."""

    def __init__(self, asked: Asked, limits: ReadLimits) -> None:
        self.number = 0
        self.line = 0
        self._asked = asked
        self._limits = limits
        self._decoder = _decoder(asked)
        self._others = [f"f{asked.all.index(name)}" for name in asked.fields]
        self._id = None if asked.id is None else f"f{asked.all.index(asked.id)}"
        self._piece = self._fresh()

    def _fresh(self) -> Rows:
        return Rows(fields={name: [] for name in self._asked.fields})

    def rest(self) -> Iterator[Rows]:
        """What is left when there are no more lines."""
        if len(self._piece):
            yield self._piece
            self._piece = self._fresh()

    def rows(self, lines: list[bytes | None]) -> Iterator[Rows]:
        """The rows of these lines, as far as they fill pieces. Raises Unreadable if the file is no JSONL at all."""
        if not self.line and lines:
            lines = [self._first(lines[0]), *lines[1:]]
        decode, columns = self._decoder.decode, list(self._piece.fields.values())
        piece, others, key = self._piece, self._others, self._id
        for line in lines:
            self.line += 1
            if line is None:
                self._add(f"longer than {megabytes(self._limits.row_bytes)}, the limit for a row: split it")
            elif not line or line.isspace():
                continue
            else:
                try:
                    row = decode(line)
                    values = [_spelled(getattr(row, name)) for name in others]
                    identity = None if key is None else _spelled(getattr(row, key))
                except (ValueError, RecursionError):
                    self._salvage(line)
                else:
                    piece.texts.append(row.f0)
                    piece.reasons.append(None)
                    piece.ids.append(identity)
                    piece.numbers.append(self.number)
                    for column, value in zip(columns, values, strict=True):
                        column.append(value)
                    self.number += 1
            if len(piece.numbers) >= PIECE_ROWS:
                yield piece
                self._piece = piece = self._fresh()
                columns = list(piece.fields.values())

    def _first(self, line: bytes | None) -> bytes | None:
        if line is None:
            return None
        refuse_utf16(line)
        line = line.removeprefix(_BOM)
        if line.strip() in {b"[", b"{"}:
            raise Unreadable(
                "one JSON document over several lines, not one object a line: convert it with `jq -c '.[]'`"
            )
        return line

    def _add(self, why: str, found: dict[str, str | None] | None = None) -> None:
        """A row without text."""
        found = found or {}
        self._piece.texts.append("")
        self._piece.reasons.append(f"line {self.line}: {why}")
        self._piece.ids.append(found.get(self._asked.id) if self._asked.id else None)
        self._piece.numbers.append(self.number)
        for name, column in self._piece.fields.items():
            column.append(found.get(name))
        self.number += 1

    def _salvage(self, line: bytes) -> None:
        """Say what is wrong with a line, and keep its key and fields if they can be read."""
        try:
            row = _OBJECT.decode(line)
        except msgspec.ValidationError:
            self._add(f"holds {_kind(line.lstrip()[:1])}, not an object: write one object a line")
            return
        except UnicodeDecodeError as error:
            self._add(f"invalid UTF-8 near byte {error.start} of a value: convert the file to UTF-8")
            return
        except RecursionError:
            self._add("nested too deeply: flatten the object")
            return
        except ValueError:
            self._add(f"not valid JSON ({_fault(line)}): write it again")
            return
        found: dict[str, str | None] = {}
        for name in self._asked.all[1:]:
            try:
                found[name] = _spelled(row.get(name, _NULL))
            except ValueError:
                self._add(f"field {name!r} is not valid Unicode: write it again")
                return
        self._add(_text_fault(self._asked.text, row), found)


def _decoder(asked: Asked) -> msgspec.json.Decoder[Any]:
    """Decodes the wanted fields and nothing else; all but the text stay as they are spelled."""
    columns: list[tuple[str, Any, Any]] = [(f"f{at}", msgspec.Raw, _NULL) for at in range(1, len(asked.all))]
    rename = {f"f{at}": name for at, name in enumerate(asked.all)}
    return msgspec.json.Decoder(
        msgspec.defstruct("Row", [("f0", str), *columns], rename=rename, gc=False),
    )


def _spelled(raw: msgspec.Raw | str) -> str | None:
    """A value as text: strings decoded, null as None, everything else in its JSON spelling. Raises ValueError."""
    if isinstance(raw, str):
        return raw
    value = bytes(raw)
    if value[:1] == b'"':
        return _STRING.decode(value)
    return None if value == b"null" else value.decode()


def _kind(first: bytes) -> str:
    """What kind of JSON value begins so."""
    kinds = {b'"': "a string", b"[": "an array", b"{": "an object", b"t": "true", b"f": "false", b"n": "null"}
    return kinds.get(first, "a number")


def _fault(line: bytes) -> str:
    """What is wrong and where, in orjson's words: they are clearer than msgspec's, and hold nothing of the line."""
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"{error.msg} at column {error.colno}"
    return "malformed"


def _text_fault(field: str, row: dict[str, msgspec.Raw]) -> str:
    if field not in row:
        return f"no field {field!r}; the row has: {names(list(row))}"
    value = bytes(row[field])
    if value[:1] == b'"':
        try:
            _STRING.decode(value)
        except ValueError:
            return f"field {field!r} is not valid Unicode (a lone surrogate, or broken UTF-8): write it again"
    return f"field {field!r} holds {_kind(value[:1])}, not a string: name another by `text`"
