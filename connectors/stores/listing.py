"""List keys in order through obstore, the fast way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import obstore
from obstore.store import ObjectStore

from lowtide.connectors.stores.paths import is_plain
from lowtide.errors import StoreError
from lowtide.records import FileInfo

_PAGE = 1000


class OutOfOrder(StoreError):
    """The store does not list its keys in the order of their bytes."""


def by_obstore(
    bucket: ObjectStore, root: str, base: str, prefix: str, after: str, *, is_object: Callable[[str], bool]
) -> Iterator[FileInfo]:
    """Objects whose key starts with `prefix`, behind `after`; paths are relative to `base`, `root` ends in a slash.

    A page with one key that is not plain raises obstore's InvalidPathError. `is_object` is asked about empty objects,
    and tells those that only stand for a folder.
    """
    last, skip, folder = after, len(base), prefix.rpartition("/")[0]
    for chunk in obstore.list(bucket, folder or None, offset=after or None, chunk_size=_PAGE):
        for meta in chunk:
            key, size = meta["path"], meta["size"]
            if not key.startswith(prefix):
                if key > prefix:
                    return
                continue
            # obstore shows `a/`, which stands for a folder, as `a`: an empty object, or one out of order.
            if (size == 0 or key <= last) and not is_object(key):
                continue
            if key <= last:
                if size == 0:
                    continue
                raise OutOfOrder(f"{root!r} does not list its keys in order ({key!r} came behind {last!r})", uri=root)
            last = key
            yield FileInfo(key[skip:], root + key, size, quoted(meta["e_tag"]), meta["last_modified"])


def quoted(etag: str | None) -> str:
    """An etag in its quotes, as headers have it; in a listing of Blob Storage there are none."""
    return f'"{etag}"' if etag and not etag.endswith('"') else etag or ""


def just_before(prefix: str) -> str:
    """A key behind which everything that starts with the prefix comes, and little else; "" if there is no good one."""
    if not prefix or prefix.endswith("/"):
        return ""
    before = ord(prefix[-1]) - 1
    if 0xD800 <= before <= 0xDFFF:
        return ""
    key = f"{prefix[:-1]}{chr(before)}\U0010ffff"
    return key if is_plain(key) else ""
