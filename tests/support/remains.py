"""Looks for what should be gone in every byte of a root: in files as they are, and in what they hold compressed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def objects_in(root: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def remains(objects: Mapping[str, bytes], words: Iterable[str]) -> list[str]:
    """The paths in which one of the words stands, and which: in their names, their bytes, or what those hold."""
    wanted = [word.encode() for word in words]
    found = []
    for path, data in objects.items():
        held = b"\n".join([path.encode(), data, *_unpacked(path, data)])
        found += [f"{path}: {word.decode()}" for word in wanted if word in held]
    return found


def _unpacked(path: str, data: bytes) -> Iterator[bytes]:
    if path.endswith(".parquet"):
        yield from _values(pq.read_table(io.BytesIO(data), partitioning=None))
    elif path.endswith(".arrow"):
        yield from _values(pa.ipc.open_file(io.BytesIO(data)).read_all())


def _values(table: pa.Table) -> Iterator[bytes]:
    yield repr(table.schema.metadata).encode()
    for column in table.columns:
        for value in column.to_pylist():
            yield value if isinstance(value, bytes) else str(value).encode()
