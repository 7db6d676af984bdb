"""A deployment's run that asks for approval on Prefect's pages, on a Prefect server of its own."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_engine import run_flow
from prefect.utilities.callables import get_parameter_defaults
from servers.emulators import Emulator
from support.command import write_documents
from support.pages import answer

from lowtide.budget.approval import approve
from lowtide.connectors.stores.local import LocalStore
from lowtide.flows.run import run_job
from lowtide.journal import Journal
from lowtide.plan import RunPlan
from lowtide.states import RunState

JOB = """
version: 1
name: tides
source: {{uri: "{folder}/documents/*.txt"}}
operations: [summarize: {{words: 20}}]
backends: [openai-batch: {{model: gpt-4o-mini, price: {{input: 1000, output: 2000}}}}]
limits: {{poll: 1s}}
budget: {{approve_above_usd: 0.01}}
output: {{root: "{folder}/out"}}
"""
SECONDS = 120.0


def parameter_defaults(flow: Flow[..., object]) -> dict[str, object]:
    return dict(get_parameter_defaults(flow.fn))


class Scene:
    """One deployment's flow run over one job, in a thread."""

    def __init__(self, folder: Path, wait: float) -> None:
        self.folder = folder
        path = folder / "job.yaml"
        path.write_text(JOB.format(folder=folder), encoding="utf-8")
        write_documents(folder / "documents", 4)
        flow: Flow[..., object] = run_job
        with get_client(sync_client=True) as client:
            made = client.create_deployment(client.create_flow(flow), name=f"weekly {folder.name}")
            parameters = {**parameter_defaults(flow), "job": str(path), "wait": wait}
            self.flow_run: UUID = client.create_flow_run_from_deployment(made, parameters=parameters).id
            found = client.read_flow_run(self.flow_run)
        self.result: dict[str, object] = {}
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run, flow, found, parameters), daemon=True
        )
        self._thread.start()

    def _run(self, flow: Flow[..., object], found: FlowRun, parameters: dict[str, object]) -> None:
        returned = run_flow(flow, flow_run=found, parameters=parameters)
        assert isinstance(returned, dict)
        self.result = returned

    def read(self) -> FlowRun:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(self.flow_run)

    def paused(self) -> FlowRun:
        """The flow run once it asks."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            found = self.read()
            if found.state is not None and found.state.type is StateType.PAUSED:
                return found
            time.sleep(0.2)
        raise AssertionError(f"never paused: {self.read().state}")

    def ended(self) -> FlowRun:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.read()

    def journal(self) -> tuple[Journal, RunPlan]:
        [path] = (self.folder / "out").glob("runs/tides/all/*/plan.json")
        plan = msgspec.json.decode(path.read_bytes(), type=RunPlan)
        return Journal(LocalStore(self.folder / "out"), plan.prefix, "test"), plan

    def state(self) -> RunState:
        return self.journal()[0].refresh()


@pytest.fixture
def scene(
    server: None, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], Scene]:
    emulator.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{emulator.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "emulated")
    return lambda wait: Scene(tmp_path, wait)


def test_a_deployment_asks_on_the_page_and_goes_on_when_somebody_says_yes(
    scene: Callable[[float], Scene], emulator: Emulator
) -> None:
    run = scene(600.0)
    paused = run.paused()
    assert paused.state is not None
    keyset = paused.state.state_details.run_input_keyset
    assert keyset is not None
    with get_client(sync_client=True) as client:
        said = str(client.request("GET", f"/flow_runs/{run.flow_run}/input/{keyset['description']}").json())
    assert "is expected to cost **" in said
    assert "lowtide approve" in said
    assert emulator.calls()["created"] == []
    answer(run.flow_run, approve=True)
    assert run.ended().state_type is StateType.COMPLETED
    assert run.result["state"] == "published"
    assert run.state().approved_usd == run.journal()[1].cost_usd


def test_a_no_on_the_page_ends_the_flow_run_and_spends_nothing(
    scene: Callable[[float], Scene], emulator: Emulator
) -> None:
    run = scene(600.0)
    run.paused()
    answer(run.flow_run, approve=False)
    assert run.ended().state_type is StateType.COMPLETED
    assert run.state().approved_usd is None
    assert emulator.calls()["created"] == []


def test_nobody_answers_and_the_flow_run_just_ends(scene: Callable[[float], Scene], emulator: Emulator) -> None:
    run = scene(8.0)
    run.paused()
    assert run.ended().state_type is StateType.COMPLETED
    assert run.state().approved_usd is None
    assert emulator.calls()["created"] == []


def test_an_approval_from_the_command_line_ends_the_pause(scene: Callable[[float], Scene]) -> None:
    run = scene(600.0)
    run.paused()
    journal, plan = run.journal()
    assert approve(journal, plan, by="somebody", at=time.time())
    assert run.ended().state_type is StateType.COMPLETED
    assert run.result["state"] == "published"
