"""Processes that meet in the middle of a step: whoever comes second notices, and nothing is bought or lost."""

from __future__ import annotations

import io
import threading
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from support.engine_support import billed
from support.engine_support import statuses as statuses_in
from support.standins import PRICE, SMALL, ListedDocuments, MemoryStore, Provider, StandInBackend, work_on
from support.world import WORK, Clock, Process, StrictProvider, World, limits_of

from lowtide import events as e
from lowtide.engine import drive, open_run
from lowtide.engine.publishing import results_path
from lowtide.errors import ConfigError, LowtideError, QuotaFull, StalePlan, Terminal
from lowtide.journal import Journal
from lowtide.ledger import spent
from lowtide.prices import Price
from lowtide.records import BatchStatus
from lowtide.shards import Phase
from lowtide.states import RunState


def world(
    documents: int = 2,
    *,
    shard_records: int = 2,
    live: int = 4,
    consistent: bool = True,
    cap: Decimal | None = None,
    attempts: int = 2,
) -> World:
    """One operation over so many documents; all processes see every batch at once unless look-ups lag."""
    clock = Clock()
    return World(
        clock,
        MemoryStore(),
        StrictProvider(clock, live),
        replace(
            WORK,
            documents=ListedDocuments({f"d{number}": f"text {number}" for number in range(documents)}, batch=1),
            shard_records=shard_records,
            attempts=attempts,
            run_usd=cap,
        ),
        limits_of(live, consistent=consistent),
    )


def journal(at: World) -> Journal:
    first = next(path for path in at.store.objects if path.endswith("journal/000001.json"))
    opened = Journal(at.store, first.removesuffix("/journal/000001.json"), "auditor")
    opened.refresh()
    return opened


def finish(at: World, process: Process | None = None) -> RunState:
    """Everything is fair from now on: the run comes to its end, and its ledger says what the provider has charged."""
    process = at.finish(process, passes=30, seconds=700)
    state = journal(at).state
    assert state.settled
    assert state.published_at
    assert billed(at.store, process.run) == +at.provider.bill
    return state


def statuses(at: World) -> Counter[object]:
    return statuses_in(at.store)


def test_an_absence_is_concluded_for_the_intent_that_was_looked_up_and_no_other() -> None:
    at = world()
    first, second, third = (at.start() for _ in range(3))
    first.meet(first.die, "before submit", 1)
    first.advance()

    def take_over() -> None:
        third.meet(third.die, "after submit", 1)
        third.advance()

    second.meet(take_over, "after find", 1)
    second.advance()
    # The third process died right after its batch was accepted. The second had found nothing, for the first's intent.
    assert at.provider.submissions == 1
    assert finish(at).attempts["1-1"].batch_id == "b1"
    assert at.provider.submissions == 1


def test_a_late_refusal_does_not_undo_somebody_elses_intent() -> None:
    at = world()
    slow, other = at.start("here"), at.start("there")
    slow.backend.faults = ["quota"]

    def hangs_past_its_lease() -> None:
        at.clock.now += 1000
        other.meet(other.die, "after submit", 1)
        other.advance()

    slow.meet(hangs_past_its_lease, "before submit", 1)
    slow.advance()
    assert journal(at).state.shards[1].phase is Phase.SUBMITTING
    finish(at)
    assert at.provider.submissions == 1


def test_a_batch_that_another_has_found_first_is_the_same_batch() -> None:
    at = world()
    first, second = at.start("here"), at.start("there")

    def overtaken_while_the_answer_is_on_its_way() -> None:
        at.clock.now += 1000
        second.advance()

    first.meet(overtaken_while_the_answer_is_on_its_way, "after submit", 1)
    first.advance()
    assert journal(at).state.shards[1].batch_id == "b1"
    finish(at, first)
    assert at.provider.submissions == 1


@pytest.mark.parametrize(
    "point", ["replace tables/ledger", "replace tables/results", "replace tables/runs", "put runs"]
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_publishes_late_does_not_overwrite_what_is_newer(point: str, moment: str) -> None:
    at = world(attempts=1)
    slow, other = at.start(), at.start()
    slow.advance()
    at.provider.finish(at.provider.open[0], "try again")

    def asked_again_answered_and_published() -> None:
        other.open(retry=True)
        other.advance()
        for batch in at.provider.open:
            at.provider.finish(batch)
        other.advance()
        assert statuses(at) == {"ok": 2}

    # Its pass writes the end of the batch and the settled shard, and then publishes.
    slow.meet(asked_again_answered_and_published, f"{moment} {point}", 3 if point == "put runs" else 1)
    slow.advance()
    assert statuses(at) == {"ok": 2}
    finish(at, slow)
    assert statuses(at) == {"ok": 2}
    assert at.provider.submissions == 2


def test_rows_that_were_cancelled_while_somebody_asked_again_are_asked() -> None:
    at = world()
    first, other = at.start(), at.start()
    first.advance()
    journal(at).append(e.CancelRequested(at=at.clock()))
    at.provider.end(at.provider.open[0], "expired")
    first.meet(other.open, "before write", 1)
    first.advance()
    assert not journal(at).state.cancelled
    finish(at, other)
    assert statuses(at) == {"ok": 2}


def test_a_shard_that_is_given_up_while_somebody_asks_again_is_asked() -> None:
    at = world(documents=4, live=1)
    first, other = at.start(), at.start()
    first.advance()
    journal(at).append(e.CancelRequested(at=at.clock()))
    first.meet(other.open, "write", 1)
    first.advance()
    finish(at, other)
    assert statuses(at) == {"ok": 4}


@pytest.mark.parametrize("live", [1, 4])
def test_wherever_a_second_process_cuts_in_caps_and_limits_hold_and_nothing_is_bought_twice(live: int) -> None:
    """At every point of a pass in turn. The cap has room for two of the three shards at a time."""
    cap = Decimal("0.01")
    for point in range(1, 200):
        at = world(documents=6, live=live, cap=cap)
        first, second = at.start(), at.start()
        met: list[int] = []

        def cut_in(second: Process = second, at: World = at, met: list[int] = met) -> None:
            met.append(1)
            second.advance()
            state = journal(at).state
            assert spent(state, PRICE) + state.reserved <= cap

        first.meet(cut_in, "", point)
        first.advance()
        state = journal(at).state
        assert spent(state, PRICE) + state.reserved <= cap
        finish(at, first)
        assert statuses(at) == {"ok": 6}
        assert at.provider.submissions == 3
        if not met:
            break
    assert point > 30


@pytest.mark.parametrize("point", range(1, 40, 3))
def test_a_builder_that_is_overtaken_leaves_every_document_in_one_shard(point: int) -> None:
    at = world(documents=9)
    slow, other = at.start("here"), at.start("there")

    def stalls() -> None:
        at.clock.now += 1000
        other.advance()

    slow.meet(stalls, "", point)
    slow.advance()
    finish(at, slow)
    assert statuses(at) == {"ok": 9}
    assert sum(shard.documents for shard in journal(at).state.shards.values()) == 9


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_machines_whose_clocks_differ_by_an_hour_publish_once_each_time_they_are_asked(skew: float) -> None:
    at = world()
    here, there = at.start("here"), at.start("there", skew=skew)
    finish(at, here)
    at.store.delete(results_path("test", "all"))
    there.open()
    finish(at, there)
    assert statuses(at) == {"ok": 2}
    entries = journal(at).state.entry
    here.open()
    here.advance()
    assert journal(at).state.entry == entries


def test_a_superseded_run_leaves_its_ledger_all_the_same() -> None:
    """It has cost what it has cost, though its rows are not those that people see."""
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider, instantly=False)
    old = open_run(work_on(store, backend, ListedDocuments({"a": "one"})))
    old.advance()
    new = open_run(work_on(store, StandInBackend(provider), ListedDocuments({"a": "two"})))
    drive(new, poll=0)
    provider.finish("b1")
    with pytest.raises(StalePlan):
        old.advance()
    written = [path for path in store.objects if path.startswith("tables/ledger/")]
    assert sorted(path.rpartition("/")[2] for path in written) == sorted(
        f"{run.plan.run_id}.parquet" for run in (old, new)
    )
    total = sum(
        row["quantity"]
        for path in written
        for row in pq.read_table(io.BytesIO(store.objects[path])).to_pylist()
        if row["kind"] == "actual" and row["token_type"] == "input"
    )
    assert total == provider.bill["input"]


def test_a_batch_that_has_ended_is_not_cancelled() -> None:
    class Strict(StandInBackend):
        def cancel(self, batch_id: str) -> None:
            assert self.other_side.batches[batch_id].outcome is None, "it has ended"
            super().cancel(batch_id)

    store, provider = MemoryStore(), Provider()
    run = open_run(work_on(store, Strict(provider, instantly=False), ListedDocuments({"a": "one"})))
    run.advance()
    provider.finish("b1")
    run.context.journal.append(e.CancelRequested(at=1.0))
    assert drive(run, poll=0).done
    assert run.state.published_counts == {"ok": 1}


def test_where_machines_are_started_for_a_batch_a_cancel_goes_before_the_look_that_would_start_them() -> None:
    called: list[str] = []

    class Starting(StandInBackend):
        def cancel(self, batch_id: str) -> None:
            called.append("cancel")
            super().cancel(batch_id)

        def poll(self, batch_id: str) -> BatchStatus:
            called.append("poll")
            return super().poll(batch_id)

    store, provider = MemoryStore(), Provider()
    backend = Starting(provider, instantly=False, limits=replace(SMALL, machines=2))
    run = open_run(work_on(store, backend, ListedDocuments({"a": "one"})))
    run.advance()
    del called[:]
    run.context.journal.append(e.CancelRequested(at=1.0))
    run.advance()
    assert called[:2] == ["cancel", "poll"]


@pytest.mark.parametrize("error", [Terminal, ConfigError])
def test_where_a_look_at_one_batch_is_refused_the_others_are_brought_in(
    error: type[LowtideError],
) -> None:
    """A tick comes every few minutes, and each may meet that refusal first."""

    class Refusing(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            if batch_id == "b1":
                raise error("no worker can live")
            return super().poll(batch_id)

    store, provider = MemoryStore(), Provider()
    documents = ListedDocuments({name: name for name in "abcdef"})
    backend = Refusing(provider, instantly=False, limits=replace(SMALL, live_batches=2))
    run = open_run(work_on(store, backend, documents, shard_records=2))
    with pytest.raises(error, match="no worker can live"):
        run.advance()
    provider.finish("b2")
    for _ in range(2):
        with pytest.raises(error, match="no worker can live"):
            run.advance()
    assert [shard.phase for shard in run.state.shards.values()] == [Phase.SUBMITTED, Phase.SETTLED, Phase.BUILT]
    assert len(provider.batches) == 2, "nothing new is sent meanwhile"


def test_texts_of_no_length_are_asked_about_like_any_other() -> None:
    store, provider = MemoryStore(), Provider()
    run = open_run(work_on(store, StandInBackend(provider), ListedDocuments({"a": "", "b": "x"})))
    assert drive(run, poll=0).done
    assert sum(run.state.published_counts.values()) == 2
    assert provider.processed == {"": 1, "x": 1}


def test_a_quota_that_is_full_for_days_is_still_waited_for() -> None:
    def full(token: str) -> None:
        raise QuotaFull("no room")

    store, clock = MemoryStore(), Clock()
    backend = StandInBackend(Provider(), before=full)
    run = open_run(work_on(store, backend, ListedDocuments({"a": "one"})), clock=clock)
    for _ in range(1100):
        assert not run.advance().done
        clock.now += 301
    shard = run.state.shards[1]
    assert shard.refusals == 1100
    assert shard.not_before - clock.now <= 300


def test_a_reservation_covers_the_dearest_kind_of_token() -> None:
    """What is asked may be written to a cache, and what is answered may be thought first."""
    dear = Price(
        "test",
        "made up",
        {"input": Decimal("0.000001"), "cached_input": Decimal("0.000002")}
        | {
            "output": Decimal("0.000001"),
            "reasoning": Decimal("0.000004"),
        },
    )
    store = MemoryStore()
    backend = StandInBackend(Provider(), instantly=False)
    run = open_run(work_on(store, backend, ListedDocuments({"a": "one"}), price=dear, run_usd=Decimal(1)))
    run.advance()
    shard = run.state.shards[1]
    longest = run.context.work.operations[0].max_output_tokens
    assert run.state.reserved == shard.size * Decimal("0.000002") + longest * Decimal("0.000004")


def test_threads_with_a_run_each_do_nothing_twice() -> None:
    store, provider = MemoryStore(), Provider()
    limits = replace(SMALL, live_batches=2)
    documents = ListedDocuments({f"d{number}": f"text {number}" for number in range(40)})
    failures: list[BaseException] = []
    barrier = threading.Barrier(3)

    def go() -> None:
        run = open_run(work_on(store, StandInBackend(provider, limits=limits), documents))
        barrier.wait()
        try:
            drive(run, poll=0.001)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not failures
    assert provider.calls["submit"] == len(provider.batches) == 10
    assert set(provider.processed.values()) == {1}
    rows = pq.read_table(io.BytesIO(store.objects[results_path("test", "all")])).to_pylist()
    assert Counter(row["document_uri"] for row in rows) == {f"d{number}": 1 for number in range(40)}
