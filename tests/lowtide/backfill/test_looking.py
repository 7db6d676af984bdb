"""What is found for one window: which of the published ones are run again when the job's time zone has changed."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from support.backfills import Process, Weeks, weeks

from lowtide import backfill as domain
from lowtide.backfill import PlannedWindow, Reprocess
from lowtide.windows import Window, parse_window

NAME = "2026-W02"
HERE = "Europe/Paris"


def window(zone: str) -> Window:
    return parse_window(NAME, ZoneInfo(zone))


def seen(world: Weeks, zone: str, reprocess: Reprocess = "missing") -> PlannedWindow:
    """The week of that zone, as a backfill finds it."""
    process = Process(world)
    return domain.plan_window(
        window(zone), process.work_of(window(zone)), reprocess, "0123456789abcdef", clock=world.clock
    )


def fill(world: Weeks, zone: str) -> None:
    """Run the week of that zone by a backfill of its own."""
    process = Process(world)
    found, _ = process.plan()
    assert found is not None
    ended = process.drive(found, process.allotments(found), 1).run([seen(world, zone)])
    assert [each.stand for each in ended] == ["done"]
    domain.conclude(world.store, found, ["done"], at=world.clock())


@pytest.mark.parametrize("late", [False, True])
def test_a_week_that_was_published_for_other_hours_is_run_whether_or_not_a_document_is_new(late: bool) -> None:
    world = Weeks(weeks(1))
    fill(world, "UTC")
    if late:
        world.texts[NAME]["2/late"] = "a text of the hour that the week has won"
    else:
        # The row of a document that belongs to the week after by now.
        world.texts[NAME].pop("2/d3")
    asked = sum(world.provider.asked.values())
    planned = seen(world, HERE)
    assert planned.need.word == "moved"
    assert (planned.shown.requests, planned.shown.cached) == ((1, 4) if late else (0, 3))
    fill(world, HERE)
    assert sum(world.provider.asked.values()) - asked == (1 if late else 0)
    rows = world.rows(NAME)
    assert {row["document_uri"] for row in rows} == set(world.texts[NAME])
    assert {row["window_start"] for row in rows} == {window(HERE).start}
    again = seen(world, HERE)
    assert (again.need.word, again.shown.why) == ("", "every document has its row")


def test_the_same_documents_of_other_hours_are_not_taken_for_those_that_are_published() -> None:
    world = Weeks(weeks(1))
    fill(world, HERE)
    assert seen(world, HERE).need.word == ""
    assert seen(world, "UTC").need.word == "moved"
    fill(world, "UTC")
    assert seen(world, "UTC").need.word == ""
    # A zone whose clocks show the same at both bounds has the same hours.
    assert seen(world, "Africa/Abidjan").need.word == ""
    assert {row["window_start"] for row in world.rows(NAME)} == {window("UTC").start}
    fill(world, HERE)
    fill(world, "UTC")
    assert max(world.provider.asked.values()) == 1
