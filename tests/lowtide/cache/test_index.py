"""Finding answers: beside a dictionary, and with files that are broken, foreign or gone."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.cache.index import CacheIndex
from lowtide.cache.keys import Keys
from lowtide.cache.storage import write_entries
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import Transient

HALF = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
ENTRY = st.tuples(HALF, HALF, st.sampled_from(["runs/a/rows", "runs/b/rows", "runs/é/rows"]), st.integers(0, 2**31 - 1))

Place = tuple[str, int]


def keys_from(rows: list[tuple[int, int]]) -> Keys:
    return np.array(rows, np.uint64).reshape(-1, 2)


def random_keys(number: int, seed: int) -> Keys:
    return np.random.default_rng(seed).integers(0, 2**64, (number, 2), dtype=np.uint64)


def ordinals(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(numbers, np.int32)


def counted(number: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.arange(number, dtype=np.int32)


def descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def places(index: CacheIndex, keys: Keys) -> list[Place | None]:
    found = index.find(keys)
    assert ((found.source < 0) == (found.ordinal < 0)).all()
    return [
        (index.sources[source], ordinal) if source >= 0 else None
        for source, ordinal in zip(found.source.tolist(), found.ordinal.tolist(), strict=True)
    ]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root", sync="none")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def only_file(store: LocalStore) -> str:
    (info,) = store.list("cache/q/")
    return info.path


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(ENTRY, max_size=30), max_size=4), st.lists(st.tuples(HALF, HALF), max_size=30))
def test_what_is_found_is_what_was_written_last_or_before(
    runs: list[list[tuple[int, int, str, int]]], others: list[tuple[int, int]]
) -> None:
    """Of several runs that bought the same, any may be named; inside one run it is the last."""
    bought: dict[tuple[int, int], set[Place]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store, spool = LocalStore(Path(folder) / "root", sync="none"), Path(folder) / "spool"
        for number, entries in enumerate(runs):
            pieces = [(source, keys_from([(high, low)]), ordinals(at)) for high, low, source, at in entries]
            write_entries(store, "q", f"run{number}", pieces, spool)
            for key, place in {(high, low): (source, at) for high, low, source, at in entries}.items():
                bought.setdefault(key, set()).add(place)

        index = CacheIndex.open(store, "q", spool)

    asked = [*bought, *others]
    found = places(index, keys_from(asked))
    assert len(index) == len(bought)
    assert [place is not None for place in found] == [key in bought for key in asked]
    assert all(place in bought[key] for key, place in zip(asked, found, strict=True) if place is not None)


def test_many_entries_are_found_in_one_call_and_in_many(store: LocalStore, spool: Path) -> None:
    """More than are held in memory, from several sources and files, some of them in two."""
    keys = random_keys(700_000, 1)
    for run, start in enumerate([0, 200_000]):
        pieces = [
            (f"rows/{at // 50_000}", keys[at : at + 50_000], counted(50_000))
            for at in range(start, start + 500_000, 50_000)
        ]
        write_entries(store, "q", f"run{run}", pieces, spool)
    asked = np.concatenate([keys, random_keys(20_000, 2)])

    index = CacheIndex.open(store, "q", spool)
    found = index.find(asked)

    assert len(index) == len(keys)
    source = np.array([int(path.rpartition("/")[2]) for path in index.sources])
    assert (source[found.source[:700_000]] * 50_000 + found.ordinal[:700_000] == np.arange(700_000)).all()
    assert (found.source[700_000:] == -1).all()
    part = [index.find(asked[at : at + 256]).source for at in range(690_000, 720_000, 256)]
    assert (np.concatenate(part) == found.source[690_000:]).all()


def test_keys_that_share_a_half_are_told_apart(store: LocalStore, spool: Path) -> None:
    """All entries lie in one place of the file, and all of what is asked seems to."""
    bought, asked = random_keys(5_000, 1), random_keys(5_000, 2)
    bought[:, 0] = asked[:, 0] = 7
    asked[2_500:, 1] = bought[2_500:, 1]
    write_entries(store, "q", "run", [("rows", bought, counted(5_000))], spool)

    found = CacheIndex.open(store, "q", spool).find(asked)

    assert found.ordinal.tolist() == [-1] * 2_500 + list(range(2_500, 5_000))


def test_the_newest_answer_is_found(store: LocalStore, spool: Path, tmp_path: Path) -> None:
    key = random_keys(1, 1)
    for name, age in [("b", 30), ("a", 10), ("c", 20)]:
        before = {info.path for info in store.list("cache/")}
        write_entries(store, "q", name, [(f"rows/{name}", key, counted(1))], spool)
        (path,) = {info.path for info in store.list("cache/")} - before
        os.utime(tmp_path / "root" / path, (1_000_000_000 - age,) * 2)

    assert places(CacheIndex.open(store, "q", spool), key) == [("rows/a", 0)]


def test_an_empty_cache_finds_nothing(store: LocalStore, spool: Path) -> None:
    index = CacheIndex.open(store, "q", spool)

    assert len(index) == 0
    assert not index.sources
    assert not index.warnings
    assert places(index, random_keys(3, 1)) == [None, None, None]


def test_nothing_asked_is_nothing_found(store: LocalStore, spool: Path) -> None:
    write_entries(store, "q", "run", [("rows", random_keys(10, 1), counted(10))], spool)

    assert places(CacheIndex.open(store, "q", spool), random_keys(0, 1)) == []


def test_a_question_knows_nothing_of_the_answers_to_another(store: LocalStore, spool: Path) -> None:
    keys = random_keys(10, 1)
    write_entries(store, "q", "run", [("rows", keys, counted(10))], spool)

    assert len(CacheIndex.open(store, "other", spool)) == 0


def test_an_index_leaves_no_file_and_no_descriptor(store: LocalStore, spool: Path) -> None:
    keys = random_keys(10, 1)
    write_entries(store, "q", "run", [("rows", keys, counted(10))], spool)
    gc.collect()
    before = descriptors()

    index = CacheIndex.open(store, "q", spool)
    assert list(spool.iterdir()) == []
    assert descriptors() == before + 1
    assert places(index, keys[:1]) == [("rows", 0)]
    del index
    gc.collect()

    assert descriptors() == before


def damaged_with(change: Callable[[bytes], bytes], store: LocalStore) -> None:
    store.write(only_file(store), change(store.read(only_file(store))))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: b"", "Parquet"),
        (lambda data: data[:-1], "Parquet"),
        (lambda data: data[: len(data) // 2], "Parquet"),
        (lambda data: b"document text", "Parquet"),
        (lambda data: data[:200] + bytes(200) + data[400:], "Parquet"),
    ],
    ids=["empty", "cut short", "half", "something else", "overwritten"],
)
def test_a_broken_file_is_reported_and_passed_over(
    damage: Callable[[bytes], bytes], complaint: str, store: LocalStore, spool: Path
) -> None:
    write_entries(store, "q", "broken", [("rows/1", random_keys(50, 1), counted(50))], spool)
    damaged_with(damage, store)
    path = only_file(store)
    keys = random_keys(50, 2)
    write_entries(store, "q", "good", [("rows/2", keys, counted(50))], spool)

    index = CacheIndex.open(store, "q", spool)

    assert places(index, keys) == [("rows/2", at) for at in range(50)]
    (warning,) = index.warnings
    assert store.uri_of(path) in warning
    assert complaint in warning
    assert "document text" not in warning


def test_no_flipped_bit_makes_a_wrong_answer_of_a_right_one(store: LocalStore, spool: Path) -> None:
    """Each byte of the file in turn: the answers are those that were written, or the file is reported."""
    keys = random_keys(12, 1)
    write_entries(store, "q", "run", [("rows/a", keys[:6], counted(6)), ("rows/b", keys[6:], counted(6))], spool)
    path, written = only_file(store), [(f"rows/{name}", at) for name in "ab" for at in range(6)]
    data = store.read(path)
    reported = 0

    for at in range(len(data)):
        store.write(path, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        index = CacheIndex.open(store, "q", spool)
        found = places(index, keys)
        reported += bool(index.warnings)
        assert index.warnings or found == written, at
        assert all(place in (None, right) for place, right in zip(found, written, strict=True)), at

    assert reported > len(data) / 2


@pytest.mark.parametrize(
    ("columns", "metadata", "complaint"),
    [
        ({"key": pa.array([b"k" * 16], pa.binary(16))}, {"lowtide.cache": "1", "lowtide.question": "q"}, "columns"),
        ({"key": pa.array([b"k" * 16], pa.binary(16))}, {"lowtide.cache": "99", "lowtide.question": "q"}, "version"),
        ({"text": pa.array(["secret"])}, {}, "version"),
        ({"text": pa.array(["secret"])}, {"lowtide.cache": "1", "lowtide.question": "other"}, "another question"),
    ],
)
def test_a_foreign_file_is_reported_and_passed_over(
    columns: dict[str, pa.Array], metadata: dict[str, str], complaint: str, store: LocalStore, spool: Path
) -> None:
    with store.writer("cache/q/foreign.parquet") as out:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), out)

    index = CacheIndex.open(store, "q", spool)

    assert len(index) == 0
    (warning,) = index.warnings
    assert complaint in warning
    assert "secret" not in warning


class Unreachable(LocalStore):
    """Lists files, and cannot be reached when they are read."""

    def open(self, path: str):
        raise Transient("no route to host")


def test_a_store_that_cannot_be_reached_is_no_empty_cache(store: LocalStore, spool: Path, tmp_path: Path) -> None:
    """Everything would be bought again."""
    write_entries(store, "q", "run", [("rows", random_keys(10, 1), counted(10))], spool)

    with pytest.raises(Transient):
        CacheIndex.open(Unreachable(tmp_path / "root"), "q", spool)
