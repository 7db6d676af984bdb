"""The source of a job as documents: files of any format in, batches of texts and reasons out."""

from __future__ import annotations

import importlib.util
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

import pyarrow as pa

from lowtide.connectors.formats.batches import Batches, Finisher, RowFilter
from lowtide.connectors.formats.detect import FORMATS, PARSED, FileKind, by_content, by_name
from lowtide.connectors.formats.gzipped import GzipReader, inflate
from lowtide.connectors.formats.jsonl import read_jsonl
from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes
from lowtide.connectors.formats.plain import decode_text
from lowtide.connectors.formats.protocol import Batch, Failed, Parsed, ReadRows
from lowtide.connectors.formats.rows import Asked, Rows, unread
from lowtide.connectors.formats.table import read_csv
from lowtide.connectors.formats.workers import Workers
from lowtide.errors import ConfigError, MissingExtra, NotFound, StoreError
from lowtide.protocols import Store
from lowtide.records import DocumentBatch, FileContent, FileInfo

DEFAULT_TEXT = "text"
"""The field with the text, for row formats of a job that names none."""

_AHEAD = 64
"""How many documents may wait for one that is still being parsed, so that they come out in order."""


@dataclass(slots=True)
class _Waiting:
    """A file that was read: its rows, or its text that a worker is making."""

    info: FileInfo
    size: int
    rows: Rows | Iterator[Rows] | None = None
    parsed: Future[Parsed | Failed] | None = None


class SourceDocuments:
    """Implements Documents over a store. See docs/reference/formats.md for what each format gives.

    `files` yields the files of the window. `format` is one of FORMATS. `text`, `id` and `fields` name fields of rows;
    for e-mail and package metadata `fields` name headers. `row_filter` is asked about the value of `row_filter_field`
    (None where a document has no such field), and leaves documents out that it says no to.
    Raises ConfigError for an unknown format, and MissingExtra for one whose parser is not installed.
    """

    def __init__(
        self,
        store: Store,
        files: Callable[[], Iterator[FileInfo]],
        *,
        format: str = "auto",
        text: str | None = None,
        id: str | None = None,
        fields: Sequence[str] = (),
        row_filter: RowFilter | None = None,
        row_filter_field: str | None = None,
        limits: ReadLimits | None = None,
    ) -> None:
        if format not in FORMATS:
            raise ConfigError(f"source.format: {format!r} is none of {', '.join(FORMATS)}")
        self._pdf = importlib.util.find_spec("pypdfium2") is not None
        if format == "pdf" and not self._pdf:
            raise MissingExtra("source.format: pdf", "documents", "pypdfium2")
        self._store = store
        self._files = files
        self._format = format
        self._limits = limits or ReadLimits()
        self._fields = list(fields)
        filtered = [row_filter_field] if row_filter_field and row_filter_field not in fields else []
        self._asked = Asked(text or DEFAULT_TEXT, id, [*dict.fromkeys(fields), *filtered])
        self._row_filter = row_filter
        self._filter_field = row_filter_field
        self._workers = Workers(self._limits)

    def files(self) -> Iterator[FileInfo]:
        """Every file of the window, as it was handed in."""
        return self._files()

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        """The documents of those files, in order, `batch_documents` or `batch_bytes` at a time.

        A file or row without usable text has a reason in place of its text. Raises what the store raises when trying
        again may help (Transient), and nothing for a bad document.
        """
        batches = Batches(self._fields, self._limits)
        for is_rows, group in groupby(files, lambda info: by_name(info.path, self._format).rows):
            for info, pieces in self._row_files(group) if is_rows else self._whole_files(group):
                finisher = Finisher(
                    keyed=self._asked.id is not None,
                    row_filter=self._row_filter,
                    filter_field=self._filter_field,
                    limits=self._limits,
                )
                for rows in pieces:
                    keys = finisher.finish(rows)
                    yield from batches.add(info, rows, keys)
        yield from batches.rest()

    def close(self) -> None:
        """End the parser processes. They also end when this object, or this process, does."""
        self._workers.close()

    def _row_files(self, files: Iterable[FileInfo]) -> Iterator[tuple[FileInfo, Iterator[Rows]]]:
        for info in files:
            yield info, self._row_file(info)

    def _row_file(self, info: FileInfo) -> Iterator[Rows]:
        number = 0
        there = self._store.info(info.path)
        if there is not None and there.etag != info.etag:
            yield unread(0, "the file has changed since it was listed; the next run reads it as it is now", self._asked)
            return
        try:
            with self._store.open(info.path) as stream:
                for rows in self._rows(by_name(info.path, self._format), stream, info.size):
                    number = rows.numbers[-1] + 1 if rows.numbers else number
                    yield rows
        except NotFound as error:
            yield unread(number, f"the file cannot be read from row {number} on: {error}", self._asked)
        except OSError as error:
            # Not the document's fault, and mended without changing it: a row that says so would be there to stay.
            raise StoreError(f"cannot read {info.uri!r}: {error.strerror or type(error).__name__}", info.uri) from error

    def _rows(self, kind: FileKind, stream: BinaryIO, size: int) -> Iterator[Rows]:
        if kind.format == "parquet":
            if kind.gzipped:
                yield unread(0, "Parquet inside gzip: inflate it first, Parquet compresses itself", self._asked)
            else:
                yield from self._parquet(stream, size)
            return
        source = GzipReader(stream, self._limits) if kind.gzipped else stream
        if kind.format == "csv":
            yield from read_csv(source, self._asked, self._limits, tabs=kind.tabs)
        else:
            yield from read_jsonl(source, self._asked, self._limits)

    def _parquet(self, stream: BinaryIO, size: int) -> Iterator[Rows]:
        if not size:
            yield unread(0, "the file is empty", self._asked)
            return
        asked = self._asked
        for reply in self._workers.rows(stream, ReadRows(size, asked.text, asked.id, list(asked.fields))):
            if isinstance(reply, Failed):
                yield unread(reply.row, reply.reason, asked)
            else:
                yield _from_arrow(*reply, asked)

    def _whole_files(self, files: Iterable[FileInfo]) -> Iterator[tuple[FileInfo, Iterator[Rows]]]:
        """Files in order; those that need a parser are parsed ahead by the workers, in bounded memory."""
        waiting: deque[_Waiting] = deque()
        held = 0
        executor = ThreadPoolExecutor(self._limits.workers, thread_name_prefix="lowtide-parse")
        try:
            for content in self._store.read_many(files, largest=self._limits.file_bytes):
                item = self._begin(content, executor)
                while waiting and (len(waiting) >= _AHEAD or held + item.size > self._limits.file_bytes):
                    first = waiting.popleft()
                    held -= first.size
                    yield first.info, self._finished(first)
                waiting.append(item)
                held += item.size
                while waiting and (waiting[0].parsed is None or waiting[0].parsed.done()):
                    first = waiting.popleft()
                    held -= first.size
                    yield first.info, self._finished(first)
            while waiting:
                first = waiting.popleft()
                yield first.info, self._finished(first)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _begin(self, content: FileContent, executor: ThreadPoolExecutor) -> _Waiting:
        info = content.info
        try:
            kind, data = self._opened(content)
            if kind.rows:
                return _Waiting(info, len(data), rows=self._rows(kind, io.BytesIO(data), len(data)))
            if kind.format in PARSED:
                if kind.format == "pdf" and not self._pdf:
                    raise Unreadable(str(MissingExtra("this PDF", "documents", "pypdfium2")))
                headers = list(self._asked.fields) if kind.format == "eml" else []
                return _Waiting(
                    info, len(data), parsed=executor.submit(self._workers.parse, kind.format, data, headers)
                )
            return _Waiting(info, 0, rows=self._document(decode_text(data), None))
        except Unreadable as error:
            return _Waiting(info, 0, rows=unread(0, str(error), self._asked))

    def _opened(self, content: FileContent) -> tuple[FileKind, bytes]:
        """The file's format and bytes. Raises Unreadable."""
        size, largest = content.info.size, self._limits.file_bytes
        if content.error is not None:
            if size > largest:
                limit = f"{megabytes(largest)} is the limit for a file that is one document"
                raise Unreadable(f"{megabytes(size)}; {limit}: split it, or set `format` if it holds rows")
            raise Unreadable(content.error)
        kind, data = by_name(content.info.path, self._format), content.data
        if kind.gzipped:
            data = inflate(data, self._limits)
        if not data:
            raise Unreadable("the file is empty")
        return (kind if kind.format else by_content(kind, data)), data

    def _finished(self, item: _Waiting) -> Iterator[Rows]:
        if isinstance(item.rows, Rows):
            yield item.rows
        elif item.rows is not None:
            yield from item.rows
        elif item.parsed is not None:
            reply = item.parsed.result()
            if isinstance(reply, Failed):
                yield unread(0, reply.reason, self._asked)
            else:
                yield self._document(reply.text, reply.fields)

    def _document(self, text: str, headers: Sequence[str | None] | None) -> Rows:
        names = self._asked.fields
        values = headers or [None] * len(names)
        return Rows(
            [0], [None], [text], [None], {name: [value] for name, value in zip(names, values, strict=True)}, True
        )


def _from_arrow(batch: Batch, stream: bytearray, asked: Asked) -> Rows:
    """Rows from what a worker sent. Raises pyarrow's errors if that is no Arrow stream."""
    record = pa.ipc.open_stream(pa.py_buffer(stream)).read_next_batch()
    columns = [column.to_pylist() for column in record.columns]
    texts: list[str | None] = columns[0]
    numbers = list(range(batch.start, batch.start + len(texts)))
    reasons: list[str | None] = [None] * len(texts)
    if record.columns[0].null_count:
        for at, text in enumerate(texts):
            if text is None:
                why = batch.reasons.get(at, f"field {asked.text!r} is null: fill it, or leave the row out")
                reasons[at] = f"row {numbers[at]}: {why}"
    keyed = asked.id is not None
    ids: list[str | None] = columns[1] if keyed else [None] * len(texts)
    fields = dict(zip(asked.fields, columns[1 + keyed :], strict=True))
    return Rows(numbers, ids, [text or "" for text in texts], reasons, fields)
