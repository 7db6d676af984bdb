"""A job that runs by itself on a real Prefect server, and goes on whatever is killed meanwhile.

The story is played once: two jobs under one root, each with a batch at the provider; the schedule of one is due. Its
flow run dies behind the create call that the provider has accepted, and a tick dies with it, in a call that hangs. Then
the server and its database go down as well. The tests look at what has become of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, expect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from servers.emulators import Emulator, emulators
from servers.postgres import postgres
from servers.prefect_stack import Stack
from support.command import write_documents

from lowtide.schedules.automations import SILENCE
from lowtide.schedules.deployments import name_of_root

pytestmark = pytest.mark.slow

JOB = """
version: 1
name: {name}
source: {{uri: "{folder}/{name}/*.txt"}}
timezone: Europe/Paris
schedule: {{every: day}}
operations: [summarize: {{words: 20}}]
backends: [openai-batch: {{model: gpt-4o-mini, price: {{input: 1, output: 2}}}}]
limits: {{poll: 1s}}
output: {{root: "{folder}/out"}}
"""
DOCUMENTS = 6
PATIENCE = 300.0
MARKED_WITHIN = SILENCE + timedelta(seconds=90)
"""Heartbeats are looked for every so often, by a machine that is busy with other things."""

T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@dataclass
class Story:
    """What was done, and when."""

    folder: Path
    stack: Stack
    emulator: Emulator
    killed_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    cron: str = ""
    dead: list[FlowRun] = field(default_factory=list)

    @property
    def batches(self) -> int:
        """How many were created at the provider."""
        return sum(each["operation"] == "create" for each in self.emulator.calls()["created"])

    @property
    def due(self) -> str:
        return "lowtide run due/tides"

    @property
    def tick(self) -> str:
        return f"lowtide tick/{name_of_root((self.folder / 'out').as_uri())}"

    def lowtide(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lowtide", *arguments],
            env=self.stack.variables,
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def write_job(self, name: str, at: datetime) -> Path:
        write_documents(self.folder / name, DOCUMENTS)
        for path in (self.folder / name).iterdir():
            path.write_text(f"{path.read_text()} Of {name}.")
            os.utime(path, (at.timestamp(), at.timestamp()))
        path = self.folder / f"{name}.yaml"
        path.write_text(JOB.format(name=name, folder=self.folder))
        return path

    def client(self) -> SyncPrefectClient:
        return get_client(sync_client=True)

    def runs(self, of: str, *states: StateType) -> list[FlowRun]:
        """A deployment's flow runs in these states; none while the server is away."""
        try:
            with self.client() as client:
                deployment = client.read_deployment_by_name(of)
                of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
                found = client.read_flow_runs(flow_run_filter=of_it)
        except Exception:
            # Refused, cut off or half answered: a server that is killed on purpose may end a call in any way.
            return []
        return [run for run in found if run.state_type in states]

    def results(self, name: str) -> dict[str, int]:
        """The rows of a job's windows."""
        paths = (self.folder / "out" / "tables" / "results" / f"job={name}").glob("window=*/results.parquet")
        return {path.parent.name: pq.read_metadata(path).num_rows for path in paths}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with postgres() as database, emulators(speed=1.0) as emulator:
        environ = {"OPENAI_BASE_URL": f"{emulator.url}/v1", "OPENAI_API_KEY": "emulated"}
        stack = Stack(folder, database, environ)
        try:
            stack.start_server()
            with temporary_settings({PREFECT_API_URL: stack.api}):
                yield play(Story(folder, stack, emulator))
        finally:
            stack.kill_worker()
            stack.kill_server()


def play(story: Story) -> Story:
    stack, emulator = story.stack, story.emulator
    yesterday = datetime.now(UTC) - timedelta(days=1)
    began, hanging = story.write_job("tides", yesterday), story.write_job("ebbs", yesterday)
    story.lowtide("run", str(hanging), "--direct", "--no-wait")
    assert story.batches == 1
    emulator.faults(
        [
            {"on": "create", "do": "timeout_after", "seconds": 300, "times": 1},
            {"on": "get", "do": "timeout_before", "seconds": 300, "times": "forever"},
        ]
    )
    stack.start_worker("lowtide")
    with story.client() as client:
        until(lambda: any(pool.name == "lowtide" for pool in client.read_work_pools()), "the worker is there")
    # Both fall due at the next full minute, if there is time enough to deploy them before that.
    until(lambda: datetime.now(UTC).second < 15, "the beginning of a minute")
    soon = datetime.now(UTC) + timedelta(minutes=1)
    story.cron = f"{soon.minute} {soon.hour} * * *"
    said = story.lowtide("deploy", str(began), "--cron", story.cron, "--tz", "UTC", "--tick", "1m")
    assert "created    deployment lowtide run due/tides" in said
    until(lambda: all(emulator.struck()), "both flow runs are in a call that hangs")
    story.dead = [until(lambda of=of: story.runs(of, StateType.RUNNING), of)[0] for of in (story.due, story.tick)]

    stack.kill_worker()
    story.killed_at = datetime.now(UTC)
    emulator.faults([])
    stack.kill_server()
    stack.database.stop_at_once()
    stack.database.start()
    stack.start_server()
    stack.start_worker("lowtide")
    emulator.clock(speed=5000.0)
    whole = {"tides": 1, "ebbs": 1}
    until(
        lambda: {name: len(story.results(name)) for name in whole} == whole,
        "the next ticks have finished both runs",
    )
    return story


def crashed(story: Story, run: FlowRun) -> datetime | None:
    with story.client() as client:
        state = client.read_flow_run(run.id).state
    if state is None or state.type is not StateType.CRASHED:
        return None
    return datetime.fromtimestamp(state.timestamp.timestamp(), UTC)


def test_ticks_finish_what_was_killed_and_nothing_is_paid_twice(story: Story) -> None:
    assert list(story.results("tides").values()) == [DOCUMENTS]
    assert list(story.results("ebbs").values()) == [DOCUMENTS]
    bill = story.emulator.bill()
    assert bill["records"] == bill["requests"] == 2 * DOCUMENTS
    assert bill["most_billed"] == 1
    assert story.batches == 2
    assert not [path for path in (story.folder / "out" / "open").rglob("*") if path.is_file()]


def test_the_window_is_that_of_the_time_that_was_scheduled(story: Story) -> None:
    [run] = story.dead[:1]
    assert run.expected_start_time is not None
    [window] = story.results("tides")
    day = run.expected_start_time.timestamp() - timedelta(days=1).total_seconds()
    assert window.startswith("window=20")
    assert datetime.fromtimestamp(day, UTC).strftime("%Y-%m") == window[7:14]


def test_dead_flow_runs_are_marked_within_the_stated_time(story: Story) -> None:
    for run in story.dead:
        marked = until(lambda run=run: crashed(story, run), f"{run.name} is marked")
        assert marked - story.killed_at < MARKED_WITHIN


def test_flow_runs_that_live_are_left_alone(story: Story) -> None:
    dead = {run.id for run in story.dead}
    assert {run.id for run in story.runs(story.tick, StateType.CRASHED)} <= dead
    assert story.runs(story.tick, StateType.COMPLETED)


def test_the_same_deployment_again_changes_nothing(story: Story) -> None:
    asked = ("--cron", story.cron, "--tz", "UTC", "--tick", "1m")
    said = story.lowtide("deploy", str(story.folder / "tides.yaml"), *asked)
    assert Counter(line.split()[0] for line in said.splitlines() if line[:1].strip()) == {"unchanged": 5, "A": 1}


def test_events_tell_what_has_become_of_the_runs(story: Story) -> None:
    def told() -> list[dict[str, object]] | None:
        wanted = {"filter": {"event": {"name": ["lowtide.run.published"]}}, "limit": 50}
        with story.client() as client:
            found: list[dict[str, object]] = client.request("POST", "/events/filter", json=wanted).json()["events"]
        return found if len(found) >= 2 else None

    events = until(told, "both events are there")
    assert len({event["id"] for event in events}) == len(events) == 2
    for event in events:
        payload = event["payload"]
        assert isinstance(payload, dict)
        assert payload["counts"] == {"ok": DOCUMENTS}
        assert {related["prefect.resource.role"] for related in event["related"]} >= {"job", "window", "root"}  # type: ignore[attr-defined]


def test_the_pages_show_it(story: Story, browser: Browser, tmp_path: Path) -> None:
    with story.client() as client:
        tick = client.read_deployment_by_name(story.tick)
    pages = {
        "deployments": ("/deployments", ["lowtide run due", "lowtide tick", "Every minute"]),
        "tick": (f"/deployments/deployment/{tick.id}", ["lowtide.flows.tick.advance_root", "Completed", "Crashed"]),
        "crashed": (f"/runs/flow-run/{story.dead[0].id}", ["Crashed", "open window", "lowtide-job-tides"]),
        "artifacts": ("/artifacts", ["summary-tides", "counts-ebbs"]),
        "automations": ("/automations", ["lowtide: mark dead flow runs"]),
    }
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    try:
        for name, (path, texts) in pages.items():
            page.goto(f"{story.stack.url}{path}", wait_until="load")
            for text in texts:
                expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)
            page.screenshot(path=Path(os.environ.get("LOWTIDE_SCREENSHOTS", tmp_path)) / f"{name}.png")
    finally:
        page.close()
