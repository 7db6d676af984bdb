"""Weeks that are filled: which of them are run, in which order, within which bounds, and what a second call buys."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import msgspec
import pytest
from support.backfills import Process, Weeks, weeks
from support.standins import echo_operation

from lowtide import backfill as domain
from lowtide import openruns
from lowtide.backfill.planning import PlannedWindow
from lowtide.prices import Price

FREE = Price("free", "made up", {})
DEAR = Decimal(1)
"""More than all of the weeks below may cost."""


def needs(planned: tuple[PlannedWindow, ...]) -> dict[str, str]:
    return {found.window.name: found.need.word for found in planned}


def test_each_week_is_published_once_and_a_second_call_buys_nothing() -> None:
    world = Weeks(weeks(5))
    process = Process(world)
    assert process.run() == {"done": 5}
    assert world.published() == sorted(world.texts)
    assert all(len(world.rows(name)) == 4 for name in world.texts)
    assert [each.window for each in process.told] == sorted(world.texts)
    assert sum(each.usd for each in process.told) == world.billed > 0
    assert process.most_open == 3
    bought = world.provider.submissions
    assert Process(world).run() is None
    assert world.provider.submissions == bought
    assert not list(openruns.list_open(world.store))


def test_the_plan_is_what_it_costs_about_and_is_kept_with_the_states() -> None:
    world = Weeks({**weeks(3), "2026-W05": {}})
    found, planned = Process(world).plan()
    assert found is not None
    assert needs(planned) == {"2026-W02": "new", "2026-W03": "new", "2026-W04": "new", "2026-W05": ""}
    assert [window.documents for window in found.to_do] == [4, 4, 4]
    assert found.windows[-1].why == "no documents"
    assert Decimal(0) < found.cost_low_usd <= found.cost_usd <= found.cost_high_usd
    process = Process(world)
    process.run()
    kept = domain.read_backfill(world.store, "test", found.id)
    assert kept is not None
    assert kept.finished_at
    states = list(domain.window_states(world.store, kept, process.allotments(kept)))
    assert [state.stand for state in states] == ["done", "done", "done", "passed over"]
    assert sum(state.usd for state in states) == world.billed
    assert [state.rows for state in states] == [4, 4, 4, 0]


def test_the_newest_week_may_be_the_first() -> None:
    world = Weeks(weeks(4))
    process = Process(world)
    assert process.run(newest_first=True, most=1) == {"done": 4}
    assert [each.window for each in process.told] == sorted(world.texts, reverse=True)
    assert process.most_open == 1


def test_a_week_that_fails_stops_no_other() -> None:
    world = Weeks(weeks(4), broken=frozenset({"2026-W03"}))
    process = Process(world)
    assert process.run(most=2) == {"done": 3, "failed": 1}
    [failed] = [each for each in process.told if each.stand == "failed"]
    assert failed.window == "2026-W03"
    assert "read-only" in failed.why
    world.broken = frozenset()
    assert Process(world).run() == {"done": 1}


# ---- which of the published ones


def test_missing_asks_only_for_documents_that_came_since() -> None:
    world = Weeks(weeks(3))
    Process(world).run()
    world.texts["2026-W03"]["3/late"] = "a late text"
    found, planned = Process(world).plan()
    assert found is not None
    assert needs(planned) == {"2026-W02": "", "2026-W03": "late", "2026-W04": ""}
    assert (found.to_do[0].requests, found.to_do[0].cached, found.to_do[0].replaces_rows) == (1, 4, 4)
    before = sum(world.provider.asked.values())
    assert Process(world).run() == {"done": 1}
    assert sum(world.provider.asked.values()) - before == 1
    assert len(world.rows("2026-W03")) == 5


def test_missing_does_not_look_at_a_document_that_was_only_touched() -> None:
    world = Weeks(weeks(2))
    Process(world).run()
    world.texts["2026-W02"]["2/d1"] = "another text of a document that has its row"
    _, planned = Process(world).plan()
    assert needs(planned) == {"2026-W02": "", "2026-W03": ""}


def test_changed_buys_what_has_changed_and_nothing_else() -> None:
    world = Weeks(weeks(3), operations=(echo_operation(), echo_operation("second")))
    Process(world).run()
    assert Process(world).run("changed") is None
    before = sum(world.provider.asked.values())
    world.operations = (echo_operation(), echo_operation("third"))
    _, missing = Process(world).plan()
    assert set(needs(missing).values()) == {""}
    assert "--reprocess changed" in missing[0].shown.why
    found, planned = Process(world).plan("changed")
    assert found is not None
    assert set(needs(planned).values()) == {"changed"}
    assert [(window.requests, window.cached) for window in found.to_do] == [(4, 4)] * 3
    assert Process(world).run("changed") == {"done": 3}
    assert sum(world.provider.asked.values()) - before == 12
    assert {row["operation"] for row in world.rows("2026-W02")} == {"echo", "third"}
    assert Process(world).run("changed") is None


def test_failed_asks_again_what_has_no_answer_once() -> None:
    world = Weeks(weeks(3), kinds={"week 3 text 1": "invalid"})
    assert Process(world).run() == {"done": 2, "incomplete": 1}
    assert Process(world).run() is None
    _, planned = Process(world).plan("failed")
    assert needs(planned) == {"2026-W02": "", "2026-W03": "failed", "2026-W04": ""}
    before = sum(world.provider.asked.values())
    assert Process(world).run("failed") == {"incomplete": 1}
    asked = sum(world.provider.asked.values())
    assert asked - before == 2, "one text, which may be tried twice"
    assert Process(world).run("failed") is None, "what failed again is not asked a third time by the same command"
    world.kinds.clear()
    assert Process(world).run("failed", again=True) == {"done": 1}
    assert sum(world.provider.asked.values()) - asked == 1
    assert {row["status"] for row in world.rows("2026-W03")} == {"ok"}


def test_all_asks_everything_anew_once() -> None:
    world = Weeks(weeks(2))
    Process(world).run()
    assert Process(world).run("all") == {"done": 2}
    assert sum(world.provider.asked.values()) == 16
    assert Process(world).run("all") is None
    assert sum(world.provider.asked.values()) == 16
    assert Process(world).run("all", again=True) == {"done": 2}
    assert sum(world.provider.asked.values()) == 24


# ---- money


def test_the_cap_leaves_the_weeks_that_do_not_fit_and_the_same_command_goes_on() -> None:
    world = Weeks(weeks(6))
    found, _ = Process(world).plan()
    assert found is not None
    cap = max(window.least_usd for window in found.to_do)
    first = Process(world)
    ended = first.run(max_usd=cap)
    assert ended == {"done": 1, "over budget": 5}, "what is left is less than another week may need"
    assert 0 < world.billed <= cap
    kept = domain.read_backfill(world.store, "test", found.id)
    assert kept is not None
    assert not kept.finished_at
    assert Process(world).run(max_usd=DEAR) == {"done": ended["over budget"]}
    assert world.published() == sorted(world.texts)


def test_a_cap_below_the_cheapest_week_buys_nothing() -> None:
    world = Weeks(weeks(3))
    assert Process(world).run(max_usd=Decimal("0.000001")) == {"over budget": 3}
    assert not world.provider.submissions
    assert not list(openruns.list_open(world.store))


def test_a_cheaper_week_goes_on_where_a_dearer_one_does_not_fit() -> None:
    world = Weeks({**weeks(1, documents=40), "2026-W03": {"3/d": "a small text"}})
    found, _ = Process(world).plan()
    assert found is not None
    cap = found.to_do[1].least_usd * 2
    assert cap < found.to_do[0].least_usd
    process = Process(world)
    assert process.run(max_usd=cap) == {"done": 1, "over budget": 1}
    assert [each.window for each in process.told] == ["2026-W03", "2026-W02"]


def test_a_run_that_was_allotted_too_little_is_opened_again_with_more() -> None:
    world = Weeks(weeks(2, documents=30))
    process = Process(world)
    found, planned = process.plan(max_usd=DEAR)
    assert found is not None
    small = [
        PlannedWindow(
            each.window,
            domain.WindowPlan(
                each.window.name,
                each.shown.start,
                each.shown.end,
                needs="new",
                worst_usd=each.shown.worst_usd / 18,
                least_usd=each.shown.worst_usd / 18,
            ),
            each.need,
            each.plan,
        )
        for each in planned
    ]
    ended = process.drive(found, process.allotments(found), 2).run(small)
    assert Counter(each.stand for each in ended) == {"done": 2}
    assert all(len(world.rows(name)) == 30 for name in world.texts)
    lines = process.allotments(found).lines()
    assert len(lines) > 2
    assert sum(line.spent for line in lines) == world.billed


def test_weeks_that_nobody_has_approved_wait_and_cost_nothing() -> None:
    world = Weeks(weeks(2), approve_above_usd=Decimal(0))
    process = Process(world)
    assert process.run() == {"approval": 2}
    assert not world.provider.submissions
    assert all(each.why.startswith("lowtide approve ") for each in process.told)
    found, _ = Process(world).plan()
    assert found is not None
    assert Process(world).run(approved_usd=found.cost_usd) == {"done": 2}


def test_an_approval_covers_no_more_than_was_shown() -> None:
    world = Weeks(weeks(4), approve_above_usd=Decimal(0))
    found, _ = Process(world).plan()
    assert found is not None
    one = found.to_do[0].cost_usd
    assert Process(world).run(approved_usd=one / 2) == {"approval": 4}
    assert not world.provider.submissions
    assert Process(world).run(approved_usd=one) == {"done": 4}, "what ends for less than expected makes room"


def test_documents_that_come_after_the_approval_are_not_bought_unseen() -> None:
    world = Weeks(weeks(2))
    process = Process(world)
    found, planned = process.plan()
    assert found is not None
    found = msgspec.structs.replace(found, approved_usd=found.cost_usd)
    world.texts["2026-W02"]["2/late"] = "one text more, which is covered"
    world.texts["2026-W03"] |= {f"3/late{number}": f"a late text {number}" for number in range(40)}
    ended = process.drive(found, process.allotments(found), 2).run(planned)
    assert {each.window: each.stand for each in ended} == {"2026-W02": "done", "2026-W03": "failed"}
    assert "was not approved" in process.told[0].why + process.told[1].why
    assert sum(world.provider.asked.values()) == 5
    again, _ = Process(world).plan()
    assert again is not None
    assert [window.requests for window in again.to_do] == [44]


def test_nothing_is_reserved_where_nothing_costs() -> None:
    world = Weeks(weeks(2), price=FREE)
    assert Process(world).run(max_usd=Decimal(1)) == {"done": 2}
    assert Process(world).run() is None


# ---- stopping


def test_what_is_done_stays_when_the_rest_is_cancelled() -> None:
    world = Weeks(weeks(5))
    process = Process(world)

    def stop() -> None:
        if len(process.told) >= 2:
            raise KeyboardInterrupt

    process.on_pause = stop
    with pytest.raises(KeyboardInterrupt):
        process.run(most=2)
    done = world.published()
    assert len(done) >= 2
    world.answer()
    ended = Process(world).cancel()
    assert not list(openruns.list_open(world.store))
    assert set(ended) <= {"cancelled", "done"}
    assert all(len(world.rows(name)) == 4 for name in done)
    found, _ = Process(world).plan()
    assert found is not None
    assert not [line for line in Process(world).allotments(found).lines() if not line.settled]
    assert Process(world).run() is not None
    assert world.published() == sorted(world.texts)
    assert all({row["status"] for row in world.rows(name)} == {"ok"} for name in world.texts)
    assert Process(world).run() is None


def test_a_run_of_a_week_that_somebody_has_begun_is_taken_over() -> None:
    world = Weeks(weeks(2))
    process = Process(world)
    found, planned = process.plan()
    assert found is not None
    opened = domain.open_window(
        planned[0], process.work_of(planned[0].window), found, process.allotments(found), clock=world.clock
    )
    assert opened is not None
    opened.run.advance()
    assert world.provider.submissions
    again, begun = Process(world).plan()
    assert again is not None
    assert needs(begun)["2026-W02"] == "begun"
    assert again.to_do[0].begun
    assert Process(world).run() == {"done": 2}
    assert max(world.provider.asked.values()) == 1


def test_a_week_whose_documents_change_while_its_run_is_open_pays_once_and_settles_both_runs() -> None:
    world = Weeks(weeks(2))
    process = Process(world)
    found, planned = process.plan(max_usd=DEAR)
    assert found is not None
    opened = domain.open_window(
        planned[0], process.work_of(planned[0].window), found, process.allotments(found), clock=world.clock
    )
    assert opened is not None
    opened.run.advance()
    world.texts["2026-W02"]["2/late"] = "a late text"
    assert Process(world).run(max_usd=DEAR) == {"done": 2}
    assert len(world.rows("2026-W02")) == 5
    assert not list(openruns.list_open(world.store))
    lines = process.allotments(found).lines()
    assert len(lines) == 3
    assert all(line.settled for line in lines)
    assert sum(line.spent for line in lines) == world.billed
