"""A process that drives a job of a scene and is killed at a point of its journal: python walker.py.

It forks a child for each command that it reads, so that a child costs no imports; see `Command`. Every child is another
machine, as far as it and its peers can tell: it has a folder of its own, and nobody knows whether it lives.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import IO

import msgspec
import orjson

import lowtide  # noqa: F401 - before this folder's parent, whose folder `lowtide` would be taken for the package

sys.path.append(str(Path(__file__).parents[1]))

from support.world import WatchedStore

from lowtide.connectors.assembly import assemble
from lowtide.engine import drive, open_run
from lowtide.errors import LowtideError
from lowtide.job import load_job
from lowtide.windows import parse_window

SECONDS = 120


class Command(msgspec.Struct, frozen=True):
    """Drive `job` with a clock that runs `speed` times as fast; die at point number `die_at`, 0 for never.

    Points lie before and after each entry of the journal that this process writes. `file_bytes` is the longest file
    that the disk has room for, `wait` says whether to stay until the end.
    """

    job: str
    speed: float
    started: float
    die_at: int = 0
    file_bytes: int = 0
    wait: bool = True


def carry_out(command: Command) -> int:
    """0 if the run was driven to its end, 1 for an error of ours, which is printed."""
    points = 0

    def hook(name: str) -> None:
        nonlocal points
        if "put" in name and "/journal/" in name:
            points += 1
            if points == command.die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def clock() -> float:
        return command.started + (time.time() - command.started) * command.speed

    os.chdir(tempfile.mkdtemp())
    work = assemble(load_job(Path(command.job)), parse_window("all"))
    work = replace(
        work,
        root=WatchedStore(work.root, hook),
        poll=timedelta(seconds=12),
        grace=timedelta(seconds=120),
    )
    if command.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (command.file_bytes, command.file_bytes))
    try:
        run = open_run(work, clock=clock)
        run.context.alive = lambda owner: None
        drive(
            run,
            poll=work.poll_seconds,
            until=None if command.wait else 0.0,
            sleep=lambda seconds: time.sleep(seconds / command.speed),
        )
    except LowtideError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


class Walker:
    """The test's side of the script."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._script = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **environ},
        )

    def run(self, command: Command) -> int:
        """How the child has ended: its exit status, or a signal's number below zero."""
        self._stdin.write(msgspec.json.encode(command).decode() + "\n")
        self._stdin.flush()
        return int(orjson.loads(self._stdout.readline())["status"])

    def end(self) -> None:
        self._stdin.close()
        self._script.wait(timeout=SECONDS)

    @property
    def _stdin(self) -> IO[str]:
        assert self._script.stdin is not None
        return self._script.stdin

    @property
    def _stdout(self) -> IO[str]:
        assert self._script.stdout is not None
        return self._script.stdout


def main() -> None:
    for line in sys.stdin:
        command = msgspec.json.decode(line, type=Command)
        child = os.fork()
        if not child:
            signal.alarm(SECONDS)
            status = 70
            try:
                status = carry_out(command)
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        print(f'{{"status": {os.waitstatus_to_exitcode(status)}}}', flush=True)


if __name__ == "__main__":
    main()
