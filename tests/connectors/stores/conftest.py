"""The stores that the contract is tested on: a folder, and a fresh bucket or container on each of three servers."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest
from azure.storage.blob import BlobServiceClient
from servers import aws
from servers import azurite as blob_service

from lowtide.connectors.stores import open_store
from lowtide.protocols import Store


@dataclass(frozen=True)
class Place:
    """Where a store is, and the environment under which it is reached, also from another process."""

    uri: str
    environ: dict[str, str] = field(default_factory=dict)

    def open(self) -> Store:
        return open_store(self.uri, environ=self.environ)


def s3_client(url: str):
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )


@pytest.fixture
def bucket() -> Callable[[str], Place]:
    def make(url: str) -> Place:
        name = f"test-{uuid.uuid4().hex}"
        s3_client(url).create_bucket(Bucket=name)
        return Place(f"s3://{name}/some/prefix", aws.environ(url))

    return make


@pytest.fixture
def container(azurite: str) -> Place:
    name = f"test-{uuid.uuid4().hex}"
    BlobServiceClient.from_connection_string(blob_service.connection_string(azurite)).create_container(name)
    return Place(f"abfs://{name}/some/prefix", blob_service.environ(azurite))


@pytest.fixture(params=["local", "moto", "ministack", "azurite"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: Callable[[str], Place]) -> Place:
    if request.param == "local":
        return Place(str(tmp_path / "store"))
    if request.param == "azurite":
        made: Place = request.getfixturevalue("container")
        return made
    return bucket(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["moto", "ministack"])
def s3_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()
