"""Which run is meant: the backend that it was begun at, and whether everything is asked anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from support.engine_support import finish, results
from support.standins import SMALL, ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on
from support.world import Clock

from lowtide.engine import Run, apply_plan, find_run, is_published, open_run, plan_run
from lowtide.errors import ConfigError, StalePlan
from lowtide.inputs import list_inputs
from lowtide.plan import Candidate, Work, run_id_of
from lowtide.planning.making import LATE
from lowtide.prices import Price
from lowtide.prices.by_time import Pace, price_by_time

TEXTS: dict[str, str | None] = {f"d{number}": f"text {number}" for number in range(6)}


class Second(StandInBackend):
    name = "second"
    model = "echo-2"


def price(usd: str) -> Price:
    return Price(f"at {usd}", "made up", {"input": Decimal(usd), "output": Decimal(usd)})


class World:
    """A root, two providers, and a job that allows both."""

    def __init__(self) -> None:
        self.store, self.first, self.second = MemoryStore(), Provider(), Provider()
        self.texts = dict(TEXTS)

    def work(self, *, prices: tuple[str, str] = ("0.00001", "0.00002"), **changes: object) -> Work:
        backends = (StandInBackend(self.first), Second(self.second))
        candidates = tuple(Candidate(made, price(usd)) for made, usd in zip(backends, prices, strict=True))
        work = work_on(self.store, backends[0], ListedDocuments(self.texts))
        return replace(work, **{"candidates": candidates, "price": candidates[0].price, **changes})  # type: ignore[arg-type]

    def run(self, **changes: object) -> Run:
        run = open_run(self.work(**changes))  # type: ignore[arg-type]
        assert finish(run).done
        return run

    @property
    def processed(self) -> tuple[int, int]:
        return sum(self.first.processed.values()), sum(self.second.processed.values())


def test_the_cheapest_is_asked_and_the_others_are_in_the_plan_with_their_reasons() -> None:
    world = World()
    run = world.run(prices=("0.00002", "0.00001"))
    assert world.processed == (0, 6)
    assert (run.plan.backend, run.plan.price_id, run.plan.documents.asked) == ("second", "at 0.00001", 6)  # type: ignore[union-attr]
    assert [(found.backend, found.chosen) for found in run.plan.options] == [("stand-in", False), ("second", True)]
    assert run.plan.options[0].why_not.endswith("USD more")
    assert {row["backend"] for row in results(world.store)} == {"second"}


def test_a_run_goes_on_where_it_was_begun_when_another_backend_has_become_cheaper() -> None:
    world = World()
    begun = open_run(world.work())
    begun.advance()
    assert world.processed[1] == 0
    again = world.run(prices=("0.00002", "0.00001"))
    assert again.plan.run_id == begun.plan.run_id
    assert again.context.work.price.price_id == "at 0.00001" == begun.plan.price_id
    assert world.processed == (6, 0)
    assert is_published(open_run(world.work(prices=("0.00002", "0.00001"))))


def test_a_run_whose_backend_the_job_no_longer_names_is_not_gone_on_with() -> None:
    world = World()
    run = open_run(world.work())
    [_, second] = world.work().candidates
    left = find_run(replace(world.work(), candidates=(second,)).choosing(second), run_id=run.plan.run_id)
    assert left is not None
    with pytest.raises(StalePlan, match="another backend, model or parameters"):
        left.advance()


def test_a_backend_that_cannot_do_an_operation_is_left_out_and_none_that_can_is_an_error(tmp_path: Path) -> None:
    class Able(Second):
        def refusal(self, operation: object) -> str | None:
            return None

    world = World()
    work = world.work(operations=(replace(echo_operation("fr"), kind="translate"),))
    with pytest.raises(ConfigError, match=r"'fr': the stand-in does not translate\n.*'fr'"):
        plan_run(work)
    first = work.candidates[0]
    able = replace(work, candidates=(first, Candidate(Able(world.second), price("9"))))
    plan = plan_run(able)
    assert plan.backend == "second"
    assert plan.options[0].why_not == "cannot do operation 'fr': the stand-in does not translate"


def test_the_order_of_backends_and_their_prices_do_not_make_another_run_and_their_models_do(tmp_path: Path) -> None:
    work = World().work()
    inputs = list_inputs(work.documents, tmp_path / "inputs.parquet")
    turned = replace(work, candidates=work.candidates[::-1])
    assert run_id_of(work, inputs.sha256) == run_id_of(turned, inputs.sha256)
    assert run_id_of(work, inputs.sha256) == run_id_of(World().work(prices=("1", "2")), inputs.sha256)
    fewer = replace(work, candidates=work.candidates[:1])
    assert run_id_of(fewer, inputs.sha256) != run_id_of(work, inputs.sha256)
    assert run_id_of(work, inputs.sha256, 1) != run_id_of(work, inputs.sha256)


def test_refresh_asks_everything_anew_and_a_plain_run_after_it_nothing() -> None:
    world = World()
    first = world.run()
    second = world.run(refresh=True)
    assert world.processed == (12, 0)
    assert (first.plan.refresh, second.plan.refresh) == (0, 1)
    plain = open_run(world.work())
    assert plain.plan.run_id == second.plan.run_id
    assert is_published(plain)
    assert world.run(refresh=True).plan.refresh == 2
    assert world.processed == (18, 0)


def test_a_refresh_that_was_stopped_is_gone_on_with_by_either_command() -> None:
    world = World()
    world.run()
    begun = open_run(world.work(refresh=True))
    assert open_run(world.work(refresh=True)).plan.run_id == begun.plan.run_id
    plain = open_run(world.work())
    assert plain.plan.run_id == begun.plan.run_id
    # The run knows that it asks anew, whoever drives it.
    assert finish(plain).done
    assert world.processed == (12, 0)


def test_a_run_without_a_deadline_that_can_be_met_says_so_loudly() -> None:
    world = World()
    slow = StandInBackend(world.first, limits=replace(SMALL, turnaround_seconds=7200.0))
    plan = plan_run(world.work(candidates=(Candidate(slow, price("1")),), deadline=timedelta(hours=1)))
    assert plan.notes[0] == f"{LATE} no backend is expected to meet the deadline; stand-in is done first, 1 h after it"


def test_a_shard_that_no_cap_has_room_for_is_told_before_anything_is_asked() -> None:
    plan = plan_run(World().work(run_usd=Decimal("0.001")))
    [note] = [note for note in plan.notes if "budget.run_usd" in note]
    assert note.startswith("a shard of 3 requests reserves up to 0.03")
    assert not [note for note in plan_run(World().work(run_usd=Decimal(1))).notes if "reserves" in note]


def test_a_cap_that_has_no_room_for_a_machine_is_told_with_what_would_help() -> None:
    by_time = price_by_time(
        Decimal("3.60"), Pace(1000, "yours"), price_id="m", source="s", boot_seconds=0, longest_start=400
    )
    world = World()
    candidates = (Candidate(StandInBackend(world.first), by_time),)
    plan = plan_run(world.work(candidates=candidates, run_usd=Decimal("0.99")))
    [note] = [note for note in plan.notes if "budget.run_usd" in note]
    assert note.startswith("a shard reserves at least 1.00 USD before it is sent, for the start of a machine")
    assert "engine.boot" in note
    enough = plan_run(world.work(candidates=candidates, run_usd=Decimal("1.01")))
    assert not [note for note in enough.notes if "reserves" in note]


@pytest.mark.parametrize(("machines", "said"), [(None, 0), (1, 0), (0, 1)])
def test_a_cap_an_hour_that_no_machine_keeps_to_is_told_before_anything_waits_for_one(
    machines: int | None, said: int
) -> None:
    by_time = price_by_time(Decimal("3.60"), Pace(1000, "yours"), price_id="m", source="s", boot_seconds=0)
    world = World()
    plan = plan_run(world.work(candidates=(Candidate(StandInBackend(world.first), by_time, machines),)))
    notes = [note for note in plan.notes if note.startswith("max_usd_per_hour is less than one machine costs now")]
    assert len(notes) == said


def test_a_plan_is_not_applied_after_its_deadline_nor_over_a_run_at_another_backend() -> None:
    world, clock = World(), Clock()
    plan = plan_run(world.work(), clock=clock)
    clock.now = plan.deadline + 1
    with pytest.raises(StalePlan, match="deadline has passed"):
        apply_plan(world.work(), plan, clock=clock)
    clock.now = plan.created_at + 1
    open_run(world.work(prices=("0.00002", "0.00001")), clock=clock)
    with pytest.raises(StalePlan, match="was begun at second"):
        apply_plan(world.work(), plan, clock=clock)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prices": ("0.000011", "0.00002")}, "price of stand-in, echo-1: input 10 -> 11 USD a million"),
        ({"approve_above_usd": Decimal("0.0001")}, "budget.approve_above_usd: none -> 0.0001"),
        ({"run_usd": Decimal(3)}, "budget.run_usd: none -> 3"),
        ({"attempts": 1}, "limits.attempts: 3 -> 1"),
    ],
)
def test_a_plan_is_not_applied_over_a_run_that_was_begun_at_another_price_or_limit(
    changes: dict[str, object], told: str
) -> None:
    world = World()
    open_run(world.work())
    work = world.work(**changes)  # type: ignore[arg-type]
    with pytest.raises(StalePlan) as refused:
        apply_plan(work, plan_run(work))
    assert told in str(refused.value)
    assert "lowtide run goes on with it as it was begun" in str(refused.value)
    assert world.processed == (0, 0)


def test_a_plan_applied_keeps_its_deadline_and_prices_and_takes_a_name_of_its_own() -> None:
    world, clock = World(), Clock()
    plan = plan_run(world.work(), clock=clock)
    clock.now += 3600
    run = apply_plan(world.work(), plan, clock=clock)
    assert (run.plan.deadline, run.plan.price, run.plan.options) == (plan.deadline, plan.price, plan.options)
    assert run.plan.nonce != plan.nonce
    assert finish(run).done
    assert is_published(apply_plan(world.work(), plan, clock=clock))
    world.texts["d9"] = "more"
    with pytest.raises(StalePlan, match="not what was planned"):
        apply_plan(world.work(), plan, clock=clock)


def test_planning_writes_nothing() -> None:
    world = World()
    plan_run(world.work())
    plan_run(world.work(refresh=True), exact=False)
    assert world.store.objects == {}


def test_what_earlier_runs_took_tells_when_the_next_one_is_done() -> None:
    world = World()
    world.run()
    world.texts |= {f"e{number}": f"more {number}" for number in range(6)}
    [chosen, _] = plan_run(world.work()).options
    assert chosen.cached == 6
    assert chosen.finish_basis == "as slow as the slowest of 1 earlier run"
