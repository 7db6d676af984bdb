"""kill -9 of `forget`, at points and at any time; then the same again: the document is gone, all others are whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.engine_support import finish
from support.remains import objects_in, remains
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on

from lowtide import ids
from lowtide.connectors.stores.local import LocalStore
from lowtide.engine import open_run
from lowtide.forgetting import Forgetting, Target

pytestmark = pytest.mark.slow

TEXTS: dict[str, str | None] = {f"doc-{number}": f"words of person {number}." for number in range(40)}
WORDS = ["doc-33", ids.document_id("doc-33", ""), "person 33."]
SCRIPT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from lowtide.connectors.stores.local import LocalStore
from lowtide.forgetting import Forgetting, Target
sys.path.append(sys.argv[3])
from support.world import WatchedStore
left = int(sys.argv[2])
def hook(point):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
print("at it", flush=True)
Forgetting(WatchedStore(LocalStore(Path(sys.argv[1]), sync="none"), hook), Target.of("doc-33")).perform()
"""


def make(root: Path) -> None:
    store = LocalStore(root, sync="none")
    for texts in (TEXTS, {**TEXTS, "more": "one more"}):
        operations = (echo_operation(), echo_operation("b"))
        work = work_on(MemoryStore(), StandInBackend(Provider()), ListedDocuments(texts), operations=operations)
        assert finish(open_run(replace(work, root=store))).done


def start(root: Path, die_at: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, str(root), str(die_at), str(Path(__file__).parents[1])]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def check(root: Path) -> None:
    store = LocalStore(root, sync="none")
    Forgetting(store, Target.of("doc-33")).perform()
    hidden = [path for path in objects_in(root) if path.rpartition("/")[2].startswith(".lowtide-")]
    for path in hidden:
        (root / path).unlink()
    assert remains(objects_in(root), WORDS) == []
    rows = pq.read_table(root / "tables/results/job=test/window=all/results.parquet", partitioning=None).to_pylist()
    assert {row["document_uri"] for row in rows} == {*TEXTS, "more"} - {"doc-33"}
    assert len(rows) == 2 * len(TEXTS)
    names = [path.name for path in (root / "forgotten").iterdir()]
    assert sorted(name.partition(".")[0] for name in names if ".begun" in name) == sorted(
        name.partition(".")[0] for name in names if ".done" in name
    )


@pytest.mark.parametrize("die_at", [3, 8, 15, 22, 29])
def test_killed_at_a_point(die_at: int, tmp_path: Path) -> None:
    make(tmp_path)
    process = start(tmp_path, die_at)
    assert process.wait(timeout=120) == -signal.SIGKILL
    check(tmp_path)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1])
def test_killed_at_any_time(after: float, tmp_path: Path) -> None:
    make(tmp_path)
    process = start(tmp_path, 0)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    process.kill()
    assert process.wait(timeout=120) in (0, -signal.SIGKILL)
    check(tmp_path)
