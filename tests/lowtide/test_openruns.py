"""Notes of open runs: how each was asked for, and what bounds it until it is done."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.standins import MemoryStore

from lowtide.errors import CorruptJournal
from lowtide.openruns import (
    MOST_OTHERS,
    Asked,
    OpenRun,
    bounded,
    close,
    close_ended,
    ids_of,
    list_open,
    path_of,
    read_asked,
    write_asked,
)

ONE = Decimal(1)
PLACE = ("weekly", "all", "0123")


def test_a_note_is_found_until_the_run_is_done() -> None:
    root, asked = MemoryStore(), Asked("/jobs/weekly.yaml", Decimal("2.5"), ("bedrock",))
    write_asked(root, "weekly", "2026-W47", "0123", asked)
    write_asked(root, "weekly", "2026-W48", "4567", Asked())
    assert list(list_open(root)) == [
        OpenRun("weekly", "2026-W47", "0123", asked),
        OpenRun("weekly", "2026-W48", "4567", Asked()),
    ]
    assert list(ids_of(root, "weekly", "2026-W47")) == ["0123"]
    close(root, "weekly", "2026-W47", "0123")
    assert read_asked(root, "weekly", "2026-W47", "0123") is None
    assert [found.run_id for found in list_open(root)] == ["4567"]


@pytest.mark.parametrize("note", [b"", b"[]", b'{"max_usd": "much"}', b'{"job_file": "\xff"}'])
def test_a_note_that_cannot_be_read_is_named_and_the_others_are_listed(note: bytes) -> None:
    root = MemoryStore()
    root.write(path_of(*PLACE), note)
    write_asked(root, "yearly", "all", "4567", Asked("a"))
    with pytest.raises(CorruptJournal, match="open/weekly/all/0123"):
        read_asked(root, *PLACE)
    broken, whole = list_open(root)
    assert (broken.run_id, broken.asked) == ("0123", Asked())
    assert "open/weekly/all/0123: not a note" in broken.unreadable
    assert "write {} into it" in broken.unreadable
    assert whole == OpenRun("yearly", "all", "4567", Asked("a"))


def test_a_note_is_taken_back_once_the_run_has_ended() -> None:
    root = MemoryStore()
    write_asked(root, *PLACE, Asked("a"))
    close_ended(root, *PLACE, lambda: False)
    assert read_asked(root, *PLACE) == Asked("a")
    close_ended(root, *PLACE, lambda: True)
    assert read_asked(root, *PLACE) is None
    close_ended(root, *PLACE, lambda: False)
    assert read_asked(root, *PLACE) is None


def test_a_note_of_somebody_who_asks_while_it_is_taken_back_stays() -> None:
    root = MemoryStore()
    write_asked(root, *PLACE, Asked("a"))

    def asked_again() -> bool:
        write_asked(root, *PLACE, Asked("b", ONE))
        return False

    close_ended(root, *PLACE, asked_again)
    assert read_asked(root, *PLACE) == Asked("b", ONE)


@pytest.mark.parametrize(
    ("asked", "before", "found"),
    [
        (Asked("b"), None, Asked("b")),
        # Who asks again without a cap does not lift the one that was asked for.
        (Asked("a"), Asked("a", ONE), Asked("a", ONE)),
        (Asked("a", Decimal(3)), Asked("a", ONE), Asked("a", Decimal(3))),
        # The money of a backfill is its own.
        (Asked("a", Decimal(3)), Asked("a", ONE, backfill="f"), Asked("a", ONE, backfill="f")),
        (Asked("a"), Asked("a", ONE, backfill="f"), Asked("a", ONE, backfill="f")),
        (Asked("a", Decimal(3), backfill="f"), Asked("a", ONE, backfill="f"), Asked("a", Decimal(3), backfill="f")),
        # Each machine has its own job file.
        (Asked("b"), Asked("a"), Asked("b", others=("a",))),
        (Asked("b", backfill="f"), Asked("a"), Asked("b", backfill="f", others=("a",))),
        (Asked("a"), Asked("b", others=("a", "c")), Asked("a", others=("b", "c"))),
        (Asked(), Asked("a"), Asked("a")),
    ],
)
def test_a_run_keeps_to_what_bounds_it(asked: Asked, before: Asked | None, found: Asked) -> None:
    assert bounded(asked, before) == found


def test_a_handful_of_job_files_is_kept_the_newest_first() -> None:
    asked: Asked | None = None
    for number in range(20):
        asked = bounded(Asked(f"/{number}"), asked)
    assert asked is not None
    assert asked.job_files == tuple(f"/{number}" for number in range(19, 18 - MOST_OTHERS, -1))
    root = MemoryStore()
    write_asked(root, *PLACE, asked)
    assert read_asked(root, *PLACE) == asked
