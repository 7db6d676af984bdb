"""Machines that go away, and an engine that misbehaves: one answer for each record, and the ledger tells the waste."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from faults.conftest import Setting
from faults.scene import DOCUMENTS, SPOT, Ended, Scene

from lowtide.cli.running import FAILED_ROWS
from lowtide.connectors.backends.spot import open_spot
from lowtide.connectors.backends.spot.fleet import fleet_of
from lowtide.connectors.stores import open_store
from lowtide.engine import Run
from lowtide.events import CancelRequested
from lowtide.job import load_job
from lowtide.job.backends import SpotBackend

ALL = {"ok": DOCUMENTS}
FOREVER = {"times": "forever"}
QUICK = {"part_rows": 20, "part_seconds": 0.2, "beat_seconds": 0.2, "lease_seconds": 1.5, "idle_seconds": 5.0}
"""Times that a test can wait for: a worker is taken for dead after 1.5 s without a sign."""


@pytest.fixture
def slots(tmp_path: Path) -> Path:
    return tmp_path / "slots" / "slots"


def opened(scene: Scene) -> Run:
    """The run, with workers that are quick to take over from one another."""
    job = load_job(scene.job)
    [spec] = job.backends
    assert isinstance(spec, SpotBackend)
    fleet = msgspec.structs.replace(fleet_of(spec), **QUICK)
    return scene.open(backend=open_spot(spec, open_store(job.output.root), fleet=fleet))


def pids(slots: Path) -> Iterator[int]:
    """Of the workers that live."""
    for path in slots.glob("*/worker"):
        try:
            pid = int(path.read_text().split()[1])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # Its number may be another process's by now.
        if b"lowtide_worker.main" in words:
            yield pid


@dataclass
class Killer:
    """Kills a worker each time that so many more records are answered, `deaths` times."""

    scene: Scene
    slots: Path
    deaths: int
    every: int
    how: signal.Signals = signal.SIGKILL
    killed: set[int] = field(default_factory=set)

    def __call__(self, run: Run) -> None:
        if len(self.killed) >= self.deaths or self.scene.emulator.bill()["records"] < self.every * (
            1 + len(self.killed)
        ):
            return
        for pid in pids(self.slots):
            if pid not in self.killed:
                os.kill(pid, self.how)
                self.killed.add(pid)
                return


def check(scene: Scene, ended: Ended, expected: Mapping[str, int] = ALL) -> None:
    """One row for each document, each with its share of all that the machines have cost."""
    assert ended.statuses == Counter(expected)
    scene.check_money(ended)
    assert ended.code == (0 if expected == ALL else FAILED_ROWS)
    assert not ended.run.state.reserved
    assert ended.seconds()[""] > 0


def test_without_faults(setting: Setting) -> None:
    scene = setting(SPOT)
    ended = scene.finish()
    scene.check(ended, ALL)
    assert scene.emulator.bill()["records"] == DOCUMENTS
    assert ended.seconds()[""] > 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "interrupted"])
def test_workers_that_go_away_lose_seconds_and_no_answer(setting: Setting, slots: Path, how: signal.Signals) -> None:
    scene = setting(SPOT)
    killer = Killer(scene, slots, deaths=5, every=250, how=how)
    ended = scene.finish(opened(scene), on_pass=killer)
    assert len(killer.killed) == 5
    check(scene, ended)
    twice = scene.emulator.bill()["records"] - DOCUMENTS
    # What was in flight and in no part when a worker died; one that is told to go writes all that comes back in time.
    assert twice <= (0 if how is signal.SIGTERM else 5 * (QUICK["part_rows"] + 256))
    assert ended.seconds().keys() <= {"", "boot", "idle", "preempted"}


@pytest.mark.parametrize("how", ["error_before", "reset_before", "throttle"])
def test_requests_that_fail_for_a_while_are_tried_again(setting: Setting, how: str) -> None:
    scene = setting(SPOT, {"on": "chat", "do": how, "times": 60, "after": 100, "seconds": 0.1})
    scene.check(scene.finish(), ALL)
    assert scene.emulator.bill()["records"] == DOCUMENTS


def test_a_poison_row_ends_as_an_error_and_holds_nothing_up(setting: Setting) -> None:
    scene = setting(SPOT, {"on": "chat", "do": "poison", **FOREVER, "match": {"text": "POISON"}}, attempts=2)
    ended = scene.finish()
    check(scene, ended, {"ok": DOCUMENTS - 1, "error": 1})
    # Before a record is given up, the engine is asked something that it has to be able to answer, with one token.
    bill = scene.emulator.bill()
    probes = bill["records"] - (DOCUMENTS - 1)
    assert probes <= 2 * 3
    assert bill["output_tokens"] - ended.tokens()["output"] == probes


def test_rows_that_are_refused_say_so(setting: Setting) -> None:
    scene = setting(SPOT, {"on": "chat", "do": "refuse", "times": 12})
    scene.check(scene.finish(), {"ok": DOCUMENTS - 12, "refused": 12})


def test_answers_of_the_wrong_form_are_asked_again_and_waste(setting: Setting) -> None:
    scene = setting(SPOT, {"on": "chat", "do": "invalid", "rate": 0.1, "times": 200})
    ended = scene.finish()
    scene.check(ended, ALL, again=["an answer that is none was asked for again"])
    assert ended.waste()["invalid"] > 0


def test_a_cancel_in_mid_run_keeps_what_was_answered_and_the_next_run_asks_the_rest(
    setting: Setting, slots: Path
) -> None:
    scene = setting(SPOT)

    def cancel(run: Run) -> None:
        if scene.emulator.bill()["records"] > 200 and not run.state.cancelled:
            run.context.journal.append(CancelRequested(at=run.context.clock()))

    ended = scene.finish(opened(scene), on_pass=cancel)
    assert ended.statuses["skipped"], "cancelled too late to prove anything"
    scene.check(ended, code=FAILED_ROWS)
    assert ended.statuses["ok"] + ended.statuses["skipped"] == DOCUMENTS
    end = time.monotonic() + 30
    while any(True for _ in pids(slots)):
        assert time.monotonic() < end, "workers go on with a run that was cancelled"
        time.sleep(0.1)
    rest = scene.finish()
    scene.check(rest, ALL)
