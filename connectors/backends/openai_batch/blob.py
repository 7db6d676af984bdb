"""A storage account of one's own in place of uploaded files: where requests and answers lie in it.

    <blob>/requests/<token>.jsonl                    what a batch reads; <token>.<region>.jsonl in further regions
    <blob>/answers/<guid>/results.jsonl, errors.jsonl    what it writes

Such a batch takes no metadata, so it is found again by the address of its requests.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from lowtide.connectors.backends.openai_batch.uploads import opened
from lowtide.connectors.stores.addresses import blob_address, scheme_of
from lowtide.errors import ConfigError, MissingExtra, NotFound, StoreError, Terminal, Transient
from lowtide.protocols import Store
from lowtide.records import Shard

REQUESTS = "requests"
ANSWERS = "answers"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class BlobFolder:
    """A folder in a storage account: as a store, and by the https:// address that Azure is given."""

    store: Store
    web: str

    def request_path(self, token: str, region: str) -> str:
        """Where a shard's lines for that region lie; "" is the region of a job that has only one."""
        place = "." + re.sub(r"[^A-Za-z0-9-]", "-", region) if region else ""
        return f"{REQUESTS}/{token}{place}.jsonl"

    def url(self, path: str) -> str:
        """The address that Azure is given for a path."""
        return f"{self.web}/{quote(path)}"

    def path_in(self, url: str) -> str | None:
        """The path behind an address that Azure gave; None if it is empty, or lies outside of this folder.

        Compared as addresses are: the host in any case, percent-encoding or not, without a query.
        """
        ours, theirs = _plain(self.web), _plain(url)
        return theirs[len(ours) + 1 :] if url and theirs.startswith(ours + "/") else None

    def put(self, shard: Shard, path: str, model: str) -> None:
        """Write the shard's lines, with that model's name in them, unless they lie there already.

        What lies there is never written again: a batch may be reading it, and fails if it changes. Raises Transient or
        Terminal.
        """
        try:
            if self.store.info(path) is not None:
                return
            with opened(shard, model) as source, self.store.writer(path) as out:
                shutil.copyfileobj(source, out, _CHUNK)
        except StoreError as error:
            raise Terminal(f"cannot write a shard's requests: {error}") from error

    def read(self, url: str, *, needed: bool) -> Iterator[bytes]:
        """What Azure wrote there, streamed. Nothing if there is no such blob, unless it is `needed`.

        Raises Transient, also while a needed blob is not there, or Terminal.
        """
        path = self.path_in(url)
        if path is None:
            raise Terminal(
                f"Azure wrote to {url.partition('?')[0]!r}, which is outside of {self.web!r}: put "
                "backends[0].azure-batch.blob back to what it was when the batch was created"
            )
        try:
            with self.store.open(path) as source:
                while chunk := source.read(_CHUNK):
                    yield chunk
        except NotFound:
            if needed:
                raise Transient(f"{self.store.uri_of(path)!r} is not there, and the batch says that it is") from None
        except StoreError as error:
            raise Terminal(f"cannot read a batch's answers: {error}") from error

    def remove(self, url: str, folder: str) -> None:
        """Delete what lies there, if it is below that folder of ours. No error if it is gone."""
        path = self.path_in(url)
        if path is None or not path.startswith(folder + "/"):
            return
        try:
            self.store.delete(path)
        except StoreError as error:
            raise Terminal(f"cannot delete a batch's blobs: {error}") from error


def blob_folder(uri: str, environ: Mapping[str, str] | None) -> BlobFolder:
    """The folder at an `abfs://` address, with the credentials of the store there. Nothing is read or written yet.

    Raises ConfigError, and MissingExtra where azure-storage-blob is not installed.
    """
    if scheme_of(uri) != "abfs":
        # A password, or a signature, may stand before the @, or behind the ?.
        shown = uri.rpartition("@")[2].partition("?")[0]
        raise ConfigError(f"backends[0].azure-batch.blob: found {shown!r}; expected abfs://, a folder in Azure storage")
    try:
        from lowtide.connectors.stores.blob import BlobStore  # noqa: PLC0415
        from lowtide.connectors.stores.blob_connection import connect  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "azure":
            raise
        raise MissingExtra("azure-batch.blob", "azure", "azure-storage-blob") from None
    address = blob_address(uri)
    connection = connect(address, environ)
    # A shared access signature may stand in the address, and is not Azure's to have.
    container = connection.container.url.partition("?")[0].rstrip("/")
    folder = address.path.strip("/")
    web = f"{container}/{quote(folder)}" if folder else container
    return BlobFolder(BlobStore(connection, address.path), web)


def _plain(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc.lower()}{unquote(parts.path)}".rstrip("/")
