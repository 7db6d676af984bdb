"""What an account holds: its files and its batches, and how both look in JSON."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lowtide.emulators.answers import Answered
from lowtide.emulators.openai.rules import MINUTE, Mode
from lowtide.emulators.openai.settings import Settings

LIVE = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_LEAST_WAIT = 0.001
_STAMPS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass
class StoredFile:
    """A file of an account; `path` holds its bytes. Times are in seconds since the epoch."""

    id: str
    path: Path
    size: int
    filename: str
    purpose: str
    created_at: float
    expires_at: float | None
    ready_at: float
    tokens: int | None = None

    def view(self, mode: Mode, now: float) -> Mapping[str, object]:
        """As the API shows it."""
        waiting = "pending" if mode.name == "azure" else "uploaded"
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": int(self.created_at),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": waiting if now < self.ready_at else "processed",
            "expires_at": None if self.expires_at is None else int(self.expires_at),
            "status_details": None,
        }


@dataclass(frozen=True, slots=True)
class LineError:
    """Why validation failed: one entry of `errors.data`. `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass
class Usage:
    """Tokens of the rows that were processed."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, answered: Answered) -> None:
        """Count one more row."""
        self.input_tokens += answered.input_tokens
        self.cached_tokens += answered.cached_tokens
        self.output_tokens += answered.output_tokens
        self.reasoning_tokens += answered.reasoning_tokens

    def view(self) -> Mapping[str, object]:
        """As the API shows it."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass
class Batch:
    """One batch. Its own thread changes it, under the service's lock; `stop` tells that thread to end early."""

    id: str
    endpoint: str
    input_file_id: str | None
    input_name: str
    metadata: Mapping[str, str] | None
    created_at: float
    expires_at: float
    input_blob: str | None = None
    output_folder: str | None = None
    output_expires_after: int | None = None
    status: str = "validating"
    stamps: dict[str, float] = field(default_factory=dict)
    errors: list[LineError] = field(default_factory=list)
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    output_file_id: str | None = None
    error_file_id: str | None = None
    output_blob: str = ""
    error_blob: str = ""
    deployment: str = ""
    model: str = ""
    tokens: int = 0
    tokens_held: bool = False
    empty_files: set[str] = field(default_factory=set)
    cancel_seconds: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it has not ended yet."""
        return self.status in LIVE

    def enter(self, status: str, now: float) -> None:
        """Take on a status at a time."""
        self.status = status
        self.stamps[status] = now

    def view(
        self, mode: Mode, settings: Settings, forms: frozenset[str] = frozenset(), skew: float = 0.0
    ) -> Mapping[str, object]:
        """As the API shows it, in the forms that the settings or `forms` ask for, its times `skew` seconds off."""
        azure = mode.name == "azure"
        iso = "iso_times" in forms or (azure and settings.iso_times)
        cased = "upper_case" in forms or (azure and settings.upper_case)
        blank = "" if "empty_file_ids" in forms else None
        no_errors = "" if azure and not self.is_live and settings.empty_error_file == "blank" else blank
        counts = {"total": self.total, "completed": self.completed, "failed": self.failed}
        view: dict[str, object] = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": self._failures(),
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status.capitalize() if cased else self.status,
            "output_file_id": self._file_id(self.output_file_id, blank),
            "error_file_id": self._file_id(self.error_file_id, no_errors),
            **self._times(skew, iso=iso),
            # The older samples, with times in ISO form, count nothing before the end of validation.
            "request_counts": dict.fromkeys(counts) if iso and self.total == 0 else counts,
            "metadata": self.metadata,
        }
        if self.input_blob is not None:
            view |= {"input_blob": self.input_blob, "output_blob": self.output_blob, "error_blob": self.error_blob}
        if mode.tells_usage or settings.azure_usage:
            view |= {"model": self.model or None, "usage": self.usage.view()}
        return view

    def _file_id(self, file_id: str | None, blank: str | None) -> str | None:
        return blank if file_id is None or (blank == "" and file_id in self.empty_files) else file_id

    def _failures(self) -> Mapping[str, object] | None:
        failures = [
            {"code": error.code, "message": error.message, "param": error.param, "line": error.line}
            for error in self.errors
        ]
        return {"object": "list", "data": failures} if failures else None

    def _times(self, skew: float, *, iso: bool) -> Mapping[str, object]:
        times = {"created_at": self.created_at, "expires_at": self.expires_at}
        times |= {f"{name}_at": self.stamps[name] for name in _STAMPS if name in self.stamps}
        shown: dict[str, object] = dict.fromkeys(f"{name}_at" for name in _STAMPS)
        for name, value in times.items():
            moved = value + skew
            shown[name] = datetime.fromtimestamp(moved, UTC).isoformat() if iso else int(moved)
        return shown


@dataclass
class Pace:
    """How much of a deployment's capacity is used: a bucket that runs empty in a minute."""

    level: float = 0.0
    since: float = 0.0

    def wait(self, now: float, per_minute: int) -> float:
        """Seconds until it is below 100 % again; 0 where it is."""
        self.level = max(0.0, self.level - max(0.0, now - self.since) * per_minute / MINUTE)
        self.since = now
        return 0.0 if self.level < per_minute else (self.level - per_minute) / per_minute * MINUTE + _LEAST_WAIT


@dataclass
class Account:
    """The organization of OpenAI, or one Azure resource. `key` names it on the bill."""

    key: str
    resource: str
    mode: Mode
    folder: Path
    files: dict[str, StoredFile] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    paces: dict[str, Pace] = field(default_factory=dict)

    def enqueued(self, deployment: str) -> int:
        """Tokens of that deployment's (or model's) batches that are queued or running."""
        return sum(
            batch.tokens
            for batch in self.batches.values()
            if batch.is_live and batch.tokens_held and batch.deployment == deployment
        )

    def sweep(self, now: float) -> None:
        """Remove the files whose time is over."""
        for file in [file for file in self.files.values() if file.expires_at is not None and file.expires_at <= now]:
            del self.files[file.id]
            file.path.unlink(missing_ok=True)
