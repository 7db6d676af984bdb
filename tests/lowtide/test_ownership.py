"""Whether whoever wrote a claim can still be at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lowtide.ownership import is_alive, this_owner

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="liveness is told from /proc")  # noqa: PTH110


def _owner_of(program: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"from lowtide.ownership import this_owner; print(this_owner(), flush=True); {program}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_another_use_of_this_process_is_another_owner_that_only_time_can_tell_about() -> None:
    first, second = this_owner(), this_owner()
    assert first != second
    assert is_alive(first) is None


def test_another_process_is_alive_until_it_is_killed() -> None:
    process, owner = _owner_of("import time; time.sleep(60)")
    try:
        assert is_alive(owner) is True
    finally:
        process.kill()
    process.wait()
    assert is_alive(owner) is False


def test_a_dead_process_that_nobody_has_buried_is_dead() -> None:
    process, owner = _owner_of("pass")
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_alive(owner) is not False and time.monotonic() < deadline:
        time.sleep(0.01)
    # Nobody has called wait: the process is a zombie.
    assert is_alive(owner) is False
    process.wait()


def test_another_process_under_the_same_number_is_not_the_owner() -> None:
    host, boot, namespace, pid, start, nonce = this_owner().split(":")
    assert is_alive(":".join([host, boot, namespace, pid, str(int(start) - 1), nonce])) is False


@pytest.mark.parametrize("part", [0, 1, 2])
def test_nothing_is_known_about_another_host_boot_or_namespace(part: int) -> None:
    parts = this_owner().split(":")
    parts[part] = "elsewhere"
    assert is_alive(":".join(parts)) is None


@pytest.mark.parametrize("owner", ["", "x", "a:b:c", "a:b:c:d:e:f:g", "::::::::"])
def test_nothing_is_known_about_an_owner_of_another_spelling(owner: str) -> None:
    assert is_alive(owner) is None


def test_a_process_that_cannot_be_looked_at_is_not_taken_for_dead() -> None:
    """Process 1 of a container belongs to root; where /proc is mounted with hidepid, its start cannot be read."""
    host, boot, namespace, _, _, nonce = this_owner().split(":")
    owner = ":".join([host, boot, namespace, str(os.getpid()), "?", nonce])
    assert is_alive(owner) is None
