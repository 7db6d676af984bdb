"""A worker of the backend `spot` beside a bare aiohttp loop, against the same fast server: rate, CPU and memory.

    python benchmarks/spot_worker.py --rows 1000000

The bare loop posts bodies that it has in memory with a fixed number of tasks and keeps nothing. The worker streams the
same requests from its store, and writes every answer. They take turns: every so many seconds the worker is paused, and
the bare loop runs, so that both have the same machine. What is printed are ratios of one run; the server shares the
machine with both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import psutil  # type: ignore[import-untyped]  # no stubs of its own

# Run as a script, the folder of this file would be on the path, and those with the servers not.
sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")

from servers import engine  # type: ignore[import-not-found]  # noqa: E402

from lowtide_worker.layout import FLEET, TASK, Engine, Fleet, Task, part_path, shard_path  # noqa: E402

_SHARD = "s00001-a1"
_TEXT = "A sentence of a document that is to be summed up. " * 4
_AT_ONCE = 128
_SETTLES_SECONDS = 0.3
"""What the worker has asked already is answered in that time, and then the server is free."""

_FLAT_FROM = 0.2
"""Memory counts as steady once that share of the rows is answered."""


@dataclass(frozen=True)
class Spent:
    """Rows that were answered, the seconds that took, and the client's CPU seconds."""

    rows: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def cpu_per_thousand(self) -> float:
        """CPU seconds for a thousand rows."""
        return self.cpu / self.rows * 1000


def body(row: int) -> bytes:
    """The request of one row."""
    content = f"{row} {_TEXT}"
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 64}).encode()


def write_requests(path: Path, rows: int) -> None:
    """A shard's file, as Lowtide makes it."""
    with path.open("wb") as out:
        for row in range(rows):
            name = f"r{row:07d}x{zlib.crc32(str(row).encode()):08x}"
            head = f'{{"custom_id":"{name}","method":"POST","url":"/v1/chat/completions","body":'
            out.write(head.encode() + body(row) + b"}\n")


def bare(url: str, rows: int) -> Spent:
    """Post that many bodies and read the answers."""
    left = iter([body(row) for row in range(rows)])

    async def ask(session: aiohttp.ClientSession) -> None:
        for one in left:
            async with session.post(f"{url}/v1/chat/completions", data=one) as response:
                response.raise_for_status()
                await response.read()

    async def everything() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await asyncio.gather(*(ask(session) for _ in range(_AT_ONCE)))

    cpu, started = time.process_time(), time.monotonic()
    asyncio.run(everything())
    return Spent(rows, time.monotonic() - started, time.process_time() - cpu)


@dataclass(frozen=True)
class Measured:
    """The worker, the bare loop's turns, and the worker's memory in MB, sample by sample."""

    worker: Spent
    bare: Sequence[Spent]
    memory: Sequence[float]


def measure(url: str, folder: Path, rows: int, options: argparse.Namespace) -> Measured:
    """One worker, as a process, from its start to its end, and the bare loop in its pauses."""
    fleet = folder / "fleet"
    fill(fleet, url, folder / "requests.jsonl", rows)
    quiet = {**os.environ, "LOWTIDE_METADATA_URL_EC2": "none", "LOWTIDE_METADATA_URL_AZURE": "none"}
    command = [sys.executable, "-m", "lowtide_worker.main", "--fleet", fleet.as_uri()]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env=quiet, stderr=log)
    memory, turns, paused = [], [], 0.0
    while process.poll() is None:
        since = time.monotonic()
        while process.poll() is None and time.monotonic() < since + options.turn:
            with suppress(psutil.NoSuchProcess):
                memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            time.sleep(0.2)
        if process.poll() is None:
            stopped = time.monotonic()
            process.send_signal(signal.SIGSTOP)
            time.sleep(_SETTLES_SECONDS)
            turns.append(bare(url, options.bare))
            process.send_signal(signal.SIGCONT)
            paused += time.monotonic() - stopped
    seconds = time.monotonic() - started - paused
    if process.returncode != 0:
        said = (folder / "worker.log").read_text()[-2000:]
        raise RuntimeError(f"the worker ended with {process.returncode}: {said}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    _check(fleet, rows)
    # The last sample may be of a process that is ending.
    return Measured(Spent(rows, seconds, cpu), turns, memory[:-1])


def fill(fleet: Path, url: str, requests: Path, rows: int) -> None:
    """A fleet of one shard, whose engine is at `url`."""
    shard = fleet / shard_path(_SHARD)
    shard.mkdir(parents=True)
    (fleet / FLEET).write_bytes(msgspec.json.encode(Fleet(model="m", engine=Engine(url=url))))
    task = Task(requests=requests.as_uri(), records=rows, size=requests.stat().st_size)
    (shard / TASK).write_bytes(msgspec.json.encode(task))


def _check(fleet: Path, rows: int) -> None:
    """Every row has one line, and none an error."""
    seen = bytearray(rows)
    number = 1
    while (part := fleet / part_path(_SHARD, number)).exists():
        for line in part.read_bytes().splitlines():
            answer = json.loads(line)
            ordinal = int(answer["custom_id"][1:8])
            assert not seen[ordinal], f"row {ordinal} was answered twice"
            assert answer["error"] is None, answer["error"]
            seen[ordinal] = 1
        number += 1
    assert all(seen), f"{seen.count(0)} rows have no answer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows for the worker")
    parser.add_argument("--bare", type=int, default=10_000, help="rows for each turn of the bare loop")
    parser.add_argument("--turn", type=float, default=10.0, help="seconds for each turn of the worker")
    parser.add_argument("--latency", type=float, default=0.0, help="mean seconds the server takes for an answer")
    parser.add_argument("--folder", type=Path, help="where to put the data meanwhile (1.2 GB for a million rows)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lowtide-spot-", dir=options.folder) as name:
        write_requests(Path(name) / "requests.jsonl", options.rows)
        with engine.running("--no-count", "--latency", str(options.latency)) as server:
            found = measure(server.url, Path(name), options.rows, options)
    if not found.bare:
        raise SystemExit("the worker was done before the bare loop's first turn: ask for more rows")
    show(found)


def show(found: Measured) -> None:
    """Print what was measured."""
    worker, turns = found.worker, found.bare
    loop = Spent(sum(one.rows for one in turns), sum(one.seconds for one in turns), sum(one.cpu for one in turns))
    rates = f"{min(one.rate for one in turns):.0f} to {max(one.rate for one in turns):.0f}"
    steady = found.memory[int(len(found.memory) * _FLAT_FROM) :]
    cpu = worker.cpu_per_thousand / loop.cpu_per_thousand
    print(f"bare loop       {loop.rate:.0f} rows/s ({rates} in {len(turns)} turns)")
    print(f"worker          {worker.rate:.0f} rows/s")
    print(f"worker to bare  {worker.rate / loop.rate:.2f} of the rate, {cpu:.2f} of the CPU per row")
    print(
        f"memory          {max(found.memory):.0f} MB at most, {steady[-1] - steady[0]:+.0f} MB in the last four fifths"
    )


if __name__ == "__main__":
    main()
