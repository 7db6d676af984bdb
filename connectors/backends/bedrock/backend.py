"""The backend `bedrock`: batch inference of Amazon Bedrock, and requests on demand where a batch would be too small."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lowtide.connectors.backends.bedrock import answers, examine, names
from lowtide.connectors.backends.bedrock.connection import Aws
from lowtide.connectors.backends.bedrock.jobs import Job, Jobs, Look
from lowtide.connectors.backends.bedrock.models import known
from lowtide.connectors.backends.bedrock.ondemand import Lane
from lowtide.connectors.backends.bedrock.quotas import Quotas, read_quotas
from lowtide.connectors.backends.bedrock.requests import Encoder, can_be_native, check_parameters
from lowtide.connectors.backends.bedrock.schemas import fits_native
from lowtide.connectors.backends.bedrock.staging import Staging
from lowtide.errors import ConfigError, Terminal
from lowtide.job.backends import BedrockBackend
from lowtide.protocols import Store
from lowtide.records import Answer, BatchStatus, Fault, Finding, Limits, OutputFile, Request, Shard

if TYPE_CHECKING:
    from lowtide.operations import Operation

SETTLE_SECONDS = 60.0
"""How long Bedrock's counters may lag behind (user guide, "Monitor batch inference jobs")."""

# Names of errors, as the SDK's service model spells them. Nothing else in a message is sure to mean that there was
# no room.
_NO_ROOM = re.compile(r"\b(?:ServiceQuotaExceededException|ThrottlingException)\b")
_LONGEST_REASON = 500


class Backend:
    """Batches of one model in one region, as a job file describes them: see docs/backends/bedrock.md.

    Raises ConfigError for what Bedrock would refuse; nothing is called for that.
    """

    name = "bedrock"
    provider = "aws"

    def __init__(
        self,
        spec: BedrockBackend,
        root: Store,
        aws: Aws,
        staging: Staging,
        *,
        lane: Lane | None = None,
        settle_seconds: float = SETTLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        names.check_spec(spec, staging.uri)
        self._spec = spec
        self._aws = aws
        self._staging = staging
        self._known = known(spec.model)
        check_parameters(spec.parameters, self._known, spec.invocation)
        can = can_be_native(self._known, spec.invocation)
        if spec.structured_output == "native" and not can:
            raise ConfigError(
                f"{names.FIELD}.structured_output: found 'native'; expected auto, and the prompt holds the schema: "
                f"{spec.model!r} is not known to hold its answers to one with invocation {spec.invocation!r}"
            )
        self._encoder = Encoder(
            spec.invocation, self._known, spec.parameters, native=can and spec.structured_output != "prompt"
        )
        self._jobs = Jobs(aws, spec)
        self._lane = lane or Lane(root, aws, spec.model, spec.invocation)
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._seen_ended: dict[str, float] = {}

    @property
    def region(self) -> str:
        """The AWS region."""
        return self._aws.region

    @property
    def model(self) -> str:
        """The model id, profile id or ARN, as the job file has it."""
        return self._spec.model

    @property
    def parameters(self) -> Mapping[str, str | int | float | bool]:
        """The inference parameters, the form of the requests, and how the answer's schema is asked for."""
        structured = "native" if self._encoder.native else "prompt"
        return {**self._spec.parameters, "invocation": self._spec.invocation, "structured_output": structured}

    @cached_property
    def limits(self) -> Limits:
        """The account's quotas where Service Quotas tells them in ten seconds, else Bedrock's defaults."""
        return self._quotas[0].limits(self._known, self._spec.timeout_hours)

    @cached_property
    def _quotas(self) -> tuple[Quotas, bool]:
        """The quotas, and whether they are the account's own."""
        quotas, why = read_quotas(self._aws, self._spec.model, self._known)
        return quotas, not why

    @property
    def places(self) -> tuple[str, ...]:
        """Where batches lie: the region, and the host where Bedrock is asked for somewhere else than at AWS."""
        host = self._aws.endpoint_host
        return (f"bedrock:{self.region}" + (f"@{host}" if host else ""),)

    def refusal(self, operation: Operation) -> str | None:
        """Every kind can be done. With `structured_output: native`, the schema has to be one that Bedrock takes."""
        forced = self._spec.structured_output == "native"
        if forced and operation.schema is not None and not fits_native(operation.schema):
            return (
                "bedrock cannot hold answers to its schema: every object needs additionalProperties: false, and no "
                "bounds, patterns or references may be used; set structured_output to auto, and it stands in the prompt"
            )
        return None

    def encode(self, request: Request) -> bytes:
        """`{"recordId", "modelInput"}`, in the form that `invocation` names."""
        return self._encoder.encode(request)

    def submit(self, shard: Shard, token: str) -> str:
        """Create a job over the shard's file and return its ARN, or a batch on demand and its id of our own.

        The file is read where it lies if that is on S3 at an address that Bedrock takes, and is copied otherwise. The
        same token twice is one job: it is both the job's name and its clientRequestToken.
        """
        if shard.on_demand:
            return self._lane.submit(shard, token)
        self._check(shard)
        placed = self._staging.place(shard, token)
        try:
            return self._jobs.create(token, placed.uri, self._staging.output_uri(token))
        except (Terminal, ConfigError):
            self._staging.take_back(placed)
            raise

    def _check(self, shard: Shard) -> None:
        limits, known_limits = self.limits, self._quotas[1]
        if shard.records < limits.minimum_records or (known_limits and shard.records > limits.records):
            raise Terminal(
                f"{shard.uri} holds {shard.records} records; a job of {self.model!r} takes {limits.minimum_records} to "
                f"{limits.records}"
            )
        # The defaults say nothing against a shard that was built when the account's own quotas could be read.
        if known_limits and shard.size > limits.bytes:
            raise Terminal(f"{shard.uri} holds {shard.size} bytes; a job of {self.model!r} takes {limits.bytes}")

    def find(self, token: str) -> Sequence[str]:
        """Batches on demand, which are seen at once, and jobs of that name, whose list may lag behind."""
        if not names.is_token(token):
            return []
        return [*self._lane.find(token), *self._jobs.find(token)]

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands; one on demand is worked on meanwhile, for about half a minute.

        A job's end is told once its totals are final: with its manifest, or when its counters have had a minute. Raises
        Transient, and Terminal where a permission is missing.
        """
        if self._lane.owns(batch_id):
            return self._lane.poll(batch_id)
        look = self._jobs.look(batch_id)
        if look.job.outcome is None:
            return BatchStatus(look.job.status, answered=look.job.processed_record_count or 0)
        return self._ended(batch_id, look)

    def _ended(self, batch_id: str, look: Look) -> BatchStatus:
        job = look.job
        manifest = self._staging.manifest(job)
        charged, usage = None, None
        if manifest is not None and manifest.success_record_count is not None:
            charged, usage = manifest.success_record_count, manifest.usage
        elif _never_begun(job) and not self._staging.written(job):
            charged = 0
        elif not self._had_time(batch_id, look):
            return BatchStatus(job.status, answered=job.processed_record_count or 0)
        elif _adds_up(job):
            charged = job.success_record_count
        elif job.outcome != "completed":
            charged = job.success_record_count or job.processed_record_count
            if not charged and not self._staging.written(job):
                charged = 0
        self._seen_ended.pop(batch_id, None)
        reason = (job.message or "")[:_LONGEST_REASON]
        fault: Fault = "quota" if job.outcome == "failed" and charged == 0 and _NO_ROOM.search(reason) else ""
        return BatchStatus(
            provider_state=job.status,
            outcome=job.outcome,
            answered=charged if charged is not None else job.processed_record_count or 0,
            reason=reason,
            charged=charged,
            usage=usage,
            fault=fault,
        )

    def _had_time(self, batch_id: str, look: Look) -> bool:
        """Whether the counters are final: by the provider's clock, or, if that is odd, by how long we have known."""
        now = self._clock()
        if now - self._seen_ended.setdefault(batch_id, now) >= self._settle_seconds:
            return True
        return look.ended_for is not None and look.ended_for >= self._settle_seconds

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        """The rows and the manifest below the job's folder, found by listing it. Raises Transient if one is missing."""
        if self._lane.owns(batch_id):
            return self._lane.outputs(batch_id)
        return self._staging.outputs(self._jobs.look(batch_id).job)

    def parse(self, line: bytes) -> Answer | None:
        """One row; None for the manifest. Raises ValueError if it is broken."""
        return answers.parse(line)

    def cancel(self, batch_id: str) -> None:
        """Stop the job; what it has processed is kept, and charged. On demand, nothing more is asked."""
        if self._lane.owns(batch_id):
            self._lane.cancel(batch_id)
        else:
            self._jobs.stop(batch_id)

    def discard(self, batch_id: str) -> None:
        """Remove the copied requests and the job's output, unless `keep_files` is set."""
        if self._spec.keep_files:
            return
        if self._lane.owns(batch_id):
            self._lane.discard(batch_id)
        elif (job := self._jobs.exists(batch_id)) is not None:
            self._staging.clear(job)

    def examine(self) -> Iterator[Finding]:
        """Credentials, model, staging folder, permissions, service role and quotas."""
        yield from examine.findings(self._aws, self._spec, self._staging)


def _adds_up(job: Job) -> bool:
    """Whether the counters are there and agree with each other."""
    parts = job.success_record_count, job.error_record_count, job.processed_record_count
    if parts[0] is None or parts[1] is None or parts[2] is None or not job.total_record_count:
        return False
    return parts[0] + parts[1] == parts[2] <= job.total_record_count


def _never_begun(job: Job) -> bool:
    """Whether the job has ended before any record was counted: it was not valid, or its turn did not come in time."""
    counted = (job.total_record_count, job.processed_record_count, job.success_record_count)
    return job.outcome in {"failed", "expired"} and not any(counted[0 if job.outcome == "failed" else 1 :])
