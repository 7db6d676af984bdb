"""One request line per document, by splicing: the backend encodes a request once, and its line is cut at the values.

Measured on 1.9 KB documents, this costs a third of serializing a dict per row (docs/operations/performance.md).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from lowtide.ids import RECORD_ID_LENGTH
from lowtide.operations import Operation
from lowtide.protocols import Backend
from lowtide.records import Request

_PROBES = ('plain "quoted" \\ back\\n', "tab\t, nul\x00, \u2028 line, \U0001f30a wave, \x7f", " \r\n ")


@dataclass(frozen=True, slots=True)
class LineTemplate:
    """A line's constant bytes and the slots between them: `slots[i]` is behind `literals[i]`, before `literals[i + 1]`.

    Slots are named `record_id`, `text`, `marker`, or after a field of the job.
    """

    literals: tuple[bytes, ...]
    slots: tuple[str, ...]

    def render(self, values: Mapping[str, bytes]) -> bytes:
        """The line, its end included. `values` are JSON string contents: escaped, without their quotes."""
        out = [self.literals[0]]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            out.append(values[slot])
            out.append(literal)
        return b"".join(out)


def escape(text: str) -> bytes:
    """The text as the inside of a JSON string. Raises TypeError for lone surrogates, which UTF-8 cannot carry."""
    return orjson.dumps(text)[1:-1]


def line_template(backend: Backend, operation: Operation) -> LineTemplate:
    """Cut the backend's line for this operation at its values.

    Raises TypeError if the backend does more with a value than to write it down as a JSON string: such a backend would
    get other requests from splicing than from `encode`.
    """
    names = ("record_id", "text", *(slot for slot in dict.fromkeys(operation.user.slots) if slot != "text"))
    marks = {name: f"LT{secrets.token_hex(8)}LT" for name in names}
    line = backend.encode(_request(operation, marks)) + b"\n"
    by_mark = {mark: name for name, mark in marks.items()}
    parts = re.split("(" + "|".join(marks.values()) + ")", line.decode())
    template = LineTemplate(
        literals=tuple(part.encode() for part in parts[0::2]), slots=tuple(by_mark[part] for part in parts[1::2])
    )
    if "record_id" not in template.slots:
        raise TypeError(f"backend {backend.name!r} does not write the record id into its line")
    for probe in _PROBES:
        values = {name: f"{probe}{name}{probe}" for name in names}
        spliced = template.render({name: escape(value) for name, value in values.items()})
        if orjson.loads(spliced) != orjson.loads(backend.encode(_request(operation, values))):
            raise TypeError(f"backend {backend.name!r} changes values that it encodes, so its lines cannot be spliced")
    return template


def _request(operation: Operation, values: Mapping[str, str]) -> Request:
    return Request(
        record_id=values["record_id"],
        operation=operation,
        system=operation.system,
        user=operation.user.render(values),
        text=values["text"],
    )


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A template made ready for many documents at a time: one `%` format, filled from columns."""

    format: bytes
    slots: tuple[str, ...]

    @classmethod
    def of(cls, template: LineTemplate) -> LineFormat:
        return cls(b"%b".join(literal.replace(b"%", b"%%") for literal in template.literals), template.slots)

    def fill(self, columns: Mapping[str, Sequence[bytes]]) -> Iterator[bytes]:
        """The lines, their ends included; `columns` hold escaped values, one entry for each line."""
        return map(self.format.__mod__, zip(*(columns[slot] for slot in self.slots), strict=True))

    def sizes(self, columns: Mapping[str, Sequence[bytes]], count: int) -> list[int]:
        """The lengths of so many lines before they have record ids, which are all of one length."""
        fixed = len(self.format % ((b"",) * len(self.slots))) + self.slots.count("record_id") * RECORD_ID_LENGTH
        varying = [map(len, columns[slot]) for slot in self.slots if slot != "record_id"]
        if not varying:
            return [fixed] * count
        return [fixed + length for length in map(sum, zip(*varying, strict=True))]
