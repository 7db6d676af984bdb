"""Caps that runs share, seen from the runs: what is given up and why, and what a dead run leaves behind."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from support.standins import PRICE, ListedDocuments, MemoryStore
from support.world import WORK, Clock, Process, StrictProvider, World, limits_of

from lowtide import events as e
from lowtide.budget.account import Account, AccountState
from lowtide.budget.approval import approve
from lowtide.budget.caps import Cap
from lowtide.engine.publishing import results_path
from lowtide.engine.submitting import INTENT_LEASE
from lowtide.errors import Transient
from lowtide.ledger import entries, spent
from lowtide.prices import LOCAL, Price
from lowtide.records import BatchStatus

RESERVE = Decimal("0.0043")
"""A little more than what two records may cost at most: two answers of 1024 tokens, and their lines."""
NOVEMBER = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()


class Root:
    """One root with the runs of several jobs, a world each: they share the store and the clock."""

    def __init__(self, usd: Decimal | None = None, *, price: Price = PRICE, live: int = 2) -> None:
        self.clock, self.store = Clock(NOVEMBER), MemoryStore()
        self.caps = () if usd is None else (Cap("everything", usd, "lowtide.yaml:3"),)
        self._price, self._live = price, live
        self.worlds: dict[str, World] = {}

    def job(self, name: str, documents: int = 4) -> World:
        listed = ListedDocuments({f"{name}{i}": f"text {i}" for i in range(documents)})
        work = replace(WORK, job=name, documents=listed, price=self._price, caps=self.caps)
        provider = StrictProvider(self.clock, self._live)
        self.worlds[name] = World(self.clock, self.store, provider, work, limits_of(self._live))
        return self.worlds[name]

    def set_cap(self, usd: Decimal) -> None:
        self.caps = (Cap("everything", usd, "lowtide.yaml:3"),)
        for world in self.worlds.values():
            world.work = replace(world.work, caps=self.caps)

    def account(self, month: str = "2026-11") -> AccountState:
        return Account(self.store, month, "auditor").refresh()

    def runs(self, job: str) -> list[dict[str, object]]:
        found = sorted(path for path in self.store.objects if path.startswith(f"tables/runs/job={job}/"))
        return [row for path in found for row in pq.read_table(io.BytesIO(self.store.objects[path])).to_pylist()]

    def reasons(self, job: str) -> Counter[str | None]:
        rows = pq.read_table(io.BytesIO(self.store.objects[results_path(job, "all")])).to_pylist()
        return Counter(row["status_reason"] for row in rows)


def finish(world: World, process: Process | None = None) -> Process:
    return world.finish(process, passes=50)


def stray(root: Root, world: World, process: Process) -> None:
    """The batch that is out has been accepted twice, and the run knows."""
    [batch] = world.provider.open
    world.provider.batches["stray"] = replace(batch, batch_id="stray", said=[], lines=[], charges=Counter())
    process.run.context.journal.append(e.Surplus(at=root.clock(), shard=1, attempt=1, batch_id="stray"))


def check_closed(root: Root, world: World) -> None:
    """Nothing is reserved, and under the cap stands what this job has paid."""
    assert not root.account().open
    assert root.account().room(root.caps[0]).spent == PRICE.amount(world.provider.bill) > 0


def test_a_run_that_finds_no_room_gives_up_and_says_which_cap_and_who_holds_it() -> None:
    root = Root(usd=RESERVE * Decimal("2.5"))
    first, second = root.job("first"), root.job("second", documents=6)
    holder = first.start()
    holder.advance()
    late = finish(second)
    [(reason, rows)] = [(reason, rows) for reason, rows in root.reasons("second").items() if reason]
    assert rows == 6
    assert second.provider.submissions == 0
    assert reason is not None
    assert reason.startswith("budget: cap 'everything' of 0.01075 USD a month (lowtide.yaml:3) has ")
    run = holder.run.plan.run_id
    assert f"reserved by run {run} of job first; this shard may cost up to 0.00" in reason
    assert late.run.decide().done
    assert root.account().room(root.caps[0]).left >= 0
    finish(first, holder)
    again = finish(second)
    assert again.run.state.published_counts == {"ok": 6}, "the same command goes on once there is room"
    assert not root.account().open


def test_what_is_out_is_collected_before_anything_is_given_up() -> None:
    root = Root(usd=RESERVE * Decimal("1.5"))
    process = finish(root.job("only", documents=6))
    assert root.reasons("only") == {None: 6}, "what ends for less than was reserved leaves room for the next"
    assert root.account().room(root.caps[0]).spent == spent(process.run.state, PRICE) > 0


def test_a_cap_that_is_raised_lets_the_same_command_go_on() -> None:
    root = Root(usd=RESERVE / 2)
    world = root.job("only")
    finish(world)
    assert set(root.reasons("only").values()) == {4}
    assert world.provider.submissions == 0
    before = dict(root.store.objects)
    finish(world)
    assert world.provider.submissions == 0
    assert len(root.store.objects) == len(before), "asking again for what is not allowed leaves nothing behind"
    root.set_cap(Decimal(1))
    finish(world)
    assert root.reasons("only") == {None: 4}


def test_what_a_run_has_not_asked_is_not_counted_as_text_that_used_no_tokens() -> None:
    enough, trial = Root(), Root()
    needed = trial.job("only", documents=6).start()
    needed.advance()
    [shard, *_] = (attempt for attempt in needed.run.state.attempts.values())
    finish(enough.job("only", documents=6))
    tight = Root(usd=shard.reserved)
    finish(tight.job("only", documents=6))
    assert tight.reasons("only")[None] == 2
    [whole], [stopped] = enough.runs("only"), tight.runs("only")
    assert (whole["requests"], whole["asked_requests"], whole["text_bytes"]) == (6, 6, 6 * len("text 0"))
    assert (stopped["requests"], stopped["asked_requests"], stopped["text_bytes"]) == (6, 2, 2 * len("text 0"))


def test_a_run_that_costs_nothing_keeps_no_account() -> None:
    root = Root(usd=Decimal(0), price=LOCAL)
    finish(root.job("free"))
    assert root.reasons("free") == {None: 4}
    assert not [path for path in root.store.objects if path.startswith("budget/")]


def test_an_account_is_kept_without_caps_as_well() -> None:
    root = Root()
    world = root.job("only")
    finish(world)
    lines = root.account().lines.values()
    assert len(lines) == 2
    assert sum((line.spent for line in lines), Decimal(0)) == PRICE.amount(world.provider.bill)
    assert len([path for path in root.store.objects if path.startswith("budget/")]) == 4, "two small objects a batch"


@pytest.mark.parametrize("point", ["after put runs/first/all", "before put budget", "after put budget", "after submit"])
def test_what_a_killed_submit_has_reserved_is_closed_by_the_same_command(point: str) -> None:
    root = Root(usd=Decimal(1))
    world = root.job("first")
    for nth in range(1, 12):
        process = world.start()
        process.meet(process.die, point, nth)
        process.advance()
        process.alive = False
    finish(world)
    state = root.account()
    assert not state.open
    assert sum((line.spent for line in state.lines.values()), Decimal(0)) == PRICE.amount(world.provider.bill)


def test_a_run_that_died_before_it_settled_is_not_in_the_way_of_others() -> None:
    """Its batch is collected, and only the account does not know."""
    root = Root(usd=RESERVE * Decimal("1.1"))
    first, second = root.job("first", documents=2), root.job("second", documents=2)
    process = first.start()
    process.advance()
    for batch in first.provider.open:
        first.provider.finish(batch)
    process.meet(process.die, "before put budget", 1)
    process.advance()
    assert not process.alive
    assert len(root.account().open) == 1
    finish(second)
    assert root.reasons("second") == {None: 2}
    assert not root.account().open


def test_what_died_before_it_was_settled_is_settled_by_the_same_command() -> None:
    root = Root()
    world = root.job("first", documents=2)
    process = world.start()
    process.advance()
    for batch in world.provider.open:
        world.provider.finish(batch)
    process.meet(process.die, "before put budget", 1)
    process.advance()
    [line] = root.account().open.values()
    assert line.reserved
    finish(world)
    assert not root.account().open
    assert [line.spent for line in root.account().lines.values()] == [PRICE.amount(world.provider.bill)]


def test_a_run_that_was_refused_and_left_is_not_in_the_way_of_others() -> None:
    root = Root(usd=RESERVE * Decimal("1.1"))
    first, second = root.job("first", documents=2), root.job("second", documents=2)
    process = first.start()
    process.backend.faults = ["quota"]
    process.advance()
    assert len(root.account().open) == 1
    finish(second)
    assert root.reasons("second") == {None: 2}
    finish(first)
    assert root.reasons("first") == {None: 2}
    assert not root.account().open


def test_a_batch_that_may_be_out_stays_reserved_until_its_run_goes_on() -> None:
    root = Root(usd=RESERVE * Decimal("1.1"))
    first, second = root.job("first", documents=2), root.job("second", documents=2)
    process = first.start()
    process.meet(process.die, "after submit", 1)
    process.advance()
    finish(second)
    assert second.provider.submissions == 0
    finish(first)
    finish(second)
    assert root.reasons("second") == {None: 2}


def test_a_refused_attempt_uses_its_reservation_at_the_next_try() -> None:
    root = Root(usd=RESERVE * Decimal("1.1"))
    world = root.job("first", documents=2)
    process = world.start()
    process.backend.faults = ["quota", "transient", "lost before"]
    finish(world, process)
    assert root.reasons("first") == {None: 2}
    assert len(root.account().lines) == 1


def test_what_is_reserved_in_november_and_collected_in_december_counts_in_november() -> None:
    root = Root(usd=Decimal(1))
    world = root.job("first", documents=2)
    process = world.start()
    process.advance()
    root.clock.now += 86_400
    finish(world, process)
    check_closed(root, world)
    assert root.account("2026-12").entry == 0


def test_a_try_in_another_month_takes_its_reservation_with_it() -> None:
    root = Root(usd=Decimal(1))
    world = root.job("first", documents=2)
    process = world.start()
    process.backend.faults = ["quota"]
    process.advance()
    assert root.account().room(root.caps[0]).reserved > 0
    root.clock.now += 86_400
    finish(world, process)
    assert not root.account().lines
    assert root.account("2026-12").room(root.caps[0]).spent == PRICE.amount(world.provider.bill) > 0


def test_a_submitter_that_was_suspended_leaves_no_reservation() -> None:
    """It wakes when others have long submitted, collected and settled the attempt, and reserves nothing any more."""
    root = Root(usd=Decimal(1))
    world = root.job("first", documents=2)
    sleeper = world.start("elsewhere")

    def meanwhile() -> None:
        root.clock.now += INTENT_LEASE + 1000
        finish(world)

    sleeper.meet(meanwhile, "before put budget", 1)
    sleeper.advance()
    assert world.provider.submissions == 1
    check_closed(root, world)


def test_a_surplus_batch_is_charged_once_it_is_drained() -> None:
    root = Root(usd=Decimal(1))
    world = root.job("first", documents=2)
    process = world.start()
    process.advance()
    stray(root, world, process)
    finish(world, process)
    finish(world)
    assert len(root.account().lines) == 2
    check_closed(root, world)


def test_a_run_above_the_limit_waits_for_approval_and_then_goes_on() -> None:
    root = Root()
    world = root.job("first")
    world.work = replace(world.work, approve_above_usd=Decimal("0.000000000001"))
    process = world.start()
    for _ in range(3):
        progress = process.advance()
        root.clock.now += 3600
        assert progress is not None
        assert progress.step == f"waiting for approval: lowtide approve {process.run.plan.run_id}"
        assert (progress.done, progress.shards, process.run.trouble) == (False, 2, "")
    assert world.provider.submissions == 0
    plan, journal = process.run.plan, process.run.context.journal
    journal.append(e.Approved(at=1.0, usd=plan.cost_usd / 2))
    process.advance()
    assert world.provider.submissions == 0, "less was approved than it costs"
    assert approve(journal, plan, by="somebody", at=2.0)
    assert not approve(journal, plan, by="somebody", at=3.0)
    finish(world, process)
    assert root.reasons("first") == {None: 4}


def test_a_run_at_the_limit_asks_nobody() -> None:
    root = Root()
    world = root.job("first")
    world.work = replace(world.work, approve_above_usd=Decimal(1))
    process = finish(world)
    assert root.reasons("first") == {None: 4}
    assert not approve(process.run.context.journal, process.run.plan, by="somebody", at=1.0)


def test_a_batch_that_was_given_up_as_out_of_reach_counts_as_spent_and_is_not_released() -> None:
    """The provider goes on with it unseen, and bills it."""
    root = Root(usd=RESERVE * Decimal("1.1"))
    first, second = root.job("first", documents=2), root.job("second", documents=2)
    process = first.start()
    process.advance()
    reserved = root.account().room(root.caps[0]).reserved

    def blind(batch_id: str) -> BatchStatus:
        raise Transient("no route")

    process.backend.poll = blind  # type: ignore[method-assign]  # from here on, out of reach
    process.run.context.journal.append(e.CancelRequested(at=root.clock()))
    for _ in range(5):
        process.advance()
        root.clock.now += 100
    state = process.run.state
    assert state.settled
    assert root.account().room(root.caps[0]).spent == reserved > 0
    assert state.reserved == reserved, "for the run's own cap as well"
    for batch in first.provider.open:
        first.provider.finish(batch)
    finish(second)
    assert second.provider.submissions == 0
    lines = [(line.kind, line.waste) for line in entries(process.run.plan, state, PRICE) if line.kind != "estimate"]
    assert lines == [("reserved", ""), ("reserved", "lost")]


def test_a_surplus_batch_reserves_as_much_as_the_one_beside_it_until_it_is_drained() -> None:
    root = Root(usd=RESERVE * Decimal("2.05"), live=1)
    world = root.job("first")
    world.work = replace(world.work, run_usd=RESERVE * Decimal("2.05"))
    process = world.start()
    process.advance()
    once = process.run.state.reserved
    world.provider.live = 3
    stray(root, world, process)
    assert process.run.state.reserved == 2 * once
    process.advance()
    assert root.account().room(root.caps[0]).reserved == 2 * once
    for open_batch in world.provider.open:
        world.provider.finish(open_batch)
    finish(world, process)
    assert process.run.state.reserved == 0
    check_closed(root, world)


def test_a_surplus_batch_that_turns_out_to_be_the_one_that_is_waited_for_reserves_once() -> None:
    root = Root(usd=Decimal(1))
    world = root.job("first", documents=2)
    process = world.start()
    process.meet(process.die, "after submit", 1)
    process.advance()
    [batch] = world.provider.open
    late = world.start()
    late.open()
    late.run.context.journal.append(e.Surplus(at=root.clock(), shard=1, attempt=1, batch_id=batch.batch_id))
    late.run.spending.refresh()
    assert len(root.account().open) == 2
    process.alive = False
    root.clock.now += INTENT_LEASE + 10_000
    finish(world, late)
    check_closed(root, world)


CAPS_FILE = "version: 1\ncaps:\n  - {{name: everything, month_usd: {usd}}}\n"


def test_a_cap_that_is_added_or_lowered_while_a_run_waits_holds_from_its_next_pass() -> None:
    root = Root(live=1)
    world = root.job("first", documents=8)
    process = world.start()
    process.advance()
    root.store.write("lowtide.yaml", CAPS_FILE.format(usd="0.000001").encode())
    finish(world, process)
    assert world.provider.submissions == 1
    [(reason, rows)] = [(reason, rows) for reason, rows in root.reasons("first").items() if reason]
    assert rows == 6
    assert reason is not None
    assert "cap 'everything' of 0.000001 USD a month (memory://store/lowtide.yaml:3)" in reason


@pytest.mark.parametrize("broken", [b"version: 1\ncaps: [{name: everything}]\n", None])
def test_caps_that_cannot_be_read_any_more_stay_as_they_were(
    broken: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    root = Root(live=1)
    world = root.job("first", documents=8)
    process = world.start()
    root.store.write("lowtide.yaml", CAPS_FILE.format(usd=RESERVE * Decimal("1.1")).encode())
    process.advance()
    assert process.run.spending.caps
    if broken is None:
        root.store.delete("lowtide.yaml")
    else:
        root.store.write("lowtide.yaml", broken)
    caps = process.run.spending.caps
    process.advance()
    process.advance()
    assert process.run.spending.caps == caps
    [said] = [record.message for record in caplog.records if "lowtide.yaml" in record.message]
    assert said.endswith("until it can be read, this run keeps the caps that it had")
