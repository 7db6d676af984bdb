"""Taking entries out of the cache: those that point at records which are gone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq

from lowtide.cache.entries import Entries, places_of
from lowtide.cache.files import BrokenIndex, SourceNumbers, prefix_of, read_file, write_file
from lowtide.errors import NotFound
from lowtide.forgetting.rewriting import Rewriter
from lowtide.protocols import Store
from lowtide.rootwalk import folders

Places = Mapping[str, frozenset[int]]
"""By the path of a file of rows: the ordinals of the records that are gone."""

_ASKED_AT = b"lowtide.asked_at"
_NAME = re.compile(r"(?P<run>[0-9a-f]{16}|compacted-[0-9a-f]{16})(?:-[0-9a-f]{12})?")


def drop_entries(rewriter: Rewriter, places: Places) -> None:
    """Put each file of the cache that points there into other words: what is left of it under another name, then go.

    What lies under a path of the cache never changes, so that others may read and merge the files meanwhile.
    """
    if not any(places.values()):
        return
    for question in folders(rewriter.store, "cache/"):
        for info in list(rewriter.store.list(prefix_of(question))):
            if info.path.endswith(".parquet") and _may_point(rewriter.store, info.path, places):
                _drop(rewriter, question, info.path, places)


def _may_point(store: Store, path: str, places: Places) -> bool:
    """Whether a file names one of those sources, by its footer. One that cannot be read is passed over: all do that."""
    try:
        with store.open(path) as source:
            metadata = pq.read_metadata(source).metadata or {}
            named = orjson.loads(metadata.get(_ASKED_AT, b"null"))
    except (NotFound, OSError, ValueError):
        return False
    return named is None or any(path in places for path in named)


def _drop(rewriter: Rewriter, question: str, path: str, places: Places) -> None:
    store, sources = rewriter.store, SourceNumbers()
    there, left = rewriter.folder / "cached.parquet", rewriter.folder / "left.parquet"
    dropped = 0

    def kept() -> Iterator[Entries]:
        nonlocal dropped
        for entries in read_file(there, question, sources):
            stays = ~_gone(entries, sources, places)
            dropped += len(entries) - int(stays.sum())
            yield entries[stays]

    try:
        with store.open(path) as source, there.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        # Every source has its number before the first is written: read once to know them.
        for _ in read_file(there, question, sources):
            pass
        written = write_file(left, question, kept(), sources)
    except (NotFound, BrokenIndex):
        return
    if dropped and not rewriter.dry:
        if written.entries:
            store.replace(f"{prefix_of(question)}{_stem(path)}-{written.digest}.parquet", left, expected=None)
        store.delete(path)
    rewriter.touched.add("cache", dropped)


def _gone(entries: Entries, sources: SourceNumbers, places: Places) -> npt.NDArray[np.bool_]:
    at = places_of(entries)
    gone = np.zeros(len(entries), np.bool_)
    for number, name in enumerate(sources.names):
        if ordinals := places.get(name):
            gone |= (at.source == number) & np.isin(at.ordinal, list(ordinals))
    return gone


def _stem(path: str) -> str:
    """The name without the digest of what it held."""
    name = Path(path).name.removesuffix(".parquet")
    found = _NAME.fullmatch(name)
    return found["run"] if found else name
