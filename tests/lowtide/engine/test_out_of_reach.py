"""Batches that cannot be seen: elsewhere, gone, or come to light too late. None is paid twice, none is forgotten."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest
from support.engine_support import Clock, billed, finish, results, statuses
from support.standins import (
    SMALL,
    ListedDocuments,
    MemoryStore,
    Provider,
    StandInBackend,
    lost_acknowledgement,
    work_on,
)

from lowtide.collecting.columns import LOST
from lowtide.engine import Run, drive, find_run, open_run
from lowtide.errors import StalePlan, SubmitUnknown, Terminal, Transient
from lowtide.events import CancelRequested
from lowtide.prices import Price
from lowtide.records import BatchStatus, Shard

TEXTS = ListedDocuments({f"d{number}": f"text {number}" for number in range(6)})


class Here(StandInBackend):
    places: tuple[str, ...] = ("bedrock:us-east-1",)


class There(StandInBackend):
    places: tuple[str, ...] = ("bedrock:us-west-2",)


def test_a_run_with_an_unknown_batch_in_one_place_does_not_go_on_in_another() -> None:
    store, east, west, clock = MemoryStore(), Provider(), Provider(), Clock()
    limits = replace(SMALL, consistent_lookup=False)

    class Unseen(Here):
        def find(self, token: str) -> list[str]:
            raise Transient("no listing now")

    open_run(work_on(store, Unseen(east, after=lost_acknowledgement, limits=limits), TEXTS), clock=clock).advance()
    clock.now += 10_000
    moved = open_run(work_on(store, There(west, limits=limits), TEXTS), clock=clock)
    with pytest.raises(StalePlan, match=r"bedrock:us-east-1.*bedrock:us-west-2"):
        moved.advance()
    assert not west.batches
    home = open_run(work_on(store, Here(east, limits=limits), TEXTS), clock=clock)
    assert finish(home, seconds=60, clock=clock).done
    assert set(east.processed.values()) == {1}


def test_a_run_whose_batches_are_collected_may_move() -> None:
    store, east, west, clock = MemoryStore(), Provider(lambda request, nth: []), Provider(), Clock()
    first = open_run(work_on(store, Here(east), TEXTS, attempts=1), clock=clock)
    assert finish(first, seconds=60, clock=clock).done
    second = open_run(work_on(store, There(west), TEXTS, attempts=1), retry=True, clock=clock)
    assert finish(second, seconds=60, clock=clock).done
    assert len(west.batches) == 2


def test_the_input_that_two_batches_share_stays_until_the_kept_one_is_collected() -> None:
    store, provider = MemoryStore(), Provider()
    discarded: list[tuple[str, bool]] = []

    class Doubled(StandInBackend):
        def submit(self, shard: Shard, token: str) -> str:
            for _ in range(2):
                super().submit(shard, token)
            raise SubmitUnknown("sent twice by a gateway")

        def discard(self, batch_id: str) -> None:
            discarded.append((batch_id, provider.batches["b1"].outcome == "completed"))

    run = open_run(work_on(store, Doubled(provider, instantly=False), TEXTS, shard_records=10))
    for _ in range(3):
        run.advance()
    assert discarded == []
    provider.finish("b1")
    assert finish(run).done
    assert discarded == [("b1", True), ("b2", True)]


def test_a_batch_that_comes_to_light_after_it_was_replaced_is_in_the_ledger() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    visible: list[str] = []

    class Lagging(StandInBackend):
        def submit(self, shard: Shard, token: str) -> str:
            found = super().submit(shard, token)
            if len(provider.batches) == 1:
                raise SubmitUnknown("no answer")
            return found

        def find(self, token: str) -> list[str]:
            return list(visible)

    backend = Lagging(provider, limits=replace(SMALL, consistent_lookup=False), instantly=False)
    run = open_run(work_on(store, backend, TEXTS, shard_records=10), clock=clock)
    while len(provider.batches) < 2:
        run.advance()
        clock.now += 60
    run.advance()
    for batch_id in provider.batches:
        provider.finish(batch_id)
    visible += ["b1", "b2"]
    assert finish(run, seconds=1, clock=clock).done
    assert statuses(store) == {"ok": 6}
    assert billed(store, run) == provider.bill


class Vanishing(StandInBackend):
    """Loses sight of its batches, of their output, or of nothing."""

    gone = ""

    def poll(self, batch_id: str) -> BatchStatus:
        if self.gone == "batch":
            raise Transient("404: no such batch")
        return super().poll(batch_id)

    def outputs(self, batch_id: str):
        if self.gone == "output":
            raise Transient("404: no such file")
        return super().outputs(batch_id)


@pytest.mark.parametrize("gone", ["batch", "output"])
def test_a_cancel_gives_up_what_is_gone_for_good_and_publishes_the_rest(gone: str) -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    backend = Vanishing(provider)
    run = open_run(work_on(store, backend, TEXTS), clock=clock)
    backend.gone = gone
    for _ in range(3):
        run.advance()
    assert provider.calls["submit"] == 2
    run.context.journal.append(CancelRequested(at=clock()))
    assert finish(run, seconds=50, clock=clock).done
    assert statuses(store) == {"error": 6}
    assert {row["status_reason"] for row in results(store)} == {LOST}
    assert provider.calls["submit"] == 2, "nobody has said that it was not answered"


def test_a_run_before_this_one_whose_batch_is_gone_does_not_hold_this_one_for_ever() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    backend = Vanishing(provider, instantly=False)
    open_run(work_on(store, backend, TEXTS), clock=clock).advance()

    class Mixed(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            if batch_id in ("b1", "b2"):
                raise Terminal("no such batch")
            return super().poll(batch_id)

    later = (
        ListedDocuments({**TEXTS.texts, "d9": "text 9"}) if hasattr(TEXTS, "texts") else ListedDocuments({"d9": "nine"})
    )
    run = open_run(work_on(store, Mixed(provider), later), clock=clock)
    assert run.chores
    assert finish(run, seconds=10, clock=clock).done


def test_a_run_goes_by_the_prices_that_it_was_planned_with() -> None:
    store, provider = MemoryStore(), Provider()
    cheap = Price("then", "test", {"input": Decimal("0.000001"), "output": Decimal("0.000002")})
    dear = Price("now", "test", {"input": Decimal("0.001"), "output": Decimal("0.002")})
    open_run(work_on(store, StandInBackend(provider), TEXTS, price=cheap))
    work = work_on(store, StandInBackend(provider), TEXTS, price=dear)
    run = open_run(work)
    assert finish(run).done
    assert sum((Decimal(str(row["cost_usd"])) for row in results(store)), Decimal(0)) == cheap.amount(
        {"input": 60, "output": 12}
    )
    again = find_run(work)
    assert again is not None
    assert again.context.work.price.price_id == "then"


def test_a_shard_that_found_no_room_is_not_copied_for_each_attempt() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    class Crowded(StandInBackend):
        noes = 6

        def poll(self, batch_id: str) -> BatchStatus:
            if self.noes:
                self.noes -= 1
                return BatchStatus("failed", "failed", reason="full", charged=0, fault="quota")
            return super().poll(batch_id)

    run = open_run(work_on(store, Crowded(provider), TEXTS, shard_records=10), clock=clock)
    assert finish(run, seconds=60, clock=clock).done
    files = Counter(path.split("/")[-2] for path in store.objects if path.startswith("runs/"))
    assert (files["requests"], files["answers"]) == (1, 0)


def test_a_room_that_never_comes_ends_at_the_deadline() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    class Full(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            return BatchStatus("failed", "failed", reason="full", charged=0, fault="quota")

    run: Run = open_run(work_on(store, Full(provider), TEXTS, shard_records=10), clock=clock)

    def sleep(_: float) -> None:
        clock.now += 600

    assert drive(run, poll=600, sleep=sleep).done
    assert statuses(store) == {"error": 6}


def test_a_create_call_that_is_never_accepted_is_made_more_and_more_seldom() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    def breaks(token: str) -> None:
        raise SubmitUnknown("HTTP 500")

    run = open_run(work_on(store, StandInBackend(provider, before=breaks), TEXTS, shard_records=10), clock=clock)
    for _ in range(600):
        run.advance()
        clock.now += 1
    assert 5 <= provider.calls["submit"] <= 10
