"""Events that runs send, as a Prefect server has them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from servers.emulators import Emulator
from support.command import write_documents

from lowtide.flows.scheduled import run_due
from lowtide.flows.tick import advance_root

JOB = """
version: 1
name: {name}
source: {{uri: "{folder}/documents/*.txt"}}
operations: [summarize: {{words: 20}}]
backends: [openai-batch: {{model: gpt-4o-mini, price: {{input: 1000, output: 2000}}}}]
limits: {{poll: 1s}}
budget: {{{budget}}}
output: {{root: "{folder}/out"}}
"""
SECONDS = 60.0


@pytest.fixture
def folder(server: None, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    emulator.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{emulator.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "emulated")
    write_documents(tmp_path / "documents", 4)
    return tmp_path


def write_job(folder: Path, budget: str = "", name: str = "tides") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(JOB.format(folder=folder, budget=budget, name=name))
    return str(path)


def told(folder: Path, at_least: int) -> list[dict[str, Any]]:
    """The events about runs of this root, oldest first, once there are so many; and no more than that a while later."""
    until = time.monotonic() + SECONDS
    root = (folder / "out").as_uri()
    asked = {"filter": {"event": {"prefix": ["lowtide.run."]}}, "limit": 50}
    found: list[dict[str, Any]] = []
    while time.monotonic() < until and len(found) < at_least:
        time.sleep(0.5)
        with get_client(sync_client=True) as client:
            every = client.request("POST", "/events/filter", json=asked).json()["events"]
        found = [event for event in every if event["resource"]["lowtide.root"] == root]
    return sorted(found, key=lambda event: str(event["occurred"]))


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"].removeprefix("lowtide.run.") for event in events]


def test_a_run_that_is_published_is_told_of_once_with_counts_and_money_and_no_text(folder: Path) -> None:
    run_due(write_job(folder), window="all")
    for _ in range(20):
        if not advance_root(str(folder / "out"))["runs"]:
            break
    time.sleep(2)
    [event] = told(folder, 1)
    assert event["event"] == "lowtide.run.published"
    assert event["resource"]["lowtide.complete"] == "true"
    assert event["payload"]["counts"] == {"ok": 4}
    assert float(event["payload"]["cost_usd"]) > 0
    assert {related["prefect.resource.role"] for related in event["related"]} >= {"job", "window", "root", "flow-run"}
    assert "harbour" not in str(event)


def test_a_run_that_waits_for_approval_is_told_of_once_however_often_a_tick_looks(
    folder: Path, emulator: Emulator
) -> None:
    run_due(write_job(folder, "approve_above_usd: 0.01"), window="all")
    for _ in range(2):
        result = advance_root(str(folder / "out"))
        assert [each["state"] for each in result["runs"]] == ["waiting for approval"]
    time.sleep(2)
    [event] = told(folder, 1)
    assert event["event"] == "lowtide.run.waiting-approval"
    assert event["payload"]["approve"].startswith("lowtide approve ")
    assert float(event["payload"]["expected_usd"]) > 0.01
    assert emulator.calls()["created"] == []


def test_a_run_that_a_cap_leaves_without_answers_is_told_of(folder: Path) -> None:
    run_due(write_job(folder), window="all", max_usd="0.001")
    assert set(names(told(folder, 2))) == {"over-budget", "published"}


def test_a_run_that_cannot_go_on_is_told_of_once_a_day(folder: Path) -> None:
    job = write_job(folder, "approve_above_usd: 0.01")
    run_due(job, window="all")
    Path(job).write_text("version: 2\n")
    for _ in range(3):
        assert [each["outcome"] for each in advance_root(str(folder / "out"))["runs"]] == ["failed"]
    time.sleep(2)
    events = told(folder, 2)
    assert names(events) == ["waiting-approval", "failed"]
    assert "tides.yaml:1" in events[1]["payload"]["reason"]


def test_a_provider_that_cannot_be_asked_is_named_in_the_message_of_the_tick(folder: Path, emulator: Emulator) -> None:
    emulator.faults([{"on": ["get", "list"], "do": "error_before", "times": "forever"}])
    run_due(write_job(folder), window="all")
    state = advance_root(str(folder / "out"), return_state=True)
    result = state.result()
    assert isinstance(result, dict)
    [run] = result["runs"]
    assert (run["outcome"], run["state"]) == ("advanced", "waiting for answers")
    assert run["error"].startswith("openai-batch could not be asked: ")
    assert "tides, window all: openai-batch could not be asked: " in str(state.message)
    assert sum(emulator.struck()) > 0
    emulator.faults([])
    told = []
    for _ in range(20):
        if not (runs := advance_root(str(folder / "out"))["runs"]):
            break
        told += [each["error"] for each in runs]
    assert set(told) == {""}


def test_what_is_asked_of_a_scheduled_run_holds_for_the_ticks(folder: Path, emulator: Emulator) -> None:
    run_due(write_job(folder), window="all", max_usd="0.001")
    advance_root(str(folder / "out"))
    assert emulator.bill()["records"] == 0
