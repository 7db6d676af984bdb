"""A Blob Storage container, or a part of one, as a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from azure.core import MatchConditions
from azure.core.exceptions import ResourceNotFoundError

from lowtide.connectors.stores.blob_connection import Connection
from lowtide.connectors.stores.blob_errors import BLOB_FAILURES
from lowtide.connectors.stores.blob_list import is_folder, list_objects
from lowtide.connectors.stores.blob_parts import BlockList
from lowtide.connectors.stores.cloud import CloudStore, Head
from lowtide.connectors.stores.listing import quoted
from lowtide.connectors.stores.streams import PART, Condition
from lowtide.errors import StoreError
from lowtide.records import FileInfo


class BlobStore(CloudStore):
    """A `CloudStore` over the blobs of a container, with azure-storage-blob beside obstore.

    Up to `small` bytes go up in one Put Blob, more as blocks whose list is committed in one step, under the condition.
    """

    _failures = BLOB_FAILURES
    _stamp = "lowtide_writer"  # names of metadata are C# identifiers

    def __init__(self, connection: Connection, prefix: str = "", *, readers: int = 8, small: int = PART) -> None:
        super().__init__(connection.root.rstrip("/"), prefix, connection.bucket, readers=readers, small=small)
        self._connection = connection

    def _listed(self, prefix: str, after: str) -> Iterator[FileInfo]:
        return list_objects(
            self._connection, self._base, prefix, after, is_object=lambda key: self._head(key) is not None
        )

    def _is_folder(self, attributes: Mapping[str, str]) -> bool:
        return is_folder(attributes)

    def _writable(self, path: str) -> str:
        if "\\" in path or any(part.endswith(".") for part in path.split("/")):
            raise StoreError(
                f"{path!r} cannot be a path in {self.uri!r}: Blob Storage reads a backslash as a slash, and may drop a "
                "dot at the end of a part",
                uri=self.uri,
            )
        return super()._writable(path)

    def _put_stamped(self, key: str, data: bytes, condition: Condition, stamp: str) -> None:
        try:
            super()._put_stamped(key, data, condition, stamp)
        except self._failures.raised as error:
            exists = self._failures.explain(error).code == "BlobAlreadyExists"
            if condition.etag is not None or not exists or self._head(key) is not None:
                raise
            # Blocks that a killed writer left uncommitted are a blob for Put Blob; a block list goes over them.
            parts = self._parts(key, stamp)
            parts.complete([parts.send(1, data)] if data else [], condition)

    def _odd_head(self, key: str) -> Head | None:
        try:
            found = self._connection.container.get_blob_client(key).get_blob_properties()
        except ResourceNotFoundError:
            return None
        if is_folder(found.metadata):
            return None
        return Head(found.size, quoted(found.etag), found.last_modified, found.metadata or {})

    def _odd_bytes(self, key: str, span: tuple[int, int] | None = None, etag: str = "") -> bytes:
        blob = self._connection.container.get_blob_client(key)
        if span is None:
            return blob.download_blob().readall()
        return blob.download_blob(
            offset=span[0], length=span[1] - span[0], etag=etag, match_condition=MatchConditions.IfNotModified
        ).readall()

    def _parts(self, key: str, stamp: str) -> BlockList:
        def etag_now() -> str:
            head = self._head(key)
            return head.etag if head else ""

        blob = self._connection.container.get_blob_client(key)
        return BlockList(blob, stamp, {self._stamp: stamp}, etag_now)

    def _delete(self, key: str) -> None:
        try:
            # A blob that has snapshots can be deleted only with them.
            self._connection.container.get_blob_client(key).delete_blob(delete_snapshots="include")
        except ResourceNotFoundError as error:
            if not self._failures.explain(error).missing:
                raise
