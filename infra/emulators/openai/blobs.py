"""Blob storage of the user's own: where a batch's input lies, and where its results go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient


class NoAccess(Exception):
    """The blob is not there, or may not be read or written."""


@dataclass(frozen=True, slots=True)
class Address:
    """A container and a name inside it."""

    container: str
    name: str


class Blobs:
    """The storage account that a connection string, or a plain URL, leads to."""

    def __init__(self, location: str) -> None:
        """Nothing is opened before it is needed: azure-storage-blob is part of the `azure` extra alone."""
        self._location = location

    @cached_property
    def _client(self) -> BlobServiceClient:
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - an extra

        if self._location.startswith(("http://", "https://")):
            return BlobServiceClient(self._location)
        return BlobServiceClient.from_connection_string(self._location)

    def address(self, url: str) -> Address:
        """Container and name of a blob's or a folder's URL, whatever its host. Raises NoAccess."""
        parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
        # Azurite has the account's name in front of the path, Azure in the host.
        root = [part for part in urlsplit(self._client.url).path.split("/") if part]
        if root and parts[: len(root)] == root:
            parts = parts[len(root) :]
        if not parts:
            raise NoAccess(url)
        return Address(parts[0], "/".join(parts[1:]))

    def etag(self, url: str) -> str:
        """The blob's ETag. Raises NoAccess."""
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - an extra

        address = self.address(url)
        try:
            properties = self._client.get_blob_client(address.container, address.name).get_blob_properties()
        except AzureError as error:
            raise NoAccess(url) from error
        return properties.etag

    def fetch(self, url: str, path: Path) -> str:
        """Copy a blob to `path` and give its ETag. Raises NoAccess."""
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - an extra

        address = self.address(url)
        try:
            stream = self._client.get_blob_client(address.container, address.name).download_blob()
            with path.open("wb") as file:
                stream.readinto(file)
        except AzureError as error:
            raise NoAccess(url) from error
        return stream.properties.etag

    def put(self, folder: str, name: str, path: Path) -> str:
        """Write a file below a folder's URL, give the new blob's URL. Raises NoAccess."""
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - an extra

        url = f"{folder.rstrip('/')}/{name}"
        address = self.address(url)
        try:
            with path.open("rb") as file:
                client = self._client.get_blob_client(address.container, address.name)
                client.upload_blob(file, length=os.fstat(file.fileno()).st_size, overwrite=True)
        except AzureError as error:
            raise NoAccess(url) from error
        return url
