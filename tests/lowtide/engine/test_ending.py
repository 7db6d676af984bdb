"""A run whose questions were changed is ended for good: nothing is open any more, and what it has cost is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

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
    work_on,
)
from support.world import Crash, WatchedStore

from lowtide.budget.account import Account, AccountState
from lowtide.budget.caps import month_of
from lowtide.collecting.columns import LOST
from lowtide.engine import Run, end_run, find_run, open_run, wind_down
from lowtide.errors import StalePlan, Transient
from lowtide.openruns import list_open
from lowtide.plan import Candidate, Work
from lowtide.prices import Price
from lowtide.records import BatchStatus, OutputFile, Usage
from lowtide.shards import Phase

TEXTS = ListedDocuments({f"d{number}": f"text {number}" for number in range(6)})
PRICE = Price("made up", "test", {"input": Decimal("0.000001"), "output": Decimal("0.000002")})
OTHER = (echo_operation("renamed"),)


def account(store: MemoryStore, clock: Clock) -> AccountState:
    return Account(store, month_of(clock()), "auditor").refresh()


def begun(store: MemoryStore, provider: Provider, clock: Clock, **more: object) -> Work:
    """A run whose batches are out, or of whose shards some wait for room."""
    work = work_on(store, StandInBackend(provider, instantly=False), TEXTS, price=PRICE, **more)  # type: ignore[arg-type]
    open_run(work, clock=clock).advance()
    return work


def otherwise(work: Work, clock: Clock, backend: StandInBackend, run_id: str | None = None) -> Run:
    """The run, as one sees it whose job file asks something else."""
    found = find_run(replace(work, operations=OTHER, backend=backend), run_id=run_id, clock=clock)
    assert found is not None
    assert found.fit.differs
    return found


def end(run: Run, clock: Clock, *, seconds: float = 1.0) -> None:
    def sleep(pause: float) -> None:
        clock.now += pause

    end_run(run, poll=seconds, sleep=sleep)


@pytest.mark.parametrize("answered", [True, False])
def test_nothing_is_open_any_more_and_all_that_it_has_cost_is_in_its_ledger(answered: bool) -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    for batch_id in list(provider.batches) if answered else ():
        provider.finish(batch_id)
    run = otherwise(work, clock, StandInBackend(provider))
    end(run, clock)
    assert provider.bill
    assert billed(store, run) == provider.bill
    assert {row["waste"] for row in ledger(store, run).to_pylist() if row["kind"] == "actual"} == {"lost"}
    assert run.refresh().settled
    assert run.state.cancelled
    assert provider.calls["discard"] == 2, "nobody will ask for them any more"
    assert not list(list_open(store))
    assert not account(store, clock).open
    assert sum((line.spent for line in account(store, clock).lines.values()), Decimal(0)) == PRICE.amount(provider.bill)


def test_one_that_a_later_run_has_stopped_and_counted_is_ended_too() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    [left] = [each.run_id for each in list_open(store)]
    later = replace(work, operations=OTHER, backend=StandInBackend(provider))
    assert finish(open_run(later, clock=clock), seconds=60, clock=clock).done
    assert [each.run_id for each in list_open(store)] == [left]
    run = otherwise(work, clock, StandInBackend(provider), left)
    before, known = ledger(store, run), {attempt.known_at for attempt in run.state.attempts.values()}
    clock.now += 40 * 86_400
    end(run, clock)
    assert ledger(store, run) == before
    assert {attempt.known_at for attempt in run.refresh().attempts.values()} == known, "no cost moves to another month"
    assert not list(list_open(store))
    assert statuses(store) == {"ok": 6}


def test_what_was_never_sent_is_asked_when_the_job_file_is_put_back_and_what_was_paid_is_not_bought_again() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    few = replace(SMALL, live_batches=1)
    work = work_on(store, StandInBackend(provider, instantly=False, limits=few), TEXTS, price=PRICE, shard_records=3)
    first = open_run(work, clock=clock)
    first.advance()
    [sent] = provider.batches
    provider.finish(sent)
    end(otherwise(work, clock, StandInBackend(provider)), clock)
    assert [shard.phase for shard in first.refresh().shards.values()] == [Phase.SETTLED] * 2
    back = open_run(replace(work, backend=StandInBackend(provider)), clock=clock)
    assert finish(back, seconds=60, clock=clock).done
    assert statuses(store) == {"ok": 3, "error": 3}
    assert {row["status_reason"] for row in results(store) if row["status"] == "error"} == {LOST}
    assert set(provider.processed.values()) == {1}
    assert billed(store, back) == provider.bill
    again = open_run(replace(work, backend=StandInBackend(provider)), retry=True, clock=clock)
    assert finish(again, seconds=60, clock=clock).done
    assert statuses(store) == {"ok": 6}
    assert billed(store, again) == provider.bill


def test_what_the_provider_has_not_answered_is_not_lost() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)

    class Refusing(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            return BatchStatus("failed", "failed", reason="no such model", charged=0)

        def outputs(self, batch_id: str) -> Iterator[OutputFile]:
            return iter(())

    run = otherwise(work, clock, Refusing(provider))
    end(run, clock)
    assert not billed(store, run)
    assert finish(open_run(replace(work, backend=StandInBackend(provider)), clock=clock), seconds=60, clock=clock).done
    assert statuses(store) == {"ok": 6}


@pytest.mark.parametrize("told", [True, False], ids=["and was told of", "and was not told of"])
@pytest.mark.parametrize("gone", ["batch", "output"])
def test_what_is_gone_at_the_provider_is_given_up_and_its_money_is_not_forgotten(gone: str, told: bool) -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    for batch_id in list(provider.batches):
        provider.finish(batch_id)

    class Emptied(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            if gone == "batch" and batch_id == "b1":
                raise Transient("404: no such batch")
            usage = Usage(40, 8) if told and batch_id == "b1" else None
            return replace(super().poll(batch_id), usage=usage)

        def outputs(self, batch_id: str) -> Iterator[OutputFile]:
            if batch_id == "b1":
                raise Transient("404: no such file")
            return super().outputs(batch_id)

    run = otherwise(work, clock, Emptied(provider))
    end(run, clock, seconds=50)
    state = run.refresh()
    assert state.settled
    assert not list(list_open(store))
    known = gone == "output" and told
    assert billed(store, run) == (provider.bill if known else Counter({"input": 20, "output": 4}))
    lines = account(store, clock).lines.values()
    assert not account(store, clock).open
    if known:
        assert sum((line.spent for line in lines), Decimal(0)) == PRICE.amount(provider.bill)
    else:
        assert sum((line.spent for line in lines), Decimal(0)) > PRICE.amount(provider.bill)


def test_what_another_batch_waits_for_is_not_given_up_with_one_that_is_gone() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    looks: Counter[str] = Counter()

    class Slow(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            looks[batch_id] += 1
            if batch_id == "b1":
                raise Transient("404: no such batch")
            return BatchStatus("Stopping") if looks[batch_id] < 20 else super().poll(batch_id)

        def cancel(self, batch_id: str) -> None:
            return

    run = otherwise(work, clock, Slow(provider))
    end(run, clock, seconds=50)
    assert looks["b2"] >= 20
    assert billed(store, run) == provider.bill != Counter()


def test_a_look_that_fails_for_a_minute_gives_nothing_up() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    until = clock.now + 60

    class Shaky(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            if clock.now < until:
                raise Transient("connection reset")
            return super().poll(batch_id)

    run = otherwise(work, clock, Shaky(provider))
    end(run, clock, seconds=10)
    assert clock.now >= until
    assert billed(store, run) == provider.bill
    assert not any(attempt.unknown for attempt in run.refresh().attempts.values())


def test_a_run_whose_backend_the_job_file_does_not_name_is_not_ended_while_its_batches_may_be_out() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)

    class Elsewhere(StandInBackend):
        name = "elsewhere"

    there = Elsewhere(Provider())
    moved = replace(work, backend=there, candidates=(Candidate(there, PRICE),))
    run = find_run(moved, clock=clock)
    assert run is not None
    with pytest.raises(StalePlan, match=rf"run {run.plan.run_id} .*backend stand-in.*put that backend back"):
        end(run, clock)
    assert list(list_open(store))
    assert not run.refresh().cancelled
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    seen = otherwise(work, clock, StandInBackend(provider))
    while not all(attempt.known_at for attempt in seen.state.attempts.values()) or not seen.state.attempts:
        wind_down(seen)
    run.refresh()
    end(run, clock)
    assert not list(list_open(store))
    assert billed(store, run) == provider.bill


def test_one_that_was_cut_short_while_it_read_is_closed() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = work_on(store, StandInBackend(provider), TEXTS, price=PRICE)
    open_run(work, clock=clock)
    end(otherwise(work, clock, StandInBackend(provider)), clock)
    assert not list(list_open(store))
    assert not provider.batches


def test_two_that_end_the_same_run_agree() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    second = otherwise(work, clock, StandInBackend(provider))

    class Overtaken(StandInBackend):
        def poll(self, batch_id: str) -> BatchStatus:
            status = super().poll(batch_id)
            if not done:
                done.append(batch_id)
                end(second, clock)
            return status

    done: list[str] = []
    run = otherwise(work, clock, Overtaken(provider))
    end(run, clock)
    assert done
    assert billed(store, run) == provider.bill
    assert not list(list_open(store))


def test_one_that_dies_at_any_point_is_finished_by_the_same_again() -> None:
    number, died = 0, True
    while died:
        number += 1
        store, provider, clock = MemoryStore(), Provider(), Clock()
        work = begun(store, provider, clock, shard_records=3)
        for batch_id in list(provider.batches):
            provider.finish(batch_id)
        left = [number]

        def hook(point: str, left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                raise Crash

        died = False
        try:
            end(otherwise(replace(work, root=WatchedStore(store, hook)), clock, StandInBackend(provider)), clock)
        except Crash:
            died = True
        run = otherwise(work, clock, StandInBackend(provider))
        end(run, clock)
        assert run.refresh().settled, number
        assert not list(list_open(store))
        assert billed(store, run) == provider.bill, number
        assert not account(store, clock).open
        assert set(provider.processed.values()) == {1}
    assert number > 20


def test_trouble_without_end_is_told_of() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    class Unseen(StandInBackend):
        def find(self, token: str) -> list[str]:
            raise Transient("no listing now")

    work = work_on(store, Unseen(provider, after=lost_acknowledgement), TEXTS, price=PRICE)
    open_run(work, clock=clock).advance()
    clock.now += 10_000
    with pytest.raises(Transient, match="no listing now"):
        end(otherwise(work, clock, Unseen(provider)), clock)
    assert list(list_open(store)), "nobody knows what is out"
