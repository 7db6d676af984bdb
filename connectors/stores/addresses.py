"""How stores are written: a path, `file://`, or `s3://bucket/prefix`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from lowtide.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(uri: str) -> str:
    """`s3`, or `file` for paths too. Raises ConfigError for any other."""
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else "file"
    if scheme not in {"file", "s3"}:
        raise ConfigError(f"{uri!r} cannot be used: {scheme}:// is not supported; use a path, file:// or s3://")
    return scheme


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
