"""A worker's folder on its machine, and those that killed workers have left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lowtide_worker.scratch import scratch

DAY = 86400.0


def names(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def killed(base: Path, name: str) -> None:
    """Leave what a worker leaves that is killed while its engine writes a log."""
    program = (
        "import os, signal, sys; from pathlib import Path; from lowtide_worker.scratch import scratch\n"
        "with scratch(sys.argv[2], Path(sys.argv[1])) as own:\n"
        "    (own.path / 'engine.log').write_text('a prompt'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(base), name], check=False)


def test_a_folder_is_its_workers_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch("w-1", tmp_path) as own:
        assert own.path == tmp_path / "lowtide-worker-w-1"
        assert own.path.stat().st_mode & 0o777 == 0o700
        (own.path / "engine.log").write_text("a prompt")
    assert names(tmp_path) == []


def test_it_is_gone_after_a_failure_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch("w-1", tmp_path):
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_a_killed_worker_has_left_goes_with_the_next_one_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    killed(tmp_path, "dead")
    assert names(tmp_path) == ["lowtide-worker-dead"]
    with scratch("first", tmp_path), scratch("second", tmp_path):
        assert names(tmp_path) == ["lowtide-worker-first", "lowtide-worker-second"]


def test_what_was_kept_for_somebody_to_read_lies_there_for_a_day(tmp_path: Path) -> None:
    with scratch("failed", tmp_path) as own:
        own.keep()
    with scratch("next", tmp_path):
        assert names(tmp_path) == ["lowtide-worker-failed", "lowtide-worker-next"]
    aged(own.path, DAY + 10)
    with scratch("later", tmp_path):
        assert names(tmp_path) == ["lowtide-worker-later"]


def test_of_many_engines_that_failed_the_last_five_logs_are_kept(tmp_path: Path) -> None:
    for number in range(9):
        with scratch(f"failed-{number}", tmp_path) as own:
            own.keep()
        aged(own.path / "kept", 100 - number)
    with scratch("next", tmp_path):
        assert names(tmp_path) == [
            *(f"lowtide-worker-failed-{number}" for number in range(4, 9)),
            "lowtide-worker-next",
        ]


def test_what_others_have_begun_or_named_alike_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "lowtide-worker-file").touch()
    (tmp_path / "lowtide-worker-link").symlink_to(elsewhere)
    (tmp_path / ".lowtide-worker-new").mkdir()
    (tmp_path / "lowtide-worker-without-lock").mkdir()
    before = names(tmp_path)
    with scratch("w", tmp_path):
        pass
    assert names(tmp_path) == before
    aged(tmp_path / ".lowtide-worker-new", DAY + 10)
    aged(elsewhere, DAY + 10)
    with scratch("w", tmp_path):
        pass
    assert names(tmp_path) == [name for name in before if name != ".lowtide-worker-new"]
