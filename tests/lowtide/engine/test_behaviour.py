"""What a run does, case by case, against a provider whose faults are chosen here."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from support.engine_support import Clock, billed, finish, ledger, results, statuses
from support.standins import (
    SMALL,
    ListedDocuments,
    MemoryStore,
    Provider,
    StandInBackend,
    echo_operation,
    lost_acknowledgement,
    ok,
    work_on,
)

from lowtide.engine import find_run, is_published, open_run
from lowtide.errors import ConfigError, QuotaFull, StalePlan, SubmitUnknown, Terminal
from lowtide.events import CancelRequested

TEXTS = {f"d{number}": f"text {number}" for number in range(6)}


def test_a_lost_acknowledgement_is_found_and_not_sent_again() -> None:
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider, after=lost_acknowledgement)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS)))
    assert finish(run).done
    assert provider.calls["submit"] == len(provider.batches) == 2
    assert max(provider.processed.values()) == 1
    assert statuses(store) == {"ok": 6}


def test_what_was_never_accepted_is_sent_again_only_after_the_grace_period() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    lost = [True]

    def never_arrives(token: str) -> None:
        if lost:
            lost.pop()
            raise SubmitUnknown("timeout before the request was sent")

    backend = StandInBackend(provider, before=never_arrives, limits=replace(SMALL, consistent_lookup=False))
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10), clock=clock)
    begun = clock.now
    run.advance()
    assert provider.calls["submit"] == 1
    while provider.calls["submit"] == 1:
        clock.now += 10
        run.advance()
    assert clock.now - begun >= 120
    assert finish(run, seconds=1, clock=clock).done
    assert len(provider.batches) == 1


def test_a_full_quota_is_waited_for_with_growing_pauses() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    tries: list[float] = []

    def full(token: str) -> None:
        tries.append(clock.now)
        if len(tries) < 4:
            raise QuotaFull("no room for another batch")

    backend = StandInBackend(provider, before=full)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10), clock=clock)
    assert finish(run, seconds=1, clock=clock).done
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    assert pauses[0] >= 5
    assert statuses(store) == {"ok": 6}


def test_a_final_refusal_stops_the_command_and_the_run_goes_on_once_it_is_mended() -> None:
    store, provider = MemoryStore(), Provider()
    broken = [True]

    def denied(token: str) -> None:
        if broken:
            raise Terminal("access denied: the role may not create batches")

    backend = StandInBackend(provider, before=denied)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS)))
    with pytest.raises(Terminal, match="role"):
        finish(run)
    assert not provider.batches
    broken.clear()
    assert finish(open_run(run.context.work)).done
    assert statuses(store) == {"ok": 6}


def test_an_expired_batch_keeps_its_answers_and_only_the_rest_is_asked_again() -> None:
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider, instantly=False)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10))
    run.advance()
    provider.finish("b1", "expired", upto=4)
    run.advance()
    assert len(provider.batches["b2"].lines) == 2
    provider.finish("b2")
    assert finish(run).done
    assert max(provider.processed.values()) == 1
    assert statuses(store) == {"ok": 6}
    assert billed(store, run) == provider.bill


def test_attempts_are_capped_and_the_rest_says_why() -> None:
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider, instantly=False)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10, attempts=2))
    run.advance()
    for batch in ("b1", "b2"):
        provider.finish(batch, "expired", upto=1)
        run.advance()
    assert finish(run).done
    assert statuses(store) == {"ok": 2, "error": 4}
    reasons = {row["status_reason"] for row in results(store) if row["status"] == "error"}
    assert reasons == {"no answer after 2 attempts"}
    assert is_published(open_run(run.context.work))
    again = open_run(run.context.work, retry=True)
    again.advance()
    provider.finish("b3")
    assert finish(again).done
    assert statuses(store) == {"ok": 6}
    assert max(provider.processed.values()) == 1


def test_an_invalid_answer_is_asked_again_then_kept_with_its_text() -> None:
    store = MemoryStore()

    def answer(request: dict[str, str], nth: int) -> list[dict[str, object]]:
        stubborn = request["text"] == "text 1"
        broken = stubborn or (request["text"] == "text 2" and nth == 1)
        return [{**ok(request), "text": "no JSON"} if broken else ok(request)]

    provider = Provider(answer)
    run = open_run(work_on(store, StandInBackend(provider), ListedDocuments(TEXTS), attempts=3))
    assert finish(run).done
    assert statuses(store) == {"ok": 5, "invalid": 1}
    [invalid] = [row for row in results(store) if row["status"] == "invalid"]
    assert (invalid["output_text"], invalid["attempts"], invalid["input_tokens"]) == ("no JSON", 3, 30)
    assert (provider.processed["text 1"], provider.processed["text 2"]) == (3, 2)
    assert billed(store, run) == provider.bill
    wasted = [row for row in ledger(store, run).to_pylist() if row["waste"] == "invalid"]
    assert sum(row["quantity"] for row in wasted if row["token_type"] == "input") == 40


def test_cancelling_keeps_what_was_answered_and_the_next_run_asks_for_the_rest() -> None:
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider, instantly=False, limits=replace(SMALL, live_batches=1))
    work = work_on(store, backend, ListedDocuments(TEXTS), shard_records=3)
    run = open_run(work)
    run.advance()
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    assert finish(run).done
    assert statuses(store) == {"ok": 1, "skipped": 5}
    assert {row["status_reason"] for row in results(store) if row["status"] == "skipped"} == {"cancelled"}
    again = open_run(work)
    while not again.advance().done:
        for batch_id in list(provider.batches):
            provider.finish(batch_id)
    assert statuses(store) == {"ok": 6}
    assert max(provider.processed.values()) == 1
    assert billed(store, again) == provider.bill


def test_nothing_is_submitted_beyond_the_cap() -> None:
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider)
    documents = ListedDocuments(TEXTS)
    one = work_on(store, backend, documents, shard_records=2)
    probe = open_run(one)
    probe.advance(leave=())
    whole = probe.state.shards[1]
    reserve = one.price.amount({"input": whole.size, "output": whole.records * 1024})
    store, provider = MemoryStore(), Provider()
    capped = work_on(store, StandInBackend(provider), documents, shard_records=2, run_usd=reserve)
    run = open_run(capped)
    progress = finish(run)
    assert progress.done
    assert statuses(store) == {"ok": 2, "skipped": 4}
    assert {row["status_reason"] for row in results(store) if row["status"] == "skipped"} == {
        f"budget: run_usd {reserve} USD of this run has {reserve - Decimal('0.000028')} left "
        f"(0.000028 spent; this shard may cost up to {reserve})"
    }
    raised = open_run(replace(capped, run_usd=Decimal(100)))
    assert finish(raised).done
    assert statuses(store) == {"ok": 6}
    assert max(provider.processed.values()) == 1


def test_going_back_to_earlier_documents_publishes_their_run_again_at_no_cost() -> None:
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider)
    first = work_on(store, backend, ListedDocuments(TEXTS))
    second = work_on(store, backend, ListedDocuments({**TEXTS, "d0": "another text"}))
    assert finish(open_run(first)).done
    assert finish(open_run(second)).done
    assert "another text" in {row["output_text"] for row in results(store)}
    calls = provider.calls["submit"]
    back = open_run(first)
    assert not is_published(back)
    assert finish(back).done
    assert "another text" not in {row["output_text"] for row in results(store)}
    assert provider.calls["submit"] == calls


def test_a_slow_earlier_run_does_not_replace_a_later_one() -> None:
    store, provider = MemoryStore(), Provider()
    slow = StandInBackend(provider, instantly=False)
    first = open_run(work_on(store, slow, ListedDocuments(TEXTS)))
    first.advance()
    later = open_run(work_on(store, StandInBackend(provider), ListedDocuments({**TEXTS, "d0": "another text"})))
    assert finish(later).done
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    with pytest.raises(StalePlan, match="later"):
        finish(first)
    assert "another text" in {row["output_text"] for row in results(store)}


def test_documents_that_cannot_be_read_have_rows_with_their_reason() -> None:
    store = MemoryStore()
    run = open_run(work_on(store, StandInBackend(Provider()), ListedDocuments(dict.fromkeys(TEXTS))))
    assert finish(run).done
    assert statuses(store) == {"skipped": 6}
    assert {row["status_reason"] for row in results(store)} == {"broken"}


def test_two_processes_that_take_turns_do_nothing_twice() -> None:
    store, provider = MemoryStore(), Provider()
    work = work_on(store, StandInBackend(provider), ListedDocuments(TEXTS), shard_records=2)
    runs = [open_run(work), open_run(work)]
    for turn in range(50):
        if runs[turn % 2].advance().done:
            break
    assert len(provider.batches) == provider.calls["submit"] == 3
    assert statuses(store) == {"ok": 6}


def test_an_operation_that_the_backend_cannot_do_is_refused_before_anything_is_written() -> None:
    store = MemoryStore()
    translate = replace(echo_operation(), kind="translate")
    with pytest.raises(ConfigError, match="does not translate"):
        open_run(work_on(store, StandInBackend(Provider()), ListedDocuments(TEXTS), operations=(translate,)))
    assert not store.objects


def test_a_run_is_not_advanced_with_other_operations_than_it_was_planned_for() -> None:
    store, provider = MemoryStore(), Provider()
    work = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS))
    open_run(work).advance()
    changed = find_run(replace(work, operations=(echo_operation("renamed"),)))
    assert changed is not None
    with pytest.raises(StalePlan, match="put the job file back"):
        changed.advance()


def test_many_operations_stay_together_even_in_small_shards() -> None:
    store, provider = MemoryStore(), Provider()
    operations = tuple(echo_operation(f"op{number}") for number in range(5))
    run = open_run(
        work_on(store, StandInBackend(provider), ListedDocuments(TEXTS), operations=operations, shard_records=2)
    )
    assert finish(run).done
    rows = results(store)
    assert len(rows) == 30
    assert all(str(row["output_text"]) == TEXTS[str(row["document_uri"])] for row in rows)


def test_an_invalid_answer_is_kept_where_the_next_attempt_brings_none() -> None:
    store, provider = MemoryStore(), Provider(lambda request, nth: [{**ok(request), "text": "no JSON"}])
    backend = StandInBackend(provider, instantly=False)
    run = open_run(work_on(store, backend, ListedDocuments({"d0": "text"}), attempts=2))
    run.advance()
    provider.finish("b1")
    run.advance()
    provider.finish("b2", "expired", upto=0)
    assert finish(run).done
    [row] = results(store)
    assert (row["status"], row["output_text"]) == ("invalid", "no JSON")
