"""Forgetting starts no threads: a process that has some may hang when it forks, or ends."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from support.engine_support import finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide import ids
from lowtide.connectors.stores.local import LocalStore
from lowtide.engine import open_run

TEXTS: dict[str, str | None] = {"doc-0": "said twice", "doc-1": "said twice", "doc-2": "said once"}
FORGETS = """
import sys
from pathlib import Path
import psutil
from lowtide.connectors.stores.local import LocalStore
from lowtide.forgetting import Forgetting, Target

before = {thread.id for thread in psutil.Process().threads()}
touched = Forgetting(LocalStore(Path(sys.argv[1]), sync="none"), Target.of(sys.argv[2])).perform()
print(",".join(sorted(touched.counts())), len({thread.id for thread in psutil.Process().threads()} - before))
"""


def test_forgetting_by_id_leaves_no_thread_behind(tmp_path: Path) -> None:
    work = work_on(MemoryStore(), StandInBackend(Provider()), ListedDocuments(TEXTS))
    assert finish(open_run(replace(work, root=LocalStore(tmp_path, sync="none")))).done
    command = [sys.executable, "-c", FORGETS, str(tmp_path), ids.document_id("doc-0", "")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    kinds, threads = done.stdout.split()
    assert {"index", "inputs", "results", "rows"} <= set(kinds.split(","))
    assert threads == "0"
