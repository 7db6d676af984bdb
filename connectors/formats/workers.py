"""The reader's side of the workers: starts them, gives them documents, and survives what documents do to them."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import BinaryIO

from lowtide.connectors.formats.limits import MIB, ReadLimits, reason
from lowtide.connectors.formats.protocol import (
    REPLIES,
    Batch,
    Channel,
    Data,
    Done,
    Failed,
    Need,
    Parse,
    Parsed,
    ReadRows,
    Ready,
    Setup,
)
from lowtide.errors import LowtideError

_START_SECONDS = 60.0
_RECYCLE = 5_000
"""A worker is replaced after so many documents: parsers in C leak, and a fresh one costs a tenth of a second."""

_TRIES = 2
"""A document whose worker dies gets a second one: the first may have been killed from outside, or by its forerunner."""

_KEPT = ("PATH", "TMPDIR", "TEMP", "TMP", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_LARGEST_NEED = 64 * MIB


class WorkerDied(LowtideError):
    """The worker ended, or said something that makes no sense, while it had a document. The message says how."""


class Workers:
    """Worker processes, started when needed and kept for the next document. May be used from several threads."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._finalizer = weakref.finalize(self, _close_all, self._idle)

    def parse(self, format: str, data: bytes, fields: list[str]) -> Parsed | Failed:
        """The text of one file, or why there is none. Raises LowtideError only if no worker can be started at all."""
        how = ""
        for _ in range(_TRIES):
            worker = self._take()
            try:
                reply = worker.parse(Parse(format, fields), data)
            except WorkerDied as error:
                worker.close()
                how = str(error)
            except TimeoutError:
                worker.close()
                return Failed(
                    f"the {format} parser took longer than {self._limits.seconds:g} s: split or simplify the file"
                )
            except BaseException:
                worker.close()
                raise
            else:
                self._give(worker)
                return reply
        return Failed(f"the {format} parser died of this file, {_TRIES} times ({how}): repair or convert it")

    def rows(self, stream: BinaryIO, request: ReadRows) -> Iterator[tuple[Batch, bytearray] | Failed]:
        """The rows of a Parquet file: Arrow streams, in order, and at the end perhaps why there are no more."""
        worker = self._take()
        row = 0
        try:
            for reply in worker.rows(stream, request):
                yield reply
                if not isinstance(reply, Failed):
                    row = reply[0].start
        except WorkerDied as error:
            worker.close()
            yield Failed(f"the Parquet reader died of this file behind row {row} ({error}): write the file again", row)
        except TimeoutError:
            worker.close()
            seconds = f"{self._limits.seconds:g} s"
            yield Failed(
                f"rows behind row {row} took longer than {seconds}: write the file with smaller row groups", row
            )
        except BaseException:
            worker.close()
            raise
        else:
            self._give(worker)

    def close(self) -> None:
        """End the workers that are idle. Safe to call more than once."""
        _close_all(self._idle)

    def _take(self) -> Worker:
        while True:
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                return Worker(self._limits)
            if worker.alive:
                return worker
            worker.close()

    def _give(self, worker: Worker) -> None:
        if worker.documents < _RECYCLE and self._finalizer.alive:
            self._idle.put(worker)
        else:
            worker.close()


def _close_all(idle: queue.SimpleQueue[Worker]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            idle.get_nowait().close()


class Worker:
    """One process. Any error leaves it unusable: close it."""

    def __init__(self, limits: ReadLimits) -> None:
        """Start it. Raises LowtideError if it does not come up: then the installation is broken, and no document is."""
        ours, theirs = socket.socketpair()
        self.documents = 0
        self._limits = limits
        self._channel = Channel(ours, largest=limits.memory_bytes, patience=max(limits.seconds, _START_SECONDS))
        with theirs:
            # -P: a file that lies in the current folder must not pass for a module.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lowtide.connectors.formats.worker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
        try:
            self._channel.send(Setup(limits))
            ready = self._channel.receive(REPLIES, _START_SECONDS)
        except (EOFError, TimeoutError, ValueError):
            ready = None
        if not isinstance(ready, Ready):
            self.close()
            command = f"{sys.executable} -m lowtide.connectors.formats.worker"
            raise LowtideError(f"the parser process did not start ({self._how()}): run `{command}` to see why")

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def parse(self, request: Parse, data: bytes) -> Parsed | Failed:
        """Raises WorkerDied or TimeoutError."""
        self.documents += 1
        try:
            self._channel.send(request)
            self._channel.send_bytes(data)
            reply = self._channel.receive(REPLIES, self._limits.seconds)
        except (EOFError, ValueError) as error:
            raise WorkerDied(self._how(error)) from None
        if not isinstance(reply, Parsed | Failed):
            raise WorkerDied("it answered out of turn")
        return reply

    def rows(self, stream: BinaryIO, request: ReadRows) -> Iterator[tuple[Batch, bytearray] | Failed]:
        """Raises WorkerDied or TimeoutError, and whatever reading the stream raises."""
        self.documents += 1
        try:
            self._channel.send(request)
            while True:
                reply = self._channel.receive(REPLIES, self._limits.seconds)
                match reply:
                    case Need(offset, length):
                        self._serve(stream, offset, min(length, _LARGEST_NEED))
                    case Batch():
                        yield reply, self._channel.receive_bytes(self._limits.seconds)
                    case Failed():
                        yield reply
                        return
                    case Done():
                        return
                    case _:
                        raise WorkerDied("it answered out of turn")
        except (EOFError, ValueError) as error:
            raise WorkerDied(self._how(error)) from None

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _serve(self, stream: BinaryIO, offset: int, length: int) -> None:
        stream.seek(offset)
        data = stream.read(length)
        while len(data) < length and (more := stream.read(length - len(data))):
            data += more
        self._channel.send(Data())
        self._channel.send_bytes(data)

    def _how(self, error: Exception | None = None) -> str:
        """How the process ended, for a reason."""
        if isinstance(error, ValueError):
            return "it answered nonsense"
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        if code >= 0:
            return f"exit code {code}"
        name = reason(signal.Signals(-code).name) if -code in signal.Signals._value2member_map_ else str(-code)
        memory = f", perhaps out of its {self._limits.memory_bytes // MIB} MB" if -code == signal.SIGABRT else ""
        return name + memory


def _environment() -> dict[str, str]:
    """What Python needs to start, and no credentials. Two arenas: each counts with 64 MB against the memory limit."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "PYTHONUTF8": "1",
        "MALLOC_ARENA_MAX": "2",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
    }
