"""From what a user writes as a source to the files that it means."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lowtide.connectors.stores.addresses import blob_address, local_path, scheme_of
from lowtide.connectors.stores.globs import has_magic, literal_prefix, matcher
from lowtide.errors import ConfigError
from lowtide.protocols import Store
from lowtide.records import FileInfo

EVERYTHING = "**"


class Source(NamedTuple):
    """The address of a store, and a glob pattern for paths in it."""

    store: str
    pattern: str


def split_glob(uri: str) -> Source:
    """Part a source into the folder before the first wildcard, and the pattern behind it.

    | written | store | pattern |
    |---|---|---|
    | `s3://b/tickets/**/*.txt` | `s3://b/tickets` | `**/*.txt` |
    | `s3://b/tickets/` | `s3://b/tickets` | `**`: everything below |
    | `s3://b/tickets` | `s3://b` | `tickets`: that object, or else everything below it |
    | `abfs://c@account.dfs.core.windows.net/t/*.txt` | `abfs://c@account.dfs.core.windows.net/t` | `*.txt` |
    | `docs`, a folder | `/the/full/path/docs` | `**` |
    | `~/a/b.jsonl`, a file | `/home/me/a` | `b.jsonl` |

    A local path that exists is never a pattern, whatever characters it has. Raises ConfigError for a local path without
    wildcards that does not exist, and for an address of a kind that is not supported.
    """
    scheme = scheme_of(uri)
    if scheme != "file":
        return _split_key(uri, scheme)
    path = local_path(uri)
    if path.is_dir():
        return Source(str(path), EVERYTHING)
    if path.is_file():
        return Source(str(path.parent), glob.escape(path.name))
    if not has_magic(str(path)):
        raise ConfigError(f"the source {uri!r} is not there: {str(path)!r} is neither a file nor a folder")
    folder, pattern = _split(str(path))
    if not Path(folder).is_dir():
        raise ConfigError(f"the source {uri!r} is not there: {folder!r} is not a folder")
    return Source(folder, pattern)


def matching(store: Store, pattern: str) -> Iterator[FileInfo]:
    """The files that a pattern of `split_glob` means, in the order of their paths, as they are listed.

    See `globs.matcher` for what the wildcards mean. A pattern without any is the file of that name, and everything
    below it that is not hidden.
    """
    if not has_magic(pattern):
        info = store.info(pattern)
        if info:
            yield info
        pattern = f"{glob.escape(pattern)}/{EVERYTHING}"
    wanted = matcher(pattern)
    for info in store.list(literal_prefix(pattern)):
        if wanted(info.path):
            yield info


def _split_key(uri: str, scheme: str) -> Source:
    head, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or has_magic(bucket):
        form = "s3://bucket/folder/**/*.txt" if scheme == "s3" else "abfs://container/folder/**/*.txt"
        raise ConfigError(f"the source {uri!r} names no bucket or container: write {form}")
    if scheme == "abfs":
        blob_address(f"{head}{separator}{bucket}")
    folder, pattern = _split(key)
    return Source(f"{head}{separator}{bucket}/{folder}".rstrip("/"), pattern or EVERYTHING)


def _split(path: str) -> Source:
    """Cut a path at the slash before its first wildcard, or else at its last."""
    folder, slash, _ = literal_prefix(path).rpartition("/")
    pattern = path[len(folder) + len(slash) :]
    return Source(folder or slash, pattern)
