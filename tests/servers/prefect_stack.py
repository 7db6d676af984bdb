"""A Prefect server on a PostgreSQL, and a worker that starts processes: each can be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from servers.postgres import Postgres
from servers.process import free_port

READY_SECONDS = 240.0
QUICK = {
    # What is due is looked for often, so that tests need not wait for it.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_PREFETCH_SECONDS": "5",
}


@dataclass
class Stack:
    """Server and worker, with their logs in `folder`. `environ` is what flow runs are started with as well."""

    folder: Path
    database: Postgres
    environ: Mapping[str, str]
    port: int = field(default_factory=free_port)
    _server: subprocess.Popen[bytes] | None = None
    _worker: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's pages."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.url}/api"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of whoever works with the server."""
        ours = {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_UI_API_URL": self.api,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        return {**os.environ, **ours, **QUICK, **self.environ}

    def start_server(self) -> None:
        """Start it, and wait until it answers."""
        self._server = self._start("server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and self._server.poll() is None:
            try:
                urllib.request.urlopen(f"{self.api}/health", timeout=5).close()  # noqa: S310 - loopback
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"the Prefect server did not start: {self.log('server')}")

    def start_worker(self, pool: str) -> None:
        """Start it; it asks for work within seconds."""
        self._worker = self._start("worker", "start", "--pool", pool, "--type", "process", "--name", "tests")

    def kill_server(self) -> None:
        """kill -9, and whatever it has started."""
        _kill(self._server)

    def kill_worker(self) -> None:
        """kill -9 of the worker and of the flow runs that it has started."""
        _kill(self._worker)

    def log(self, of: str) -> str:
        """The end of what it has said."""
        return (self.folder / f"{of}.log").read_text(errors="replace")[-4000:]

    def _start(self, of: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{of}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", of, *arguments],
                env=self.variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait(30)
