"""The benchmark of the spot worker runs at a tiny size, and checks what the worker wrote."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_worker_is_measured_beside_a_bare_loop_and_nothing_is_left(tmp_path: Path) -> None:
    sizes = ["--rows", "5000", "--turn", "0.5", "--bare", "300", "--folder", str(tmp_path)]
    command = [sys.executable, "benchmarks/spot_worker.py", *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    assert re.search(r"worker to bare +\d+\.\d\d of the rate", done.stdout)
    assert re.search(r"memory +\d+ MB at most", done.stdout)
    assert list(tmp_path.iterdir()) == []
