"""From pieces of files to DocumentBatches: texts cleaned, keys made unique, rows of other windows left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes, reason
from lowtide.connectors.formats.plain import clean
from lowtide.connectors.formats.rows import Rows, SeenKeys
from lowtide.records import DocumentBatch, FileInfo

EMPTY = "empty: no text but white space"

RowFilter = Callable[[str | None], bool]


class Batches:
    """Collects documents, and says when a batch is full."""

    def __init__(self, fields: Sequence[str], limits: ReadLimits) -> None:
        self._fields = list(fields)
        self._limits = limits
        self._batch = self._fresh()
        self._size = 0

    def _fresh(self) -> DocumentBatch:
        return DocumentBatch(fields={name: [] for name in self._fields})

    def add(self, info: FileInfo, rows: Rows, keys: list[str]) -> Iterator[DocumentBatch]:
        """Take the rows, which must be finished, and give the batches that they fill."""
        size = sum(map(len, rows.texts))
        documents = len(self._batch) + len(rows)
        if len(self._batch) and (
            documents > self._limits.batch_documents or self._size + size > self._limits.batch_bytes
        ):
            yield from self.rest()
        batch = self._batch
        batch.uris += [info.uri] * len(rows)
        batch.modified += [info.modified] * len(rows)
        batch.keys += keys
        batch.texts += rows.texts
        batch.reasons += rows.reasons
        for name, column in batch.fields.items():
            column.extend(rows.fields[name])
        self._size += size
        if len(batch) >= self._limits.batch_documents or self._size >= self._limits.batch_bytes:
            yield from self.rest()

    def rest(self) -> Iterator[DocumentBatch]:
        """What is left, if anything."""
        if len(self._batch):
            yield self._batch
            self._batch = self._fresh()
            self._size = 0


class Finisher:
    """Makes the rows of one file ready: one object a file, since keys are unique inside one."""

    def __init__(
        self, *, keyed: bool, row_filter: RowFilter | None, filter_field: str | None, limits: ReadLimits
    ) -> None:
        self._keyed = keyed
        self._filter = row_filter
        self._filter_field = filter_field
        self._limits = limits
        self._seen = SeenKeys()

    def finish(self, rows: Rows) -> list[str]:
        """Clean the rows in place, drop those of other windows, and return their keys."""
        _clean_texts(rows, self._limits.text_bytes)
        if self._filter is not None:
            self._drop(rows, self._filter)
        if rows.whole:
            return [""] * len(rows)
        return self._unique(rows) if self._keyed else [str(number) for number in rows.numbers]

    def _drop(self, rows: Rows, wanted: RowFilter) -> None:
        """Leave out rows of other windows. A row that is too broken to tell is kept: it must be seen somewhere."""
        values = rows.fields.get(self._filter_field or "") or [None] * len(rows)
        kept = [
            at
            for at, (value, why) in enumerate(zip(values, rows.reasons, strict=True))
            if (why is not None and value is None) or wanted(value)
        ]
        if len(kept) == len(rows):
            return
        rows.texts = [rows.texts[at] for at in kept]
        rows.reasons = [rows.reasons[at] for at in kept]
        rows.ids = [rows.ids[at] for at in kept]
        rows.numbers = [rows.numbers[at] for at in kept]
        rows.fields = {name: [column[at] for at in kept] for name, column in rows.fields.items()}

    def _unique(self, rows: Rows) -> list[str]:
        """The rows' own keys; a row without one, or with one that came before, is skipped under its number."""
        keys = [key or self._stand_in(rows, at, "has no key: fill the `id` field") for at, key in enumerate(rows.ids)]
        for at in self._seen.repeated(keys):
            keys[at] = self._stand_in(rows, at, "has a key that came before in this file: make `id` unique")
            while self._seen.repeated([keys[at]]):
                keys[at] += "'"
        return keys

    @staticmethod
    def _stand_in(rows: Rows, at: int, why: str) -> str:
        number = rows.numbers[at]
        if rows.reasons[at] is None:
            rows.texts[at] = ""
            rows.reasons[at] = f"row {number} {why}"
        return f"row {number}"


def _clean_texts(rows: Rows, largest: int) -> None:
    texts, reasons = rows.texts, rows.reasons
    for at, text in enumerate(texts):
        if not text or text.isspace():
            if reasons[at] is None:
                texts[at], reasons[at] = "", EMPTY
        elif len(text) * 4 > largest or "\0" in text:
            texts[at], reasons[at] = _cleaned(text, largest)
    for at, why in enumerate(reasons):
        if why is not None:
            reasons[at] = reason(why)


def _cleaned(text: str, largest: int) -> tuple[str, str | None]:
    size = len(text.encode())
    if size > largest:
        return "", f"{megabytes(size)} of text; {megabytes(largest)} is the limit for one document: split it"
    try:
        text = clean(text)
    except Unreadable as error:
        return "", str(error)
    return (text, None) if text and not text.isspace() else ("", EMPTY)
