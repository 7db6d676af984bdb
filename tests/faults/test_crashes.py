"""kill -9 at every transition of the journal, a full disk, a cancel: the next process goes on from there."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from faults.conftest import Setting
from faults.scene import BACKENDS, SPEED, SPOT, Scene
from faults.walker import Command, Walker

from lowtide.cli.running import FAILED_ROWS
from lowtide.engine import Run, find_run
from lowtide.events import CancelRequested
from lowtide.shards import Phase

FEW = 300
"""Documents: two shards, both large enough for Bedrock."""
FASTER = 20
"""Claims of dead processes run out in 15 minutes, so that these clocks run so much faster than the others."""


@pytest.fixture
def walkers() -> Iterator[list[Walker]]:
    found: list[Walker] = []
    yield found
    for walker in found:
        walker.end()


def walk(scene: Scene, walkers: list[Walker], started: float, **how: object) -> int:
    if not walkers:
        walkers.append(Walker({}))
    return walkers[0].run(Command(str(scene.job), SPEED * FASTER, started, **how))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "point"), [*((backend, point) for backend in BACKENDS for point in (1, 2)), (SPOT, 1)]
)
def test_killed_at_every_transition_and_resumed_elsewhere(
    setting: Setting, backend: str, point: int, walkers: list[Walker]
) -> None:
    """Each process first writes that it was asked for, and dies before or behind one of its next entries.

    Later ones live a little longer: with clocks that run so fast, a build on a slow machine renews its claim as often
    as the first ones write anything.
    """
    scene = setting(backend, documents=FEW, shard_records=150)
    scene.emulator.clock(speed=SPEED * FASTER)
    started, deaths = time.time(), 0
    for _ in range(100):
        status = walk(scene, walkers, started, die_at=3 + (deaths + point) % 5 + deaths // 10)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        deaths += 1
    else:
        pytest.fail(
            f"never done: {[entry.events for _, entry in find_run(scene.work()).context.journal.history()][-40:]}"
        )
    assert deaths > 10
    run = find_run(scene.work())
    assert run is not None
    scene.check(scene.ended(run), {"ok": FEW})
    assert scene.emulator.bill()["records"] == FEW


@pytest.mark.slow
@pytest.mark.parametrize("backend", [*BACKENDS, SPOT])
def test_a_full_disk_at_collect_loses_nothing(
    setting: Setting, backend: str, walkers: list[Walker], capfd: pytest.CaptureFixture[str]
) -> None:
    scene = setting(backend, documents=FEW, shard_records=150)
    started = time.time()
    assert walk(scene, walkers, started, wait=False) == 0
    for _ in range(200):
        if walk(scene, walkers, started, wait=False, file_bytes=20_000):
            break
        time.sleep(0.2)
    else:
        pytest.fail("the disk was never full")
    assert walk(scene, walkers, started) == 0
    run = find_run(scene.work())
    assert run is not None
    scene.check(scene.ended(run), {"ok": FEW})
    assert scene.emulator.bill()["records"] == FEW
    assert "error: " in capfd.readouterr().err


def test_a_cancel_in_mid_run_keeps_what_was_answered_and_the_next_run_asks_the_rest(
    setting: Setting, backend: str
) -> None:
    # Long enough that some answers are there, and some are not, however slow the machine is.
    scene = setting(backend, {"on": "process", "do": "slow", "seconds": 300, "times": "forever"})
    looked = 0

    def cancel(run: Run) -> None:
        nonlocal looked
        working = [shard for shard in run.state.shards.values() if shard.phase is Phase.SUBMITTED]
        looked += bool(working)
        if looked == 4 and not run.state.cancelled:
            run.context.journal.append(CancelRequested(at=run.context.clock()))

    ended = scene.finish(on_pass=cancel)
    assert ended.statuses["skipped"], "cancelled too late to prove anything"
    scene.check(ended, code=FAILED_ROWS)
    assert ended.statuses["ok"] + ended.statuses["skipped"] == scene.documents
    assert {row["status_reason"] for row in ended.rows if row["status"] == "skipped"} <= {"cancelled"}
    scene.emulator.faults([])
    rest = scene.finish()
    scene.check(rest, {"ok": scene.documents})
