"""All runs of a root: the open ones as their journals have them, the done ones without a look at theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from support.engine_support import Clock, finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide.engine import Run, open_run
from lowtide.events import CancelRequested
from lowtide.openruns import Asked, path_of
from lowtide.records import FileInfo
from lowtide.status import (
    APPROVAL,
    ASKING,
    BUILDING,
    CANCELLED,
    DONE,
    OVER_BUDGET,
    STUCK,
    UNREADABLE,
    RunStatus,
    age_in_words,
    root_status,
)
from lowtide.windows import parse_window

TEXTS: dict[str, str | None] = {f"d{number}": f"text {number}" for number in range(10)}
EACH = Decimal("0.000014")


def begun(store: MemoryStore, provider: Provider, clock: Clock, *, instantly: bool = False, **changes: object) -> Run:
    backend = StandInBackend(provider, instantly=instantly)
    work = replace(work_on(store, backend, ListedDocuments(TEXTS)), **changes)  # type: ignore[arg-type]
    return open_run(work, clock=clock)


def statuses(store: MemoryStore, clock: Clock, **options: int) -> list[RunStatus]:
    return list(root_status(store, now=clock(), **options).runs)


def test_an_open_run_says_what_it_does_and_who_began_it() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    run = begun(store, provider, clock, asked=Asked("jobs/weekly.yaml", backfill="b1"))
    [status] = statuses(store, clock)
    assert (status.state, status.open, status.job_file, status.backfill) == (BUILDING, True, "jobs/weekly.yaml", "b1")
    run.advance()
    clock.now += 600
    provider.finish("b1")
    run.advance()
    clock.now += 600
    [status] = statuses(store, clock)
    assert (status.state, status.documents, status.requests, status.answered) == (ASKING, 10, 10, 4)
    assert status.cost_usd == 4 * EACH
    assert status.batches == 2
    assert 1199 < clock.now - status.oldest_batch < 1201
    # Four of ten in twenty minutes: six more take thirty.
    assert abs(status.expected - (clock.now + 1800)) < 5
    assert not status.late
    provider.finish("b2")
    provider.finish("b3")
    run.advance()
    [status] = statuses(store, clock)
    assert (status.state, status.open, status.cost_usd) == (DONE, False, 10 * EACH)
    assert status.finished >= status.started > 0


class CountingStore(MemoryStore):
    """Notes what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_paths: list[str] = []

    def read(self, path: str) -> bytes:
        self.read_paths.append(path)
        return super().read(path)

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        self.read_paths.append(f"list {prefix}")
        return super().list(prefix, after=after)


def test_of_runs_that_are_done_one_row_is_read_and_no_journal() -> None:
    store, provider, clock = CountingStore(), Provider(), Clock()
    for window in ("2026-01", "2026-02", "2026-03"):
        for number in range(4):
            texts = {**TEXTS, "more": f"text of {window} {number}"}
            work = work_on(store, StandInBackend(provider), ListedDocuments(texts))
            assert finish(open_run(replace(work, window=parse_window(window)), clock=clock)).done
    store.read_paths.clear()
    found = statuses(store, clock, last=2)
    assert [run.window for run in found] == ["2026-01"] * 2 + ["2026-02"] * 2 + ["2026-03"] * 2
    assert {run.state for run in found} == {DONE}
    assert len(store.read_paths) == 2 + 6
    assert not [path for path in store.read_paths if "runs/test" in path or "journal" in path]


def test_states_that_want_somebody_are_told_with_what_to_do() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    waiting = begun(store, provider, clock, job="asks", approve_above_usd=Decimal("0.0000001"))
    waiting.advance()
    stopped = begun(store, provider, clock, job="cancelled")
    stopped.advance()
    stopped.context.journal.append(CancelRequested(at=clock()))
    asking = begun(store, provider, clock, job="slow")
    asking.advance()
    states = {run.job: run for run in statuses(store, clock)}
    assert states["asks"].state == APPROVAL
    assert states["asks"].reason == f"lowtide approve {waiting.plan.run_id}"
    assert states["cancelled"].state == CANCELLED
    assert states["slow"].state == ASKING
    clock.now = asking.plan.deadline + 2 * 3600
    states = {run.job: run for run in statuses(store, clock)}
    assert states["slow"].state == STUCK
    assert "lowtide run" in states["slow"].reason
    assert states["asks"].state == APPROVAL


def test_a_run_that_ended_at_its_cap_is_over_budget() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    run = begun(store, provider, clock, instantly=True, run_usd=Decimal("0.0000001"))
    assert finish(run).done
    [status] = statuses(store, clock)
    assert (status.state, status.open, status.answered) == (OVER_BUDGET, False, 0)


def test_a_late_run_says_so() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    run = begun(store, provider, clock)
    run.advance()
    clock.now += 20 * 3600
    provider.finish("b1")
    run.advance()
    [status] = statuses(store, clock)
    assert status.late


def test_one_that_cannot_be_read_is_told_of_and_the_others_are_shown() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    broken = begun(store, provider, clock, job="broken")
    begun(store, provider, clock, job="well")
    store.write(f"{broken.plan.prefix}/plan.json", b"{")
    store.write("tables/runs/job=x/window=all/0123456789abcdef.parquet", b"no parquet")
    found = root_status(store, now=clock())
    assert [(run.job, run.state) for run in found.runs] == [("broken", UNREADABLE), ("well", BUILDING)]
    assert len(found.warnings) == 2
    assert broken.plan.run_id in found.warnings[0]


def test_a_run_whose_note_cannot_be_read_is_shown_with_what_to_do_and_so_are_the_others() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    asking = begun(store, provider, clock, job="broken")
    asking.advance()
    begun(store, provider, clock, job="well")
    path = path_of("broken", asking.plan.window, asking.plan.run_id)
    store.write(path, b"{")
    store.write("open/nowhere/all/0123456789abcdef", b"")
    found = root_status(store, now=clock())
    assert [(run.job, run.state) for run in found.runs] == [
        ("broken", UNREADABLE),
        ("nowhere", UNREADABLE),
        ("well", BUILDING),
    ]
    broken = found.runs[0]
    # Its batches are out and paid for all the same.
    assert (broken.batches, broken.requests) == (3, 10)
    assert store.uri_of(path) in broken.reason
    assert "write {} into it" in broken.reason
    assert [warning.split(": ")[0] for warning in found.warnings] == [
        store.uri_of(path),
        store.uri_of("open/nowhere/all/0123456789abcdef"),
    ]


def test_ages_fit_five_characters() -> None:
    assert [age_in_words(s) for s in (0, 59, 60, 3599, 7200, 86_400, 400 * 86_400.0)] == [
        "0s", "59s", "1m", "60m", "2h", "1d", "400d",
    ]  # fmt: skip
