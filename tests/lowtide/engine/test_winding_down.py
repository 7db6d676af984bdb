"""Runs that cannot be gone on with: their questions were changed, or their backend was taken out of the job file.

What they have cost stands in a ledger and in the account all the same, and nothing is bought a second time by itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest
from support.engine_support import Clock, billed, finish, ledger, statuses
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on

from lowtide import events as e
from lowtide.budget.account import Account, AccountState
from lowtide.budget.caps import month_of
from lowtide.engine import Run, find_run, open_run, wind_down
from lowtide.errors import StalePlan, Transient
from lowtide.plan import Candidate, Work
from lowtide.prices import LOCAL, Price

TEXTS = ListedDocuments({f"d{number}": f"text {number}" for number in range(6)})
PRICE = Price("made up", "test", {"input": Decimal("0.000001"), "output": Decimal("0.000002")})


class Elsewhere(StandInBackend):
    name = "elsewhere"


def account(store: MemoryStore, clock: Clock) -> AccountState:
    return Account(store, month_of(clock()), "auditor").refresh()


def spent(state: AccountState) -> Decimal:
    return sum((line.spent for line in state.lines.values()), Decimal(0))


def asking_otherwise(work: Work, provider: Provider) -> Work:
    return replace(work, operations=(echo_operation("renamed"),), backend=StandInBackend(provider))


def begun(store: MemoryStore, provider: Provider, clock: Clock) -> Work:
    """A run whose batches are out."""
    work = work_on(store, StandInBackend(provider, instantly=False), TEXTS, price=PRICE)
    assert open_run(work, clock=clock).advance().open_batches == 2
    return work


def test_what_a_run_has_cost_whose_prompt_was_changed_stands_in_its_ledger_and_closes_its_reservation() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    [marked] = [path.rpartition("/")[2] for path in store.objects if path.startswith("open/")]
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    cost_before = Counter(provider.bill)
    later = open_run(asking_otherwise(work, provider), clock=clock)
    assert finish(later, seconds=60, clock=clock).done
    before = find_run(work, run_id=marked, clock=clock)
    assert before is not None
    assert billed(store, before) == cost_before
    rows = ledger(store, before).to_pylist()
    assert {row["waste"] for row in rows if row["kind"] == "actual"} == {"lost"}
    assert billed(store, before) + billed(store, later) == provider.bill
    assert not account(store, clock).open
    assert spent(account(store, clock)) == PRICE.amount(provider.bill)


def wound_down(store: MemoryStore, provider: Provider, clock: Clock) -> tuple[Work, Run]:
    """A run whose batches have ended, counted by a job file that asks something else by now."""
    work = begun(store, provider, clock)
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    changed = find_run(asking_otherwise(work, provider), clock=clock)
    assert changed is not None
    while not wind_down(changed):
        clock.now += 60
    return work, changed


def test_a_run_whose_prompt_is_put_back_collects_what_was_counted_and_its_ledger_says_so() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work, changed = wound_down(store, provider, clock)
    assert wind_down(changed), "once more changes nothing"
    back = open_run(replace(work, backend=StandInBackend(provider)), clock=clock)
    assert finish(back, seconds=60, clock=clock).done
    assert statuses(store) == {"ok": 6}
    assert max(provider.processed.values()) == 1
    assert billed(store, back) == provider.bill
    assert {row["waste"] for row in ledger(store, back).to_pylist()} == {None}
    assert not account(store, clock).open
    assert spent(account(store, clock)) == PRICE.amount(provider.bill)


def test_what_was_counted_stays_counted_if_the_answers_are_gone_when_the_prompt_is_put_back() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work, _ = wound_down(store, provider, clock)

    class Emptied(StandInBackend):
        def outputs(self, batch_id: str):  # type: ignore[no-untyped-def]  # as StandInBackend says
            raise Transient("404: no such file")

    back = find_run(replace(work, backend=Emptied(provider)), clock=clock)
    assert back is not None
    assert back.state.cancelled
    assert finish(back, seconds=50, clock=clock).done
    assert billed(store, back) == provider.bill
    assert spent(account(store, clock)) == PRICE.amount(provider.bill)


def test_a_surplus_batch_of_a_run_whose_prompt_was_changed_is_counted_as_well() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = work_on(store, StandInBackend(provider, instantly=False), TEXTS, price=PRICE, shard_records=10)
    run = open_run(work, clock=clock)
    run.advance()
    [batch] = provider.batches.values()
    provider.batches["stray"] = replace(batch)
    run.context.journal.append(e.Surplus(at=clock(), shard=1, attempt=1, batch_id="stray"))
    for batch_id in ("b1", "stray"):
        provider.finish(batch_id)
    changed = find_run(asking_otherwise(work, provider), clock=clock)
    assert changed is not None
    while not wind_down(changed):
        clock.now += 60
    assert billed(store, changed) == provider.bill
    assert {row["waste"] for row in ledger(store, changed).to_pylist() if row["kind"] == "actual"} == {
        "lost",
        "duplicate",
    }
    assert not account(store, clock).open


def test_a_run_that_died_before_it_was_published_has_its_ledger_though_its_prompt_was_changed() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    [marked] = [path.rpartition("/")[2] for path in store.objects if path.startswith("open/")]
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    dying = find_run(work, run_id=marked, clock=clock)
    assert dying is not None
    for _ in range(2):
        dying.perform([action for action in dying.decide().actions if hasattr(action, "shard")])
    assert dying.state.settled
    assert not [path for path in store.objects if path.startswith("tables/")]
    later = open_run(asking_otherwise(work, provider), clock=clock)
    assert finish(later, seconds=60, clock=clock).done
    assert billed(store, dying) + billed(store, later) == provider.bill
    assert not account(store, clock).open
    assert not [path for path in store.objects if path.startswith("open/")]


def test_what_was_refused_in_a_run_whose_prompt_was_changed_reserves_nothing_more() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()

    def no_room(token: str) -> None:
        raise Transient("connection refused")

    work = work_on(store, StandInBackend(provider, before=no_room), TEXTS, price=PRICE)
    open_run(work, clock=clock).advance()
    assert account(store, clock).open
    assert finish(open_run(asking_otherwise(work, provider), clock=clock), seconds=60, clock=clock).done
    assert not account(store, clock).open


def test_a_batch_that_is_gone_does_not_make_up_rows_for_a_run_whose_prompt_was_changed() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)

    class Blind(StandInBackend):
        def poll(self, batch_id: str):  # type: ignore[no-untyped-def]  # as StandInBackend says
            raise Transient("404: no such batch")

    changed = find_run(replace(asking_otherwise(work, provider), backend=Blind(provider)), clock=clock)
    assert changed is not None
    for _ in range(5):
        assert not wind_down(changed)
        clock.now += 100
    assert not [shard for shard in changed.state.shards.values() if shard.rows]
    assert len(account(store, clock).open) == 2


@pytest.mark.parametrize("both", [True, False])
def test_a_backend_that_was_taken_out_of_the_job_file_while_its_batches_are_out_is_asked_for(both: bool) -> None:
    store, provider, other, clock = MemoryStore(), Provider(), Provider(), Clock()
    here, there = StandInBackend(provider, instantly=False), Elsewhere(other)
    work = work_on(store, here, TEXTS, price=PRICE)
    if both:
        work = replace(work, candidates=(Candidate(here, PRICE), Candidate(there, PRICE)))
    first = open_run(work, clock=clock)
    first.advance()
    before = set(store.objects)
    moved = replace(work, backend=there, candidates=(Candidate(there, PRICE),))
    with pytest.raises(StalePlan, match=rf"run {first.plan.run_id} .* backend stand-in, .*put the job file back"):
        open_run(moved, clock=clock)
    assert set(store.objects) == before
    assert not other.batches
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    assert finish(open_run(work, clock=clock), seconds=60, clock=clock).done
    again = open_run(moved, clock=clock)
    assert finish(again, seconds=60, clock=clock).done, "once it is collected, nothing is in the way"


def test_a_run_at_another_backend_that_was_only_not_published_has_its_ledger() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = begun(store, provider, clock)
    for batch_id in list(provider.batches):
        provider.finish(batch_id)
    dying = find_run(work, clock=clock)
    assert dying is not None
    for _ in range(2):
        dying.perform([action for action in dying.decide().actions if hasattr(action, "shard")])
    later = open_run(replace(work, backend=Elsewhere(Provider())), clock=clock)
    assert finish(later, seconds=60, clock=clock).done
    assert billed(store, dying) == provider.bill


def test_a_backend_that_costs_nothing_may_be_taken_out_of_the_job_file() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = work_on(store, StandInBackend(provider, instantly=False), TEXTS, price=LOCAL)
    open_run(work, clock=clock).advance()
    assert finish(open_run(replace(work, backend=Elsewhere(Provider())), clock=clock), seconds=60, clock=clock).done
