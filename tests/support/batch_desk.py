"""AWS Batch and EC2's prices as an object: jobs that run and end, lists that lag, lost answers; moto has none."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import boto3
from botocore.exceptions import ClientError

from lowtide.connectors.backends.aws.account import AwsAccount, Client
from lowtide.connectors.backends.spot.aws import Aws

ENDED = ("SUCCEEDED", "FAILED")


def refusal(code: str, status: int, operation: str = "SubmitJob") -> ClientError:
    """An error as botocore reads it from an answer."""
    said = {"Error": {"Code": code, "Message": "asked for"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(said, operation)  # type: ignore[arg-type]  # what errors need of it


@dataclass
class Job:
    """A job and its children, by status. It is listed once the clock is at `visible`."""

    id: str
    name: str
    children: list[str]
    visible: float
    asked: Mapping[str, Any]
    array: bool
    reason: str = ""
    exit_code: int | None = None
    forgotten: bool = False
    started: int | None = None
    """Milliseconds, once its workers run."""

    @property
    def alive(self) -> int:
        return sum(child not in ENDED for child in self.children)

    def end(self, status: str = "FAILED", *, children: int | None = None, reason: str = "", exit_code: int = 1) -> None:
        """End the first `children` that run, or all."""
        running = [place for place, child in enumerate(self.children) if child not in ENDED]
        for place in running if children is None else running[:children]:
            self.children[place] = status
        self.reason, self.exit_code = reason, exit_code

    def described(self) -> dict[str, Any]:
        status = "PENDING" if self.array else "RUNNABLE"
        if not self.alive:
            status = "FAILED" if "FAILED" in self.children else "SUCCEEDED"
        if self.started is not None and self.alive and not self.array:
            status = "RUNNING"
        found: dict[str, Any] = {"jobId": self.id, "jobName": self.name, "status": status}
        if status == "RUNNING":
            found["startedAt"] = self.started
        if self.array:
            found["arrayProperties"] = {
                "size": len(self.children),
                "statusSummary": {one: self.children.count(one) for one in self.children},
            }
        if not self.alive and not self.array:
            found |= {"statusReason": self.reason, "container": {"exitCode": self.exit_code}}
        elif not self.alive:
            found["statusReason"] = "Array Child Job failed"
        return found


@dataclass
class Batch:
    """One queue. `before` and `after` are called around each submission, and may raise; lists have pages of two."""

    clock: Callable[[], float]
    lag: float = 0.0
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    prices: dict[str, str] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def alive(self) -> int:
        return sum(job.alive for job in self.jobs)

    def submit_job(self, **asked: Any) -> Mapping[str, object]:
        self.calls.append("submit")
        self.before()
        with self._lock:
            size = asked.get("arrayProperties", {}).get("size", 1)
            assert size >= 1
            job = Job(
                f"job-{next(self._numbers)}",
                asked["jobName"],
                ["RUNNABLE"] * size,
                self.clock() + self.lag,
                asked,
                "arrayProperties" in asked,
            )
            assert not job.array or size >= 2, "AWS takes no array of one"
            self.jobs.append(job)
        self.after()
        return {"jobId": job.id, "jobName": job.name}

    def list_jobs(self, **asked: Any) -> Mapping[str, object]:
        self.calls.append("list")
        if "arrayJobId" in asked:
            [parent] = [job for job in self.jobs if job.id == asked["arrayJobId"]]
            failed = [place for place, child in enumerate(parent.children) if child == asked["jobStatus"]]
            children = [
                {
                    "jobId": f"{parent.id}:{place}",
                    "jobName": parent.name,
                    "status": "FAILED",
                    "statusReason": parent.reason,
                    "container": {"exitCode": parent.exit_code, "reason": "OutOfMemoryError"},
                }
                for place in failed[: asked["maxResults"]]
            ]
            return {"jobSummaryList": children}
        # As AWS does: whatever the case, the newest first.
        [name] = asked["filters"][0]["values"] if "filters" in asked else [""]
        found = [
            {"jobId": job.id, "jobName": job.name, "createdAt": place}
            for place, job in enumerate(self.jobs)
            if (job.name.lower() == name.lower() if name else job.described()["status"] == asked["jobStatus"])
            and job.visible <= self.clock()
            and not job.forgotten
        ][::-1]
        start = int(asked.get("nextToken", 0))
        page: dict[str, object] = {"jobSummaryList": found[start : start + 2]}
        if len(found) > start + 2:
            page["nextToken"] = str(start + 2)
        return page

    def describe_jobs(self, *, jobs: list[str]) -> Mapping[str, object]:
        self.calls.append("describe")
        assert 0 < len(jobs) <= 100
        there = [job for job in self.jobs if job.visible <= self.clock() and not job.forgotten]
        children = [
            {"jobId": f"{job.id}:{place}", "status": child, "startedAt": job.started}
            for job in there
            for place, child in enumerate(job.children)
            if f"{job.id}:{place}" in jobs
        ]
        return {"jobs": [job.described() for job in there if job.id in jobs] + children}

    def terminate_job(self, *, jobId: str, reason: str) -> Mapping[str, object]:  # noqa: N803 - AWS's name
        self.calls.append("terminate")
        assert reason
        parent, _, child = jobId.partition(":")
        [job] = [job for job in self.jobs if job.id == parent]
        if child:
            job.children[int(child)] = "FAILED"
        else:
            job.end(reason=reason)
        return {}

    def cancel_job(self, *, jobId: str, reason: str) -> Mapping[str, object]:  # noqa: N803 - AWS's name
        self.calls.append("cancel")
        assert reason
        [job] = [job for job in self.jobs if job.id == jobId]
        job.children = ["FAILED" if child == "RUNNABLE" else child for child in job.children]
        return {}

    def describe_job_queues(self, *, jobQueues: list[str]) -> Mapping[str, object]:  # noqa: N803 - AWS's name
        found = {"jobQueueName": "queue", "state": "ENABLED", "status": "VALID", "computeEnvironmentOrder": []}
        return {"jobQueues": [found for name in jobQueues if name == "queue"]}

    def describe_job_definitions(self, **asked: Any) -> Mapping[str, object]:
        found = {"jobDefinitionName": "worker", "revision": 1, "status": "ACTIVE"}
        return {"jobDefinitions": [found] if asked["jobDefinitionName"] == "worker" else []}

    def describe_spot_price_history(self, **asked: Any) -> Mapping[str, object]:
        self.calls.append("price")
        return {
            "SpotPriceHistory": [
                {
                    "AvailabilityZone": "us-east-1a",
                    "InstanceType": instance,
                    "ProductDescription": "Linux/UNIX",
                    "SpotPrice": self.prices[instance],
                    "Timestamp": "2020-01-01T00:00:00Z",
                }
                for instance in asked["InstanceTypes"]
                if instance in self.prices
            ],
        }


@dataclass(frozen=True)
class Standin(Aws):
    """An account whose services are all `batch`."""

    batch: Batch | None = None

    def client(self, service: str, *, once: bool = False) -> Client:
        assert self.batch is not None
        return cast("Client", self.batch)


def account(batch: Batch) -> Aws:
    """Hand this to what is tested."""
    session = boto3.Session("key", "secret", region_name="us-east-1")
    return Standin(AwsAccount(session, "us-east-1", {}), batch=batch)
