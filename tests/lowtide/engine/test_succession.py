"""Runs that follow each other over the same window, and what becomes of the one before."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from support.engine_support import Clock, billed, finish, ledger_tokens, results, statuses
from support.standins import SMALL, ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on

from lowtide.engine import Run, find_run, is_published, open_run, wind_down, with_chores
from lowtide.errors import Transient
from lowtide.events import CancelRequested
from lowtide.shards import Phase

TEXTS = {f"d{number}": f"text {number}" for number in range(6)}
OTHER = {**TEXTS, "d0": "another text"}


def test_what_a_superseded_run_has_cost_stands_in_its_ledger() -> None:
    store, provider = MemoryStore(), Provider()
    begun = open_run(work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS)))
    begun.advance()
    later = open_run(work_on(store, StandInBackend(provider), ListedDocuments(OTHER)))
    assert finish(later).done
    assert ledger_tokens(store, begun) + ledger_tokens(store, later) == provider.bill
    assert all(batch.outcome for batch in provider.batches.values())
    assert "another text" in {row["output_text"] for row in results(store)}
    assert not list(store.list("open/test/all/"))


def test_a_superseded_run_goes_on_when_its_documents_are_back() -> None:
    store, provider = MemoryStore(), Provider()
    first = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS))
    open_run(first).advance()
    assert finish(open_run(work_on(store, StandInBackend(provider), ListedDocuments(OTHER)))).done
    back = open_run(replace(first, backend=StandInBackend(provider)))
    assert finish(back).done
    assert statuses(store) == {"ok": 6}
    assert max(provider.processed[text] for text in TEXTS.values() if text != "text 0") <= 2
    assert billed(store, back) == ledger_tokens(store, back)


def test_a_run_that_was_cut_short_leaves_a_complete_table_to_its_readers() -> None:
    store, provider = MemoryStore(), Provider()
    assert finish(open_run(work_on(store, StandInBackend(provider), ListedDocuments(TEXTS)))).done
    others = {uri: "another text" if uri == "d0" else f"another {text}" for uri, text in TEXTS.items()}
    work = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(others))
    second = open_run(work)
    second.advance()
    second.context.journal.append(CancelRequested(at=second.context.clock()))
    assert finish(second).done
    assert statuses(store) == {"ok": 6}
    assert "another text" not in {row["output_text"] for row in results(store)}
    assert second.state.kept
    assert not is_published(second)
    assert finish(open_run(replace(work, backend=StandInBackend(provider)))).done
    assert "another text" in {row["output_text"] for row in results(store)}


def test_a_run_over_budget_buys_nothing_more_with_the_same_budget() -> None:
    store, provider = MemoryStore(), Provider()
    work = work_on(
        store, StandInBackend(provider), ListedDocuments(TEXTS), shard_records=2, run_usd=Decimal("0.0005"), attempts=1
    )
    assert finish(open_run(work)).done
    before = dict(provider.bill)
    for _ in range(3):
        again = open_run(work)
        assert is_published(again)
        assert finish(again).done
    assert dict(provider.bill) == before
    assert statuses(store) == {"skipped": 6}


def test_a_clock_that_is_ahead_elsewhere_does_not_keep_a_later_run_from_publishing() -> None:
    store, provider, ahead = MemoryStore(), Provider(), Clock()
    ahead.now += 3600
    assert finish(open_run(work_on(store, StandInBackend(provider), ListedDocuments(TEXTS)), clock=ahead)).done
    later = open_run(work_on(store, StandInBackend(provider), ListedDocuments(OTHER)), clock=Clock())
    assert finish(later).done
    assert "another text" in {row["output_text"] for row in results(store)}


def test_a_passing_failure_is_left_to_the_next_pass() -> None:
    store, provider = MemoryStore(), Provider()
    failures = [Transient("the listing did not answer")] * 2

    class Flaky(StandInBackend):
        def outputs(self, batch_id: str):  # type: ignore[no-untyped-def]  # as StandInBackend says
            if failures:
                raise failures.pop()
            return super().outputs(batch_id)

    run = open_run(work_on(store, Flaky(provider), ListedDocuments(TEXTS)))
    assert finish(run).done
    assert not failures
    assert statuses(store) == {"ok": 6}


def test_trouble_without_end_is_reported_in_the_end() -> None:
    class Broken(StandInBackend):
        def outputs(self, batch_id: str):  # type: ignore[no-untyped-def]  # as StandInBackend says
            raise Transient("the output cannot be reached")

    run = open_run(work_on(MemoryStore(), Broken(Provider()), ListedDocuments(TEXTS)))
    with pytest.raises(Transient, match="cannot be reached"):
        finish(run)


def test_a_run_whose_prompt_has_changed_is_stopped_and_waits_for_the_job_file_to_be_put_back() -> None:
    store, provider = MemoryStore(), Provider()
    work = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS))
    open_run(work).advance()
    changed = find_run(replace(work, operations=(echo_operation("renamed"),)))
    assert changed is not None
    assert not wind_down(changed)
    assert wind_down(changed)
    assert all(batch.outcome == "cancelled" for batch in provider.batches.values())
    assert finish(open_run(replace(work, backend=StandInBackend(provider)))).done
    assert statuses(store) == {"ok": 6}
    assert max(provider.processed.values()) == 1


def test_a_slow_owner_that_is_known_to_live_is_not_robbed() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = work_on(store, StandInBackend(provider), ListedDocuments(TEXTS), shard_records=10)
    slow = open_run(work, clock=clock)
    other = open_run(work, clock=clock)
    other.context.alive = lambda owner: True

    def suspended(token: str) -> None:
        clock.now += 3_000
        other.advance()

    slow.context.work = replace(work, backend=StandInBackend(provider, before=suspended))
    assert finish(slow).done
    assert len(provider.batches) == 1
    assert billed(store, slow) == provider.bill


def test_advance_finds_the_runs_before_it() -> None:
    store, provider = MemoryStore(), Provider()
    slow = StandInBackend(provider, instantly=False, limits=replace(SMALL, live_batches=1))
    begun = open_run(work_on(store, slow, ListedDocuments(TEXTS)))
    begun.advance()
    later = work_on(store, StandInBackend(provider), ListedDocuments(OTHER))
    open_run(later)
    found = find_run(later)
    assert isinstance(found, Run)
    assert len(with_chores(found).chores) == 1
    assert finish(found).done
    assert begun.refresh().cancelled
    assert {shard.phase for shard in begun.state.shards.values()} == {Phase.SETTLED}
