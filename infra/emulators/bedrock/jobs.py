"""Model invocation jobs: what is known of each, and which exist. What happens to them is in `runner`."""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lowtide.emulators.bedrock.answering import Modelled
from lowtide.emulators.bedrock.models import Named, shown_id
from lowtide.emulators.bedrock.settings import Settings
from lowtide.emulators.bedrock.wire import ACCOUNT, iso

ENDED = frozenset({"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"})
_PATIENCE_SECONDS = 30.0
_ID_LETTERS = string.ascii_lowercase + string.digits
_ECHOED = ("jobName", "roleArn", "modelId", "inputDataConfig", "outputDataConfig", "vpcConfig", "modelInvocationType")


@dataclass(frozen=True, slots=True)
class Counts:
    """Records of a job at one moment, and the tokens that were spent on them."""

    at: float = 0.0
    processed: int = 0
    success: int = 0
    error: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass
class Job:
    """One job. `halt` wakes whoever works on it: it was stopped, or forgotten by a reset."""

    id: str
    region: str
    request: Mapping[str, Any]
    named: Named
    submitted: float
    expires: float
    status: str = "Submitted"
    message: str = ""
    modified: float = 0.0
    ended: float | None = None
    total: int = 0
    counts: list[Counts] = field(default_factory=list)
    halt: threading.Event = field(default_factory=threading.Event)
    forgotten: threading.Event = field(default_factory=threading.Event)

    @property
    def arn(self) -> str:
        """The job's ARN, whose last part is its id."""
        return f"arn:aws:bedrock:{self.region}:{ACCOUNT}:model-invocation-job/{self.id}"

    @property
    def name(self) -> str:
        """The caller's name for it."""
        return str(self.request["jobName"])

    @property
    def token(self) -> str:
        """The caller's token; empty where none was given."""
        return str(self.request.get("clientRequestToken") or "")

    @property
    def asks(self) -> Modelled:
        """Which model is asked, and in which form."""
        return Modelled(
            self.named.model, str(self.request["modelId"]), self.request.get("modelInvocationType") == "Converse"
        )

    @property
    def facts(self) -> Mapping[str, object]:
        """What a plan of faults may match."""
        return {"service": "bedrock", "batch": self.id, "name": self.name, "model": self.named.model.id}

    def counted(self, now: float, lag: float) -> Counts:
        """The counters as they are shown: late by `lag` seconds while the job is live."""
        if self.status in ENDED:
            return self.counts[-1] if self.counts else Counts()
        return next((counts for counts in reversed(self.counts) if counts.at <= now - lag), Counts())

    def shown(self, now: float, settings: Settings, skew: float = 0.0) -> Mapping[str, object]:
        """The job as Get and List answer it. `skew` shifts every time, in seconds."""
        counts = self.counted(now, settings.counter_lag)
        shown: dict[str, object] = {"jobArn": self.arn}
        shown |= {name: self.request[name] for name in _ECHOED if self.request.get(name) is not None}
        shown["modelId"] = shown_id(str(self.request["modelId"]), self.region, ACCOUNT)
        shown |= {
            "status": self.status,
            "submitTime": iso(self.submitted + skew),
            "lastModifiedTime": iso(self.modified + skew),
            "jobExpirationTime": iso(self.expires + skew),
            "timeoutDurationInHours": round((self.expires - self.submitted) / 3600),
            "modelInvocationType": self.request.get("modelInvocationType") or "InvokeModel",
            "totalRecordCount": self.total if counts.at else 0,
            "processedRecordCount": counts.processed,
            "successRecordCount": counts.success,
            "errorRecordCount": counts.error,
        }
        if self.token:
            shown["clientRequestToken"] = self.token
        if self.message:
            shown["message"] = self.message
        if self.ended is not None:
            shown["endTime"] = iso(self.ended + skew)
        return shown


class Jobs:
    """Every job, in the order of its creation. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._tokens: dict[tuple[str, str], Job] = {}
        self._workers: set[threading.Thread] = set()

    def add(self, job: Job) -> None:
        """A new job. Call it under `lock`, with what was looked up before."""
        self._jobs[job.id] = job
        if job.token:
            self._tokens[job.region, job.token] = job

    def get(self, job_id: str, region: str) -> Job | None:
        """The job of that id in that region."""
        with self.lock:
            job = self._jobs.get(job_id)
        return job if job is not None and job.region == region else None

    def by_token(self, token: object, region: str) -> Job | None:
        """The job that was created with that client request token."""
        with self.lock:
            return self._tokens.get((region, token)) if isinstance(token, str) else None

    def of(self, region: str) -> Iterator[Job]:
        """The region's jobs, oldest first."""
        with self.lock:
            return iter([job for job in self._jobs.values() if job.region == region])

    def live(self, named: Named, region: str) -> int:
        """How many jobs of that model have not ended; versions of one's own are counted together."""
        return sum(
            job.status not in ENDED
            and job.named.custom == named.custom
            and (named.custom or job.named.model.id == named.model.id)
            for job in self.of(region)
        )

    def move(self, job: Job, status: str, now: float, message: str = "") -> bool:
        """Put the job into a state. False, and nothing done, where it has ended or is stopping.

        A job that is stopping becomes Stopped, whatever else it would have become.
        """
        with self.lock:
            if job.status in ENDED or job.forgotten.is_set():
                return False
            if job.status == "Stopping":
                if status not in ENDED:
                    return False
                status, message = "Stopped", ""
            job.status, job.message, job.modified = status, message, now
            if status in ENDED:
                job.ended = now
            return True

    def work(self, job: Job, task: Callable[[], None]) -> None:
        """Return at once, and do `task` in a thread that `clear` waits for."""

        def run() -> None:
            try:
                task()
            finally:
                with self.lock:
                    self._workers.discard(threading.current_thread())

        worker = threading.Thread(target=run, name=f"job {job.id}", daemon=True)
        with self.lock:
            self._workers.add(worker)
        worker.start()

    def clear(self) -> None:
        """Forget every job, and wait until the work on it has ended."""
        with self.lock:
            for job in self._jobs.values():
                job.forgotten.set()
                job.halt.set()
            self._jobs.clear()
            self._tokens.clear()
            workers = list(self._workers)
        for worker in workers:
            worker.join(_PATIENCE_SECONDS)


def new_id() -> str:
    """Twelve letters and digits, never used before."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
