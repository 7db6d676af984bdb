"""What runs write, and compaction: whoever dies, meets or reads in the middle, no entry is ever lost."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import boto3
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import aws

from lowtide.cache.entries import Places, entries_of
from lowtide.cache.files import BrokenIndex, SourceNumbers, read_file, write_file
from lowtide.cache.index import CacheIndex
from lowtide.cache.keys import Keys
from lowtide.cache.storage import compact, write_entries
from lowtide.connectors.stores import open_store
from lowtide.connectors.stores.local import LocalStore
from lowtide.protocols import Store
from lowtide.records import FileInfo

WRITER = Path(__file__).with_name("writer.py")
SIZE = 20


def keys_of_run(*seed: int) -> Keys:
    return np.random.default_rng(seed).integers(0, 1 << 64, (SIZE, 2), dtype=np.uint64)


def ordinals(number: int = SIZE) -> npt.NDArray[np.int32]:
    return np.arange(number, dtype=np.int32)


def write_run(store: Store, spool: Path, *seed: int) -> None:
    name = "-".join(map(str, seed))
    write_entries(store, "q", name, [(f"rows/{name}", keys_of_run(*seed), ordinals())], spool)


def lost(store: Store, spool: Path, runs: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The runs of which a reader does not find every answer in its place."""
    index = CacheIndex.open(store, "q", spool)
    assert not index.warnings
    missing = []
    for seed in runs:
        found = index.find(keys_of_run(*seed))
        right = (found.ordinal == ordinals()).all() and {index.sources[number] for number in found.source} == {
            f"rows/{'-'.join(map(str, seed))}"
        }
        missing += [] if right else [seed]
    return missing


def names(store: Store) -> list[str]:
    return [info.path.removeprefix("cache/q/") for info in store.list("cache/")]


class Watched(LocalStore):
    """Calls `hook` before and after each step that others can see, and in the middle of a listing."""

    def __init__(self, root: Path, hook: Callable[[str], None] = lambda point: None) -> None:
        super().__init__(root, sync="none")
        self.hook = hook

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        self.hook("before list")
        for number, info in enumerate(list(super().list(prefix, after=after))):
            yield info
            if number == 1:
                self.hook("in list")
        self.hook("after list")

    def open(self, path: str) -> BinaryIO:
        self.hook("before open")
        return super().open(path)

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        self.hook("before replace")
        replaced = super().replace(path, source, expected=expected)
        self.hook("after replace")
        return replaced

    def delete(self, path: str) -> None:
        self.hook("before delete")
        super().delete(path)
        self.hook("after delete")


class Died(Exception):
    """Stands for kill -9."""


class At:
    """At the nth point, does something once."""

    def __init__(self, nth: int, act: Callable[[], None]) -> None:
        self.left = nth
        self._act = act

    def __call__(self, point: str) -> None:
        self.left -= 1
        if self.left == 0:
            self._act()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root, sync="none")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_a_file_is_a_table_sorted_by_key(store: LocalStore, spool: Path, root: Path) -> None:
    one, two = keys_of_run(1), keys_of_run(2)
    write_entries(store, "q", "run", [("rows/1", one, ordinals()), ("rows/2", two, ordinals())], spool)

    (name,) = names(store)
    table = pd.read_parquet(root / "cache/q" / name)

    assert name.startswith("run-")
    assert table.columns.tolist() == ["key", "source", "ordinal"]
    assert table["key"].is_monotonic_increasing
    expected = {
        int(high).to_bytes(8) + int(low).to_bytes(8): (f"rows/{number}", at)
        for number, keys in [(1, one), (2, two)]
        for at, (high, low) in enumerate(keys)
    }
    assert {row.key: (row.source, row.ordinal) for row in table.itertuples()} == expected


def test_writing_again_after_a_crash_changes_nothing(store: LocalStore, spool: Path) -> None:
    write_run(store, spool, 1)
    before = list(store.list("cache/"))

    write_run(store, spool, 1)

    assert list(store.list("cache/")) == before


def test_a_run_that_has_bought_more_loses_nothing(store: LocalStore, spool: Path) -> None:
    """Two processes finish the same run, and the one that knows less is the last."""
    keys = keys_of_run(1)
    for known in (20, 5):
        write_entries(store, "q", "run", [("rows", keys[:known], ordinals(known))], spool)

    assert CacheIndex.open(store, "q", spool).find(keys).ordinal.tolist() == list(range(20))


@pytest.mark.parametrize("pieces", [[], [("rows", np.empty((0, 2), np.uint64), ordinals(0))]])
def test_no_answers_make_no_file(
    pieces: list[tuple[str, Keys, npt.NDArray[np.int32]]], store: LocalStore, spool: Path
) -> None:
    write_entries(store, "q", "run", pieces, spool)

    assert names(store) == []


def test_an_ordinal_below_zero_is_refused(store: LocalStore, spool: Path) -> None:
    with pytest.raises(ValueError, match="-1"):
        write_entries(store, "q", "run", [("rows", keys_of_run(1), ordinals() - 1)], spool)

    assert names(store) == []


def test_few_files_are_left_as_they_are(store: LocalStore, spool: Path) -> None:
    for run in range(8):
        write_run(store, spool, run)
    before = names(store)

    assert not compact(store, "q", spool)
    assert names(store) == before


def test_many_files_become_one(store: LocalStore, spool: Path) -> None:
    for run in range(9):
        write_run(store, spool, run)

    assert compact(store, "q", spool)

    (name,) = names(store)
    assert name.startswith("compacted-")
    assert lost(store, spool, [(run,) for run in range(9)]) == []
    assert not compact(store, "q", spool, most_files=0)
    assert list(spool.iterdir()) == []


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=40), min_size=1, max_size=6), st.data())
def test_compaction_changes_no_answer(tmp_path_factory: pytest.TempPathFactory, runs: list[list[int]], data) -> None:
    """Runs that bought the same, at any time before or after compactions: there are the same keys, in right places."""
    folder = tmp_path_factory.mktemp("cache")
    store, spool = LocalStore(folder / "root", sync="none"), folder / "spool"
    pool = np.repeat(np.array([[1, 0], [2**64 - 1, 0]], np.uint64), [16, 15], axis=0)
    pool[:, 1] = np.arange(31)
    bought: dict[int, set[tuple[str, int]]] = {}
    for number, run in enumerate(runs):
        places = {key: at for at, key in enumerate(run)}
        write_entries(store, "q", f"run{number}", [(f"rows/{number}", pool[run], ordinals(len(run)))], spool)
        for key, at in places.items():
            bought.setdefault(key, set()).add((f"rows/{number}", at))
        compact(store, "q", spool, most_files=data.draw(st.integers(0, 3)))

    index = CacheIndex.open(store, "q", spool)
    found = index.find(pool)

    assert len(index) == len(bought)
    for key in range(31):
        place = (index.sources[found.source[key]], int(found.ordinal[key])) if found.source[key] >= 0 else None
        assert place in bought.get(key, {None})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 9))), min_size=1, max_size=7), st.data())
def test_the_answer_of_the_run_that_was_begun_last_counts_whichever_wrote_last(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, set[int]]], data
) -> None:
    """Before and after any compactions. Of those that were begun at once, any one."""
    folder = tmp_path_factory.mktemp("cache")
    store, spool = LocalStore(folder / "root", sync="none"), folder / "spool"
    pool = keys_of_run(1)
    latest: dict[int, int] = {}
    for number, (asked_at, chosen) in enumerate(runs):
        run = sorted(chosen)
        pieces = [(f"rows/{asked_at}/{number}", pool[run], ordinals(len(run)))]
        write_entries(store, "q", f"run{number}", pieces, spool, asked_at=1e9 + asked_at)
        latest |= {key: max(asked_at, latest.get(key, 0)) for key in run}
        compact(store, "q", spool, most_files=data.draw(st.integers(0, 3)))

    index = CacheIndex.open(store, "q", spool)
    found = index.find(pool)

    told = {key: int(index.sources[found.source[key]].split("/")[1]) for key in range(10) if found.source[key] >= 0}
    assert told == latest


def without_times(path: Path) -> pa.Table:
    table = pq.ParquetFile(path).read()
    metadata = dict(table.schema.metadata)
    del metadata[b"lowtide.asked_at"]
    return table.replace_schema_metadata(metadata)


def test_a_file_that_tells_no_times_counts_as_the_oldest(store: LocalStore, spool: Path, root: Path) -> None:
    """As those of earlier versions do."""
    keys = keys_of_run(1)
    for name in ("told", "untold"):
        write_entries(store, "q", name, [(f"rows/{name}", keys, ordinals())], spool, asked_at=1.0)
    (path,) = (root / "cache/q").glob("untold-*.parquet")
    table = without_times(path)
    path.unlink()
    pq.write_table(table, path)

    index = CacheIndex.open(store, "q", spool)

    assert not index.warnings
    assert index.sources[index.find(keys).source[0]] == "rows/told"


@pytest.mark.parametrize("said", ["[]", '{"rows": "soon"}', "{"])
def test_times_that_cannot_be_read_make_a_file_a_broken_one(said: str, spool: Path) -> None:
    sources = SourceNumbers()
    entries = entries_of(keys_of_run(1), Places(np.full(SIZE, sources.number("rows"), np.int32), ordinals()))
    spool.mkdir()
    write_file(spool / "whole.parquet", "q", [entries], sources)
    table = without_times(spool / "whole.parquet")
    with pq.ParquetWriter(spool / "odd.parquet", table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"lowtide.asked_at": said})

    with pytest.raises(BrokenIndex, match="cannot be read"):
        list(read_file(spool / "odd.parquet", "q", SourceNumbers()))


def test_sources_without_entries_are_forgotten(store: LocalStore, spool: Path) -> None:
    keys = keys_of_run(1)
    for name in ("old", "new"):
        write_entries(store, "q", name, [(f"rows/{name}", keys, ordinals())], spool)
        assert compact(store, "q", spool, most_files=1) == (name == "new")

    index = CacheIndex.open(store, "q", spool)

    assert len(set(index.find(keys).source.tolist())) == len(index.sources) == 1


def test_a_compaction_killed_at_any_point_loses_nothing(tmp_path: Path) -> None:
    """The process ends at each of its changes in turn; the next one, and readers, find everything."""
    runs = [(run,) for run in range(4)]
    for point in range(1, 6):
        root, spool = tmp_path / str(point) / "root", tmp_path / str(point) / "spool"
        store = LocalStore(root, sync="none")
        for run in runs:
            write_run(store, spool, *run)
        command = [sys.executable, str(WRITER), str(root), str(spool), "kill", str(point)]
        assert subprocess.run(command, timeout=120, check=False).returncode == 9

        assert len(names(store)) == 5 - (point - 1)
        assert lost(store, spool, runs) == []
        assert compact(store, "q", spool, most_files=1) == (point < 5)
        assert len(names(store)) == 1
        assert lost(store, spool, runs) == []


def points_of(act: Callable[[Store], object], root: Path) -> int:
    count: list[str] = []
    act(Watched(root, count.append))
    return len(count)


MEETINGS = ("compact", "write and compact", "die")


@pytest.mark.parametrize("meeting", MEETINGS)
def test_whatever_happens_in_the_middle_of_a_compaction_nothing_is_lost(meeting: str, tmp_path: Path) -> None:
    runs = [(run,) for run in range(4)]

    def others(root: Path, spool: Path) -> None:
        store = LocalStore(root, sync="none")
        if meeting == "die":
            raise Died
        if meeting == "write and compact":
            write_run(store, spool, 4)
            # The same run once more, after a crash: it may be in the file that was made of others already.
            write_run(store, spool, 0)
        compact(store, "q", spool, most_files=1)

    nth = 0
    while True:
        nth += 1
        root, spool = tmp_path / f"{nth}/root", tmp_path / f"{nth}/spool"
        for run in runs:
            write_run(LocalStore(root, sync="none"), spool, *run)
        hook = At(nth, lambda root=root, spool=spool: others(root, spool))
        try:
            compact(Watched(root, hook), "q", spool, most_files=1)
        except Died:
            assert meeting == "die"
        if hook.left > 0:
            break
        store = LocalStore(root, sync="none")
        written = [*runs, (4,)] if meeting == "write and compact" else runs
        assert lost(store, spool, written) == [], nth
        compact(store, "q", spool, most_files=1)
        assert lost(store, spool, written) == [], nth
    assert nth > 15


def test_a_reader_in_whose_middle_files_become_one_finds_everything(tmp_path: Path) -> None:
    runs = [(run,) for run in range(4)]
    nth = 0
    while True:
        nth += 1
        root, spool = tmp_path / f"{nth}/root", tmp_path / f"{nth}/spool"
        plain = LocalStore(root, sync="none")
        for run in runs:
            write_run(plain, spool, *run)

        def act(plain: LocalStore = plain, spool: Path = spool) -> None:
            assert compact(plain, "q", spool, most_files=1)

        hook = At(nth, act)
        assert lost(Watched(root, hook), spool, runs) == [], nth
        if hook.left > 0:
            break
    assert nth > 8


class Vanishing(LocalStore):
    """Lists a folder as disks do: names first, then what is left of them; between the two, all files become one."""

    def __init__(self, root: Path, spool: Path) -> None:
        super().__init__(root, sync="none")
        self._spool = spool
        self._listed = 0

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        self._listed += 1
        there = list(super().list(prefix, after=after))
        if self._listed == 1:
            compact(LocalStore(Path(self.uri.removeprefix("file://")), sync="none"), "q", self._spool, most_files=1)
            there = [info for info in there if self.info(info.path)]
        yield from there


def test_a_listing_at_the_moment_of_change_is_not_believed(root: Path, store: LocalStore, spool: Path) -> None:
    runs = [(run,) for run in range(4)]
    for run in runs:
        write_run(store, spool, *run)

    assert lost(Vanishing(root, spool), spool, runs) == []


def test_a_broken_file_is_left_alone_and_holds_nothing_up(store: LocalStore, spool: Path) -> None:
    for run in range(4):
        write_run(store, spool, run)
    store.write("cache/q/broken.parquet", b"PAR1")

    assert compact(store, "q", spool, most_files=1)
    assert len(names(store)) == 2
    assert "broken.parquet" in names(store)
    assert not compact(store, "q", spool, most_files=1)


def test_a_broken_file_is_never_taken_for_the_one_to_be_made(root: Path, store: LocalStore, spool: Path) -> None:
    """A compaction died before it deleted anything, and then its file was damaged."""
    runs = [(run,) for run in range(3)]
    for run in runs:
        write_run(store, spool, *run)
    before = set(names(store))

    def die() -> None:
        if made := set(names(store)) - before:
            store.write(f"cache/q/{made.pop()}", b"damaged")
            raise Died

    with pytest.raises(Died):
        compact(Watched(root, lambda point: die() if point == "after replace" else None), "q", spool, most_files=1)
    assert len(names(store)) == 4

    assert compact(store, "q", spool, most_files=1)

    index = CacheIndex.open(store, "q", spool)
    assert all((index.find(keys_of_run(*run)).ordinal == ordinals()).all() for run in runs)


@pytest.mark.slow
def test_processes_write_compact_and_read_at_once(root: Path, store: LocalStore, spool: Path) -> None:
    """What a writer has said to be done is found by everybody who opens the cache afterwards."""

    def started(what: str, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(WRITER), str(root), str(spool), what, str(number)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def said(process: subprocess.Popen[str], line: str = "") -> list[str]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        return process.stdout.readline().split()

    compacting = [started("compact", 0) for _ in range(2)]
    writing = [started("write", 1000) for _ in range(2)]
    try:
        assert [said(process) for process in compacting] == [["ready"]] * 2
        done: list[tuple[int, ...]] = []
        files = fewer = number = 0
        # As long as it takes until some were made into one among the writes.
        while number < 40 or (fewer < 3 and number < 1000):
            for process in writing:
                pid, run = map(int, said(process, "write\n"))
                done.append((pid, run))
            if number % 4 == 0:
                assert lost(store, spool, done) == []
            files, before = len(names(store)), files
            fewer += files < before + len(writing)
            number += 1
        compactions = [int(process.communicate(timeout=120)[0]) for process in compacting]
    finally:
        for process in (*writing, *compacting):
            process.kill()
            process.communicate()

    assert [process.returncode for process in compacting] == [0] * 2
    assert fewer >= 3
    assert sum(compactions) >= 1
    assert len(done) == 2 * number >= 80
    assert lost(store, spool, done) == []


def test_a_bucket_holds_a_cache_too(moto_url: str, spool: Path) -> None:
    name = f"test-{uuid.uuid4().hex}"
    boto3.client(
        "s3", endpoint_url=moto_url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    ).create_bucket(Bucket=name)
    store = open_store(f"s3://{name}/root", environ=aws.environ(moto_url))
    runs = [(run,) for run in range(9)]
    assert len(CacheIndex.open(store, "q", spool)) == 0

    for run in runs:
        write_run(store, spool, *run)
    write_run(store, spool, 0)
    assert len(names(store)) == 9
    assert lost(store, spool, runs) == []

    assert compact(store, "q", spool)
    assert len(names(store)) == 1
    assert lost(store, spool, runs) == []


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from lowtide.cache.index import CacheIndex
from lowtide.cache.storage import compact, write_entries
from lowtide.connectors.stores.local import LocalStore

folder, size = Path(sys.argv[1]), int(sys.argv[2])
store, spool = LocalStore(folder / "root", sync="none"), folder / "spool"
chance = np.random.default_rng(1)
for run in range(3):
    some = lambda: chance.integers(0, 1 << 64, (10_000, 2), dtype=np.uint64)
    pieces = ((f"rows/{at}", some(), np.arange(10_000, dtype=np.int32)) for at in range(size // 30_000))
    write_entries(store, "q", f"run{run}", pieces, spool)
index = CacheIndex.open(store, "q", spool)
for _ in range(400):
    index.find(chance.integers(0, 1 << 64, (256, 2), dtype=np.uint64))
assert compact(store, "q", spool, most_files=1)
assert len(index) == size
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_entries(tmp_path: Path) -> None:
    """Writing, opening, finding and compacting, with six times as many: 56 MB more, if they were held."""

    def peak(size: int) -> int:
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(size)), str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
        return int(done.stdout) * 1024

    assert peak(3_600_000) - peak(600_000) < 24_000_000
