"""Nothing is bought twice: not by a later run, not by another job, and not by a document that stands there twice."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.engine_support import Clock, finish, ledger, results, statuses
from support.standins import (
    ListedDocuments,
    MemoryStore,
    Provider,
    StandInBackend,
    echo_operation,
    ok,
    work_on,
)

from lowtide.engine import Run, open_run
from lowtide.engine.context import PATIENCE
from lowtide.events import CancelRequested
from lowtide.records import DocumentBatch, FileInfo

TEXTS: dict[str, str | None] = {f"d{number}": f"text {number}" for number in range(10)}
EACH = Decimal("0.000014")
"""What one answer costs: ten tokens in, two out, at the stand-in's prices."""


def run_of(store: MemoryStore, provider: Provider, texts: dict[str, str | None], **more: object) -> Run:
    changes = {name: more.pop(name) for name in ("use_cache", "job") if name in more}
    work = work_on(store, StandInBackend(provider), ListedDocuments(texts), **more)  # type: ignore[arg-type]
    run = open_run(replace(work, **changes))  # type: ignore[arg-type]
    assert finish(run).done
    return run


def cost_of(store: MemoryStore, run: Run) -> Decimal:
    return sum((row["amount"] for row in ledger(store, run).to_pylist() if row["kind"] == "actual"), Decimal(0))


def test_a_later_run_buys_only_what_has_changed() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS)
    second = run_of(store, provider, {**TEXTS, "d3": "another text", "d99": "a new text"})
    assert provider.processed == Counter(
        {f"text {number}": 1 for number in range(10)} | {"another text": 1, "a new text": 1}
    )
    rows = {row["document_uri"]: row for row in results(store)}
    assert len(rows) == 11
    assert {uri for uri, row in rows.items() if not row["cached"]} == {"d3", "d99"}
    assert rows["d4"]["output_text"] == "text 4"
    assert (rows["d4"]["cost_usd"], rows["d4"]["input_tokens"], rows["d4"]["attempts"]) == (0, 0, 0)
    assert rows["d3"]["cost_usd"] == EACH
    assert cost_of(store, second) == 2 * EACH
    saved = [row for row in ledger(store, second).to_pylist() if row["kind"] == "saved"]
    assert {(row["token_type"]): 0 for row in saved}.keys() == {"input", "output"}
    assert sum(row["amount"] for row in saved) == 9 * EACH


def test_another_job_over_the_same_root_takes_what_is_there() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS)
    other = run_of(store, provider, TEXTS, job="other", shard_records=3)
    assert provider.calls["submit"] == 3
    assert other.state.published_counts == {"ok": 10}
    assert cost_of_job(store, "other") == 0


def cost_of_job(store: MemoryStore, job: str) -> Decimal:
    [path] = [path for path in store.objects if path.startswith(f"tables/ledger/job={job}/")]
    table = pq.read_table(io.BytesIO(store.objects[path]), partitioning=None)
    return sum((row["amount"] for row in table.to_pylist() if row["kind"] == "actual"), Decimal(0))


def test_without_the_cache_everything_is_asked_and_nothing_is_kept() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS, use_cache=False)
    assert not [path for path in store.objects if path.startswith("cache/")]
    run_of(store, provider, TEXTS, job="other")
    run_of(store, provider, TEXTS, job="third", use_cache=False)
    assert set(provider.processed.values()) == {3}


def test_one_changed_operation_asks_its_own_question_alone() -> None:
    store, provider = MemoryStore(), Provider()
    run_of(store, provider, TEXTS, operations=(echo_operation("a"), echo_operation("b")))
    run_of(store, provider, TEXTS, operations=(echo_operation("a"), echo_operation("c")), shard_records=6)
    assert set(provider.processed.values()) == {3}
    rows = results(store)
    assert Counter((row["operation"], row["cached"]) for row in rows) == {("a", True): 10, ("c", False): 10}
    assert [row["output_text"] for row in rows] == [TEXTS[str(row["document_uri"])] for row in rows]


@pytest.mark.parametrize("shard_records", [1, 2, 4, 100])
def test_identical_documents_are_bought_once(shard_records: int) -> None:
    store, provider = MemoryStore(), Provider()
    texts: dict[str, str | None] = {f"d{number}": f"text {number % 3}" for number in range(10)} | {"e": None}
    run = run_of(store, provider, texts, shard_records=shard_records)
    assert provider.processed == {"text 0": 1, "text 1": 1, "text 2": 1}
    rows = {row["document_uri"]: row for row in results(store)}
    assert {uri: row["output_text"] for uri, row in rows.items()} == texts
    assert sum((row["cost_usd"] for row in rows.values()), Decimal(0)) == cost_of(store, run) == 3 * EACH
    assert not any(row["cached"] for row in rows.values())
    assert sum(shard.twins for shard in run.state.shards.values()) == 7
    assert statuses(store) == {"ok": 10, "skipped": 1}


def test_what_repeats_a_request_shares_its_end() -> None:
    def refuses(request: dict[str, str], nth: int) -> list[dict[str, object]]:
        if request["text"] == "bad":
            return [{"record_id": request["id"], "status": "refused", "error": "no", "input_tokens": 1}]
        return [ok(request)]

    store, provider = MemoryStore(), Provider(refuses)
    run_of(store, provider, {"a": "bad", "b": "good", "c": "bad"}, shard_records=1)
    assert {row["document_uri"]: row["status"] for row in results(store)} == {"a": "refused", "b": "ok", "c": "refused"}
    assert provider.processed["bad"] == 1


def test_only_good_answers_are_taken_over() -> None:
    store = MemoryStore()
    refusing = Provider(lambda request, nth: [{"record_id": request["id"], "status": "refused", "error": "no"}])
    run_of(store, refusing, TEXTS)
    provider = Provider()
    run_of(store, provider, TEXTS, job="other")
    assert sum(provider.processed.values()) == 10


def test_answers_whose_run_was_deleted_are_asked_again() -> None:
    store, provider = MemoryStore(), Provider()
    first = run_of(store, provider, TEXTS)
    for path in [path for path in store.objects if path.startswith(first.plan.prefix)]:
        store.delete(path)
    run_of(store, provider, {**TEXTS, "e": "more"})
    assert provider.processed["text 1"] == 2
    assert statuses(store) == {"ok": 11}


class Dying(ListedDocuments):
    """The process dies when it comes to a document, once `armed`."""

    armed = False

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        for number, batch in enumerate(super().read(files)):
            if self.armed and number == 3:
                raise MemoryError("killed")
            yield batch


def test_a_build_that_goes_on_remembers_what_it_has_asked() -> None:
    store, provider = MemoryStore(), Provider()
    texts: dict[str, str | None] = {f"d{number:02d}": f"text {number % 5}" for number in range(12)}
    documents = Dying(texts)
    dying = open_run(work_on(store, StandInBackend(provider), documents, shard_records=2))
    documents.armed = True
    with pytest.raises(MemoryError):
        dying.advance()
    assert dying.state.shards
    run = open_run(work_on(store, StandInBackend(provider), ListedDocuments(texts), shard_records=2))
    assert finish(run).done
    assert set(provider.processed.values()) == {1}
    assert {row["document_uri"]: row["output_text"] for row in results(store)} == texts


def test_what_a_superseded_run_has_bought_is_not_lost() -> None:
    store, provider = MemoryStore(), Provider()
    first = open_run(work_on(store, StandInBackend(provider), ListedDocuments(TEXTS)))
    first.advance()
    first.context.journal.append(CancelRequested(at=first.context.clock()))
    assert finish(first).done
    run_of(store, provider, {**TEXTS, "e": "more"})
    assert set(provider.processed.values()) == {1}


def test_costs_of_lost_answers_are_shared_out_to_the_last_step() -> None:
    def twice(request: dict[str, str], nth: int) -> list[dict[str, object]]:
        # A second answer to the same record is charged, and is nobody's.
        return [ok(request), ok(request) | {"output_tokens": 3 + len(request["id"]) % 2}]

    store, provider = MemoryStore(), Provider(twice)
    run = run_of(store, provider, {f"d{number}": f"text {number}" for number in range(7)}, shard_records=3)
    by_shard: Counter[int] = Counter()
    for row in ledger(store, run).to_pylist():
        if row["kind"] == "actual":
            by_shard[row["shard"]] += row["amount"]
    total = sum((row["cost_usd"] for row in results(store)), Decimal(0))
    assert total == sum(by_shard.values()) == cost_of(store, run)
    assert total > 7 * EACH
    assert all(abs(row["cost_usd_float"] - float(row["cost_usd"])) < 1e-15 for row in results(store))


worlds = st.dictionaries(
    st.sampled_from([f"d{number}" for number in range(12)]),
    st.sampled_from(["a", "b", "c", "d", "e", None]),
    min_size=1,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(worlds, min_size=1, max_size=4), st.integers(1, 5), st.sets(st.sampled_from("xyz"), min_size=1))
def test_each_question_about_each_text_is_bought_once_whatever_comes(
    versions: list[dict[str, str | None]], shard_records: int, names: set[str]
) -> None:
    store, provider = MemoryStore(), Provider()
    operations = tuple(echo_operation(name) for name in sorted(names))
    for texts in versions:
        before = provider.bill["input"]
        run = run_of(store, provider, dict(texts), shard_records=shard_records, operations=operations)
        rows = results(store)
        assert sorted((str(row["document_uri"]), str(row["operation"])) for row in rows) == sorted(
            (uri, name) for uri in texts for name in names
        )
        for row in rows:
            assert row["output_text"] == texts[str(row["document_uri"])]
            assert row["status"] == ("skipped" if row["output_text"] is None else "ok")
        cost = sum((row["cost_usd"] for row in rows), Decimal(0))
        assert cost == cost_of(store, run)
        if run.state.attempts and provider.bill["input"] > before:
            assert cost == (provider.bill["input"] - before) // 10 * EACH
    assert set(provider.processed.values()) <= {len(names)}


class Tuned(StandInBackend):
    """A backend with inference parameters."""

    def __init__(self, provider: Provider, temperature: int, *, instantly: bool = True) -> None:
        super().__init__(provider, instantly=instantly)
        self.parameters = {"temperature": temperature}


def test_answers_to_other_parameters_are_not_taken_for_those_that_were_asked_for() -> None:
    store, provider = MemoryStore(), Provider(lambda request, nth: [ok(request, "at temperature 0")])
    documents = ListedDocuments(TEXTS)
    open_run(work_on(store, Tuned(provider, 0, instantly=False), documents)).advance()
    for batch_id in provider.batches:
        provider.finish(batch_id)
    provider._answer = lambda request, nth: [ok(request, "at temperature 1")]
    run = open_run(work_on(store, Tuned(provider, 1), documents))
    assert finish(run).done
    assert {row["output_text"] for row in results(store)} == {"at temperature 1"}
    # Nor later: what the first one has answered is nobody's, or its own.
    run_of(store, Provider(), TEXTS, job="other")
    assert {row["output_text"] for row in results(store)} == {"at temperature 1"}


class SlowToStop(StandInBackend):
    """Batches that go on for a while after they are cancelled."""

    def cancel(self, batch_id: str) -> None:
        pass


def test_what_is_out_for_a_superseded_run_is_waited_for_and_not_asked_again() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    open_run(work_on(store, SlowToStop(provider, instantly=False), ListedDocuments(TEXTS)), clock=clock).advance()
    more = {**TEXTS, "e": "more"}
    run = open_run(work_on(store, SlowToStop(provider, instantly=False), ListedDocuments(more)), clock=clock)
    assert run.advance().step == "waiting for the run before this one"
    assert sum(provider.processed.values()) == 0
    for batch_id in provider.batches:
        provider.finish(batch_id)
    run.advance()
    for batch_id in provider.batches:
        provider.finish(batch_id)
    assert finish(run, seconds=1, clock=clock).done
    assert set(provider.processed.values()) == {1}
    assert statuses(store) == {"ok": 11}


def test_a_superseded_run_that_never_ends_is_not_waited_for_for_ever() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    open_run(work_on(store, SlowToStop(provider, instantly=False), ListedDocuments(TEXTS)), clock=clock).advance()
    run = open_run(work_on(store, SlowToStop(provider, instantly=False), ListedDocuments({"e": "more"})), clock=clock)
    run.advance()
    assert not run.state.build_finished
    clock.now += PATIENCE + 1
    run.advance()
    assert run.state.build_finished


def test_a_damaged_file_of_an_earlier_run_costs_money_and_no_run() -> None:
    store, provider = MemoryStore(), Provider()
    first = run_of(store, provider, TEXTS, shard_records=100)
    path = first.context.path(first.state.shards[1].rows)
    store.write(path, store.read(path)[:-40])
    run_of(store, provider, {**TEXTS, "e": "more"})
    assert statuses(store) == {"ok": 11}
    assert provider.processed["text 1"] == 2


def lossy(again: set[str]) -> Provider:
    """Loses the answers to t0 and t1 once, and fails with t2, t3 and t4; with those in `again`, twice."""

    def answer(request: dict[str, str], nth: int) -> list[dict[str, object]]:
        text = request["text"]
        if text in ("t0", "t1") and nth == 1:
            return []
        if text in ("t2", "t3", "t4") and nth <= 1 + (text in again):
            return [{"record_id": request["id"], "status": "error", "error": "500", "retryable": True}]
        return [ok(request)]

    return Provider(answer)


@pytest.mark.parametrize("again", [set(), {"t4"}, {"t3", "t4"}])
def test_what_was_lost_and_what_failed_is_asked_again_and_nothing_else(again: set[str]) -> None:
    store, provider = MemoryStore(), lossy(again)
    documents = ListedDocuments({f"d{number}": f"t{number}" for number in range(6)})
    work = work_on(store, StandInBackend(provider), documents, shard_records=10, attempts=2)
    work = replace(work, grace=timedelta(0))
    assert finish(open_run(work)).done
    assert statuses(store) == {"ok": 4 - len(again), "error": 2 + len(again)}
    run = open_run(work, retry=True)
    assert finish(run).done
    assert statuses(store) == {"ok": 6}
    assert provider.processed == {"t0": 2, "t1": 2, "t5": 1} | {
        text: 2 + (text in again) for text in ("t2", "t3", "t4")
    }
