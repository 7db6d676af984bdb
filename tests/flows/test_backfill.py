"""Many windows under one parent, on a Prefect server without a worker: the test says what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Crashed, Running
from prefect.testing.utilities import prefect_test_harness

from lowtide import openruns
from lowtide.connectors.stores.local import LocalStore
from lowtide.flows.backfill import Children
from lowtide.flows.scheduled import run_due
from lowtide.openruns import Asked

WINDOWS = ["2026-01", "2026-02", "2026-03", "2026-04"]
DUE = "lowtide run due/tides"


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def client(server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        opened.create_deployment(opened.create_flow_from_name(run_due.name), name="tides")
        yield opened


@pytest.fixture
def children(client: SyncPrefectClient, tmp_path: Path) -> Children:
    # A root of its own makes each test a backfill of its own.
    return Children(DUE, {"job": "/jobs/tides.yaml", "reprocess": "missing"}, LocalStore(tmp_path), "tides")


Begun = Callable[[Children, str], FlowRun]


@pytest.fixture
def begun(client: SyncPrefectClient) -> Begun:
    def last(children: Children, window: str) -> FlowRun:
        runs = [run for run in client.read_flow_runs(limit=200) if children.tag in run.tags]
        found = [run for run in runs if run.parameters["window"] == window]
        return max(found, key=lambda run: (len(run.idempotency_key or ""), run.idempotency_key or ""))

    return last


def put(client: SyncPrefectClient, run: FlowRun, *states: State[object]) -> None:
    for state in states:
        client.set_flow_run_state(run.id, state, force=True)


def test_so_many_windows_are_open_at_a_time_and_each_has_one_flow_run(
    client: SyncPrefectClient, children: Children, begun: Begun
) -> None:
    for _ in range(3):
        assert list(children.look_after(WINDOWS, 2).values()) == ["open", "open", "waiting", "waiting"]
    put(client, begun(children, "2026-01"), Running(), Completed())
    assert list(children.look_after(WINDOWS, 2).values()) == ["done", "open", "open", "waiting"]
    runs = [run for run in client.read_flow_runs(limit=200) if children.tag in run.tags]
    assert sorted(run.idempotency_key or "" for run in runs) == [f"{children.id}-{window}" for window in WINDOWS[:3]]


def test_a_window_is_open_until_its_run_is_published(
    client: SyncPrefectClient, children: Children, begun: Begun
) -> None:
    children.look_after(WINDOWS, 1)
    openruns.write_asked(children.root, "tides", "2026-01", "a" * 16, Asked())
    put(client, begun(children, "2026-01"), Running(), Completed())
    assert list(children.look_after(WINDOWS, 1).values()) == ["open", "waiting", "waiting", "waiting"]
    openruns.close(children.root, "tides", "2026-01", "a" * 16)
    assert list(children.look_after(WINDOWS, 1).values()) == ["done", "open", "waiting", "waiting"]


def test_a_flow_run_that_crashed_is_followed_by_another_three_in_all(
    client: SyncPrefectClient, children: Children, begun: Begun
) -> None:
    for number in range(3):
        assert children.look_after(["2026-01"], 1) == {"2026-01": "open"}
        run = begun(children, "2026-01")
        assert run.idempotency_key == f"{children.id}-2026-01" + (f"#{number + 1}" if number else "")
        put(client, run, Running(), Crashed())
    assert children.look_after(["2026-01"], 1) == {"2026-01": "failed"}


def test_one_that_somebody_has_cancelled_stays_so(client: SyncPrefectClient, children: Children, begun: Begun) -> None:
    children.look_after(["2026-01"], 1)
    put(client, begun(children, "2026-01"), Cancelled())
    assert children.look_after(["2026-01"], 1) == {"2026-01": "failed"}


def test_windows_hang_under_the_flow_run_that_began_them(client: SyncPrefectClient, children: Children) -> None:
    @flow(name="parent")
    def parent() -> None:
        children.look_after(WINDOWS, 2)

    parent()
    runs = [run for run in client.read_flow_runs(limit=200) if children.tag in run.tags]
    assert len(runs) == 2
    assert all(run.parent_task_run_id for run in runs)
