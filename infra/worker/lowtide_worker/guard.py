"""Runs a command in a session of its own, and ends it and all that it started once the worker is gone.

    guard.py LOG SECONDS COMMAND...

Standard input is a pipe that the worker holds open. When it closes, because the worker asked for the end or was killed,
the command's processes get SIGTERM and, after SECONDS, SIGKILL: an engine without its worker would keep the GPU. The
command's process id goes to standard output, its own output to LOG, of which the last megabytes are kept. It ends with
the command's code, 128 more than the signal's number if one ended it, or 127 if it cannot be started.

Run as a file with nothing but the standard library, so that its start costs as little as it can.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

KEPT_BYTES = 8_000_000
"""How long a log becomes before it is put aside; the one put aside before is removed."""

_NOT_STARTED = 127
_LOOKS_EVERY = 0.05


def main(log: Path, seconds: float, command: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Who wants the engine to end closes the pipe; a signal to all of a container must not come before. Handlers are
        # not inherited, so the engine hears its signals.
        signal.signal(number, lambda *_: None)
    try:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        log.write_text(f"{command[0]}: {error.strerror}\n", encoding="utf-8")
        return _NOT_STARTED
    if engine.stdout is None:
        raise RuntimeError("the engine's output is no pipe")
    print(engine.pid, flush=True)
    copying = threading.Thread(target=_copy, args=(engine.stdout, log), daemon=True)
    copying.start()
    threading.Thread(target=_end_with_worker, args=(engine, seconds), daemon=True).start()
    code = engine.wait()
    # A rest of the engine would keep the GPU's memory from the next one.
    _signal(engine.pid, signal.SIGKILL)
    copying.join(1.0)
    return code if code >= 0 else 128 - code


def _copy(output: IO[bytes], log: Path) -> None:
    """Copy what the engine says into two files at most. A full disk must not hold the engine up."""
    file, written = _new(log), 0
    while said := os.read(output.fileno(), 65536):
        if written >= KEPT_BYTES:
            file.close()
            file, written = _new(log), 0
        with contextlib.suppress(OSError):
            file.write(said)
        written += len(said)
    file.close()


def _new(log: Path) -> IO[bytes]:
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    return log.open("wb", buffering=0)


def _end_with_worker(engine: subprocess.Popen[bytes], seconds: float) -> None:
    while os.read(0, 1024):
        pass
    _signal(engine.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and engine.returncode is None:
        time.sleep(_LOOKS_EVERY)
    _signal(engine.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
