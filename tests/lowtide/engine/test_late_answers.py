"""Which answer counts for later runs when the run that was begun first is the last to keep its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.engine_support import Clock, finish, results
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, ok, work_on

from lowtide.engine import open_run
from lowtide.records import FileInfo

TEXTS: dict[str, str | None] = {f"d{number}": f"text {number}" for number in range(3)}


class DatedStore(MemoryStore):
    """Each file is newer than those before it, as they are on a disk or in a bucket."""

    def __init__(self) -> None:
        super().__init__()
        self._order: list[str] = []

    def _info(self, path: str) -> FileInfo:
        at = datetime(2026, 11, 1, tzinfo=UTC)
        if path in self._order:
            at += timedelta(seconds=self._order.index(path))
        return replace(super()._info(path), modified=at)

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        done = super().replace(path, source, expected=expected)
        if path not in self._order:
            self._order.append(path)
        return done


def test_a_run_that_ends_late_does_not_bring_back_what_was_asked_anew_after_it_was_begun() -> None:
    store, clock = DatedStore(), Clock()
    before, after = (Provider(lambda request, nth, said=said: [ok(request, said)]) for said in ("old", "new"))
    slow = work_on(store, StandInBackend(before, instantly=False), ListedDocuments(TEXTS))
    first = open_run(replace(slow, job="slow"), clock=clock)
    first.advance()
    quick = work_on(store, StandInBackend(after), ListedDocuments(TEXTS))
    assert finish(open_run(replace(quick, job="quick", refresh=True), clock=clock), seconds=1, clock=clock).done
    for batch in before.batches:
        before.finish(batch)
    assert finish(first, seconds=1, clock=clock).done
    assert len(list(store.list("cache/"))) == 2, "both have kept their answers"

    assert finish(open_run(quick, clock=clock), seconds=1, clock=clock).done

    assert {(row["output_text"], row["cached"]) for row in results(store)} == {("new", True)}
    assert set(after.processed.values()) == {1}
