"""A batch on disk: what its files are called, what stands in them, and who may write them.

batch.json       what was submitted, written once
requests.jsonl   the shard's lines, written once, gone when the batch has ended
answers.jsonl    one line per answered record, in the order of the requests; may end in a torn line until mended
bill.jsonl       one line per record processed: its tokens, and CPU seconds since the line before
starts.jsonl     the record at which the worker was about to begin: what is known of a worker that died
cancel           exists once somebody asked to stop
status.json      exists once the batch has ended
worker.lock      held by the one process that may write the others; holds its process id
worker.log       what the worker said; never text of a document
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from lowtide.connectors.backends.folders import hold
from lowtide.connectors.backends.local.engine import EngineKind


class Description(msgspec.Struct, frozen=True):
    """What was submitted."""

    token: str
    kind: EngineKind
    model: str
    records: int


class Parameters(msgspec.Struct, frozen=True, omit_defaults=True):
    """The settings of an operation that are heeded here."""

    words: int = 0
    labels: dict[str, str | None] = {}


class RequestLine(msgspec.Struct, frozen=True):
    """One line of `requests.jsonl`."""

    id: str
    kind: str
    text: str
    parameters: Parameters = Parameters()


class RequestId(msgspec.Struct, frozen=True):
    """The part of a request line that can be read without its text."""

    id: str


class BillLine(msgspec.Struct, frozen=True):
    """What one record took. `cpu_seconds` counts since the process's previous line, its start-up included."""

    id: str
    input_tokens: int
    output_tokens: int
    cpu_seconds: float = 0.0


class StartLine(msgspec.Struct, frozen=True):
    """A worker was about to begin with the record of that index (from 0) and up to `records` from there."""

    record: int
    records: int = 1


class Status(msgspec.Struct, frozen=True):
    """How the batch ended. `cpu_seconds` is the sum over all workers, less what a killed one had not yet noted."""

    outcome: Literal["completed", "cancelled", "failed"]
    answered: int
    errors: int
    cpu_seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BatchFolder:
    """The folder of one batch. It exists from the moment on in which the batch is submitted."""

    path: Path

    @property
    def requests(self) -> Path:
        return self.path / "requests.jsonl"

    @property
    def answers(self) -> Path:
        return self.path / "answers.jsonl"

    @property
    def bill(self) -> Path:
        return self.path / "bill.jsonl"

    @property
    def starts(self) -> Path:
        return self.path / "starts.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return (self.path / "cancel").exists()

    def cancel(self) -> None:
        """Ask to stop. Asking twice is asking once."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cancel").touch()

    def description(self) -> Description:
        return msgspec.json.decode((self.path / "batch.json").read_bytes(), type=Description)

    def describe(self, description: Description) -> None:
        write_durably(self.path / "batch.json", msgspec.json.encode(description))

    def status(self) -> Status | None:
        """How it ended, or None while it has not."""
        try:
            return msgspec.json.decode((self.path / "status.json").read_bytes(), type=Status)
        except FileNotFoundError:
            return None

    def end(self, status: Status) -> None:
        """Say how it ended, in one step."""
        draft = self.path / "status.json.new"
        write_durably(draft, msgspec.json.encode(status))
        draft.replace(self.path / "status.json")
        sync_folder(self.path)

    def ended_at(self) -> float | None:
        """When it ended, in seconds since the epoch, or None while it has not."""
        try:
            return (self.path / "status.json").stat().st_mtime
        except FileNotFoundError:
            return None

    def lock(self) -> int | None:
        """Become the batch's worker: a file descriptor that holds the lock until it is closed, or None if there is one.

        It passes to a process that inherits the descriptor.
        """
        return hold(self.path / "worker.lock")

    def has_worker(self) -> bool:
        """Whether some process holds the lock."""
        descriptor = self.lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False


def write_durably(path: Path, data: bytes) -> None:
    """Write a whole file that survives a power cut once this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
