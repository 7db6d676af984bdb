"""Multipart uploads to S3."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from lowtide.connectors.stores.streams import Condition

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class MultipartUpload:
    """`Parts` of one key. `stamp` is stored with the object, to tell ours from another's when an answer is lost.

    An upload whose process was killed stays invisible but is charged for until a lifecycle rule
    (AbortIncompleteMultipartUpload) removes it:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html
    """

    def __init__(self, client: S3Client, bucket: str, key: str, metadata: dict[str, str]) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._metadata = metadata
        self._upload_id = ""

    def begin(self) -> None:
        """Ask S3 for an upload of our own: parts of several writers never mix."""
        started = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._key, Metadata=self._metadata)
        self._upload_id = started["UploadId"]

    def send(self, number: int, body: bytes) -> str:
        """Upload a part; its etag names it."""
        answer = self._client.upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=body
        )
        return answer["ETag"]

    def complete(self, parts: list[str], condition: Condition | None) -> None:
        """Make the object appear (`If-Match`, or `If-None-Match: *`)."""
        self._client.complete_multipart_upload(
            Bucket=self._bucket,
            Key=self._key,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": at} for at, etag in enumerate(parts, 1)]},
            **keywords(condition),  # type: ignore[arg-type]  # the stubs want each keyword by name
        )

    def abort(self) -> None:
        """Drop the upload; what cannot be dropped now is left to the lifecycle rule."""
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)

    def overtaken(self, etag: str) -> bool:
        """Never: S3 keeps every writer's parts apart."""
        return False


def keywords(condition: Condition | None) -> dict[str, str]:
    """A condition as boto3 takes it."""
    if condition is None:
        return {}
    return {"IfNoneMatch": "*"} if condition.etag is None else {"IfMatch": condition.etag}
