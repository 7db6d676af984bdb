"""A window's documents, listed once: what was planned, reserved for and opened is one and the same listing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lowtide.inputs import Inputs, list_inputs, read_listing
from lowtide.protocols import Documents
from lowtide.records import DocumentBatch, FileInfo


class Listed:
    """Documents whose files were listed into a folder, and are those from then on."""

    def __init__(self, documents: Documents, folder: Path) -> None:
        self._documents = documents
        self.inputs: Inputs = list_inputs(documents, folder / "listed.parquet")

    def files(self) -> Iterator[FileInfo]:
        return read_listing(self.inputs.path)

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        return self._documents.read(files)
