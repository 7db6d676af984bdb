"""The S3 that a job's role reads from and writes to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class NoAccess(Exception):
    """S3 did not let the job read or write; the message is the job's."""


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket and a key in it, which may be empty or end with a slash."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> Place:
        """`s3://bucket/key`."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return cls(bucket, key)


@dataclass(frozen=True, slots=True)
class Input:
    """One input file. `name` is its path below what the job was given, which names its output too."""

    place: Place
    name: str
    size: int


def connect(url: str | None) -> S3Client:
    """A client of the S3 at `url`, or where the environment says. Any credentials do for a URL."""
    known = "AWS_ACCESS_KEY_ID" in os.environ or url is None
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=os.environ.get("AWS_REGION", "us-east-1"),
        aws_access_key_id=None if known else "emulator",
        aws_secret_access_key=None if known else "emulator",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}, max_pool_connections=50),
    )


class Storage:
    """S3 as the role of a job sees it, which may do nothing that is in `denied`. Thread-safe."""

    def __init__(self, client: S3Client, denied: frozenset[str]) -> None:
        self._client, self._denied = client, denied

    def inputs(self, uri: str) -> list[Input]:
        """The object of that name, or every object below it as a folder, by name. Raises NoAccess."""
        place = Place.of(uri)
        self._allow("s3:ListBucket")
        try:
            if place.key and not place.key.endswith("/"):
                found = self._size(place)
                if found is not None:
                    return [Input(place, place.key.rsplit("/", 1)[-1], found)]
            prefix = place.key.rstrip("/") + "/" if place.key else ""
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=prefix)
            return [
                Input(Place(place.bucket, item["Key"]), item["Key"].removeprefix(prefix), item["Size"])
                for page in pages
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/")
            ]
        except (ClientError, BotoCoreError) as error:
            raise NoAccess(f"The job could not read from the S3 location: {_why(error)}") from error

    def fetch(self, place: Place, path: Path) -> None:
        """Copy an object to a file. Raises NoAccess."""
        self._allow("s3:GetObject")
        try:
            body = self._client.get_object(Bucket=place.bucket, Key=place.key)["Body"]
            with path.open("wb") as file:
                for part in body.iter_chunks(1 << 20):
                    file.write(part)
        except (ClientError, BotoCoreError) as error:
            raise NoAccess(f"The job could not read an input file: {_why(error)}") from error

    def store(self, path: Path, place: Place, kms_key: str | None) -> None:
        """Copy a file to an object, encrypted with the key. Raises NoAccess."""
        self._allow("s3:PutObject")
        extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        try:
            self._client.upload_file(str(path), place.bucket, place.key, ExtraArgs=extra)
        except (ClientError, BotoCoreError, boto3.exceptions.S3UploadFailedError) as error:
            raise NoAccess(f"The job could not write to the S3 location: {_why(error)}") from error

    def _size(self, place: Place) -> int | None:
        try:
            return self._client.head_object(Bucket=place.bucket, Key=place.key)["ContentLength"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey", "NotFound"}:
                return None
            raise

    def _allow(self, action: str) -> None:
        if action in self._denied:
            raise NoAccess(f"The job's role is not authorized to perform: {action}")


def _why(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    return type(error).__name__
