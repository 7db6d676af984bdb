"""kill -9 of the command, with real workers: then the same command again, and everything is as if nothing had been."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.command import Bench, write_documents

DOCUMENTS = 12


def entries(bench: Bench) -> int:
    """Journal entries so far."""
    return len(list((Path(bench.root) / "runs" / "tides" / "all").glob("*/journal/0*.json")))


def start(tmp_path: Path) -> tuple[Bench, subprocess.Popen[str]]:
    bench = Bench(tmp_path, shard_records=8)
    write_documents(tmp_path / "documents", DOCUMENTS)
    return bench, bench.start("run", str(bench.job), "--direct")


def finish(bench: Bench) -> None:
    assert bench.run().returncode in (0, 3)
    bench.assert_right(DOCUMENTS)


@pytest.mark.slow
@pytest.mark.parametrize("entry", range(1, 17))
def test_killed_after_each_journal_entry(tmp_path: Path, entry: int) -> None:
    bench, process = start(tmp_path)
    while process.poll() is None and entries(bench) < entry:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(bench)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_times(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    bench, process = start(tmp_path)
    for _ in range(2):
        while process.poll() is None and not entries(bench):
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 2.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = bench.start("run", str(bench.job), "--direct")
    process.communicate(timeout=300)
    finish(bench)
