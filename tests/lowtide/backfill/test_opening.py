"""A window's run is opened, or stopped, while processes die and others come in between: no money is spent twice."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.backfills import Process, Weeks, tick, weeks
from support.world import Crash

from lowtide import backfill as domain
from lowtide import openruns
from lowtide.backfill import Opened
from lowtide.backfill.looking import find
from lowtide.errors import StalePlan

FIRST, SECOND = "2026-W02", "2026-W03"


def late(number: int) -> dict[str, str | None]:
    """So many documents of the first week that come late."""
    return {f"late/{each}": f"a late text {each}" for each in range(number)}


def room_for_one(world: Weeks) -> Decimal:
    """A cap that holds either of the weeks, and not both."""
    found, _ = Process(world).plan()
    assert found is not None
    assert len({window.least_usd for window in found.to_do}) == 1
    return found.to_do[0].least_usd * Decimal("1.2")


def open_lines(process: Process, cap: Decimal | None = None) -> list[str]:
    """The runs for which money is reserved."""
    found, _ = process.plan(max_usd=cap)
    assert found is not None
    return [line.run for line in process.allotments(found).lines() if not line.settled]


def test_a_run_that_died_before_it_was_asked_for_is_begun_by_no_tick_once_its_money_is_free() -> None:
    world = Weeks(weeks(2, documents=8))
    cap = room_for_one(world)

    def die_behind_the_note(name: str) -> None:
        if name.startswith("after write open/"):
            raise Crash

    with pytest.raises(Crash):
        Process(world, on_point=die_behind_the_note).run(max_usd=cap, most=1)
    [noted] = openruns.list_open(world.store)
    assert noted.window == FIRST
    world.texts[FIRST] |= late(60)

    assert Process(world).run(max_usd=cap, most=1) == {"done": 1, "over budget": 1}
    assert world.published() == [SECOND]
    assert not list(openruns.list_open(world.store))
    bought = world.provider.submissions
    assert tick(world) == []
    assert world.provider.submissions == bought
    assert Process(world).run(max_usd=Decimal(1)) == {"done": 1}
    assert len(world.rows(FIRST)) == 68


def test_a_run_whose_money_went_to_another_window_while_it_was_begun_asks_nothing() -> None:
    world = Weeks(weeks(2, documents=8))
    cap, others = room_for_one(world), list[Opened]()

    def overtake(name: str) -> None:
        """Another process finds the first run not yet begun, frees its money, and takes it for the second week."""
        if others or not (name.startswith(f"before put runs/test/{FIRST}/") and "/journal/" in name):
            return
        world.texts[FIRST] |= late(60)
        other = Process(world)
        seen, there = other.plan(max_usd=cap)
        assert seen is not None
        allotments = other.allotments(seen)
        first, second = [
            domain.open_window(each, other.work_of(each.window), seen, allotments, clock=world.clock) for each in there
        ]
        assert first is None
        assert second is not None
        others.append(second)

    process = Process(world, on_point=overtake)
    found, planned = process.plan(max_usd=cap)
    assert found is not None
    allotments = process.allotments(found)
    with pytest.raises(StalePlan, match=f"{FIRST}: its money went to another window"):
        domain.open_window(planned[0], process.work_of(planned[0].window), found, allotments, clock=world.clock)
    [line] = [line for line in allotments.lines() if not line.settled]
    assert line.run == others[0].run.plan.prefix
    for noted in openruns.list_open(world.store):
        run = find(world.store, f"runs/test/{noted.window}/{noted.run_id}")
        assert run is not None
        assert run.state.cancelled or run.plan.prefix == line.run
    while not others[0].run.advance().done:
        tick(world)
        world.clock.now += 60
        world.answer()
    assert {request["text"] for batch in world.provider.batches.values() for request in batch.requests} == {
        f"week 3 text {number}" for number in range(8)
    }
    assert world.billed <= cap


def test_a_cancel_stops_both_runs_of_a_window_whose_documents_changed_between_two_processes() -> None:
    world = Weeks(weeks(1))

    class Gone(Exception):
        """The process is killed while it waits."""

    def go() -> None:
        raise Gone

    answer, world.answer = world.answer, lambda: None  # type: ignore[method-assign]
    with pytest.raises(Gone):
        Process(world, on_pause=go).run()
    world.texts[FIRST] |= late(1)
    with pytest.raises(Gone):
        Process(world, on_pause=go).run()
    assert len(open_lines(Process(world))) == 2
    assert world.provider.open
    world.answer = answer  # type: ignore[method-assign]

    assert set(Process(world).cancel()) <= {"cancelled", "done"}
    assert open_lines(Process(world)) == []
    assert not world.provider.open
    runs = [find(world.store, path.removesuffix("/plan.json")) for path in world.store.objects if "/plan.json" in path]
    assert len(runs) == 2
    assert all(run is not None and run.state.cancelled for run in runs)
    asked = sum(world.provider.asked.values())
    tick(world)
    assert sum(world.provider.asked.values()) == asked
    assert Process(world).run() == {"done": 1}
    assert len(world.rows(FIRST)) == 5
