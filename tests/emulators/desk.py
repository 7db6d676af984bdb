"""Bedrock and S3 as a test uses them: real boto3 clients, records, jobs, and what comes of them."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import orjson
from botocore.config import Config
from servers.emulators import Emulator

ROLE = "arn:aws:iam::123456789012:role/batch"
HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
_numbers = itertools.count(1)


def client(service: str, url: str, key: str = "testing", region: str = "us-east-1", patience: float = 30) -> Any:
    """A boto3 client as anybody would make it, without retries; `patience` is its read timeout in seconds."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=patience, s3={"addressing_style": "path"}),
    )


def converse_body(text: str) -> dict[str, Any]:
    """A record's modelInput for Converse."""
    return {"messages": [{"role": "user", "content": [{"text": text}]}], "inferenceConfig": {"maxTokens": 64}}


@dataclass
class Desk:
    """Bedrock, and a bucket of its own, for one test."""

    emulator: Emulator
    s3: Any
    bedrock: Any
    bucket: str

    def put(self, lines: list[dict[str, Any]] | bytes, key: str = "in/records.jsonl") -> str:
        """An input file; its URI."""
        data = lines if isinstance(lines, bytes) else b"".join(orjson.dumps(line) + b"\n" for line in lines)
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"

    def records(self, count: int = 100, make: Callable[[str], dict[str, Any]] = converse_body) -> list[dict[str, Any]]:
        """That many different records, r0 and so on."""
        return [{"recordId": f"r{number}", "modelInput": make(f"Say {number}.")} for number in range(count)]

    def request(self, uri: str, **changes: Any) -> dict[str, Any]:
        """The arguments of a valid CreateModelInvocationJob, with changes."""
        asked: dict[str, Any] = {
            "jobName": f"job-{next(_numbers)}",
            "roleArn": ROLE,
            "modelId": HAIKU,
            "modelInvocationType": "Converse",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": uri}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{self.bucket}/out"}},
        }
        return {name: value for name, value in {**asked, **changes}.items() if value is not None}

    def create(self, uri: str, **changes: Any) -> str:
        """A new job; its ARN."""
        return str(self.bedrock.create_model_invocation_job(**self.request(uri, **changes))["jobArn"])

    def get(self, arn: str) -> dict[str, Any]:
        """The job as it is now."""
        return dict(self.bedrock.get_model_invocation_job(jobIdentifier=arn))

    def wait(self, arn: str, *states: str) -> dict[str, Any]:
        """The job once it is in one of these states; without any, once it has ended. Polls fast."""
        wanted = states or ("Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            job = self.get(arn)
            if job["status"] in wanted:
                return job
            time.sleep(0.02)
        raise AssertionError(f"{arn} never came to {wanted}: {job['status']}")

    def output(self, arn: str, name: str = "records.jsonl.out") -> bytes:
        """The output object of a job."""
        key = f"out/{arn.rsplit('/', 1)[1]}/{name}"
        return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def lines(self, arn: str, name: str = "records.jsonl.out") -> list[dict[str, Any]]:
        """The lines of a job's output."""
        return [orjson.loads(line) for line in self.output(arn, name).splitlines()]

    def manifest(self, arn: str) -> dict[str, Any]:
        """The job's manifest."""
        return dict(orjson.loads(self.output(arn, "manifest.json.out")))

    def run(self, lines: list[dict[str, Any]] | bytes | None = None, **changes: Any) -> str:
        """A job over these records, ended; its ARN."""
        arn = self.create(self.put(self.records() if lines is None else lines), **changes)
        self.wait(arn)
        return arn


def new_desk(emulator: Emulator, s3_url: str) -> Desk:
    """With a bucket that nobody has used."""
    s3 = client("s3", s3_url)
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    return Desk(emulator, s3, client("bedrock", emulator.url), bucket)
