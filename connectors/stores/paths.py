"""What may be the path of an object."""

from __future__ import annotations

import re

from lowtide.errors import StoreError

_ELSEWHERE = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|\0")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_plain(path: str) -> bool:
    """Whether the path means the same everywhere: no part is empty, `.` or `..`, and no ASCII control character.

    obstore addresses only such keys: https://docs.rs/object_store/latest/object_store/path/struct.Path.html
    """
    return not _ELSEWHERE.search(path) and not _CONTROL.search(path)


def check_plain(path: str, store: str) -> None:
    """Raise StoreError unless the path is plain, so that nothing is ever written outside the store or twice in it."""
    if not is_plain(path):
        raise StoreError(
            f"{path!r} cannot be a path in {store!r}: paths are relative and parted by single slashes, "
            "and hold neither '.' nor '..' as a part nor control characters",
            uri=store,
        )


def check_inside(path: str, store: str) -> None:
    """Raise StoreError if the path could lead out of a folder or name something in it by a second name."""
    if _ELSEWHERE.search(path):
        raise StoreError(
            f"{path!r} cannot be a path in {store!r}: paths are relative and parted by single slashes, "
            "and hold neither '.' nor '..' as a part",
            uri=store,
        )
