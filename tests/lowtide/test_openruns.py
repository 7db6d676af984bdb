"""Notes of open runs: how each was asked for, and what bounds it until it is done."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.standins import MemoryStore

from lowtide.errors import CorruptJournal
from lowtide.openruns import Asked, OpenRun, bounded, close, ids_of, list_open, read_asked, write_asked

ONE = Decimal(1)


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


def test_a_note_that_cannot_be_read_is_named() -> None:
    root = MemoryStore()
    root.write("open/weekly/all/0123", b"")
    with pytest.raises(CorruptJournal, match="open/weekly/all/0123"):
        read_asked(root, "weekly", "all", "0123")


@pytest.mark.parametrize(
    ("asked", "before", "found"),
    [
        (Asked("b"), None, Asked("b")),
        # Who asks again without a cap does not lift the one that was asked for.
        (Asked("b"), Asked("a", ONE), Asked("b", ONE)),
        (Asked("b", Decimal(3)), Asked("a", ONE), Asked("b", Decimal(3))),
        # The money of a backfill is its own.
        (Asked("b", Decimal(3)), Asked("a", ONE, backfill="f"), Asked("b", ONE, backfill="f")),
        (Asked("b"), Asked("a", ONE, backfill="f"), Asked("b", ONE, backfill="f")),
        (Asked("b", Decimal(3), backfill="f"), Asked("a", ONE, backfill="f"), Asked("b", Decimal(3), backfill="f")),
    ],
)
def test_a_run_keeps_to_what_bounds_it(asked: Asked, before: Asked | None, found: Asked) -> None:
    assert bounded(asked, before) == found
