"""A fleet's folder on disk, as tests fill it and look into it, and workers as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lowtide_worker import layout

PATIENCE_SECONDS = 60.0


def custom_id(ordinal: int) -> str:
    return f"r{ordinal:07d}x{zlib.crc32(str(ordinal).encode()):08x}"


def request(ordinal: int, content: str) -> bytes:
    """A line of OpenAI's batch input, as Lowtide's backend writes it."""
    body = {"model": "stand-in", "messages": [{"role": "user", "content": content}], "max_tokens": 16}
    line = {"custom_id": custom_id(ordinal), "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line, separators=(",", ":")).encode()


def wait_until(true: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


@dataclass
class Yard:
    """A fleet below `root`: its folder is `folder`, its requests lie beside it."""

    root: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "fleet"

    @property
    def uri(self) -> str:
        return self.folder.as_uri()

    def fleet(self, engine: layout.Engine, **settings: Any) -> layout.Fleet:
        """Write fleet.json, with times that tests can wait for."""
        quick = {
            "least": 2,
            "most": 4,
            "part_rows": 5,
            "part_seconds": 0.2,
            "beat_seconds": 0.2,
            "lease_seconds": 1.5,
            "idle_seconds": 10.0,
            "drain_seconds": 3.0,
        }
        told = layout.Fleet(model="stand-in", engine=engine, **{**quick, **settings})
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / layout.FLEET).write_bytes(msgspec.json.encode(told))
        return told

    def shard(self, name: str, contents: Sequence[str], **limits: Any) -> None:
        """Write a shard's requests, one for each message, and its task."""
        requests = self.root / f"{name}.jsonl"
        requests.write_bytes(b"".join(request(number, one) + b"\n" for number, one in enumerate(contents)))
        size = requests.stat().st_size
        task = layout.Task(requests=requests.as_uri(), records=len(contents), size=size, **limits)
        path = self.folder / layout.shard_path(name, layout.TASK)
        path.parent.mkdir(parents=True)
        path.write_bytes(msgspec.json.encode(task))

    def worker(self, environ: Mapping[str, str] | None = None, *, uri: str = "") -> subprocess.Popen[bytes]:
        """Start one, at this fleet or at that of another address. What it says goes to a file beside this one."""
        quiet = {"LOWTIDE_METADATA_URL_EC2": "none", "LOWTIDE_METADATA_URL_AZURE": "none"}
        command = [sys.executable, "-m", "lowtide_worker.main", "--fleet", uri or self.uri]
        with (self.root / f"worker-{len(self.workers)}.log").open("wb") as log:
            process = subprocess.Popen(command, env={**os.environ, **quiet, **(environ or {})}, stderr=log)
        self.workers.append(process)
        return process

    def said(self) -> str:
        """What the workers have said."""
        return "\n".join(path.read_text() for path in sorted(self.root.glob("worker-*.log")))

    def finish(self, seconds: float = PATIENCE_SECONDS) -> list[int]:
        """Wait for all workers: their exit codes."""
        return [worker.wait(seconds) for worker in self.workers]

    def parts(self, shard: str) -> list[list[dict[str, Any]]]:
        """The lines of each part."""
        paths = sorted((self.folder / layout.shard_path(shard, "parts")).glob("*.jsonl"))
        assert [layout.number_of(path.name) for path in paths] == list(range(1, len(paths) + 1))
        return [[json.loads(line) for line in path.read_bytes().splitlines()] for path in paths]

    def answers(self, shard: str) -> dict[int, dict[str, Any]]:
        """The line of each record; fails where one has two."""
        found: dict[int, dict[str, Any]] = {}
        for part in self.parts(shard):
            for line in part:
                ordinal = int(line["custom_id"][1:8])
                assert line["custom_id"] == custom_id(ordinal)
                assert ordinal not in found, f"record {ordinal} of {shard} stands in two places"
                found[ordinal] = line
        return found

    def has_ended(self, shard: str) -> bool:
        return (self.folder / layout.shard_path(shard, layout.END)).exists()

    def end(self, shard: str) -> layout.End:
        path = self.folder / layout.shard_path(shard, layout.END)
        return msgspec.json.decode(path.read_bytes(), type=layout.End)

    def beats(self) -> list[layout.Beat]:
        paths = sorted((self.folder / "workers").glob("*.json"))
        return [msgspec.json.decode(path.read_bytes(), type=layout.Beat) for path in paths]

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


@contextmanager
def yard(root: Path) -> Iterator[Yard]:
    """One whose workers are gone at the end."""
    made = Yard(root)
    try:
        yield made
    finally:
        made.close()


def echoed(line: Mapping[str, Any]) -> str:
    """The message that an answer of the stand-in engine was for."""
    text: str = line["response"]["body"]["choices"][0]["message"]["content"]
    return text.removeprefix("echo: ")
