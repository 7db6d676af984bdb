"""A PostgreSQL of its own in a new folder, which can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.process import free_port

READY_SECONDS = 60.0


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is: on the path, or where Debian keeps those of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return shutil.which(name) or (str(found[-1]) if found else None)


class Postgres:
    """Runs as an unprivileged user, since it refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        initdb = ["-D", str(folder / "data"), "-U", "prefect", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        self._run(program("initdb") or "initdb", *initdb)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """For PREFECT_SERVER_DATABASE_CONNECTION_URL."""
        return f"postgresql+asyncpg://prefect@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = ["-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)]
        self.process = subprocess.Popen(
            [program("postgres") or "postgres", *options, "-c", "listen_addresses=127.0.0.1"],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "postgres.log").open("ab"),
        )
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            ready = subprocess.run(
                [program("pg_isready") or "pg_isready", "-h", "127.0.0.1", "-p", str(self.port)],
                check=False,
                capture_output=True,
            )
            if ready.returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'postgres.log').read_text()[-2000:]}")

    def stop_at_once(self) -> None:
        """End it without a checkpoint: it recovers from its log when it starts again."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, user=self._user, cwd=self.folder, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for as long as the block lasts; the test is skipped where there is none."""
    if program("initdb") is None:
        pytest.skip("no PostgreSQL here: apt-get install --no-install-recommends postgresql")
    folder = Path(tempfile.mkdtemp(prefix="lowtide-postgres-"))
    server: Postgres | None = None
    try:
        server = Postgres(folder)
        yield server
    finally:
        if server is not None:
            server.stop_at_once()
        shutil.rmtree(folder, ignore_errors=True)
