"""Real batches in a folder of the test's own, answered by real worker processes."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil
import pytest
from support.outputs import answers_in

from lowtide.connectors.backends.local import LocalBackend
from lowtide.connectors.backends.local.engine import Engine, choose
from lowtide.connectors.backends.local.folder import BatchFolder
from lowtide.operations import Operation, Template
from lowtide.operations.answers import LabelAnswer, SummaryAnswer
from lowtide.records import Answer, BatchStatus, Request, Shard

LABELS = {"fruit": "apples, pears and plums", "tools": "hammers, saws and drills"}
PATIENCE = 120.0


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited {patience} s for {what}"
        time.sleep(0.01)


@dataclass
class Bench:
    """One backend over one folder, and what tests do with it."""

    backend: LocalBackend

    def shard(self, requests: Sequence[Request]) -> Shard:
        return self.raw_shard([self.backend.encode(request) for request in requests])

    def raw_shard(self, lines: Sequence[bytes]) -> Shard:
        data = b"".join(line + b"\n" for line in lines)
        return Shard("run", 1, 1, len(lines), len(data), "memory://shard", lambda: io.BytesIO(data))

    def folder(self, batch_id: str) -> BatchFolder:
        return BatchFolder(self.backend.directory / batch_id)

    def finish(self, batch_id: str) -> BatchStatus:
        statuses: list[BatchStatus] = []

        def ended() -> bool:
            statuses.append(self.backend.poll(batch_id))
            return statuses[-1].outcome is not None

        until(ended, "the batch to end")
        return statuses[-1]

    def answers(self, batch_id: str) -> list[Answer]:
        return answers_in(self.backend, batch_id)

    def bill(self, batch_id: str) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.folder(batch_id).bill.read_bytes().splitlines()]

    def starts(self, batch_id: str) -> list[dict[str, int]]:
        path = self.folder(batch_id).starts
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def lines(self, batch_id: str) -> int:
        path = self.folder(batch_id).answers
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def workers(self, batch_id: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.folder(batch_id).path) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self, batch_id: str) -> None:
        """kill -9 the worker of a batch, and wait until it is gone."""
        pid = int((self.folder(batch_id).path / "worker.lock").read_bytes())
        os.kill(pid, signal.SIGKILL)
        until(lambda: not self.folder(batch_id).has_worker(), "the worker's lock to fall")


def summarize(words: int = 30, language: str | None = None) -> Operation:
    return Operation(
        "summarize",
        "summarize",
        "Summarize.",
        Template.parse("<m-{{ marker }}>{{ text }}</m-{{ marker }}>"),
        SummaryAnswer(),
        parameters={"words": words, "language": language},
    )


def classify(labels: dict[str, str] | None = None) -> Operation:
    chosen = LABELS if labels is None else labels
    return Operation(
        "classify",
        "classify",
        "Classify.",
        Template.parse("{{ text }}"),
        LabelAnswer.of(chosen),
        parameters={"labels": chosen},
    )


def request_for(record_id: str, text: str, operation: Operation | None = None) -> Request:
    return Request(record_id, operation or summarize(), "system", f"prompt {text}", text)


@pytest.fixture
def make_request() -> Callable[..., Request]:
    """`make_request(record_id, text, operation=summarize)`."""
    return request_for


@pytest.fixture
def operations() -> dict[str, Callable[..., Operation]]:
    """`summarize(words, language)` and `classify(labels)`."""
    return {"summarize": summarize, "classify": classify}


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """`bench(model="tfidf", workers=None)`: a backend over the test's folder. Workers left over are killed."""
    made: list[Bench] = []

    def make(model: str = "tfidf", workers: int | None = 16) -> Bench:
        made.append(Bench(LocalBackend(tmp_path / "local", model=model, workers=workers)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        for path in one.backend.directory.glob("local-*"):
            for process in one.workers(path.name):
                process.kill()


@pytest.fixture(scope="session")
def minilm() -> Engine:
    chosen = choose("auto")
    if chosen.kind != "minilm":
        pytest.skip("the MiniLM package is not installed")
    return chosen.load()


@pytest.fixture(scope="session")
def tfidf() -> Engine:
    return choose("tfidf").load()
