"""kill -9 at every point of a run, and at any time; then the same command again: nothing lost, nothing bought twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.driver import OPERATIONS, TEXTS, Command, Drivers, FileProvider

from lowtide.connectors.stores.local import LocalStore
from lowtide.journal import Journal
from lowtide.states import RunState, fold

pytestmark = pytest.mark.slow

ROWS = Counter((uri, operation.name) for uri in TEXTS for operation in OPERATIONS)


def check(root: Path, provider: FileProvider) -> None:
    """All that must hold once a run is done, however it got there."""
    assert not provider.faults
    rows = pq.read_table(root / "tables/results/job=test/window=all/results.parquet").to_pylist()
    assert Counter((row["document_uri"], row["operation"]) for row in rows) == ROWS
    for row in rows:
        text = TEXTS[row["document_uri"]]
        status = "skipped" if text is None else "refused" if text == "text 2" else "ok"
        assert row["status"] == status
        if status == "ok":
            assert row["output_text"] == text
    (ledger,) = (root / "tables/ledger/job=test/window=all").glob("[!.]*")
    actual: Counter[str] = Counter()
    lines = pq.read_table(ledger, partitioning=None).to_pylist()
    for line in lines:
        if line["kind"] == "actual":
            actual[line["token_type"]] += line["quantity"]
    assert actual == provider.bill()
    assert len({line["entry_id"] for line in lines}) == len(lines)
    (prefix,) = (path.parent for path in root.glob("runs/test/all/*/plan.json"))
    journal = Journal(LocalStore(root), str(prefix.relative_to(root)), "auditor")
    assert journal.refresh() == fold(RunState(), [(number, entry.events) for number, entry in journal.history()])
    assert not [path for path in root.rglob("*.json") if path.stat().st_size == 0]


def points_of_a_run(folder: Path, drivers: Drivers, *, consistent: bool) -> int:
    with FileProvider(folder / "provider").at_work() as provider:
        command = Command(str(folder / "root"), str(provider.folder), consistent=consistent)
        assert drivers.run(command) == 0
        points = int((provider.folder / "points").read_text())
        check(folder / "root", provider)
        bought = provider.submissions
        assert drivers.run(command) == 0
        assert provider.submissions == bought
    return points


@pytest.mark.parametrize("consistent", [True, False], ids=["consistent look-ups", "look-ups that lag"])
def test_a_run_killed_at_any_point_is_finished_by_the_same_command(
    consistent: bool, drivers: Drivers, tmp_path: Path
) -> None:
    points = points_of_a_run(tmp_path / "whole", drivers, consistent=consistent)
    assert points > 80
    killed = 0
    for point in range(1, points + 1):
        folder = tmp_path / str(point)
        with FileProvider(folder / "provider").at_work() as provider:
            root = str(folder / "root")
            first = drivers.run(Command(root, str(provider.folder), point, consistent))
            killed += first == -signal.SIGKILL
            assert first in (0, -signal.SIGKILL)
            assert drivers.run(Command(root, str(provider.folder), consistent=consistent)) == 0
            check(Path(root), provider)
    # How often a batch is looked at is a matter of time, and so is the last point or two.
    assert killed >= points - 4


def test_a_run_killed_at_every_point_in_turn_is_finished_in_the_end(drivers: Drivers, tmp_path: Path) -> None:
    """The same run dies again and again, each time a little later in what is left of it."""
    with FileProvider(tmp_path / "provider").at_work() as provider:
        root, kills = tmp_path / "root", 0
        for point in [*range(1, 200), 0]:
            status = drivers.run(Command(str(root), str(provider.folder), 1 + point % 9 if point else 0))
            kills += status == -signal.SIGKILL
            if status == 0:
                break
        assert kills > 10
        assert drivers.run(Command(str(root), str(provider.folder))) == 0
        check(root, provider)


@pytest.mark.parametrize("seed", range(20))
def test_runs_killed_at_any_time_converge(seed: int, drivers: Drivers, rivals: Drivers, tmp_path: Path) -> None:
    """With even seeds two processes are at it at the same time, and either may die."""
    chance = random.Random(seed)
    with FileProvider(tmp_path / "provider").at_work() as provider:
        command = Command(str(tmp_path / "root"), str(provider.folder), consistent=seed % 4 < 2)
        for _ in range(6):
            running = [(starter, starter.start(command)) for starter in [drivers, rivals][: 2 - seed % 2]]
            statuses = []
            for starter, pid in running:
                time.sleep(chance.uniform(0, 0.12))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                statuses.append(starter.wait())
            assert set(statuses) <= {0, -signal.SIGKILL}
            if 0 in statuses:
                break
        assert drivers.run(command) == 0
        check(tmp_path / "root", provider)


def test_two_processes_at_the_same_time_do_nothing_twice(drivers: Drivers, rivals: Drivers, tmp_path: Path) -> None:
    with FileProvider(tmp_path / "provider").at_work() as provider:
        command = Command(str(tmp_path / "root"), str(provider.folder))
        for starter in (drivers, rivals):
            starter.start(command)
        assert [starter.wait() for starter in (drivers, rivals)] == [0, 0]
        check(tmp_path / "root", provider)
