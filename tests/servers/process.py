"""Start a real server as a subprocess on a free loopback port, wait until it answers, and end it afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

READY_SECONDS = 90.0
STOP_SECONDS = 10.0
PORTS_TRIED = 3


def free_port() -> int:
    """A loopback port that nobody listens on now; another process may still take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: Callable[[int], Sequence[str]],
    *,
    ready: str = "/",
    environ: Callable[[int], Mapping[str, str]] = lambda port: {},
) -> Iterator[str]:
    """Run `command(port)` and give its base url, e.g. `http://127.0.0.1:34567`, once `ready` answers over HTTP.

    A server that ends before it answers (its port was taken, say) is started again on another port; after three
    times RuntimeError holds the end of its output.
    """
    for attempt in range(1, PORTS_TRIED + 1):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                list(command(port)),
                env={**os.environ, **environ(port)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                if _answers(process, url + ready):
                    yield url
                    return
                if attempt == PORTS_TRIED:
                    output.seek(0)
                    tail = output.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{command(port)[0]} did not answer at {url}{ready}: {tail}")
            finally:
                _stop(process)


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own loopback server
            return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
