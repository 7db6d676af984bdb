"""After `forget`, nothing in the root knows the document, and all others are as they were."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.engine_support import Clock, finish, ledger
from support.remains import remains
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, ok, work_on
from support.world import WatchedStore

from lowtide import ids
from lowtide.engine import Run, end_run, find_run, open_run
from lowtide.errors import ConfigError, LowtideError
from lowtide.events import CancelRequested
from lowtide.forgetting import Forgetting, NotForgotten, Target
from lowtide.openruns import Asked, path_of
from lowtide.plan import Work
from lowtide.records import DocumentBatch, FileInfo
from lowtide.windows import Window

TEXTS: dict[str, str | None] = {f"doc-{number}": f"words of person {number}." for number in range(9)}
RESULTS = "tables/results/job=test/window=all/results.parquet"


def run_of(store: MemoryStore, provider: Provider, texts: dict[str, str | None], **more: object) -> Run:
    changes = {name: more.pop(name) for name in ("job", "window", "refresh") if name in more}
    retry = bool(more.pop("retry", False))
    work = work_on(store, StandInBackend(provider), ListedDocuments(texts), **more)  # type: ignore[arg-type]
    run = open_run(replace(work, **changes), retry=retry)  # type: ignore[arg-type]
    assert finish(run).done
    return run


def rows_of(store: MemoryStore, path: str = RESULTS) -> list[dict[str, object]]:
    table = pq.read_table(io.BytesIO(store.objects[path]))
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def others(rows: list[dict[str, object]], uri: str) -> list[dict[str, object]]:
    return [row for row in rows if row["document_uri"] != uri]


def words_of(uri: str, text: str | None = None, key: str = "") -> list[str]:
    return [uri, ids.document_id(uri, key), *([text] if text else [])]


def test_nothing_in_the_root_knows_the_document_any_more() -> None:
    store, provider = MemoryStore(), Provider()
    run = run_of(store, provider, TEXTS)
    before = rows_of(store)
    metadata = pq.read_metadata(io.BytesIO(store.objects[RESULTS])).metadata
    cost = ledger(store, run)
    words = words_of("doc-3", TEXTS["doc-3"])
    assert len(remains(store.objects, words)) > 8
    touched = Forgetting(store, Target.of("doc-3"), "me").perform()
    assert remains(store.objects, words) == []
    assert set(touched.counts()) == {"requests", "raw", "rows", "index", "inputs", "cache", "results"}
    assert rows_of(store) == others(before, "doc-3")
    after = pq.read_metadata(io.BytesIO(store.objects[RESULTS])).metadata
    assert {name: value for name, value in after.items() if name.startswith(b"lowtide")} == {
        name: value for name, value in metadata.items() if name.startswith(b"lowtide")
    }
    assert ledger(store, run) == cost


def test_forgetting_it_again_finds_nothing() -> None:
    store = MemoryStore()
    run_of(store, Provider(), TEXTS)
    assert Forgetting(store, Target.of("doc-3")).perform()
    there = dict(store.objects)
    assert not Forgetting(store, Target.of("doc-3")).perform()
    assert not Forgetting(store, Target.of("nowhere")).perform()
    assert store.objects == there


def test_where_there_is_nothing_nothing_is_written() -> None:
    store = MemoryStore()
    assert not Forgetting(store, Target.of("doc-3")).perform()
    assert store.objects == {}


def test_a_survey_counts_the_same_and_changes_nothing() -> None:
    store = MemoryStore()
    run_of(store, Provider(), TEXTS)
    there = dict(store.objects)
    surveyed = Forgetting(store, Target.of("doc-3")).survey()
    assert store.objects == there
    assert Forgetting(store, Target.of("doc-3")).perform().counts() == surveyed.counts()


def test_the_record_says_when_by_whom_and_how_much_and_not_what() -> None:
    store = MemoryStore()
    run_of(store, Provider(), TEXTS)
    clock = Clock()
    Forgetting(store, Target.of("doc-3"), "the officer", clock).perform()
    begun, done = (store.objects[path].decode() for path in sorted(store.objects) if path.startswith("forgotten/"))
    assert '"by":"the officer"' in begun
    assert '"by":"the officer"' in done
    assert '"results":{"files":1,"entries":1}' in done
    assert "2027-01-15T" in done
    mark = Target.of("doc-3").mark(store.objects[".lowtide/salt"])
    assert mark in begun
    assert mark in done
    assert mark != Target.of("doc-3").mark(b"other")


def test_every_run_window_and_job_of_the_root_is_gone_through() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS)
    run_of(store, provider, {**TEXTS, "new": "something new"})
    run_of(store, provider, TEXTS, job="other", shard_records=2, operations=(echo_operation(), echo_operation("b")))
    run_of(store, provider, TEXTS, job="third", window=Window("2026-11", None, None))
    words = words_of("doc-5", TEXTS["doc-5"])
    before = {path: rows_of(store, path) for path in store.objects if path.startswith("tables/results")}
    assert len(before) == 3
    assert Forgetting(store, Target.of("doc-5")).perform()
    assert remains(store.objects, words) == []
    for path, rows in before.items():
        assert rows_of(store, path) == others(rows, "doc-5")


def test_a_run_behind_it_does_not_bring_the_text_back_and_buys_only_what_is_new() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS)
    Forgetting(store, Target.of("doc-3")).perform()
    left = {uri: text for uri, text in TEXTS.items() if uri != "doc-3"}
    bought = sum(provider.processed.values())
    run_of(store, provider, left)
    assert sum(provider.processed.values()) == bought
    assert {row["document_uri"] for row in rows_of(store)} == set(left)
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []


def test_who_reads_it_anew_from_its_source_asks_and_pays_anew() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS)
    Forgetting(store, Target.of("doc-3")).perform()
    run_of(store, provider, {**TEXTS, "more": "one more"})
    assert provider.processed["words of person 3."] == 2
    assert provider.processed["words of person 4."] == 1
    rows = {row["document_uri"]: row for row in rows_of(store)}
    assert rows["doc-3"]["output_text"] == TEXTS["doc-3"]
    assert rows["doc-3"]["status"] == "ok"


def test_the_same_run_asked_for_once_more_publishes_what_is_left() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS, shard_records=1)
    run_of(store, provider, {**TEXTS, "doc-0": "changed"}, shard_records=1)
    Forgetting(store, Target.of("doc-3")).perform()
    bought = sum(provider.processed.values())
    run_of(store, provider, TEXTS, shard_records=1)
    assert sum(provider.processed.values()) == bought
    rows = {row["document_uri"]: row["output_text"] for row in rows_of(store)}
    assert rows == {uri: text for uri, text in TEXTS.items() if uri != "doc-3"}
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []


def answers_in_turn(request: dict[str, str], nth: int) -> list[dict[str, object]]:
    """Nothing for some records at first, rubbish and strays beside others."""
    if "2" in request["text"] and nth == 1:
        return [{"record_id": request["id"], "status": "unanswered", "error": "expired"}]
    if "4" in request["text"] and nth == 1:
        return [{"record_id": request["id"], "status": "error", "error": "later", "retryable": True}]
    stray = ok(request) | {"record_id": f"r9999999{request['id'][8:]}"}
    return [stray, ok(request)]


@pytest.mark.parametrize("number", [0, 2, 4, 7])
def test_all_attempts_and_stray_lines_are_gone_through(number: int) -> None:
    store = MemoryStore()
    run_of(store, Provider(answers_in_turn), TEXTS, operations=(echo_operation(), echo_operation("b")))
    uri = f"doc-{number}"
    before = rows_of(store)
    raw = [line for path, data in store.objects.items() if "/raw/" in path for line in data.splitlines()]
    Forgetting(store, Target.of(uri)).perform()
    assert remains(store.objects, words_of(uri, TEXTS[uri])) == []
    assert rows_of(store) == others(before, uri)
    left = [line for path, data in store.objects.items() if "/raw/" in path for line in data.splitlines()]
    check = hashlib.sha256(str(TEXTS[uri]).encode()).hexdigest()[:8].encode()
    assert left == [line for line in raw if check not in line]
    assert 0 < len(left) < len(raw)


def test_other_rows_can_still_be_asked_again_and_nothing_stands_in_for_it() -> None:
    store = MemoryStore()
    failing = Provider(
        lambda request, nth: (
            [{"record_id": request["id"], "status": "error", "error": "x", "retryable": True}]
            if "person 2." in request["text"] or "person 3." in request["text"]
            else [ok(request)]
        )
    )
    run_of(store, failing, TEXTS, attempts=2)
    Forgetting(store, Target.of("doc-3")).perform()
    good = Provider()
    good.batches = failing.batches
    run_of(store, good, TEXTS, attempts=2, retry=True)
    rows = {row["document_uri"]: row["output_text"] for row in rows_of(store)}
    assert rows == {uri: text for uri, text in TEXTS.items() if uri != "doc-3"}
    assert good.processed == {"words of person 2.": 1}


def test_one_that_was_never_asked_and_is_asked_for_again_stays_forgotten() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS, run_usd=Decimal("0.0000001"))
    assert {row["status"] for row in rows_of(store)} == {"skipped"}
    Forgetting(store, Target.of("doc-3")).perform()
    run_of(store, provider, TEXTS)
    assert {row["document_uri"]: row["output_text"] for row in rows_of(store)} == {
        uri: text for uri, text in TEXTS.items() if uri != "doc-3"
    }
    assert set(provider.processed.values()) == {1}
    assert len(provider.processed) == 8


def test_a_shard_of_which_all_is_forgotten_is_not_sent_when_it_is_asked_for_again() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS, run_usd=Decimal("0.0000001"), shard_records=1)
    Forgetting(store, Target.of("doc-3")).perform()
    run_of(store, provider, TEXTS, shard_records=1)
    assert len(provider.batches) == 8
    assert all(all(batch.lines) for batch in provider.batches.values())
    assert {row["document_uri"] for row in rows_of(store)} == set(TEXTS) - {"doc-3"}


def test_a_document_with_the_same_text_keeps_its_answer_and_takes_the_record_over() -> None:
    store, provider = MemoryStore(), Provider()
    texts: dict[str, str | None] = {"a": "the same", "b": "else", "c": "the same", "d": "the same"}
    run_of(store, provider, texts, shard_records=1, operations=(echo_operation(), echo_operation("b")))
    run_of(store, provider, {**texts, "e": "more"}, operations=(echo_operation(), echo_operation("b")))
    before = rows_of(store)
    Forgetting(store, Target.of("a")).perform()
    assert remains(store.objects, [ids.document_id("a", "")]) == []
    assert rows_of(store) == others(before, "a")
    bought = sum(provider.processed.values())
    run_of(store, provider, texts, shard_records=1, operations=(echo_operation(), echo_operation("b")))
    assert sum(provider.processed.values()) == bought
    rows = [(row["document_uri"], row["operation"], row["output_text"]) for row in rows_of(store)]
    assert sorted(rows) == sorted((uri, op, texts[uri]) for uri in "bcd" for op in ("echo", "b"))
    Forgetting(store, Target.of("c")).perform()
    Forgetting(store, Target.of("d")).perform()
    words = ["the same", *(ids.document_id(uri, "") for uri in "acd")]
    assert remains(store.objects, words) == []
    run_of(store, provider, texts, shard_records=1, operations=(echo_operation(), echo_operation("b")))
    assert {row["document_uri"] for row in rows_of(store)} == {"b"}


@dataclass
class RowDocuments:
    """Files of rows: by address, the texts by key."""

    rows: dict[str, dict[str, str]]

    def files(self) -> Iterator[FileInfo]:
        for uri, rows in sorted(self.rows.items()):
            yield FileInfo(uri, uri, len(str(rows)), f"e{len(str(rows))}", datetime(2026, 11, 2, tzinfo=UTC))

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        for info in files:
            batch = DocumentBatch(fields={})
            for key, text in self.rows[info.uri].items():
                batch.uris.append(info.uri)
                batch.keys.append(key)
                batch.modified.append(None)
                batch.texts.append(text)
                batch.reasons.append(None)
            yield batch


ROWS = {f"file-{at}.jsonl": {f"k{row}": f"story {at} of {row};" for row in range(5)} for at in range(3)}


@pytest.mark.parametrize("by_id", [False, True])
def test_a_row_is_forgotten_alone_by_its_key_or_its_id(by_id: bool) -> None:
    store = MemoryStore()
    work = replace(work_on(store, StandInBackend(Provider()), ListedDocuments({})), documents=RowDocuments(ROWS))
    assert finish(open_run(work)).done
    before = rows_of(store)
    name = ids.document_id("file-1.jsonl", "k2")
    target = Target.of(name) if by_id else Target.of("file-1.jsonl", "k2")
    touched = Forgetting(store, target).perform()
    assert remains(store.objects, [name, "story 1 of 2;"]) == []
    assert "inputs" not in touched.counts()
    assert rows_of(store) == [row for row in before if row["document_id"] != name]
    assert not Forgetting(store, target).perform()


def test_an_address_of_a_file_of_rows_stands_for_all_of_them() -> None:
    store = MemoryStore()
    work = replace(work_on(store, StandInBackend(Provider()), ListedDocuments({})), documents=RowDocuments(ROWS))
    assert finish(open_run(work)).done
    before = rows_of(store)
    Forgetting(store, Target.of("file-1.jsonl")).perform()
    gone = [ids.document_id("file-1.jsonl", key) for key in ROWS["file-1.jsonl"]]
    assert remains(store.objects, ["file-1.jsonl", "story 1", *gone]) == []
    assert rows_of(store) == others(before, "file-1.jsonl")


def test_a_whole_file_may_be_named_by_its_id() -> None:
    store = MemoryStore()
    run_of(store, Provider(), TEXTS)
    Forgetting(store, Target.of(ids.document_id("doc-3", ""))).perform()
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []


def test_an_open_run_that_holds_it_is_refused_and_nothing_is_changed() -> None:
    store, provider = MemoryStore(), Provider()
    run = open_run(work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS)))
    run.advance()
    there = dict(store.objects)
    with pytest.raises(NotForgotten, match="lowtide cancel") as refused:
        Forgetting(store, Target.of("doc-3")).perform()
    assert refused.value.exit_code == 3
    assert {path: data for path, data in store.objects.items() if not path.startswith(".lowtide")} == {
        path: data for path, data in there.items() if not path.startswith(".lowtide")
    }
    # What the run does not hold is nothing to it.
    run_of(store, provider, {"z": "something else"}, job="other")
    Forgetting(store, Target.of("z")).perform()
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    assert finish(run).done
    Forgetting(store, Target.of("doc-3")).perform()
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []


def test_a_run_that_was_overtaken_by_another_one_is_gone_through_too() -> None:
    store, provider = MemoryStore(), Provider()
    first = open_run(work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS)))
    first.advance()
    second = run_of(store, provider, {**TEXTS, "doc-0": "changed"})
    assert first.refresh().cancelled
    assert not first.state.published_at
    assert remains({path: data for path, data in store.objects.items() if first.plan.run_id in path}, ["person 3."])
    Forgetting(store, Target.of("doc-3")).perform()
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []
    assert {row["document_uri"] for row in rows_of(store)} == set(TEXTS) - {"doc-3"}
    assert second.plan.run_id != first.plan.run_id


def test_a_run_that_has_read_nothing_goes_on_without_it() -> None:
    store, provider = MemoryStore(), Provider()
    run = open_run(work_on(store, StandInBackend(provider), ListedDocuments(TEXTS)))
    Forgetting(store, Target.of("doc-3")).perform()
    assert remains(store.objects, words_of("doc-3")) == []
    assert finish(run).done
    assert {row["document_uri"] for row in rows_of(store)} == set(TEXTS) - {"doc-3"}
    assert "words of person 3." not in provider.processed


def begun_and_asked_otherwise(store: MemoryStore, provider: Provider) -> tuple[Work, Run]:
    """A run whose batches were answered, and whose prompt was changed before anybody read them: another one is done."""
    work = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS))
    run = open_run(work)
    run.advance()
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    assert finish(open_run(asking_otherwise(work, provider))).done
    return work, run


def asking_otherwise(work: Work, provider: Provider) -> Work:
    return replace(work, operations=(echo_operation("renamed"),), backend=StandInBackend(provider))


def ended(work: Work, provider: Provider, run: Run) -> None:
    seen = find_run(asking_otherwise(work, provider), run_id=run.plan.run_id)
    assert seen is not None
    end_run(seen, poll=0.0)


def test_a_run_whose_prompt_was_changed_is_in_the_way_until_it_is_ended() -> None:
    store, provider = MemoryStore(), Provider()
    work, run = begun_and_asked_otherwise(store, provider)
    before = rows_of(store)
    with pytest.raises(NotForgotten, match=f"nobody has read.*lowtide cancel JOB --run {run.plan.run_id}`.*nothing"):
        Forgetting(store, Target.of("doc-3")).perform()
    assert rows_of(store) == before
    ended(work, provider, run)
    cost = ledger(store, run)
    assert Forgetting(store, Target.of("doc-3")).perform()
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []
    assert rows_of(store) == others(before, "doc-3")
    assert ledger(store, run) == cost


def test_a_run_that_was_ended_and_is_asked_for_again_does_not_bring_it_back() -> None:
    store, provider = MemoryStore(), Provider()
    work, run = begun_and_asked_otherwise(store, provider)
    ended(work, provider, run)
    Forgetting(store, Target.of("doc-3")).perform()
    bill = dict(provider.bill)
    assert finish(open_run(replace(work, backend=StandInBackend(provider)))).done
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []
    assert provider.bill == bill, "what was paid is not paid twice"
    assert finish(open_run(replace(work, backend=StandInBackend(provider)), retry=True)).done
    assert {row["document_uri"]: row["output_text"] for row in rows_of(store)} == {
        uri: text for uri, text in TEXTS.items() if uri != "doc-3"
    }
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []


def test_another_with_the_same_text_takes_the_record_over_in_a_run_that_was_ended() -> None:
    store, provider = MemoryStore(), Provider()
    texts: dict[str, str | None] = {"a": "the same", "b": "else", "c": "the same"}
    work = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(texts))
    run = open_run(work)
    run.advance()
    ended(work, provider, run)
    assert Forgetting(store, Target.of("a")).perform()
    assert remains(store.objects, [ids.document_id("a", "")]) == []
    back = open_run(replace(work, backend=StandInBackend(provider)), retry=True)
    assert finish(back).done
    assert {row["document_uri"]: row["output_text"] for row in rows_of(store)} == {"b": "else", "c": "the same"}


def test_the_refusal_names_the_job_file_that_the_run_goes_by() -> None:
    store, provider = MemoryStore(), Provider()
    work = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS))
    run = open_run(replace(work, asked=Asked(job_file="/jobs/the weekly.yaml")))
    run.advance()
    with pytest.raises(NotForgotten) as refused:
        Forgetting(store, Target.of("doc-3")).survey()
    assert f"`lowtide cancel '/jobs/the weekly.yaml' --run {run.plan.run_id}`" in str(refused.value)
    assert str(refused.value).endswith("; nothing was removed")
    store.write(path_of("test", "all", run.plan.run_id), b"no note")
    with pytest.raises(NotForgotten, match="lowtide cancel JOB --run"):
        Forgetting(store, Target.of("doc-3")).survey()


def test_the_refusal_says_what_was_removed_before_it() -> None:
    store, provider = MemoryStore(), Provider()
    work = work_on(MemoryStore(), StandInBackend(provider), ListedDocuments(TEXTS))
    first = open_run(replace(work, root=store))
    assert finish(first).done
    run_of(store, provider, {**TEXTS, "late": "more"})
    asked: list[Run] = []

    def ask_again(point: str) -> None:
        if point.startswith("after replace runs/") and not asked:
            asked.append(open_run(replace(work, root=store)))

    with pytest.raises(NotForgotten) as refused:
        Forgetting(WatchedStore(store, ask_again), Target.of("doc-3")).perform()
    assert asked
    said = re.search(r"removed so far, and not to be brought back: (.*); what is left goes", str(refused.value))
    assert said is not None, str(refused.value)
    assert re.match(r"[a-z]+ \d+ in \d+ files?", said[1])
    assert "nothing" not in str(refused.value)
    assert remains(store.objects, words_of("doc-3"))
    assert finish(asked[0]).done
    Forgetting(store, Target.of("doc-3")).perform()
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []


@pytest.mark.parametrize(
    ("document", "key", "said"),
    [
        ("", None, "--document: it is empty"),
        (" ", "k1", "--document: it is empty"),
        ("file.jsonl", "", "--key: it is empty"),
        ("9f86d081884c7d659a2feaa0c55ad015", "k1", "which is a document_id"),
    ],
)
def test_what_names_no_document_is_bad_input(document: str, key: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Target.of(document, key)


class Stopping(ListedDocuments):
    """The process dies after some documents, once `armed`."""

    armed = False

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        for number, batch in enumerate(super().read(files)):
            if self.armed and number == 2:
                raise MemoryError("killed")
            yield batch


def test_a_run_that_was_cancelled_while_it_read_begins_anew_without_it() -> None:
    store, provider = MemoryStore(), Provider()
    documents = Stopping(TEXTS)
    run = open_run(work_on(store, StandInBackend(provider), documents, shard_records=2))
    documents.armed = True
    with pytest.raises(MemoryError):
        run.advance()
    assert run.state.shards
    with pytest.raises(NotForgotten):
        Forgetting(store, Target.of("doc-1")).perform()
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    late = Clock()
    late.now = run.context.clock() + 7200
    touched = Forgetting(store, Target.of("doc-1"), clock=late).perform()
    assert touched.files["runs"] == 1
    assert remains(store.objects, words_of("doc-1", TEXTS["doc-1"])) == []
    run_of(store, provider, TEXTS, shard_records=2)
    assert {row["document_uri"] for row in rows_of(store)} == set(TEXTS) - {"doc-1"}


def test_what_a_killed_process_left_beside_the_journal_goes_too() -> None:
    store = MemoryStore()
    run = run_of(store, Provider(), TEXTS)
    for name in ("requests/s00001-a1-dead00.jsonl", "rows/s00001-dead00.arrow", "index/s00001-a1-dead00.parquet"):
        kept = next(path for path in store.objects if path.startswith(f"{run.plan.prefix}/{name[:5]}"))
        store.write(f"{run.plan.prefix}/{name}", store.objects[kept])
    touched = Forgetting(store, Target.of("doc-3")).perform()
    assert touched.files["leftovers"] == 3
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []


def test_a_torn_line_that_names_nobody_goes_and_a_manifest_stays() -> None:
    store = MemoryStore()
    run = run_of(store, Provider(), TEXTS)
    raw = next(path for path in store.objects if "/raw/" in path)
    kept = store.objects[raw]
    store.write(raw, b'ords of person 3."}\n' + kept)
    manifest = f"{raw.rpartition('/')[0]}/manifest.json.out"
    store.write(manifest, b'{\n  "totalRecordCount": 4\n}\n')
    Forgetting(store, Target.of("doc-3")).perform()
    assert store.objects[manifest] == b'{\n  "totalRecordCount": 4\n}\n'
    assert remains(store.objects, ["person 3."]) == []
    assert run.plan.run_id in raw


def test_a_text_that_looks_like_anothers_record_is_not_taken_for_it() -> None:
    store = MemoryStore()
    spy: list[str] = []
    first = run_of(store, Provider(lambda request, nth: spy.append(request["id"]) or [ok(request)]), {"a": "one"})
    assert first.state.shards
    texts: dict[str, str | None] = {"a": "one", "b": f"see {spy[0]}, it says", "c": "two"}
    run_of(store, Provider(), texts, job="other", refresh=True)
    before = rows_of(store, RESULTS.replace("=test", "=other"))
    Forgetting(store, Target.of("a")).perform()
    requests = b"".join(data for path, data in store.objects.items() if "runs/other" in path and "/requests/" in path)
    assert b"it says" in requests
    assert b'"one"' not in requests
    assert rows_of(store, RESULTS.replace("=test", "=other")) == others(before, "a")


def test_what_is_laid_out_for_a_provider_in_the_root_goes_too() -> None:
    store = MemoryStore()
    run = run_of(store, Provider(), TEXTS)
    token = run.plan.token(1, 1)
    requests = next(data for path, data in store.objects.items() if "/requests/s00001" in path)
    store.write(f"bedrock/{token}/requests.jsonl", requests)
    record = next(line for line in requests.splitlines() if b"person 3." in line)[7:24].decode()
    store.write(f"ondemand/{token}/answers/{record}", b"words of person 3.")
    store.write(f"ondemand/{token}/batch.json", b"{}")
    fleet, shard = token.removeprefix("lt-").rsplit("-s", 1)
    store.write(f"spot/{fleet}/shards/s{shard}/parts/000001.jsonl", requests)
    Forgetting(store, Target.of("doc-3")).perform()
    assert remains(store.objects, words_of("doc-3", TEXTS["doc-3"])) == []
    assert f"ondemand/{token}/batch.json" in store.objects


def test_somebody_who_is_at_another_document_is_waited_for() -> None:
    store = MemoryStore()
    run_of(store, Provider(), TEXTS)
    first = Forgetting(store, Target.of("doc-3"))

    class Interrupted(Exception):
        pass

    class Breaking(MemoryStore):
        def replace(self, path: str, source: object, *, expected: str | None) -> bool:
            raise Interrupted

    breaking = Breaking()
    breaking.objects = store.objects
    with pytest.raises(Interrupted):
        Forgetting(breaking, Target.of("doc-3")).perform()
    with pytest.raises(LowtideError, match="another document"):
        Forgetting(store, Target.of("doc-4")).perform()
    assert first.perform()
    assert Forgetting(store, Target.of("doc-4")).perform()


corpora = st.dictionaries(
    st.sampled_from([f"doc-{number}" for number in range(10)]),
    st.sampled_from(["alpha text", "beta text", "gamma text", "delta text", None]),
    min_size=1,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(corpora, min_size=1, max_size=3),
    st.integers(1, 5),
    st.sets(st.sampled_from("xyz"), min_size=1),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.booleans(),
)
def test_whatever_was_run_and_whoever_is_forgotten_all_others_keep_what_they_have(
    versions: list[dict[str, str | None]], shard_records: int, names: set[str], forgotten: list[int], again: bool
) -> None:
    store, provider = MemoryStore(), Provider()
    operations = tuple(echo_operation(name) for name in sorted(names))
    for texts in versions:
        run_of(store, provider, dict(texts), shard_records=shard_records, operations=operations)
    gone = {f"doc-{number}" for number in forgotten}
    for uri in sorted(gone):
        before = rows_of(store)
        Forgetting(store, Target.of(uri)).perform()
        assert rows_of(store) == others(before, uri)
    held = {text for texts in versions for uri, text in texts.items() if uri not in gone and text}
    texts_gone = {text for texts in versions for uri, text in texts.items() if uri in gone and text} - held
    words = [*(ids.document_id(uri, "") for uri in gone), *gone, *texts_gone]
    assert remains(store.objects, words) == []
    if again:
        for texts in versions:
            run_of(store, provider, dict(texts), shard_records=shard_records, operations=operations)
        rows = {(str(row["document_uri"]), row["operation"]): row["output_text"] for row in rows_of(store)}
        assert len(rows) == len(rows_of(store))
        expected = {(uri, name): text for uri, text in versions[-1].items() for name in names if uri not in gone}
        assert {name: text for name, text in rows.items() if name[0] not in gone} == expected
