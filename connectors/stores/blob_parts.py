"""Uploads to Azure Blob Storage in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock

from lowtide.connectors.stores.streams import Condition

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient


class BlockList:
    """`Parts` of one blob.

    Uncommitted blocks belong to the blob's name and not to whoever sent them: two writers with the same block ids would
    mix their contents, so every id holds the writer's own `stamp`. Whatever is committed drops the blocks of all others
    (https://learn.microsoft.com/rest/api/storageservices/put-block-list). Blocks that nobody commits are invisible, and
    gone after a week.

    `etag_now` says which version of the blob there is, or "".
    """

    def __init__(self, blob: BlobClient, stamp: str, metadata: dict[str, str], etag_now: Callable[[], str]) -> None:
        self._blob = blob
        self._stamp = stamp
        self._metadata = metadata
        self._etag_now = etag_now
        self._before = ""

    def begin(self) -> None:
        """Remember which version there is, to tell later whether another writer was quicker."""
        self._before = self._etag_now()

    def send(self, number: int, body: bytes) -> str:
        """Stage a block."""
        # All ids of a blob have to be of one length.
        block = f"{self._stamp}{number:06d}"
        self._blob.stage_block(block, body, length=len(body))
        return block

    def complete(self, parts: list[str], condition: Condition | None) -> None:
        """Make the blob appear (`If-Match`, or `If-None-Match: *`)."""
        blocks = [BlobBlock(part) for part in parts]
        if condition is None:
            self._blob.commit_block_list(blocks, metadata=self._metadata)
        elif condition.etag is None:
            self._blob.commit_block_list(blocks, metadata=self._metadata, match_condition=MatchConditions.IfMissing)
        else:
            self._blob.commit_block_list(
                blocks, metadata=self._metadata, etag=condition.etag, match_condition=MatchConditions.IfNotModified
            )

    def abort(self) -> None:
        """Leave the blocks to Blob Storage: it has no way to drop some and keep those of others."""

    def overtaken(self, etag: str) -> bool:
        """Whether the blob has been written by another since these blocks began: ours then came just before it."""
        return etag != self._before
