"""What a run may cost unasked, when it turns out to cost more than its plan has said."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from support.engine_support import finish, statuses
from support.standins import PRICE, SMALL, ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide import events as e
from lowtide.budget.approval import approve, awaits_approval, covered_usd, expected_usd
from lowtide.engine import Run, open_run
from lowtide.plan import Work
from lowtide.shards import Phase

TEXTS: dict[str, str | None] = {f"d{number}": f"text {number}" for number in range(4)}
WAITING = "waiting for approval"


def work_above(limit: str, store: MemoryStore, provider: Provider, *, live: int = 4, shard: int = 4) -> Work:
    backend = StandInBackend(provider, limits=replace(SMALL, live_batches=live))
    work = work_on(store, backend, ListedDocuments(TEXTS), price=PRICE, shard_records=shard)
    return replace(work, approve_above_usd=Decimal(limit))


def waits(run: Run) -> bool:
    return run.advance().step.startswith(WAITING)


def test_a_run_that_must_ask_more_than_was_planned_waits_though_its_plan_cost_nothing() -> None:
    """The answers that it had counted on are gone."""
    store, provider = MemoryStore(), Provider()
    work = work_above("0.00000001", store, provider)
    assert finish(open_run(replace(work, job="first", approve_above_usd=None))).done
    run = open_run(work)
    assert run.plan.cost_usd == 0
    for info in list(store.list("cache/")):
        store.delete(info.path)
    bought = provider.bill.copy()
    assert waits(run)
    assert provider.bill == bought
    assert approve(run.context.journal, run.plan, by="somebody", at=1.0)
    assert finish(run).done
    assert statuses(store) == {"ok": 4}
    approved = run.state.approved_usd
    assert approved is not None
    assert approved >= PRICE.amount(provider.bill - bought), "each byte was taken for a token"


def test_a_run_that_asks_no_more_than_was_planned_waits_for_nobody() -> None:
    """Its shards together cost what its plan has said, to the last step, and that is the limit."""
    store, provider = MemoryStore(), Provider()
    planned = open_run(work_above("1", MemoryStore(), provider, shard=3)).plan.cost_usd
    run = open_run(work_above(str(planned), store, provider, shard=3))
    assert finish(run).done
    assert run.state.approved_usd is None


def failed(request: dict[str, str], nth: int) -> list[dict[str, object]]:
    answer = {"record_id": request["id"], "status": "error", "error": "500", "retryable": True}
    return [{**answer, "input_tokens": 1000}]


def test_attempts_that_cost_in_vain_are_asked_about_before_they_cost_more_than_was_approved() -> None:
    store, provider = MemoryStore(), Provider(failed)
    work = replace(work_above("0.000000001", store, provider), attempts=2)
    approved: list[Decimal] = []
    run = open_run(work)
    for attempt in range(4):
        if attempt == 2:
            assert run.state.published_at, "all attempts are used up"
            run = open_run(work, retry=True)
        assert waits(run)
        assert PRICE.amount(provider.bill) == PRICE.amount({"input": 4000 * attempt})
        assert approve(run.context.journal, run.plan, by="somebody", at=1.0)
        approved.append(run.state.approved_usd or Decimal(0))
        run.advance()
    assert approved[0] == run.plan.cost_usd
    assert all(usd > PRICE.amount({"input": 4000 * attempt}) for attempt, usd in enumerate(approved))


def test_a_run_below_the_limit_waits_once_attempts_in_vain_have_brought_it_there() -> None:
    store, provider = MemoryStore(), Provider(failed)
    run = open_run(work_above("0.005", store, provider))
    assert run.plan.cost_usd < Decimal("0.002")
    assert waits(run)
    assert PRICE.amount(provider.bill) == Decimal("0.004")
    assert run.state.approved_usd is None


@pytest.mark.parametrize(("over", "asks"), [("1.2", False), ("1.7", True)])
def test_a_run_is_not_stopped_in_its_middle_because_its_estimate_was_a_little_too_low(over: str, asks: bool) -> None:
    store, provider = MemoryStore(), Provider()
    run = open_run(work_above("0.000000001", store, provider, live=1, shard=2))
    assert waits(run)
    assert approve(run.context.journal, run.plan, by="somebody", at=1.0)
    run.advance()
    first = run.state.attempts["1-1"]
    # The first of two shards has cost so many times what both were expected to.
    tokens = round(run.plan.cost_usd * (Decimal(over) - Decimal("0.5")) / PRICE.unit("input"))
    dearer = msgspec.structs.replace(first, collected_at=1.0, tallies=(e.Tally("input", tokens),))
    second = msgspec.structs.replace(run.state.shards[2], phase=Phase.BUILT, records=2)
    state = msgspec.structs.replace(run.state, attempts={"1-1": dearer}, shards={**run.state.shards, 2: second})
    assert run.plan.cost_usd < expected_usd(run.plan, state)
    assert (covered_usd(run.plan.cost_usd) < expected_usd(run.plan, state)) == asks
    assert awaits_approval(run.plan, state) == asks


def test_nobody_is_asked_to_approve_what_is_over() -> None:
    store, provider = MemoryStore(), Provider(failed)
    run = open_run(replace(work_above("0.003", store, provider), attempts=1))
    assert finish(run).done
    assert expected_usd(run.plan, run.state) > Decimal("0.003")
    assert not run.awaits_approval
    assert not approve(run.context.journal, run.plan, by="somebody", at=1.0)


def test_what_was_shown_is_what_is_approved() -> None:
    """More may be expected by the time that somebody has made up his mind."""
    store, provider = MemoryStore(), Provider(failed)
    run = open_run(work_above("0.000000001", store, provider))
    assert waits(run)
    shown = expected_usd(run.plan, run.state)
    assert approve(run.context.journal, run.plan, by="somebody", at=1.0, usd=shown)
    assert waits(run)
    assert approve(run.context.journal, run.plan, by="somebody", at=2.0, usd=shown)
    assert run.state.approved_usd == shown
    assert run.awaits_approval
