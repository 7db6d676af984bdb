"""List blobs in order: obstore as far as it can be trusted, and else folder by folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from azure.storage.blob import BlobPrefix
from obstore.exceptions import InvalidPathError

from lowtide.connectors.stores.listing import by_obstore, just_before, quoted
from lowtide.connectors.stores.paths import is_plain
from lowtide.records import FileInfo

if TYPE_CHECKING:
    from lowtide.connectors.stores.blob_connection import Connection

# Where the order of UTF-16 units, which Azurite lists in, is not that of UTF-8 bytes.
_BEYOND = re.compile("[\ue000-\U0010ffff]")


def list_objects(
    connection: Connection, base: str, prefix: str, after: str, *, is_object: Callable[[str], bool]
) -> Iterator[FileInfo]:
    """Blobs below `base` whose path starts with `prefix`, behind `after`, in the order of their names' bytes.

    Left out is what stands for a folder: names that end in a slash, and blobs with the metadata `hdi_isfolder`.

    obstore lists as the service does. That is not our order in an account with a hierarchical namespace (`a/b` comes
    before `a-b` there) and behind a name with characters above U+DFFF; and obstore cannot name every blob. Then each
    folder is listed by itself, one page of 5,000 after the other, and sorted: a request for each folder, and one folder
    in memory at a time on each level.
    """
    prefix, after = base + prefix, base + after if after else ""
    folder = prefix.rpartition("/")[0]
    plain = all(is_plain(part) for part in (folder, after) if part)
    if plain and not _BEYOND.search(prefix) and not _BEYOND.search(after) and connection.flat:
        start = max(after, just_before(prefix))
        try:
            for found in by_obstore(connection.bucket, connection.root, base, prefix, start, is_object=is_object):
                if _BEYOND.search(found.path):
                    break
                after = base + found.path
                yield found
            else:
                return
        except InvalidPathError:
            pass
    yield from _walk(connection, base, prefix, after)


def _walk(connection: Connection, base: str, prefix: str, after: str) -> Iterator[FileInfo]:
    levels = [iter(_entries(connection, base, prefix))]
    while levels:
        name, info = next(levels[-1], ("", None))
        if not name:
            levels.pop()
        elif info is None:
            if name > after or after.startswith(name):
                levels.append(iter(_entries(connection, base, name)))
        elif name > after:
            yield info


def _entries(connection: Connection, base: str, prefix: str) -> list[tuple[str, FileInfo | None]]:
    """What lies directly in the prefix's folder, sorted: blobs, and None for the folders in it."""
    entries: list[tuple[str, FileInfo | None]] = []
    for item in connection.container.walk_blobs(name_starts_with=prefix or None, include=["metadata"], delimiter="/"):
        name = item.name
        if isinstance(item, BlobPrefix):
            entries.append((name, None))
        elif not name.endswith("/") and not is_folder(item.metadata):
            etag, modified = quoted(item.etag), item.last_modified
            entries.append((name, FileInfo(name[len(base) :], connection.root + name, item.size, etag, modified)))
    # By code points, which is the order of UTF-8 bytes.
    entries.sort(key=lambda entry: entry[0])
    return entries


def is_folder(metadata: Mapping[str, str] | None) -> bool:
    """Whether a blob only stands for a folder, as Hadoop's drivers and accounts with a hierarchical namespace say."""
    return any(name.lower() == "hdi_isfolder" and value.lower() == "true" for name, value in (metadata or {}).items())
