"""Bedrock through boto3: S3 is moto's, Bedrock the project's own emulator, each a process of its own."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from servers import aws
from servers.emulators import Emulator, emulators

from lowtide.connectors.stores import open_store

# --import-mode=importlib leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent))

from bedrock_bench import Bench


@pytest.fixture(scope="session")
def bedrock_emulator(moto_url: str) -> Iterator[Emulator]:
    with emulators(s3_url=moto_url, speed=1.0) as emulator:
        yield emulator


@pytest.fixture
def bench(moto_url: str, bedrock_emulator: Emulator) -> Bench:
    bedrock_emulator.reset()
    name = f"test-{uuid.uuid4().hex}"
    client = boto3.client(
        "s3", endpoint_url=moto_url, region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t"
    )
    client.create_bucket(Bucket=name)
    environ = {
        **aws.environ(moto_url),
        "AWS_ENDPOINT_URL_BEDROCK": bedrock_emulator.url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock_emulator.url,
        "AWS_ENDPOINT_URL_SERVICE_QUOTAS": bedrock_emulator.url,
    }
    return Bench(open_store(f"s3://{name}/some/root", environ=environ), environ, bedrock_emulator, name)
