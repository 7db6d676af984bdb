"""Parser processes: their limits, their deaths, and what becomes of the documents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lowtide.connectors.formats.limits import MIB, ReadLimits
from lowtide.connectors.formats.protocol import Failed, Parsed
from lowtide.connectors.formats.workers import Workers
from lowtide.errors import LowtideError

SMALL = b"<p>small"
SLOW = b"<p>word " * (MIB // 4)
"""A second or more of work for the HTML reader."""

Start = Callable[[ReadLimits], Workers]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Workers] = []

    def make(limits: ReadLimits) -> Workers:
        made.append(Workers(limits))
        return made[-1]

    yield make
    for workers in made:
        workers.close()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "lowtide.connectors.formats.worker" in process.cmdline()
    except psutil.Error:
        return False


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_one_worker_serves_many_documents(start: Start) -> None:
    workers = start(ReadLimits())
    replies = [workers.parse("html", f"<p>number {at}".encode(), []) for at in range(20)]
    assert replies == [Parsed(f"number {at}", []) for at in range(20)]
    assert len(children()) == 1


def test_a_document_that_takes_too_long_is_given_up_and_the_next_is_read(start: Start) -> None:
    workers = start(ReadLimits(seconds=0.3))
    began = time.monotonic()
    assert workers.parse("html", SLOW, []) == Failed(
        "the html parser took longer than 0.3 s: split or simplify the file"
    )
    assert time.monotonic() - began < 3
    assert workers.parse("html", SMALL, []) == Parsed("small", [])


def test_a_document_that_takes_too_much_memory_is_given_up_and_the_next_is_read(start: Start) -> None:
    workers = start(ReadLimits(memory_bytes=192 * MIB))
    four_bytes_a_letter = "😀".encode() + b"a" * (40 * MIB)
    assert workers.parse("html", four_bytes_a_letter, []) == Failed(
        "needs more than 192 MB of memory to parse: split or simplify it"
    )
    assert workers.parse("html", SMALL, []) == Parsed("small", [])


def test_text_over_the_limit_is_refused(start: Start) -> None:
    reply = start(ReadLimits(text_bytes=MIB)).parse("html", b"<p>" + b"a" * (2 * MIB), [])
    assert reply == Failed("more than 1 MB of text: split the file")


def killing(times: int) -> threading.Thread:
    """A thread that kills the first so many workers, each while it is busy."""

    def kill() -> None:
        killed: set[int] = set()
        for _ in range(times):
            assert until(lambda: any(child.pid not in killed and busy(child) for child in children()))
            for child in children():
                if child.pid not in killed:
                    killed.add(child.pid)
                    child.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def busy(process: psutil.Process) -> bool:
    """Whether it has the document: a process that only starts up uses less time than this."""
    try:
        return bool(process.cpu_times().user > 0.3)
    except psutil.Error:
        return False


def test_a_document_whose_worker_is_killed_is_read_by_another(start: Start) -> None:
    workers = start(ReadLimits())
    killer = killing(1)
    reply = workers.parse("html", SLOW, [])
    killer.join()
    assert isinstance(reply, Parsed)
    assert reply.text.count("word") == MIB // 4


def test_a_document_that_kills_its_worker_twice_is_given_up(start: Start) -> None:
    workers = start(ReadLimits())
    killer = killing(2)
    reply = workers.parse("html", SLOW, [])
    killer.join()
    assert reply == Failed("the html parser died of this file, 2 times (SIGKILL): repair or convert it")
    assert workers.parse("html", SMALL, []) == Parsed("small", [])


def test_a_worker_that_died_while_idle_costs_no_document(start: Start) -> None:
    workers = start(ReadLimits())
    workers.parse("html", SMALL, [])
    (child,) = children()
    child.kill()
    assert workers.parse("html", SMALL, []) == Parsed("small", [])


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads the environment of another process")
def test_a_worker_inherits_no_secrets(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("OPENAI_API_KEY", "hidden")
    start(ReadLimits()).parse("html", SMALL, [])
    (child,) = children()
    inherited = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert b"PYTHONUTF8" in inherited
    assert b"hidden" not in inherited


def ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("document", ["<p>small", "<p>word " * MIB * 2], ids=["idle", "busy"])
def test_a_worker_ends_when_its_reader_is_killed(document: str) -> None:
    script = textwrap.dedent(
        """
        import sys, threading, time, psutil
        from lowtide.connectors.formats.limits import ReadLimits
        from lowtide.connectors.formats.workers import Workers

        workers = Workers(ReadLimits(seconds=1.0))
        workers.parse("html", b"<p>", [])
        pids = [child.pid for child in psutil.Process().children()]
        threading.Thread(target=workers.parse, args=("html", sys.stdin.buffer.read(), []), daemon=True).start()
        time.sleep(0.6)
        print(pids[0], flush=True)
        time.sleep(60)
        """
    )
    reader = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None
    assert reader.stdout is not None
    with reader, reader.stdin, reader.stdout:
        reader.stdin.write(document.encode())
        reader.stdin.close()
        worker = int(reader.stdout.readline())
        os.kill(reader.pid, signal.SIGKILL)
        reader.wait()
    assert until(lambda: ended(worker), 12)


def test_a_worker_that_cannot_start_is_no_documents_fault(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LowtideError, match=r"did not start \(exit code 3\): run `.*formats.worker` to see why"):
        start(ReadLimits()).parse("html", SMALL, [])


def test_a_file_in_the_current_folder_does_not_pass_for_a_module(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert start(ReadLimits()).parse("html", SMALL, []) == Parsed("small", [])


def test_several_threads_share_the_workers(start: Start) -> None:
    workers = start(ReadLimits())
    found: dict[int, Parsed | Failed] = {}

    def parse(number: int) -> None:
        found[number] = workers.parse("html", f"<p>{number}".encode(), [])

    threads = [threading.Thread(target=parse, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: Parsed(str(number), []) for number in range(6)}
