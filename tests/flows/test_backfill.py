"""Many windows under one parent, on a Prefect server of its own; the test plays the worker, and the tick's clock."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, Crashed, Pending, Running, Scheduled
from prefect.utilities.callables import get_parameter_defaults
from servers.emulators import Emulator
from support.pages import answer

from lowtide import openruns
from lowtide.backfill import Backfill, last_asked
from lowtide.budget.approval import this_user
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import ConfigError, Terminal
from lowtide.flows.backfill import backfill_job, stop_open
from lowtide.flows.children import TRIES, Children
from lowtide.flows.filling import Place
from lowtide.flows.scheduled import run_due
from lowtide.flows.tick import advance_root

DUE = "lowtide run due/tides"
DAYS = [f"2026-01-{day:02d}" for day in range(5, 9)]
PRICE = {"input": Decimal(1000), "output": Decimal(2000)}
"""USD for a million tokens."""

JOB = """
version: 1
name: tides
source: {{uri: "{folder}/reports/**/*.jsonl", text: text, id: id, window_by: "path:{{year}}/{{month}}/{{day}}"}}
operations: [summarize: {{words: 20}}]
backends: [openai-batch: {{model: gpt-4o-mini, price: {{input: 1000, output: 2000}}}}]
schedule: {{every: day}}
limits: {{poll: 1s, shard_records: 3}}
output: {{root: "{folder}/out"}}
{more}
"""
PATIENCE = 240.0
PARENT = "import sys, json; from lowtide.flows.backfill import backfill_job; backfill_job(**json.loads(sys.argv[1]))"


class Desk:
    """A job over four days, its deployment, and what the provider has billed."""

    def __init__(self, folder: Path, client: SyncPrefectClient, emulator: Emulator) -> None:
        self.folder, self.client, self.emulator = folder, client, emulator
        self.job = folder / "job.yaml"
        self.write_job()
        for number, day in enumerate(DAYS):
            path = folder / f"reports/{day.replace('-', '/')}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            texts = ({"id": f"{number}-{n}", "text": f"Report {number}-{n} of the tide. " * 3} for n in range(6))
            path.write_bytes(b"".join(orjson.dumps(text) + b"\n" for text in texts))

    def write_job(self, more: str = "") -> None:
        self.job.write_text(JOB.format(folder=self.folder, more=more), encoding="utf-8")

    @property
    def root(self) -> LocalStore:
        return LocalStore(self.folder / "out")

    def asked(self, **more: object) -> dict[str, object]:
        return {"job": str(self.job), "run_due": DUE, "first": DAYS[0], "last": DAYS[-1], **more}

    def fill(self, **more: object) -> tuple[Counter[str], dict[str, object]]:
        """The flow, to its end: how many windows stand where, and the whole result."""
        result: object = backfill_job(**self.asked(**more))  # type: ignore[arg-type]
        assert isinstance(result, dict)
        return Counter(result["windows"].values()), result

    def kept(self) -> Backfill | None:
        place = Place(self.asked(), datetime.now(UTC))
        return last_asked(place.root, place.wanted)

    def billed(self) -> Decimal:
        """USD that the provider has earned."""
        tokens: Counter[str] = Counter()
        for charge in self.emulator.charges():
            tokens["input"] += charge["input_tokens"]
            tokens["output"] += charge["output_tokens"]
        return sum((PRICE[kind] * number for kind, number in tokens.items()), Decimal(0)) / 1_000_000

    def rows(self) -> dict[str, int]:
        paths = (self.folder / "out/tables/results/job=tides").glob("window=*/results.parquet")
        return {path.parent.name.removeprefix("window="): pq.read_metadata(path).num_rows for path in sorted(paths)}

    def children(self, backfill: str) -> list[FlowRun]:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"backfill-{backfill}"]))
        return sorted(self.client.read_flow_runs(flow_run_filter=tagged), key=lambda run: str(run.created))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A worker and the tick, over and over, in a thread."""
        stop, bad = threading.Event(), []

        def work() -> None:
            while not stop.wait(0.2):
                try:
                    self.work_once()
                except Exception as error:  # told of at the end
                    bad.append(error)
                    return

        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(PATIENCE)
        assert not bad, bad

    def work_once(self) -> None:
        """Whatever is scheduled of the job's deployment, and a tick."""
        with get_client(sync_client=True) as client:
            due = client.read_deployment_by_name(DUE).id
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    deployment_id=FlowRunFilterDeploymentId(any_=[due]),
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                )
            )
        for run in found:
            if run.parameters["job"] == str(self.job):
                run_flow(run_due, flow_run=run, parameters={**get_parameter_defaults(run_due.fn), **run.parameters})
        if list(openruns.list_open(self.root)):
            advance_root(str(self.folder / "out"))

    def until(self, look: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not look():
            assert time.monotonic() < end, "never came"
            time.sleep(0.2)


@pytest.fixture
def desk(server: None, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    emulator.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{emulator.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "emulated")
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow_from_name(run_due.name), name="tides")
        yield Desk(tmp_path, client, emulator)


def test_one_cap_holds_over_all_windows_and_a_second_call_buys_nothing(desk: Desk) -> None:
    counts, _ = desk.fill(max_usd="0.000001")
    assert counts == {"over budget": 4}
    kept = desk.kept()
    assert kept is not None
    assert not list(openruns.list_open(desk.root))
    cap = max(window.least_usd for window in kept.to_do) * Decimal("1.2")
    with desk.at_work():
        counts, result = desk.fill(max_usd=f"{cap:f}")
        assert set(counts) == {"done", "over budget"}, result
        assert Decimal(0) < desk.billed() <= cap
        assert Decimal(str(result["spent_usd"])) == desk.billed()
        counts, result = desk.fill(max_usd="100")
    assert counts == {"done": 4}
    assert desk.rows() == dict.fromkeys(DAYS, 6)
    bill, batches = desk.billed(), desk.emulator.calls()["created"]
    assert Decimal(str(result["spent_usd"])) == bill
    runs = desk.children(str(result["backfill"]))
    assert sorted(run.idempotency_key or "" for run in runs) == [f"{kept.id}-{day}" for day in DAYS]
    assert all(run.parent_task_run_id for run in runs)
    counts, _ = desk.fill(max_usd="100")
    assert not counts
    assert (desk.billed(), desk.emulator.calls()["created"]) == (bill, batches)


def test_a_parent_that_was_killed_is_gone_on_with_and_nothing_is_bought_twice(desk: Desk) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, orjson.dumps(desk.asked(max_usd="100", max_active=2)).decode()],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
    )
    try:
        desk.until(lambda: (kept := desk.kept()) and len(desk.children(kept.id)) == 2)
    finally:
        parent.kill()
        parent.wait()
    kept = desk.kept()
    assert kept is not None
    assert [run.parameters["window"] for run in desk.children(kept.id)] == DAYS[:2]
    asked = [found.asked for found in openruns.list_open(desk.root)]
    assert {found.backfill for found in asked} == {kept.id}
    assert all(found.max_usd for found in asked)
    with desk.at_work():
        desk.until(lambda: len(desk.rows()) == 2)
        counts, result = desk.fill(max_usd="100")
    assert result["backfill"] == kept.id
    assert set(counts) <= {"done", "passed over"}
    assert desk.rows() == dict.fromkeys(DAYS, 6)
    assert len(desk.children(kept.id)) == 4
    assert Decimal(str(result["spent_usd"])) == desk.billed()
    assert len(list(desk.emulator.charges())) == 24


def test_one_that_is_cancelled_keeps_what_is_done(desk: Desk) -> None:
    with desk.at_work():
        desk.fill(max_usd="100", last=DAYS[1])
    before = len(desk.emulator.calls()["created"])
    parameters = desk.asked(max_usd="100")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, orjson.dumps(parameters).decode()],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
    )
    try:
        desk.until(lambda: len(list(openruns.list_open(desk.root))) == 2)
    finally:
        parent.kill()
        parent.wait()
    run = FlowRun(flow_id=desk.client.create_flow_from_name(backfill_job.name), parameters=parameters)
    stop_open(backfill_job, run, Running())
    told = advance_root(str(desk.folder / "out"))
    assert isinstance(told, dict)
    assert ["cancelled" in each["state"] for each in told["runs"]] == [True, True]
    with desk.at_work():
        counts, _ = desk.fill(cancel=True)
        assert set(counts) <= {"passed over", "waiting", "cancelled"}
        assert not desk.emulator.calls()["created"][before:]
        assert {day for day, rows in desk.rows().items() if rows == 6} == set(DAYS[:2])
        counts, _ = desk.fill(max_usd="100")
    assert counts["done"] == 2
    assert desk.rows() == dict.fromkeys(DAYS, 6)


def test_nothing_is_bought_that_nobody_has_approved(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="approved_usd"):
        desk.fill()
    with pytest.raises(ConfigError, match="approved_usd"):
        desk.fill(approved_usd="0.000001", max_usd="100")
    desk.write_job("budget: {approve_above_usd: 0.000001}")
    with pytest.raises(ConfigError, match="approved_usd"):
        desk.fill(max_usd="100")
    assert not list(openruns.list_open(desk.root))
    with desk.at_work():
        counts, _ = desk.fill(approved_usd="10")
    assert counts == {"done": 4}


@pytest.mark.parametrize("yes", [True, False])
def test_a_deployment_asks_once_for_all_windows(desk: Desk, yes: bool) -> None:
    flow: Flow[..., object] = backfill_job
    made = desk.client.create_deployment(desk.client.create_flow(flow), name=f"tides {desk.folder.name}")
    parameters = {**get_parameter_defaults(flow.fn), **desk.asked()}
    found = desk.client.create_flow_run_from_deployment(made, parameters=parameters)
    found = desk.client.read_flow_run(found.id)
    thread = threading.Thread(
        target=contextvars.copy_context().run,
        args=(lambda: run_flow(flow, flow_run=found, parameters=parameters),),
        daemon=True,
    )
    thread.start()
    desk.until(lambda: desk.client.read_flow_run(found.id).state_type is StateType.PAUSED)
    assert desk.emulator.calls()["created"] == []
    with desk.at_work():
        answer(found.id, approve=yes)
        thread.join(PATIENCE)
    ended = desk.client.read_flow_run(found.id)
    assert ended.state is not None
    assert ended.state_type is StateType.COMPLETED
    assert desk.rows() == (dict.fromkeys(DAYS, 6) if yes else {})
    assert ("4 done" if yes else "nobody has approved") in str(ended.state.message)


def test_a_flow_run_that_died_is_followed_by_another(desk: Desk) -> None:
    children = Children(DUE, str(desk.job), desk.folder.name)
    for number in range(1, TRIES + 1):
        children.see_to(DAYS[0], "0" * 16)
        children.see_to(DAYS[0], "0" * 16)
        runs = desk.children(children.backfill)
        assert len(runs) == number
        last = next(run for run in runs if run.state_type is StateType.SCHEDULED)
        assert last.idempotency_key == f"{children.backfill}-{DAYS[0]}" + (f"#{number}" if number > 1 else "")
        for state in (Running(), Crashed()):
            desk.client.set_flow_run_state(last.id, state, force=True)
    with pytest.raises(Terminal, match="flow runs"):
        children.see_to(DAYS[0], "0" * 16)


def test_a_deployment_that_is_not_there_is_told_of_before_anything_is_begun(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="lowtide deploy"):
        desk.fill(max_usd="100", run_due="lowtide run due/nobody")
    assert not (desk.folder / "out/runs").exists()


# ---- parents of a deployment


class Parents:
    """The backfill's own deployment; its flow runs are made by the test, and run where it says."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.client = desk, desk.client
        self.made = self.client.create_deployment(
            self.client.create_flow(FILL),
            name=f"tides {desk.folder.name}",
            entrypoint="lowtide.flows.backfill.backfill_job",
            pull_steps=[],
        )

    def begin(self, at: datetime | None = None, **more: object) -> FlowRun:
        """A flow run that was scheduled for then."""
        state = None if at is None else Scheduled(scheduled_time=at)
        found = self.client.create_flow_run_from_deployment(self.made, parameters=self.desk.asked(**more), state=state)
        return self.client.read_flow_run(found.id)

    def run(self, found: FlowRun) -> FlowRun:
        """The flow run, in this process, to its end; how it ended."""
        self.client.set_flow_run_state(found.id, Pending(), force=True)
        parameters = {**get_parameter_defaults(FILL.fn), **found.parameters}
        run_flow(FILL, flow_run=self.client.read_flow_run(found.id), parameters=parameters)
        return self.client.read_flow_run(found.id)

    @contextmanager
    def in_a_thread(self, found: FlowRun) -> Iterator[None]:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(self.run, found), daemon=True)
        thread.start()
        yield
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def next_after(self, found: FlowRun) -> FlowRun | None:
        """The flow run to which that one has handed over."""
        runs = self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[self.made]))
        )
        after = [run for run in runs if (run.idempotency_key or "").endswith(f"-after-{found.id}")]
        assert len(after) <= 1
        return after[0] if after else None


FILL: Flow[..., object] = backfill_job


@pytest.fixture
def parents(desk: Desk) -> Parents:
    return Parents(desk)


def said(run: FlowRun) -> str:
    assert run.state is not None
    assert run.state_type is StateType.COMPLETED, run.state
    return str(run.state.message)


def test_flow_runs_whose_time_is_up_hand_over_and_last_means_the_same_to_all_of_them(
    desk: Desk, parents: Parents
) -> None:
    # Scheduled when the last of the days had just ended; today, another one is the last.
    then = datetime(2026, 1, 9, 8, tzinfo=UTC)
    found = parents.begin(then, last="last", max_usd="100", max_active=2, wait=0)
    first = parents.run(found)
    assert said(first).endswith("a further flow run goes on")
    assert [each.window for each in openruns.list_open(desk.root)] == DAYS[:2]
    after = parents.next_after(first)
    assert after is not None
    assert (after.parameters["first"], after.parameters["last"]) == (DAYS[0], DAYS[-1])
    assert found.parameters.items() <= {**after.parameters, "last": "last"}.items()
    assert after.expected_start_time is not None
    assert after.expected_start_time > datetime.now(UTC)
    kept = desk.kept()
    assert kept is not None
    asked = 1
    while after is not None:
        desk.work_once()
        asked += 1
        assert asked < 20, "handed over for ever"
        ended = parents.run(after)
        after = parents.next_after(ended)
    assert "4 done" in said(ended) or "nothing bought" in said(ended)
    assert desk.rows() == dict.fromkeys(DAYS, 6)
    assert [run.parameters["window"] for run in desk.children(kept.id)] == DAYS
    assert len(list(desk.emulator.charges())) == 24
    done = desk.kept()
    assert done is not None
    assert done.id == kept.id
    assert done.finished_at


def test_a_page_that_waits_for_nobody_buys_nothing(desk: Desk, parents: Parents) -> None:
    ended = parents.run(parents.begin(wait=0))
    assert "nobody has approved" in said(ended)
    assert parents.next_after(ended) is None
    assert not list(openruns.list_open(desk.root))


def test_who_approves_at_the_command_line_ends_the_pause_and_is_the_one_who_has_approved(
    desk: Desk, parents: Parents
) -> None:
    found = parents.begin()
    with parents.in_a_thread(found):
        desk.until(lambda: desk.client.read_flow_run(found.id).state_type is StateType.PAUSED)
        with desk.at_work():
            command = ["backfill", str(desk.job), "--from", DAYS[0], "--to", DAYS[-1], "--yes", "--max-usd", "100"]
            subprocess.run([sys.executable, "-m", "lowtide", *command], check=True, timeout=PATIENCE)
            desk.until(lambda: desk.client.read_flow_run(found.id).state_type is StateType.COMPLETED)
    assert "4 done" in said(desk.client.read_flow_run(found.id))
    assert desk.rows() == dict.fromkeys(DAYS, 6)
    assert len(list(desk.emulator.charges())) == 24
    kept = desk.kept()
    assert kept is not None
    assert kept.approved_by == this_user()


def test_a_flow_run_that_is_cancelled_on_the_pages_stops_what_is_open(desk: Desk, parents: Parents) -> None:
    found = parents.begin(max_usd="100", max_active=2)
    runner = subprocess.Popen(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(found.id)],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PREFECT_RUNNER_POLL_FREQUENCY": "1"},
    )
    try:
        desk.until(lambda: (kept := desk.kept()) and len(desk.children(kept.id)) == 2)
        desk.client.set_flow_run_state(found.id, Cancelling(), force=True)
        desk.until(lambda: (kept := desk.kept()) and kept.cancelled_at)
        desk.until(lambda: desk.client.read_flow_run(found.id).state_type is StateType.CANCELLED)
        runner.wait(PATIENCE)
    finally:
        runner.kill()
        runner.wait()
    told = advance_root(str(desk.folder / "out"))
    assert isinstance(told, dict)
    assert ["cancelled" in each["state"] for each in told["runs"]] == [True, True]
    assert desk.emulator.calls()["created"] == []
    assert parents.next_after(found) is None
