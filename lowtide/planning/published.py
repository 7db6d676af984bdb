"""The documents of a window's published results, in sixteen bytes each: what is new and what has changed is told by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Words = npt.NDArray[np.uint64]

_UNREAD = "0" * 64
_ID_BYTES, _SHA_BYTES = 16, 32


@dataclass(frozen=True, slots=True)
class Compared:
    """Documents by what they are against the published results. Those that cannot be read count nowhere."""

    new: int
    changed: int
    unchanged: int


@dataclass(frozen=True)
class PublishedDocuments:
    """The first 64 bits of each document's id, in order, and of its content's hash. `rows` are those of the table."""

    ids: Words
    contents: Words
    rows: int = 0

    @property
    def documents(self) -> int:
        return len(self.ids)

    def compare(self, document_ids: Sequence[str], sha256: Sequence[str]) -> Compared:
        """What these documents are against the published ones."""
        total = len(document_ids)
        if not total or not len(self.ids):
            return Compared(total, 0, 0)
        wanted, contents = _words(document_ids, _ID_BYTES), _words(sha256, _SHA_BYTES)
        places = np.searchsorted(self.ids, wanted)
        places[places == len(self.ids)] = 0
        there = self.ids[places] == wanted
        same = int((there & (self.contents[places] == contents)).sum())
        known = int(there.sum())
        return Compared(total - known, known - same, same)


NOTHING_PUBLISHED = PublishedDocuments(np.empty(0, np.uint64), np.empty(0, np.uint64))


def read_published(source: BinaryIO) -> PublishedDocuments:
    """The documents of a results table, read a row group at a time."""
    parquet = pq.ParquetFile(source, pre_buffer=False)
    ids, contents = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for group in range(parquet.metadata.num_row_groups):
        table = parquet.read_row_group(group, columns=["document_id", "content_sha256"], use_threads=False)
        found = _words(table["document_id"].to_pylist(), _ID_BYTES)
        # A document's operations are neighbours, so that most of its further rows go here.
        first = np.ones(len(found), np.bool_)
        first[1:] = found[1:] != found[:-1]
        ids.append(found[first])
        contents.append(_words(pa.compute.fill_null(table["content_sha256"], _UNREAD).to_pylist(), _SHA_BYTES)[first])
    whole, at = np.unique(np.concatenate(ids), return_index=True)
    return PublishedDocuments(whole, np.concatenate(contents)[at], parquet.metadata.num_rows)


def _words(digests: Sequence[str], width: int) -> Words:
    """The first 64 bits of digests in hexadecimal, `width` bytes each."""
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=">u8")[:: width // 8].astype(np.uint64)
