"""List a folder as S3 would list it: by the bytes of the whole path, one folder in memory at a time."""

# pathlib costs microseconds a call, and this runs for every object.
# ruff: noqa: PTH116

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lowtide.connectors.stores.local_errors import translated
from lowtide.connectors.stores.paths import check_inside
from lowtide.records import FileInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one of ours that is not finished."""
    return name.startswith(".lowtide-") and name.endswith(".tmp")


def info_of(native: str, path: str, uri: str) -> FileInfo | None:
    """What the file system knows of an object; None if there is no regular file (any more)."""
    try:
        found = os.stat(native)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    etag = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    return FileInfo(path, uri, found.st_size, etag, _EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder on the way: its path as shown and as it is, what is left of it, and who it and its parents are."""

    shown: str
    native: str
    names: Iterator[str]
    trail: tuple[tuple[int, int], ...]


def walk(root: str, prefix: str, after: str) -> Iterator[tuple[str, str]]:
    """Pairs of the path as shown and the file's name, for every regular file behind `after` that starts with `prefix`.

    Python compares strings by code point, which is the order of their UTF-8 bytes. A folder sorts as `name/`, and so
    `a.txt` comes before `a/b` and that before `a0`, as in a flat list of keys.
    """
    inside = prefix.rpartition("/")[0]
    if inside:
        check_inside(inside, root)
    trail: tuple[tuple[int, int], ...] = ()
    native = root
    for part in ["", *inside.split("/")] if inside else [""]:
        native = f"{native}/{part}" if part else native
        identity = _identity(native)
        if identity is None:
            return
        trail = (*trail, identity)
    shown = f"{inside}/" if inside else ""
    stack = [_Folder(shown, f"{native}/", _wanted(native, shown, prefix, after), trail)]
    while stack:
        folder = stack[-1]
        name = next(folder.names, None)
        if name is None:
            stack.pop()
            continue
        shown = folder.shown + as_utf8(name)
        native = folder.native + name
        if not name.endswith("/"):
            yield shown, native
            continue
        identity = _identity(native)
        if identity is not None and identity not in folder.trail:
            stack.append(_Folder(shown, native, _wanted(native, shown, prefix, after), (*folder.trail, identity)))


def as_utf8(name: str) -> str:
    """The name, with `\\xNN` in place of each byte that is not UTF-8."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _identity(native: str) -> tuple[int, int] | None:
    try:
        found = os.stat(native)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _wanted(native: str, shown: str, prefix: str, after: str) -> Iterator[str]:
    """The names in a folder that can lead to something wanted, in order; those of folders end with a slash."""
    names: list[str] = []
    with translated(native, "list"):
        try:
            entries = os.scandir(native)
        except (FileNotFoundError, NotADirectoryError):
            return iter(())
        with entries:
            for entry in entries:
                if _is(entry, folder=True):
                    path = f"{shown}{as_utf8(entry.name)}/"
                    if _leads_on(path, prefix, after):
                        names.append(entry.name + "/")
                elif _is(entry, folder=False) and not is_temporary(entry.name):
                    path = shown + as_utf8(entry.name)
                    if path > after and path.startswith(prefix):
                        names.append(entry.name)
    names.sort(key=as_utf8)
    return iter(names)


def _is(entry: os.DirEntry[str], *, folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:
        # A link that leads to itself, or to where this user may not look.
        return False


def _leads_on(folder: str, prefix: str, after: str) -> bool:
    if not (folder.startswith(prefix) or prefix.startswith(folder)):
        return False
    return folder > after or after.startswith(folder)
