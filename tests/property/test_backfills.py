"""A backfill whose processes die anywhere: its cap holds at every moment, and the same command goes on to its end."""

from __future__ import annotations

import os
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.backfills import Process, Weeks, tick, weeks
from support.moves import EXAMPLES
from support.standins import PRICE
from support.world import Crash

from lowtide import openruns
from lowtide.backfill import read_backfill
from lowtide.backfill.allotments import lines_of
from lowtide.budget.account import Account
from lowtide.journal import Journal
from lowtide.ledger import spent

GENEROUS = Decimal(1)
POINTS = 700
"""Points of a backfill of some weeks, about: changes of its store and calls of its provider."""


def check(world: Weeks, cap: Decimal) -> None:
    """What is spent plus allotted is within the cap; each open run is bounded by what it was allotted."""
    months = {path.split("/")[1] for path in world.store.objects if path.startswith("budget/backfill-")}
    assert len(months) <= 1
    for month in months:
        state = Account(world.store, month, "auditor").refresh()
        lines = lines_of(state)
        total = sum((line.reserved + line.spent for line in lines), Decimal(0))
        assert total <= cap
        allotted = {line.run: line.before + line.reserved for line in lines if not line.settled}
        for found in openruns.list_open(world.store):
            run = f"runs/{found.job}/{found.window}/{found.run_id}"
            assert found.asked.max_usd is not None
            assert found.asked.max_usd <= allotted.get(run, GENEROUS)
            if run not in allotted:
                journal = Journal(world.store, run, "auditor").refresh()
                assert journal.published_at, f"{run} is open, and nothing is allotted for it"
    assert world.billed <= cap


def fill(world: Weeks, cap: Decimal, dies_at: int, **how: object) -> bool:
    """One call of the command, which may die; whether it came to its end."""
    process = Process(world, dies_at, on_pause=lambda: check(world, cap))
    try:
        process.run(max_usd=cap, **how)  # type: ignore[arg-type]
    except Crash:
        return False
    finally:
        check(world, cap)
        # The pause of a command that is typed again: claims of dead processes run out.
        world.clock.now += 4_000
        world.answer()
    return not process.dead


@settings(
    max_examples=max(EXAMPLES // 8, 1),
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    count=st.integers(1, 4),
    documents=st.integers(1, 5),
    deaths=st.lists(st.one_of(st.integers(1, 60), st.integers(1, POINTS)), max_size=4),
    part=st.sampled_from([None, Decimal("0.4"), Decimal(1), Decimal("1.5"), Decimal(3)]),
    most=st.integers(1, 4),
    newest_first=st.booleans(),
)
def test_a_backfill_that_dies_anywhere_keeps_its_cap_and_is_finished(
    count: int, documents: int, deaths: list[int], part: Decimal | None, most: int, newest_first: bool
) -> None:
    world = Weeks(weeks(count, documents))
    found, _ = Process(world).plan()
    assert found is not None
    one = max(window.least_usd for window in found.to_do)
    cap = GENEROUS if part is None else one * part
    for dies_at in deaths:
        fill(world, cap, dies_at, most=most, newest_first=newest_first)
    for _ in range(3):
        assert fill(world, cap, 0, most=most, newest_first=newest_first)
    fill(world, GENEROUS, 0, most=most)
    assert world.published() == sorted(world.texts)
    for name, texts in world.texts.items():
        rows = world.rows(name)
        assert sorted(row["document_uri"] for row in rows) == sorted(texts)
        assert {row["status"] for row in rows} == {"ok"}
    assert max(world.provider.asked.values()) == 1, "nothing is bought twice"
    assert not list(openruns.list_open(world.store))
    bought = world.provider.submissions
    assert Process(world).run() is None
    assert world.provider.submissions == bought
    journals = [path.removesuffix("/plan.json") for path in world.store.objects if path.endswith("/plan.json")]
    paid = sum((spent(Journal(world.store, path, "auditor").refresh(), PRICE) for path in journals), Decimal(0))
    assert paid == world.billed
    [month] = {path.split("/")[1] for path in world.store.objects if path.startswith("budget/backfill-")}
    state = Account(world.store, month, "auditor").refresh()
    assert not state.open
    assert sum((line.spent for line in state.lines.values()), Decimal(0)) == world.billed


@pytest.mark.slow
def test_each_point_at_which_a_backfill_may_die() -> None:
    whole = Process(Weeks(weeks(2, 3)))
    assert whole.run(max_usd=GENEROUS) == {"done": 2}
    assert whole.points > 60
    for point in range(1, whole.points + 1):
        world = Weeks(weeks(2, 3))
        assert not fill(world, GENEROUS, point), point
        assert fill(world, GENEROUS, 0), point
        assert world.published() == sorted(world.texts), point
        assert max(world.provider.asked.values()) == 1, point
        assert not list(openruns.list_open(world.store)), point
        assert Process(world).run() is None, point


@pytest.mark.slow
@pytest.mark.parametrize("late", [1, 8])
def test_each_point_at_which_a_backfill_may_die_before_late_documents_come_and_a_tick(late: int) -> None:
    whole = Process(Weeks(weeks(2, 4)))
    found, _ = whole.plan()
    assert found is not None
    cap = found.to_do[0].least_usd * Decimal("1.2")
    assert whole.run(max_usd=cap, most=1)
    for point in range(1, whole.points + 1):
        world = Weeks(weeks(2, 4))
        fill(world, cap, point, most=1)
        kept = read_backfill(world.store, "test", found.id)
        if kept is not None and kept.finished_at:
            break
        world.texts["2026-W02"] |= {f"late/{number}": f"a late text {number}" for number in range(late)}
        assert fill(world, cap, 0, most=1), point
        for _ in range(3):
            tick(world)
            world.clock.now += 60
            world.answer()
            check(world, cap)
        Process(world).run(max_usd=GENEROUS)
        assert world.published() == sorted(world.texts), point
        assert len(world.rows("2026-W02")) == 4 + late, point
        assert max(world.provider.asked.values()) == 1, point
        assert not list(openruns.list_open(world.store)), point
