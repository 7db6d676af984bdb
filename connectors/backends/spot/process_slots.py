"""A worker's place on this machine.

lock      held by the worker, or free
worker    the fleet that it works for, its process id, and how its beats' names begin
exit      the code that it ended with
told      exists once we have told it to stop
sign      its last beat, and since when there was no newer one
log       what it said, and those before it
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from lowtide.connectors.backends.folders import hold

_NOTED_WITHIN = 2.0
"""Seconds that a shell may take to start a worker and note its process id."""

_OF_ONE_WORKER = ("worker", "exit", "told", "sign")


class _Sign(msgspec.Struct, frozen=True):
    """A worker's beat as it was `at` a time of the machine's clock that counts on, and has been since."""

    etag: str
    at: float


class Whose(NamedTuple):
    """The worker of a slot: nobody's fleet is "", and its process id is 0 until it is known."""

    fleet: str = ""
    pid: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place on this machine."""

    path: Path

    def lock(self) -> int | None:
        """A descriptor that holds the slot until it is closed, here and in whoever inherits it; None if it is held."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return hold(self.path / "lock")

    @property
    def worker(self) -> Whose:
        """Who holds the slot, or held it last and was not cleared away."""
        try:
            fleet, pid, *name = (self.path / "worker").read_text().split()
            return Whose(fleet, int(pid), *name[:1])
        except (FileNotFoundError, ValueError):
            # Empty, or half written: by a disk that was full.
            return Whose()

    def pid_of(self, fleet: str) -> int:
        """The process id of the fleet's worker in the slot, once it is noted; 0 if another fleet's is in it."""
        until = time.monotonic() + _NOTED_WITHIN
        while (whose := self.worker).fleet == fleet and not whose.pid and time.monotonic() < until:
            time.sleep(0.01)
        return whose.pid if whose.fleet == fleet else 0

    @property
    def exit_code(self) -> int | None:
        """The code that the last worker ended with; None if nobody was left to note it."""
        try:
            return int((self.path / "exit").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def tell(self, pid: int) -> None:
        """Tell the worker to stop, and note that we have. No error if it has ended."""
        write_whole(self.path / "told", b"")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    @property
    def was_told(self) -> bool:
        return (self.path / "told").exists()

    def silence(self, etag: str) -> float:
        """For how long the worker's beat has been the one with this etag; "" while it has written none."""
        now = time.monotonic()
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            sign = msgspec.json.decode((self.path / "sign").read_bytes(), type=_Sign)
            if sign.etag == etag and sign.at <= now:
                return now - sign.at
        write_whole(self.path / "sign", msgspec.json.encode(_Sign(etag, now)))
        return 0.0

    def clear(self) -> None:
        """Nothing is known any more of the worker that held it."""
        for name in _OF_ONE_WORKER:
            (self.path / name).unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Put a whole file in the place of what is there. Raises OSError, and nothing has changed then."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    new.replace(path)
