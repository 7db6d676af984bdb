"""Where files are: folders, S3 buckets and Azure Blob Storage, behind `lowtide.protocols.Store`."""

from __future__ import annotations

from collections.abc import Mapping

from lowtide.connectors.stores.addresses import blob_address, local_path, scheme_of
from lowtide.connectors.stores.check import verify
from lowtide.connectors.stores.source import Source, matching, split_glob
from lowtide.errors import ConfigError, MissingExtra
from lowtide.protocols import Store

__all__ = ["Source", "matching", "open_store", "split_glob", "verify"]


def open_store(uri: str, *, environ: Mapping[str, str] | None = None) -> Store:
    """The store at a path, `file:///path`, `s3://bucket/prefix` or an `abfs://` address; nothing is sent to it yet.

    For S3, credentials, region and endpoint are those of the AWS tools (`s3_connection.connect`); for Azure, account
    and credentials those of adlfs and the Azure tools (`blob_connection.connect`). `environ` goes before the process's
    environment. Raises ConfigError for another kind of address, and where no credentials are found; MissingExtra for
    Azure without the extra `azure`.
    """
    scheme = scheme_of(uri)
    if scheme == "file":
        from lowtide.connectors.stores.local import LocalStore  # noqa: PLC0415

        return LocalStore(local_path(uri))
    if scheme == "abfs":
        return _open_blob(uri, environ)
    bucket, _, prefix = uri[len("s3://") :].partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket: write s3://bucket/folder")
    # boto3 takes half a second to import, and a run on disk has no use for it.
    from lowtide.connectors.stores.s3 import S3Store  # noqa: PLC0415
    from lowtide.connectors.stores.s3_connection import connect  # noqa: PLC0415

    return S3Store(connect(bucket, environ), prefix)


def _open_blob(uri: str, environ: Mapping[str, str] | None) -> Store:
    address = blob_address(uri)
    try:
        from lowtide.connectors.stores.blob import BlobStore  # noqa: PLC0415
        from lowtide.connectors.stores.blob_connection import connect  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "azure":
            raise
        raise MissingExtra("Azure storage", "azure", "azure-storage-blob") from None
    return BlobStore(connect(address, environ), address.path)
