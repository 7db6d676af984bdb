"""How stores are written: a path, `file://`, `s3://bucket/prefix`, or `abfs://container@account.../prefix`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from lowtide.errors import ConfigError
from lowtide.job.values import BLOB

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_AZURE = {"abfs", "abfss", "az"}
_USER_INFO = re.compile(r"(//)[^/]*:[^/]*@|\?.*", re.DOTALL)


class BlobAddress(NamedTuple):
    """Parts of an Azure address. `account`, `zone` and `cloud` (`core.windows.net`) are "" where it names none.

    `zone` is that of an account with an Azure DNS zone endpoint, such as `z12`.
    """

    container: str
    account: str
    zone: str
    cloud: str
    path: str


def scheme_of(uri: str) -> str:
    """`s3`, `abfs` for `abfss` and `az` too, or `file` for paths too. Raises ConfigError for any other."""
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else "file"
    if scheme in _AZURE:
        return "abfs"
    if scheme not in {"file", "s3"}:
        raise ConfigError(
            f"{uri!r} cannot be used: {scheme}:// is not supported; use a path, file://, s3:// or abfs://"
        )
    return scheme


def blob_address(uri: str) -> BlobAddress:
    """The parts of `abfs://container@account.dfs.core.windows.net/path` or `abfs://container/path`.

    `abfss://` and `az://` mean the same. Raises ConfigError, without repeating a password or a signature.
    """
    found = BLOB.fullmatch(uri)
    if not found:
        shown = _USER_INFO.sub(r"\1...", uri)
        raise ConfigError(
            f"{shown!r} cannot be used: write abfs://container@account.dfs.core.windows.net/folder, or "
            "abfs://container/folder with AZURE_STORAGE_ACCOUNT_NAME set"
        )
    parts = found.groupdict(default="")
    return BlobAddress(parts["container"], parts["account"], parts["zone"], parts["cloud"], parts["path"])


def local_path(uri: str) -> Path:
    """The absolute path of a `file://` address (percent-encoded, as in RFC 8089) or of a path, `~` included."""
    if not uri:
        raise ConfigError("an empty path: write '.' for the folder that you are in")
    if _SCHEME.match(uri):
        rest = uri[len("file://") :].removeprefix("localhost")
        if not rest.startswith("/"):
            raise ConfigError(f"{uri!r} cannot be used: write file:///absolute/path, with three slashes")
        return Path(os.path.abspath(os.fsdecode(unquote(rest, errors="surrogateescape"))))  # noqa: PTH100
    return Path(os.path.abspath(Path(uri).expanduser()))  # noqa: PTH100 - links stay as they were written
