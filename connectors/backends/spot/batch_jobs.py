"""AWS Batch: submit a job of one or more workers, find it again, look at it, end it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lowtide.connectors.backends.aws.failures import FAILURES, reported, translated
from lowtide.connectors.backends.spot.aws import Aws, not_submitted, read
from lowtide.errors import SubmitUnknown, Terminal, Transient

LARGEST_ARRAY = 10_000
"""Children of one array job: https://docs.aws.amazon.com/batch/latest/userguide/array_jobs.html (2 to 10,000)."""

ATTEMPTS = 10
"""The most attempts that a retry strategy of AWS Batch may have."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_DESCRIBED = 100
_PAGE = 100
_ENDED = frozenset({"SUCCEEDED", "FAILED"})
_ALIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
_LONGEST_REASON = 300

RETRY_STRATEGY: Mapping[str, Any] = {
    "attempts": ATTEMPTS,
    # The first that fits counts. Without the last one, whatever fits none would be tried again as well.
    "evaluateOnExit": [
        {"onStatusReason": "Host EC2*", "action": "RETRY"},
        {"onExitCode": "75", "action": "RETRY"},
        {"onReason": "*", "action": "EXIT"},
    ],
}
"""Again where the instance was taken back, or the worker says that it was told to go; never for another reason.

A worker that lost its store (exit code 74) is followed by another job, of which the launcher counts how many failed.
"""


class _Summary(msgspec.Struct, rename="camel", frozen=True):
    job_id: str
    job_name: str
    created_at: int = 0


class _Page(msgspec.Struct, rename="camel", frozen=True):
    job_summary_list: list[_Summary] = []
    next_token: str | None = None


class _Container(msgspec.Struct, rename="camel", frozen=True):
    exit_code: int | None = None
    reason: str | None = None


class _Children(msgspec.Struct, rename="camel", frozen=True):
    size: int | None = None
    status_summary: dict[str, int] | None = None


class Job(msgspec.Struct, rename="camel", frozen=True):
    """A job as AWS Batch describes it; `array_properties.size` is set for one with children."""

    job_id: str
    status: str
    started_at: int | None = None
    status_reason: str | None = None
    container: _Container | None = None
    array_properties: _Children | None = None

    @property
    def alive(self) -> int:
        """How many workers run, or are queued."""
        if self.status in _ENDED:
            return 0
        array = self.array_properties
        if array is None or array.size is None:
            return 1
        # The summary lags behind a new job, and counts nothing then.
        summary = array.status_summary or {}
        return max(0, array.size - sum(count for status, count in summary.items() if status in _ENDED))

    @property
    def failed(self) -> bool:
        """Whether it has ended, and a worker of it otherwise than well."""
        return self.status == "FAILED"

    @property
    def runs_since(self) -> float | None:
        """When its present attempt began to run, in seconds since the epoch; None unless it runs."""
        return self.started_at / 1000 if self.status == "RUNNING" and self.started_at else None

    @property
    def reason(self) -> str:
        """What AWS says of its end."""
        container = self.container or _Container()
        said = [self.status_reason or "", container.reason or ""]
        if container.exit_code is not None:
            said.append(f"exit code {container.exit_code}")
        return "; ".join(word for word in said if word)[:_LONGEST_REASON]


class _Described(msgspec.Struct, frozen=True):
    jobs: list[Job] = []


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of one queue. `timeout_seconds` is how long an attempt may take before AWS ends it."""

    aws: Aws
    queue: str
    definition: str
    timeout_seconds: int = 86_400

    def submit(self, name: str, uri: str, workers: int) -> str:
        """Submit a job of that many workers and return its id; it is sent once.

        Raises SubmitUnknown, QuotaFull, Transient or Terminal.
        """
        if not _NAME.fullmatch(name):
            raise Terminal(f"{name!r} cannot be the name of a job: letters, digits, '-' and '_', at most 128")
        asked: dict[str, object] = {
            "jobName": name,
            "jobQueue": self.queue,
            "jobDefinition": self.definition,
            "containerOverrides": {"environment": [{"name": "LOWTIDE_FLEET", "value": uri}]},
            "retryStrategy": RETRY_STRATEGY,
            "timeout": {"attemptDurationSeconds": self.timeout_seconds},
        }
        if workers > 1:
            asked["arrayProperties"] = {"size": workers}
        try:
            answer = self.aws.client("batch", once=True).submit_job(**asked)
        except FAILURES as error:
            raise not_submitted(error, self.queue, self.definition) from error
        job = answer.get("jobId")
        if not isinstance(job, str) or not job:
            raise SubmitUnknown("AWS Batch answered without the job's id")
        return job

    def named(self, name: str) -> list[str]:
        """The ids of all jobs of exactly this name, wherever they stand, the oldest first. Raises Transient.

        AWS Batch lists a job for at least 7 days after its end.
        """
        # The filter knows no case, and children of an array have the name of their parent.
        asked = {"filters": [{"name": "JOB_NAME", "values": [name]}]}
        found = [one for one in self._listed(asked) if one.job_name == name and ":" not in one.job_id]
        return [one.job_id for one in sorted(found, key=lambda one: (one.created_at, one.job_id))]

    def workers_of_others(self, prefix: str, ours: str) -> int:
        """Workers of this queue that run or are queued, of jobs whose names begin with `prefix`, and not with `ours`.

        Raises Transient.
        """
        found = (one for status in _ALIVE for one in self._listed({"jobStatus": status}) if ":" not in one.job_id)
        ids = {one.job_id for one in found if one.job_name.startswith(prefix) and not one.job_name.startswith(ours)}
        return sum(job.alive for job in self.look(sorted(ids)).values())

    def _listed(self, what: Mapping[str, object]) -> Iterator[_Summary]:
        asked: dict[str, object] = {"jobQueue": self.queue, "maxResults": _PAGE, **what}
        while True:
            with translated(f"list the jobs of {self.queue!r}", "batch:ListJobs to this identity"):
                answer = self.aws.client("batch").list_jobs(**asked)
            page = read(answer, _Page, "its list of jobs")
            yield from page.job_summary_list
            if not page.next_token:
                return
            asked["nextToken"] = page.next_token

    def look(self, ids: Sequence[str]) -> dict[str, Job]:
        """The jobs as they are now, by id; one that AWS does not know, or not yet, is missing. Raises Transient."""
        found: dict[str, Job] = {}
        for start in range(0, len(ids), _DESCRIBED):
            with translated("look at jobs", "batch:DescribeJobs to this identity"):
                answer = self.aws.client("batch").describe_jobs(jobs=list(ids[start : start + _DESCRIBED]))
            found.update((job.job_id, job) for job in read(answer, _Described, "its description of jobs").jobs)
        return found

    def why(self, job: Job) -> str:
        """What AWS says of a job that has ended: of its first failed child, where it has children."""
        if job.array_properties is None or job.array_properties.size is None:
            return job.reason
        with translated("list the children of a job", "batch:ListJobs to this identity"):
            answer = self.aws.client("batch").list_jobs(arrayJobId=job.job_id, jobStatus="FAILED", maxResults=1)
        children = [read(one, Job, "its list of children") for one in _mappings(answer.get("jobSummaryList"))]
        return next((child.reason for child in children if child.reason), job.reason)

    def end(self, job: str, reason: str) -> None:
        """End a job, its children, and what is still queued; no error if it has ended. Raises Transient or Terminal."""
        try:
            self.aws.client("batch").terminate_job(jobId=job, reason=reason)
        except FAILURES as error:
            raise reported(error, f"end the job {job!r}", "batch:TerminateJob on the job to this identity") from error

    def give_up(self, job: str, reason: str) -> None:
        """End what is queued of a job, and leave its workers that run. Raises Transient or Terminal.

        https://docs.aws.amazon.com/batch/latest/APIReference/API_CancelJob.html
        """
        try:
            self.aws.client("batch").cancel_job(jobId=job, reason=reason)
        except FAILURES as error:
            raise reported(error, f"cancel the job {job!r}", "batch:CancelJob on the job to this identity") from error


def _mappings(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise Transient("AWS answered, and its list of children cannot be read")
    return value
