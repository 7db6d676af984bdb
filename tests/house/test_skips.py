"""In CI a test that is skipped has failed: a missing browser must not turn into a green run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = "import pytest\n\n\ndef test_it():\n    pytest.skip('no browser here')\n"
SKIPPED_WHOLE = "import pytest\n\npytest.importorskip('no_such_package')\n"
ON_GPU = "import pytest\n\n\n@pytest.mark.gpu\ndef test_it():\n    pytest.skip('no GPU here')\n"


def outcome(checkout: Path, folder: Path, test: str, ci: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(checkout / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n", encoding="utf-8")
    (folder / "test_one.py").write_text(test, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
    environment = {**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("test", "reason"), [(SKIPPED, "no browser here"), (SKIPPED_WHOLE, "no_such_package")])
def test_a_skip_fails_in_ci_and_says_why(checkout: Path, tmp_path: Path, test: str, reason: str) -> None:
    ended = outcome(checkout, tmp_path, test, ci="true")

    assert ended.returncode != 0
    assert "In CI nothing is skipped" in ended.stdout
    assert reason in ended.stdout


def test_a_skip_is_a_skip_at_home(checkout: Path, tmp_path: Path) -> None:
    ended = outcome(checkout, tmp_path, SKIPPED, ci="")

    assert ended.returncode == 0
    assert "1 skipped" in ended.stdout


def test_a_gpu_may_be_missing_anywhere(checkout: Path, tmp_path: Path) -> None:
    ended = outcome(checkout, tmp_path, ON_GPU, ci="true")

    assert ended.returncode == 0
    assert "1 skipped" in ended.stdout
