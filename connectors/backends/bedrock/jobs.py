"""Bedrock's control plane: create, find, look at and stop model invocation jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec

from lowtide.connectors.backends.aws.failures import FAILURES, code_of, reported, translated
from lowtide.connectors.backends.bedrock import names
from lowtide.connectors.backends.bedrock.connection import Aws
from lowtide.connectors.backends.bedrock.failures import not_created
from lowtide.errors import ConfigError, SubmitUnknown, Terminal, Transient
from lowtide.job.backends import BedrockBackend
from lowtide.records import Outcome

T = TypeVar("T", bound=msgspec.Struct)

_CREATE = "bedrock:CreateModelInvocationJob, and iam:PassRole on the service role, to this identity"
_GET = "bedrock:GetModelInvocationJob on the job to this identity"
_LIST = "bedrock:ListModelInvocationJobs to this identity"
_STOP = "bedrock:StopModelInvocationJob on the job to this identity"
_PAGE = 1000
_OUTCOMES: Mapping[str, Outcome] = {
    "completed": "completed",
    "partiallycompleted": "partial",
    "failed": "failed",
    "stopped": "cancelled",
    "expired": "expired",
}


class _S3(msgspec.Struct, rename={"uri": "s3Uri"}, frozen=True):
    uri: str


class _Input(msgspec.Struct, rename={"s3": "s3InputDataConfig"}, frozen=True):
    s3: _S3


class _Output(msgspec.Struct, rename={"s3": "s3OutputDataConfig"}, frozen=True):
    s3: _S3


class _Summary(msgspec.Struct, rename="camel", frozen=True):
    job_arn: str
    job_name: str
    submit_time: datetime


class _Page(msgspec.Struct, rename="camel", frozen=True):
    invocation_job_summaries: list[_Summary] = []
    next_token: str | None = None


class Job(msgspec.Struct, rename="camel", frozen=True):
    """A job as Bedrock describes it. Counters are 0 before it is processed, and up to a minute behind later."""

    job_arn: str
    status: str
    input_data_config: _Input
    output_data_config: _Output
    job_name: str = ""
    message: str | None = None
    end_time: datetime | None = None
    total_record_count: int | None = None
    processed_record_count: int | None = None
    success_record_count: int | None = None
    error_record_count: int | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it has ended; None while it has not, and for a status that is not known."""
        return _OUTCOMES.get(self.status.lower().replace("_", "").replace(" ", ""))

    @property
    def input_uri(self) -> str:
        """The file that it reads."""
        return self.input_data_config.s3.uri

    @property
    def output_uri(self) -> str:
        """The folder in which it makes its own, without a slash at its end."""
        return self.output_data_config.s3.uri.rstrip("/")


@dataclass(frozen=True, slots=True)
class Look:
    """A job, and for how many seconds it has ended by the provider's own clock; None where that is not known."""

    job: Job
    ended_for: float | None


class Jobs:
    """The jobs that a job file describes. Every create call is sent once."""

    def __init__(self, aws: Aws, spec: BedrockBackend) -> None:
        self._aws = aws
        self._spec = spec

    def create(self, token: str, input_uri: str, output_uri: str) -> str:
        """Create a job and return its ARN. Raises SubmitUnknown, QuotaFull, Transient or Terminal."""
        if not names.is_token(token):
            raise Terminal(f"{token!r} cannot be the name of a Bedrock job: letters, digits and inner '-', at most 63")
        for uri in (input_uri, output_uri):
            if not names.is_s3_uri(uri):
                raise Terminal(f"{uri!r} is no address that Bedrock takes: no '=', no space, no '%', at most 1024 long")
        try:
            answer = self._aws.create.create_model_invocation_job(**self._body(token, input_uri, output_uri))
        except ConfigError:
            raise
        except FAILURES as error:
            raise not_created(error, _CREATE, self._spec.model) from error
        arn = answer.get("jobArn")
        if not isinstance(arn, str) or not names.JOB_ARN.fullmatch(arn):
            raise SubmitUnknown("Bedrock answered a create call without the job's ARN")
        return arn

    def _body(self, token: str, input_uri: str, output_uri: str) -> dict[str, Any]:
        spec = self._spec
        output: dict[str, str] = {"s3Uri": output_uri}
        if spec.kms_key is not None:
            output["s3EncryptionKeyId"] = spec.kms_key
        body: dict[str, Any] = {
            "jobName": token,
            "clientRequestToken": token,
            "roleArn": spec.role_arn,
            "modelId": spec.model,
            "modelInvocationType": "Converse" if spec.invocation == "converse" else "InvokeModel",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": input_uri, "s3InputFormat": "JSONL"}},
            "outputDataConfig": {"s3OutputDataConfig": output},
            "timeoutDurationInHours": spec.timeout_hours,
        }
        if spec.vpc is not None:
            body["vpcConfig"] = {
                "subnetIds": list(spec.vpc.subnet_ids),
                "securityGroupIds": list(spec.vpc.security_group_ids),
            }
        if spec.tags:
            body["tags"] = [{"key": key, "value": value} for key, value in spec.tags.items()]
        return body

    def find(self, token: str) -> list[str]:
        """The ARNs of all jobs with exactly this name, the oldest first. Raises Transient."""
        found = sorted((job.submit_time, job.job_arn) for job in self._named(token) if job.job_name == token)
        return [arn for _, arn in found]

    def _named(self, part: str) -> Iterator[_Summary]:
        following: dict[str, str] = {}
        while True:
            with translated("list Bedrock's jobs", _LIST):
                answer = self._aws.bedrock.list_model_invocation_jobs(nameContains=part, maxResults=_PAGE, **following)
            page = _read(answer, _Page, "its list of jobs")
            yield from page.invocation_job_summaries
            if not page.next_token:
                return
            following = {"nextToken": page.next_token}

    def look(self, arn: str) -> Look:
        """The job as it is now. Raises Transient, for a job that is not found as well: a new one may be missing."""
        try:
            answer = self._aws.bedrock.get_model_invocation_job(jobIdentifier=arn)
        except FAILURES as error:
            if code_of(error) == "ResourceNotFoundException":
                raise Transient(f"Bedrock does not know the job {arn!r}, or does not know it yet") from error
            raise reported(error, f"look at the job {arn!r}", _GET) from error
        job = _read(answer, Job, f"its description of {arn!r}")
        return Look(job, _since(job.end_time, answer))

    def exists(self, arn: str) -> Job | None:
        """The job, or None once Bedrock has forgotten it."""
        try:
            answer = self._aws.bedrock.get_model_invocation_job(jobIdentifier=arn)
        except FAILURES as error:
            if code_of(error) == "ResourceNotFoundException":
                return None
            raise reported(error, f"look at the job {arn!r}", _GET) from error
        return _read(answer, Job, f"its description of {arn!r}")

    def stop(self, arn: str) -> None:
        """Ask for an end; no error if the job has ended. Raises Transient for one that is not found (yet)."""
        try:
            self._aws.bedrock.stop_model_invocation_job(jobIdentifier=arn)
        except FAILURES as error:
            code = code_of(error)
            if code in {"ValidationException", "ConflictException"}:
                return
            if code == "ResourceNotFoundException":
                raise Transient(f"Bedrock does not know the job {arn!r}, or does not know it yet") from error
            raise reported(error, f"stop the job {arn!r}", _STOP) from error


def _read(answer: Mapping[str, object], shape: type[T], what: str) -> T:
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise Transient(f"Bedrock answered, and {what} cannot be read: {error}") from error


def _since(end: datetime | None, answer: Mapping[str, object]) -> float | None:
    """Seconds from the end to the answer, both by the provider's clock: this machine's may be wrong."""
    metadata = answer.get("ResponseMetadata")
    headers = metadata.get("HTTPHeaders", {}) if isinstance(metadata, Mapping) else {}
    if end is None or "date" not in headers:
        return None
    try:
        return (parsedate_to_datetime(headers["date"]) - end).total_seconds()
    except (ValueError, TypeError):
        return None
