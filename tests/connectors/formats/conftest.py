"""A folder of files, read through the real store into plain documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lowtide.connectors.documents import SourceDocuments
from lowtide.connectors.formats.limits import ReadLimits
from lowtide.connectors.stores.local import LocalStore
from lowtide.records import DocumentBatch


@dataclass(frozen=True)
class Document:
    """One entry of a batch."""

    name: str
    key: str
    text: str
    reason: str | None
    fields: dict[str, str | None]


def rows_of(batch: DocumentBatch) -> list[Document]:
    """A batch as rows; its columns must be of one length."""
    columns = [batch.uris, batch.keys, batch.modified, batch.texts, batch.reasons, *batch.fields.values()]
    assert len({len(column) for column in columns}) == 1
    return [
        Document(
            batch.uris[at].rsplit("/", 1)[-1],
            batch.keys[at],
            batch.texts[at],
            batch.reasons[at],
            {name: column[at] for name, column in batch.fields.items()},
        )
        for at in range(len(batch))
    ]


class Folder:
    """Files to read. `read` gives the documents of all of them, in the order of their names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[SourceDocuments] = []

    def write(self, name: str, data: bytes | str) -> Path:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        return target

    def source(
        self,
        *,
        format: str = "auto",
        text: str | None = "body",
        id: str | None = None,
        fields: tuple[str, ...] = (),
        row_filter: Callable[[str | None], bool] | None = None,
        row_filter_field: str | None = None,
        limits: ReadLimits | None = None,
    ) -> SourceDocuments:
        store = LocalStore(self.path)
        source = SourceDocuments(
            store,
            lambda: store.list(""),
            format=format,
            text=text,
            id=id,
            fields=fields,
            row_filter=row_filter,
            row_filter_field=row_filter_field,
            limits=limits,
        )
        self._open.append(source)
        return source

    def read(
        self,
        *,
        format: str = "auto",
        text: str | None = "body",
        id: str | None = None,
        fields: tuple[str, ...] = (),
        row_filter: Callable[[str | None], bool] | None = None,
        row_filter_field: str | None = None,
        limits: ReadLimits | None = None,
    ) -> list[Document]:
        source = self.source(
            format=format,
            text=text,
            id=id,
            fields=fields,
            row_filter=row_filter,
            row_filter_field=row_filter_field,
            limits=limits,
        )
        return [document for batch in source.read(source.files()) for document in rows_of(batch)]

    def close(self) -> None:
        for source in self._open:
            source.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "in")
    made.path.mkdir()
    yield made
    made.close()
