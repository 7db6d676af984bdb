"""What runs write to the cache, and how its files are kept few."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from lowtide.cache.entries import Places, entries_of
from lowtide.cache.files import MADE_OF_OTHERS, Gathered, SourceNumbers, gather, prefix_of, write_file
from lowtide.cache.keys import Keys
from lowtide.cache.sorter import Sorter
from lowtide.protocols import Store


def write_entries(
    store: Store,
    question: str,
    name: str,
    pieces: Iterable[tuple[str, Keys, npt.NDArray[np.int32]]],
    folder: Path,
    *,
    asked_at: float = 0.0,
) -> None:
    """Remember where a run's answers lie: for each piece its source, and the keys and ordinals of the records in it.

    `asked_at`, in seconds since the epoch, is when the run was begun: of two answers to the same request the one of the
    later run counts, in whichever order the runs write.

    Writes `cache/<question>/<name>-<digest>.parquet`, sorted by key, in memory that does not grow with the entries;
    nothing if there are none. The same entries again change nothing; others under the same name are added.
    """
    sources = SourceNumbers()
    with tempfile.TemporaryDirectory(dir=_made(folder)) as spool, Sorter(Path(spool)) as sorter:
        for source, keys, ordinals in pieces:
            if len(keys):
                number = np.full(len(keys), sources.number(source, asked_at), np.int32)
                sorter.add(entries_of(keys, Places(number, ordinals)))
        if not len(sorter):
            return
        path = Path(spool) / "entries.parquet"
        written = write_file(path, question, sorter.sorted(), sources)
        store.replace(f"{prefix_of(question)}{name}-{written.digest}.parquet", path, expected=None)


def compact(store: Store, question: str, folder: Path, *, most_files: int = 8) -> bool:
    """Make one file of all the question's files if there are more than `most_files`; returns whether it has.

    Any number of processes may do it at the same time, beside others that read and write, and be killed at any point:
    a file is deleted once all of its entries are in one that is there. Files that cannot be read are left alone.
    """
    if sum(1 for info in store.list(prefix_of(question)) if info.path.endswith(".parquet")) <= most_files:
        return False
    sources = SourceNumbers()
    with tempfile.TemporaryDirectory(dir=_made(folder)) as spool, Sorter(Path(spool)) as sorter:
        gathered = gather(store, question, sorter, sources, Path(spool))
        if len(gathered.files) < 2:
            return False
        name = _name_for(gathered)
        path = Path(spool) / "entries.parquet"
        write_file(path, question, sorter.sorted(sources.ranks()), sources)
        # Where it is there already, another process has made it of the same files.
        store.replace(f"{prefix_of(question)}{name}.parquet", path, expected=None)
    # The oldest first: of what is left when this is cut short, the newest answer is still the one that is found.
    for info in gathered.files:
        store.delete(info.path)
    return True


def _name_for(gathered: Gathered) -> str:
    """The same in every process that has seen the same files. Broken ones count: the file to be made may be one."""
    seen = sorted([info.path, info.etag] for info in [*gathered.files, *gathered.broken])
    return MADE_OF_OTHERS + hashlib.sha256(orjson.dumps(seen)).hexdigest()[:16]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
