"""The files of a run, listed once and kept with its plan, so that every process of the run reads the same ones."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.protocols import Documents, Store
from lowtide.records import FileInfo
from lowtide.schemas import MOMENT

_INPUTS = pa.schema(
    [("path", pa.string()), ("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string()), ("modified", MOMENT)]
)
_BATCH = 10_000


@dataclass(frozen=True)
class Inputs:
    """The files of a run, listed once: a Parquet file on the local disk, to be kept with the plan."""

    path: Path
    files: int
    bytes: int
    sha256: str


def list_inputs(documents: Documents, path: Path) -> Inputs:
    """List the source into a local file, in bounded memory. The hash covers every file's address, size and etag."""
    digest = hashlib.sha256()
    files = size = 0
    found = documents.files()
    with pq.ParquetWriter(path, _INPUTS, compression="zstd") as writer:
        while batch := list(islice(found, _BATCH)):
            for info in batch:
                digest.update(f"{info.uri}\0{info.etag}\0{info.size}\n".encode("utf-8", "surrogatepass"))
                size += info.size
            files += len(batch)
            columns = [
                [info.path for info in batch],
                [info.uri for info in batch],
                [info.size for info in batch],
                [info.etag for info in batch],
                [info.modified for info in batch],
            ]
            writer.write_table(pa.table(columns, schema=_INPUTS))
    return Inputs(path, files, size, digest.hexdigest())


def read_inputs(store: Store, path: str, *, skip: int = 0) -> Iterator[FileInfo]:
    """The run's files again, from file number `skip` on."""
    with store.open(path) as source:
        yield from read_listing(source, skip=skip)


def read_listing(source: BinaryIO | Path, *, skip: int = 0) -> Iterator[FileInfo]:
    """The files of a listing that `list_inputs` made, from file number `skip` on."""
    parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
    for batch in parquet.iter_batches(batch_size=_BATCH):
        if skip >= len(batch):
            skip -= len(batch)
            continue
        for row in batch.slice(skip).to_pylist():
            yield FileInfo(**row)
        skip = 0


def spool() -> tempfile.TemporaryDirectory[str]:
    """A folder on the local disk for what is too large for memory and not yet in the store."""
    return tempfile.TemporaryDirectory(prefix="lowtide-")
