"""A bucket, or a part of one, as a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import obstore

from lowtide.connectors.stores.cloud import CloudStore, Head
from lowtide.connectors.stores.s3_connection import Connection
from lowtide.connectors.stores.s3_errors import S3_FAILURES
from lowtide.connectors.stores.s3_list import list_objects
from lowtide.connectors.stores.s3_parts import MultipartUpload, keywords
from lowtide.connectors.stores.streams import PART, Condition
from lowtide.records import FileInfo

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html: one PUT takes up to 5 GB.
_SINGLE_PUT = 5 * 1000**3


class S3Store(CloudStore):
    """A `CloudStore` over the keys of an S3 bucket, with boto3 beside obstore.

    S3 answers a conditional write with 409 because another request was in the way: "retry on 409", says
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.

    Files up to 5 GB go up in one streamed PUT: some S3-compatible stores that honour conditions there ignore them at
    the end of a multipart upload.
    """

    _failures = S3_FAILURES
    _stamp = "lowtide-writer"

    def __init__(
        self,
        connection: Connection,
        prefix: str = "",
        *,
        readers: int = 8,
        small: int = PART,
        single_put: int = _SINGLE_PUT,
    ) -> None:
        super().__init__(f"s3://{connection.name}", prefix, connection.bucket, readers=readers, small=small)
        self._name = connection.name
        self._client = connection.client
        self._connection = connection
        self._single_put = single_put

    def _listed(self, prefix: str, after: str) -> Iterator[FileInfo]:
        return list_objects(self._connection, self._base, prefix, after)

    def _odd_head(self, key: str) -> Head | None:
        try:
            head = self._client.head_object(Bucket=self._name, Key=key)
        except self._failures.raised as error:
            if self._failures.explain(error).missing:
                return None
            raise
        return Head(head["ContentLength"], head["ETag"], head["LastModified"], head["Metadata"])

    def _odd_bytes(self, key: str, span: tuple[int, int] | None = None, etag: str = "") -> bytes:
        if span is None:
            return self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
        extent = f"bytes={span[0]}-{span[1] - 1}"
        return self._client.get_object(Bucket=self._name, Key=key, Range=extent, IfMatch=etag)["Body"].read()

    def _parts(self, key: str, stamp: str) -> MultipartUpload:
        return MultipartUpload(self._client, self._name, key, {self._stamp: stamp})

    def _put(self, key: str, data: bytes) -> None:
        obstore.put(self._bucket, key, data, chunk_size=PART, max_concurrency=4)

    def _put_large(self, key: str, source: Path, size: int, condition: Condition, stamp: str) -> None:
        if size > self._single_put:
            super()._put_large(key, source, size, condition, stamp)
            return
        with source.open("rb") as body:
            self._client.put_object(
                Bucket=self._name,
                Key=key,
                Body=body,
                Metadata={self._stamp: stamp},
                **keywords(condition),  # type: ignore[arg-type]  # the stubs want each keyword by name
            )

    def _delete(self, key: str) -> None:
        obstore.delete(self._bucket, key)
