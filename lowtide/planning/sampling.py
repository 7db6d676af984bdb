"""Which files stand for all: chosen evenly over the listing and over its formats, the same ones every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from lowtide.inputs import read_listing
from lowtide.records import FileInfo

MOST_BYTES = 16_000_000
"""Bytes of files that a sample reads, about; of a file of rows, those at its beginning."""

_SHARE = 50
_FEWEST, _MOST = 64, 400
_OF_A_FORMAT = 8
# Files that a parser has to open cost a hundred times what plain text does, so that fewer of them stand for the rest.
_PARSED = frozenset({"html", "htm", "xhtml", "pdf", "docx", "eml", "metadata", "pkg-info"})
_PARSED_SHARE = 25
_ROWS = frozenset({"jsonl", "ndjson", "json", "csv", "tsv", "tab", "parquet", "pq"})
_COMPRESSED = (".gz", ".zst", ".bz2")


@dataclass(frozen=True, slots=True)
class Stratum:
    """The files of one format: how many there are, their bytes, and those of them that stand for the rest.

    `rows` says that each of them holds many documents.
    """

    format: str
    files: int
    bytes: int
    rows: bool
    chosen: tuple[FileInfo, ...] = ()


def format_of(path: str) -> str:
    """What the file's name ends with, in lower case and without the ending of a compression; "" for nothing."""
    name = path.rpartition("/")[2].lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    head, dot, ending = name.rpartition(".")
    return ending if dot and head else name if name in _PARSED else ""


def choose_files(listing: Path, *, rows: bool = False, most_bytes: int = MOST_BYTES) -> tuple[Stratum, ...]:
    """The formats of a listing that `plan.list_inputs` made, each with its sample. Reads it twice, in bounded memory.

    With `rows`, all files hold many documents, whatever they are called.
    """
    strata = _strata(listing, rows=rows)
    files = sum(stratum.files for stratum in strata)
    size = sum(stratum.bytes for stratum in strata)
    quotas = [_quota(stratum, files, most_bytes * stratum.bytes // max(size, 1)) for stratum in strata]
    if all(quota == stratum.files for stratum, quota in zip(strata, quotas, strict=True)):
        wanted = list(read_listing(listing))
    else:
        wanted = list(_evenly(listing, {s.format: (q, s.files) for s, q in zip(strata, quotas, strict=True)}))
    return tuple(
        replace(stratum, chosen=tuple(info for info in wanted if format_of(info.path) == stratum.format))
        for stratum in strata
    )


def _strata(listing: Path, *, rows: bool) -> list[Stratum]:
    files: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for paths, lengths in _columns(listing, ["path", "size"]):
        for path, length in zip(paths, lengths, strict=True):
            name = format_of(str(path))
            files[name] = files.get(name, 0) + 1
            sizes[name] = sizes.get(name, 0) + int(str(length))
    return [Stratum(name, files[name], sizes[name], rows or name in _ROWS) for name in sorted(files)]


def _quota(stratum: Stratum, files: int, room: int) -> int:
    """How many of the format's files are read: their share of the sample, and as many as `room` bytes hold."""
    if stratum.rows:
        return min(stratum.files, _OF_A_FORMAT)
    if stratum.format in _PARSED:
        wanted = min(max(stratum.files // _PARSED_SHARE, _OF_A_FORMAT), _FEWEST)
    else:
        sample = min(max(files // _SHARE, _FEWEST), _MOST)
        wanted = max(sample * stratum.files // files, _OF_A_FORMAT)
    mean = stratum.bytes / stratum.files
    return max(min(wanted, stratum.files, int(room / mean) if mean else wanted), 1)


def _evenly(listing: Path, quotas: dict[str, tuple[int, int]]) -> Iterator[FileInfo]:
    """Every n-th file of each format, so that its quota is met."""
    if len(quotas) == 1:
        [(quota, files)] = quotas.values()
        yield from _pick(listing, [-(-number * files // quota) for number in range(quota)])
        return
    seen = dict.fromkeys(quotas, 0)
    ordinals: list[int] = []
    at = 0
    for (paths,) in _columns(listing, ["path"]):
        for path in paths:
            name = format_of(str(path))
            quota, files = quotas[name]
            number = seen[name]
            seen[name] = number + 1
            if number * quota // files > (number - 1) * quota // files:
                ordinals.append(at)
            at += 1
    yield from _pick(listing, ordinals)


def _pick(listing: Path, ordinals: Sequence[int]) -> Iterator[FileInfo]:
    start, rest = 0, list(ordinals)
    for batch in pq.ParquetFile(listing, pre_buffer=False).iter_batches(batch_size=10_000):
        here = [ordinal - start for ordinal in rest if ordinal < start + len(batch)]
        if here:
            for row in batch.take(here).to_pylist():
                yield FileInfo(**row)
            rest = rest[len(here) :]
        start += len(batch)


def _columns(listing: Path, names: list[str]) -> Iterator[list[list[object]]]:
    for batch in pq.ParquetFile(listing, pre_buffer=False).iter_batches(batch_size=10_000, columns=names):
        yield [column.to_pylist() for column in batch.columns]
