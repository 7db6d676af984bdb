"""What providers say beside answers: charges without lines, no room, no way, too few records, two batches for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from support.engine_support import Clock, finish, ledger, results, statuses
from support.standins import (
    SMALL,
    ListedDocuments,
    MemoryStore,
    Provider,
    StandInBackend,
    ok,
    work_on,
)

from lowtide.collecting.columns import LOST
from lowtide.engine import open_run
from lowtide.engine.context import Context
from lowtide.errors import SubmitUnknown, Terminal, Transient
from lowtide.events import Submitting
from lowtide.prices import Price
from lowtide.records import BatchStatus, OutputFile, Shard, Usage

TEXTS = {f"d{number}": f"text {number}" for number in range(6)}
PRICE = Price("batch", "test", {"input": Decimal("0.000001"), "output": Decimal("0.000002")})


class Telling(StandInBackend):
    """Says at the end what is charged; `hide(line)` keeps a line of the output back for so many looks."""

    def __init__(self, provider: Provider, *, hide: Callable[[bytes], bool], looks: int = 10**9) -> None:
        super().__init__(provider, limits=replace(SMALL, consistent_lookup=True))
        self._hide, self.looks = hide, looks

    def poll(self, batch_id: str) -> BatchStatus:
        status = super().poll(batch_id)
        lines = self.other_side.batches[batch_id].output.splitlines()
        usage = Usage(input_tokens=10 * len(lines), output_tokens=2 * len(lines))
        return replace(status, charged=len(lines), usage=usage)

    def outputs(self, batch_id: str):
        self.looks -= 1
        lines = self.other_side.batches[batch_id].output.splitlines(keepends=True)
        kept = [line for line in lines if self.looks < 0 or not self._hide(line)]
        yield OutputFile("out.jsonl", iter([b"".join(kept)]))


def wastes(store: MemoryStore, run) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for row in ledger(store, run).to_pylist():
        if row["kind"] == "actual":
            found[row["token_type"], row["waste"] or ""] += row["quantity"]
    return found


def test_an_answer_that_was_charged_and_is_missing_is_not_bought_again() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    backend = Telling(provider, hide=lambda line: b"text 2" in line)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS)), clock=clock)
    assert finish(run, seconds=30, clock=clock).done
    assert set(provider.processed.values()) == {1}
    assert statuses(store) == {"ok": 5, "error": 1}
    assert [row["status_reason"] for row in results(store) if row["status"] == "error"] == [LOST]
    assert wastes(store, run)["input", "lost"] == 10
    assert sum(quantity for (kind, _), quantity in wastes(store, run).items() if kind == "input") == 60


def test_processes_that_never_stay_give_a_lost_answer_up_as_well() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = work_on(store, Telling(provider, hide=lambda line: b"text 2" in line), ListedDocuments(TEXTS))
    for _ in range(20):
        if open_run(work, clock=clock).advance().done:
            break
        clock.now += 60
    assert statuses(store) == {"ok": 5, "error": 1}


def test_who_wants_a_lost_answer_can_buy_it_again() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    backend = Telling(provider, hide=lambda line: b"text 2" in line)
    work = work_on(store, backend, ListedDocuments(TEXTS))
    finish(open_run(work, clock=clock), seconds=30, clock=clock)
    backend.looks = 0
    assert finish(open_run(work, clock=clock), seconds=30, clock=clock).done
    assert provider.processed["text 2"] == 1, "only who asks for it pays again"
    assert finish(open_run(work, retry=True, clock=clock), seconds=30, clock=clock).done
    assert provider.processed == Counter(dict.fromkeys(TEXTS.values(), 1) | {"text 2": 2})
    assert statuses(store) == {"ok": 6}


def test_an_answer_that_comes_late_is_waited_for() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    backend = Telling(provider, hide=lambda line: b"text 2" in line, looks=2)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10), clock=clock)
    assert finish(run, seconds=30, clock=clock).done
    assert statuses(store) == {"ok": 6}
    assert set(provider.processed.values()) == {1}


def test_a_batch_that_found_no_room_after_its_create_call_waits_and_is_no_attempt() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    when: list[float] = []

    class Crowded(StandInBackend):
        noes = 5

        def poll(self, batch_id: str) -> BatchStatus:
            if self.noes:
                self.noes -= 1
                when.append(clock.now)
                return BatchStatus("failed", "failed", reason="token_limit_exceeded", charged=0, fault="quota")
            return super().poll(batch_id)

    backend = Crowded(provider)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10, attempts=2), clock=clock)
    assert finish(run, seconds=1, clock=clock).done
    assert statuses(store) == {"ok": 6}
    pauses = [later - earlier for earlier, later in pairwise(when)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 5
    assert pauses[-1] >= 40


def test_a_batch_that_cannot_work_is_not_tried_again() -> None:
    store, provider = MemoryStore(), Provider()

    class Wrong(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            return BatchStatus("failed", "failed", reason="no model 'x'", charged=0, fault="fatal")

    run = open_run(work_on(store, Wrong(provider), ListedDocuments(TEXTS), shard_records=10))
    assert finish(run).done
    assert provider.calls["submit"] == 1
    assert {row["status_reason"] for row in results(store)} == {"no model 'x'"}
    assert statuses(store) == {"error": 6}


def test_a_batch_that_failed_is_given_time_before_the_next_attempt() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    submitted: list[float] = []

    class Failing(StandInBackend):
        def submit(self, shard: Shard, token: str) -> str:
            submitted.append(clock.now)
            return super().submit(shard, token)

        def poll(self, batch_id: str) -> BatchStatus:
            return BatchStatus("Failed", "failed", reason="internal", charged=0)

    run = open_run(work_on(store, Failing(provider), ListedDocuments(TEXTS), shard_records=10), clock=clock)
    assert finish(run, seconds=1, clock=clock).done
    assert len(submitted) == 3
    assert submitted[1] - submitted[0] >= 5
    assert statuses(store) == {"error": 6}


def test_too_few_records_for_a_batch_are_asked_on_demand_at_its_price() -> None:
    def overloaded_at_first(request: dict[str, str], nth: int) -> list[dict[str, object]]:
        fails = nth == 1 and "3" in request["text"]
        return [ok(request) | ({"status": "error", "retryable": True} if fails else {})]

    store, provider = MemoryStore(), Provider(overloaded_at_first)
    seen: list[tuple[int, bool]] = []

    class Both(StandInBackend):
        def submit(self, shard: Shard, token: str) -> str:
            seen.append((shard.records, shard.on_demand))
            return super().submit(shard, token)

    backend = Both(provider, limits=replace(SMALL, minimum_records=3))
    price = replace(
        PRICE, on_demand=Price("dear", "test", {"input": Decimal("0.000002"), "output": Decimal("0.000004")})
    )
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10, price=price))
    assert finish(run).done
    assert seen == [(6, False), (1, True)]
    lines = [row for row in ledger(store, run).to_pylist() if row["kind"] == "actual" and row["token_type"] == "input"]
    assert {(row["price_id"], row["unit_price"], row["quantity"], row["waste"]) for row in lines} == {
        ("batch", Decimal("0.000001"), 50, None),
        ("batch", Decimal("0.000001"), 10, "retried"),
        ("dear", Decimal("0.000002"), 10, None),
    }
    [asked_twice] = [row for row in results(store) if row["attempts"] == 2]
    assert asked_twice["cost_usd"] == PRICE.amount({"input": 10, "output": 2}) * 3


def test_what_was_kept_elsewhere_is_removed_at_the_provider() -> None:
    store, provider = MemoryStore(), Provider()
    assert finish(open_run(work_on(store, StandInBackend(provider), ListedDocuments(TEXTS)))).done
    assert provider.calls["discard"] == len(provider.batches) == 2


def test_a_batch_that_is_out_of_sight_for_hours_is_told_of_and_not_sent_again() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    class Gone(StandInBackend):
        gone = True

        def poll(self, batch_id: str) -> BatchStatus:
            if self.gone:
                raise Transient("404: no such batch")
            return super().poll(batch_id)

    backend = Gone(provider)
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS), shard_records=10), clock=clock)
    begun = clock.now
    with pytest.raises(Terminal, match="6 hours: 404"):  # noqa: PT012 - it is told of at some pass, not at the first
        for _ in range(60):
            run.advance()
            clock.now += 600
    assert 6 * 3600 < clock.now - begun < 7 * 3600
    backend.gone = False
    assert finish(run, seconds=60, clock=clock).done
    assert provider.calls["submit"] == 1


def test_what_cannot_be_removed_at_the_provider_holds_nothing_up() -> None:
    store, provider = MemoryStore(), Provider()

    class Locked(StandInBackend):
        def discard(self, batch_id: str) -> None:
            raise Terminal("s3:DeleteObject is denied")

    assert finish(open_run(work_on(store, Locked(provider), ListedDocuments(TEXTS)))).done
    assert statuses(store) == {"ok": 6}


def test_a_create_call_that_wakes_up_too_late_is_stopped_and_put_into_the_ledger() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    texts = ListedDocuments(TEXTS)

    def asleep(token: str) -> None:
        late.before_ = lambda token: None
        clock.now += 10_000
        work = work_on(store, StandInBackend(provider, instantly=False), texts, shard_records=10)
        rival = open_run(work, clock=clock)
        rival.context.owner = "rival"
        for _ in range(3):
            rival.advance()
            clock.now += 500
        assert len(provider.batches) == 1, "the rival has concluded that nothing was accepted"

    class Late(StandInBackend):
        before_ = staticmethod(asleep)

        def submit(self, shard: Shard, token: str) -> str:
            self.before_(token)
            return super().submit(shard, token)

    late = Late(provider, limits=replace(SMALL, consistent_lookup=True), instantly=False)
    run = open_run(work_on(store, late, texts, shard_records=10), clock=clock)
    run.advance()
    assert len(provider.batches) == 2
    assert sum(attempt.surplus for attempt in run.state.attempts.values()) == 1
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    assert finish(run, seconds=1, clock=clock).done
    assert statuses(store) == {"ok": 6}
    assert wastes(store, run) == {
        ("input", ""): 60,
        ("input", "duplicate"): 10,
        ("output", ""): 12,
        ("output", "duplicate"): 2,
    }
    assert sum(wastes(store, run).values()) == provider.bill.total()


def test_of_two_batches_with_one_token_the_first_is_adopted_and_the_other_is_stopped() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    class Doubled(StandInBackend):
        def submit(self, shard: Shard, token: str) -> str:
            for _ in range(2):
                super().submit(shard, token)
            raise SubmitUnknown("a gateway has sent it twice, and answered neither")

    run = open_run(
        work_on(store, Doubled(provider, instantly=False), ListedDocuments(TEXTS), shard_records=10), clock=clock
    )
    run.advance()
    run.advance()
    assert [batch.outcome for batch in provider.batches.values()] == [None, "cancelled"]
    provider.finish("b1")
    assert finish(run, seconds=1, clock=clock).done
    assert statuses(store) == {"ok": 6}
    assert wastes(store, run)["input", "duplicate"] == 10
    assert sum(wastes(store, run).values()) == provider.bill.total()


@pytest.mark.parametrize("on_demand", [False, True])
def test_an_intent_says_how_its_records_are_asked(on_demand: bool) -> None:
    store, provider = MemoryStore(), Provider()
    backend = StandInBackend(provider, limits=replace(SMALL, minimum_records=100 if on_demand else 1))
    run = open_run(work_on(store, backend, ListedDocuments(TEXTS)))
    finish(run)
    assert isinstance(run.context, Context)
    intents = [
        event for _, entry in run.context.journal.history() for event in entry.events if isinstance(event, Submitting)
    ]
    assert {event.on_demand for event in intents} == {on_demand}
