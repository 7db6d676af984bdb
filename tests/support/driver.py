"""A process that advances one run on the local disk, to be killed at any point; and the provider that it talks to.

Started as a script, it forks a child for each command that it reads, so that a child costs milliseconds and no imports.
A command is a line of JSON, `Command`; the answers are `{"pid": n}` and, when the child has ended, `{"status": n}`.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO

import msgspec
import orjson
import pandas  # noqa: F401 - or pyarrow imports it, in every child anew

import lowtide  # noqa: F401 - before this folder's parent, whose folder `lowtide` would be taken for the package

sys.path.append(str(Path(__file__).parents[1]))

from support.standins import ListedDocuments, echo_operation
from support.world import WORK, WatchedStore

from lowtide.budget.caps import Cap
from lowtide.connectors.stores.local import LocalStore
from lowtide.engine import drive, open_run
from lowtide.operations import Operation
from lowtide.plan import Work
from lowtide.records import Answer, BatchStatus, Finding, Limits, OutputFile, Request, Shard

TEXTS = {f"d{number:02}": None if number == 4 else f"text {number}" for number in range(11)}
OPERATIONS = (echo_operation(), echo_operation("again"))
LAG = 0.05
"""Seconds after which a batch shows in look-ups, where they lag."""
SECONDS = 60
"""After so long a child gives up: it waits for something that will not come."""


class Command(msgspec.Struct, frozen=True):
    """What a child is to do. It kills itself at point number `die_at`, 0 for never.

    `month_usd` is a cap of the root, over all jobs; "" for none.
    """

    root: str
    provider: str
    die_at: int = 0
    consistent: bool = True
    job: str = "test"
    month_usd: str = ""


def work(command: Command, hook: Callable[[str], None]) -> Work:
    """The job, its store and its provider on the disk."""
    root, provider, usd = Path(command.root), Path(command.provider), command.month_usd
    return replace(
        WORK,
        job=command.job,
        operations=OPERATIONS,
        backend=FileBackend(provider, hook, consistent=command.consistent),
        documents=ListedDocuments(TEXTS),
        # kill -9 loses nothing that the kernel has been given, so nothing need be flushed to the disk.
        root=WatchedStore(LocalStore(root, sync="none"), hook),
        shard_records=8,
        grace=timedelta(seconds=2 * LAG),
        caps=(Cap("everything", Decimal(usd), "the test"),) if usd else (),
    )


class FileBackend:
    """Batches are files: in `accepted/` once they are accepted, in `answered/` once they are answered."""

    name = "stand-in"
    provider = "nobody"
    region = "here"
    model = "echo-1"
    places: tuple[str, ...] = ()
    parameters: Mapping[str, str | int | float | bool] = {}

    def __init__(self, folder: Path, hook: Callable[[str], None], *, consistent: bool) -> None:
        self.limits = Limits(1000, 1_000_000, 100_000, 2, consistent_lookup=consistent)
        self._lag = 0.0 if consistent else LAG
        self._accepted, self._answered = folder / "accepted", folder / "answered"
        self._hook = hook
        self._decoder = msgspec.json.Decoder(Answer)

    def refusal(self, operation: Operation) -> str | None:
        return None

    def encode(self, request: Request) -> bytes:
        return orjson.dumps({"id": request.record_id, "op": request.operation.name, "text": request.text})

    def submit(self, shard: Shard, token: str) -> str:
        self._hook("before submit")
        batch_id = secrets.token_hex(6)
        with shard.open() as source:
            (self._accepted / f"{batch_id}.tmp").write_bytes(token.encode() + b"\n" + source.read())
        (self._accepted / f"{batch_id}.tmp").rename(self._accepted / batch_id)
        self._hook("after submit")
        return batch_id

    def find(self, token: str) -> list[str]:
        self._hook("before find")
        for path in batches(self._accepted):
            with path.open("rb") as batch:
                named = batch.readline().decode().strip() == token
            if named and time.time() - path.stat().st_mtime >= self._lag:
                return [path.name]
        return []

    def poll(self, batch_id: str) -> BatchStatus:
        done = (self._answered / batch_id).exists()
        return BatchStatus("Ended" if done else "InProgress", "completed" if done else None)

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        data = (self._answered / batch_id).read_bytes()
        half = len(data) // 2
        self._hook("before outputs")
        yield OutputFile("out.jsonl", iter([data[:half], data[half:]]))

    def parse(self, line: bytes) -> Answer | None:
        return self._decoder.decode(line)

    def cancel(self, batch_id: str) -> None:
        raise AssertionError("nobody cancels here")

    def discard(self, batch_id: str) -> None:
        self._hook("before discard")

    def examine(self) -> Iterator[Finding]:
        raise AssertionError("nobody examines here")


def batches(accepted: Path) -> list[Path]:
    return sorted(path for path in accepted.iterdir() if path.suffix != ".tmp")


class FileProvider:
    """The other side, in a thread of the test's own process: it lives on when its customers are killed.

    Every record that it has processed is a line of `bill`, an append-only file. `faults` are what was paid twice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self._answered: set[str] = set()
        self._tokens: set[str] = set()
        self._times: Counter[str] = Counter()
        self._stop = threading.Event()
        (folder / "accepted").mkdir(parents=True)
        (folder / "answered").mkdir()
        (folder / "bill").touch()
        self._thread = threading.Thread(target=self._work, daemon=True)

    @contextmanager
    def at_work(self) -> Iterator[FileProvider]:
        self._thread.start()
        yield self
        self._stop.set()
        self._thread.join()

    @property
    def submissions(self) -> int:
        return len(batches(self.folder / "accepted"))

    def bill(self) -> Counter[str]:
        """Tokens by type."""
        tokens: Counter[str] = Counter()
        for line in (self.folder / "bill").read_bytes().splitlines():
            tokens.update(orjson.loads(line))
        return tokens

    def _work(self) -> None:
        while not self._stop.wait(0.002):
            for path in batches(self.folder / "accepted"):
                if not (self.folder / "answered" / path.name).exists():
                    self._process(path)

    def _process(self, path: Path) -> None:
        token, *lines = path.read_bytes().splitlines()
        if token.decode() in self._tokens:
            self.faults.append(f"{token.decode()} was submitted twice")
        self._tokens.add(token.decode())
        answers = []
        for line in lines:
            request = orjson.loads(line)
            name = token.decode().rpartition("-")[0] + request["id"]
            if name in self._answered:
                self.faults.append(f"{name} was submitted after it was answered")
            answers += self._answer(name, request)
        temporary = self.folder / "answered" / f"{path.name}.tmp"
        temporary.write_bytes(b"".join(orjson.dumps(answer) + b"\n" for answer in answers))
        temporary.rename(self.folder / "answered" / path.name)

    def _answer(self, name: str, request: Mapping[str, str]) -> list[dict[str, object]]:
        """Some records are refused, some expire at first, some are no JSON at first, most are answered."""
        self._times[name] += 1
        number, first = int(request["text"].split()[1]), self._times[name] == 1
        status, text = "ok", orjson.dumps({"echo": request["text"]}).decode()
        if number == 2:
            status = "refused"
        elif number == 5 and first:
            status = "unanswered"
        elif number == 7 and first:
            text = "no JSON"
        else:
            self._answered.add(name)
        bill = {"input": 20 + number, "output": 3 + number}
        with (self.folder / "bill").open("ab", buffering=0) as out:
            out.write(orjson.dumps(bill) + b"\n")
        tokens = {"input_tokens": bill["input"], "output_tokens": bill["output"]}
        return [{"record_id": request["id"], "status": status, "text": text, **tokens}]


def carry_out(command: Command) -> int:
    """Advance the run until it is done; returns how many points there were."""
    points = 0

    def point(name: str) -> None:
        nonlocal points
        points += 1
        if points == command.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    drive(open_run(work(command, point)), poll=0.003)
    return points


class Drivers:
    """The test's side of the script."""

    def __init__(self) -> None:
        self._script = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, command: Command) -> int:
        """Start a child; returns its process id."""
        self._stdin.write(msgspec.json.encode(command).decode() + "\n")
        self._stdin.flush()
        return int(self._read()["pid"])

    def wait(self) -> int:
        """How the child has ended: its exit status, or a signal's number below zero."""
        return int(self._read()["status"])

    def run(self, command: Command) -> int:
        self.start(command)
        return self.wait()

    def end(self) -> None:
        self._stdin.close()
        self._script.wait(timeout=SECONDS)

    @property
    def _stdin(self) -> IO[str]:
        assert self._script.stdin is not None
        return self._script.stdin

    def _read(self) -> dict[str, int]:
        assert self._script.stdout is not None
        found: dict[str, int] = orjson.loads(self._script.stdout.readline())
        return found


def main() -> None:
    for line in sys.stdin:
        command = msgspec.json.decode(line, type=Command)
        child = os.fork()
        if not child:
            signal.alarm(SECONDS)
            points = carry_out(command)
            Path(command.provider, "points").write_text(str(points))
            os._exit(0)
        print(f'{{"pid": {child}}}', flush=True)
        _, status = os.waitpid(child, 0)
        print(f'{{"status": {os.waitstatus_to_exitcode(status)}}}', flush=True)


if __name__ == "__main__":
    main()
