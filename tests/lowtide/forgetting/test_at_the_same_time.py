"""Whoever dies in the middle, reads, or publishes at the same time: it is gone in the end, and all tables are whole."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.engine_support import finish
from support.remains import objects_in, remains
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on
from support.world import Crash, WatchedStore

from lowtide import ids
from lowtide.connectors.stores.local import LocalStore
from lowtide.engine import Run, open_run
from lowtide.forgetting import Forgetting, NotForgotten, Target
from lowtide.protocols import Store
from lowtide.records import FileInfo

TEXTS: dict[str, str | None] = {
    **{f"doc-{number}": f"words of person {number}." for number in range(7)},
    "twin": "words of person 3.",
}
OPERATIONS = (echo_operation(), echo_operation("b"))
LATER: dict[str, str | None] = {**TEXTS, "late": "the last words"}
each_document = pytest.mark.parametrize("uri", ["doc-2", "doc-3"], ids=["alone", "with a twin"])
Hook = Callable[[str], None]


def run_of(store: Store, provider: Provider, texts: dict[str, str | None]) -> Run:
    work = work_on(MemoryStore(), StandInBackend(provider), ListedDocuments(texts), operations=OPERATIONS)
    run = open_run(replace(work, root=store, shard_records=4))
    assert finish(run).done
    return run


def made() -> tuple[MemoryStore, Provider]:
    """A root in which two runs over one window have published, the later one with one document more."""
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS)
    run_of(store, provider, LATER)
    return store, provider


def rows_of(store: MemoryStore) -> dict[tuple[str, str], object]:
    with store.open("tables/results/job=test/window=all/results.parquet") as source:
        rows = pq.read_table(source).to_pylist()
    counted = Counter((row["document_uri"], row["operation"]) for row in rows)
    assert set(counted.values()) == {1}
    return {(row["document_uri"], row["operation"]): row["output_text"] for row in rows}


def expected(texts: dict[str, str | None], gone: str) -> dict[tuple[str, str], object]:
    return {(uri, op.name): text for uri, text in texts.items() for op in OPERATIONS if uri != gone}


def words_of(uri: str) -> list[str]:
    alone = [] if uri == "doc-3" else [str(TEXTS[uri])]
    return [uri, ids.document_id(uri, ""), *alone]


def points(store: MemoryStore, uri: str) -> int:
    """How many points a whole call has at which something changes."""
    passed: list[str] = []
    Forgetting(WatchedStore(store, passed.append), Target.of(uri)).perform()
    return len(passed)


def acting_at(number: int, act: Callable[[], None]) -> Hook:
    left = [number]

    def hook(point: str) -> None:
        left[0] -= 1
        if not left[0]:
            act()

    return hook


def die() -> None:
    raise Crash


@pytest.mark.slow
@each_document
def test_one_that_dies_at_any_point_is_finished_by_the_same_again(uri: str) -> None:
    total = points(made()[0], uri)
    assert total > 20
    for number in range(1, total + 1):
        store, provider = made()
        with pytest.raises(Crash):
            Forgetting(WatchedStore(store, acting_at(number, die)), Target.of(uri)).perform()
        forgetting = Forgetting(store, Target.of(uri))
        done = [path for path in store.objects if path.endswith(".done.json")]
        assert done or forgetting.was_begun() or number <= 4
        forgetting.perform()
        assert not forgetting.survey()
        assert remains(store.objects, words_of(uri)) == [], number
        records = Counter(path.rpartition(".")[0].rpartition(".")[2] for path in store.objects if "forgotten/" in path)
        assert records["begun"] == records["done"] >= 1
        assert rows_of(store) == expected(LATER, uri)
        # The run whose files were gone through goes on as if it had never held the document.
        run_of(store, provider, TEXTS)
        assert rows_of(store) == expected(TEXTS, uri), number
        assert set(provider.processed.values()) == {2}


@pytest.mark.slow
@each_document
def test_whoever_publishes_at_any_point_does_not_bring_it_back(uri: str) -> None:
    total = points(made()[0], uri)
    refused = 0
    for number in range(1, total + 1):
        store, provider = made()
        hook = acting_at(number, lambda store=store, provider=provider: run_of(store, provider, TEXTS))  # type: ignore[misc]
        try:
            Forgetting(WatchedStore(store, hook), Target.of(uri)).perform()
        except NotForgotten:
            refused += 1
            Forgetting(store, Target.of(uri)).perform()
        assert remains(store.objects, words_of(uri)) == [], number
        assert rows_of(store) in (expected(TEXTS, uri), expected(LATER, uri))
    assert 0 < refused < total


def test_a_publisher_that_was_overtaken_is_waited_for() -> None:
    store, provider = made()
    at_work: list[NotForgotten] = []

    def forget(point: str) -> None:
        if point.startswith("before replace tables/results"):
            with pytest.raises(NotForgotten) as refused:
                Forgetting(store, Target.of("doc-3")).perform()
            at_work.append(refused.value)

    run_of(WatchedStore(store, forget), provider, TEXTS)
    assert at_work
    Forgetting(store, Target.of("doc-3")).perform()
    assert remains(store.objects, words_of("doc-3")) == []


def test_readers_see_whole_tables_all_the_time(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root", sync="none")
    texts: dict[str, str | None] = {f"doc-{number:02}": f"text {number}" for number in range(30)}
    run_of(store, Provider(), texts)
    path = tmp_path / "root/tables/results/job=test/window=all/results.parquet"
    stop, reads = threading.Event(), Counter[int]()
    bad: list[object] = []

    def read() -> None:
        while not stop.is_set():
            # Opened once: who opens a path twice may see two tables, whoever replaces it.
            with path.open("rb") as source:
                table = pq.read_table(source, columns=["document_uri", "operation"])
            per_document = set(Counter(table["document_uri"].to_pylist()).values())
            reads[len(table)] += 1
            if per_document != {2}:
                bad.append(per_document)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for uri in sorted(texts)[:20]:
            assert Forgetting(store, Target.of(uri)).perform()
    finally:
        stop.set()
        reader.join()
    assert not bad
    assert sum(reads.values()) > 20
    assert set(reads) <= {2 * left for left in range(10, 31)}
    assert remains(objects_in(tmp_path / "root"), sorted(texts)[:20]) == []


class Unsteady(MemoryStore):
    """A file that others write each time that it is looked at."""

    def info(self, path: str) -> FileInfo | None:
        found = super().info(path)
        if found is not None and path.startswith("tables/results"):
            return replace(found, etag="another")
        return found


def test_a_file_that_never_rests_is_not_written_over() -> None:
    store, _ = made()
    unsteady = Unsteady()
    unsteady.objects = store.objects
    before = store.objects["tables/results/job=test/window=all/results.parquet"]
    with pytest.raises(Exception, match="others write this file"):
        Forgetting(unsteady, Target.of("doc-3")).perform()
    assert store.objects["tables/results/job=test/window=all/results.parquet"] == before
