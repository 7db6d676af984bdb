"""Which paths a glob pattern means."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

_MAGIC = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")


def has_magic(pattern: str) -> bool:
    """Whether the pattern has a wildcard: `*`, `?` or `[`."""
    return _MAGIC.search(pattern) is not None


def literal_prefix(pattern: str) -> str:
    """What every path that matches starts with."""
    magic = _MAGIC.search(pattern)
    return pattern[: magic.start()] if magic else pattern


def matcher(pattern: str) -> Callable[[str], bool]:
    """A test for paths, as the shell and Python's `glob` know it, and always case-sensitive.

    `*` is anything inside one part, `?` one character, `[a-z]` and `[!a-z]` one of a set; `**` as a whole part is any
    number of folders, none included, and at the end of the pattern whatever lies below. A wildcard at the start of a
    part does not match a part that begins with a dot, and `**` does not go into such a folder: hidden files are meant
    only by patterns that spell the dot.
    """
    parts = [None if part == "**" else _Part(part) for part in pattern.split("/")]
    if parts[-1] is None:
        parts.append(_Part("*"))
    parts = [part for at, part in enumerate(parts) if part is not None or at == 0 or parts[at - 1] is not None]
    return lambda path: _matches(parts, path.split("/"))


class _Part:
    def __init__(self, pattern: str) -> None:
        self._match = re.compile(fnmatch.translate(pattern)).match
        self._hidden = pattern.startswith(".")

    def __call__(self, name: str) -> bool:
        return (self._hidden or not name.startswith(".")) and self._match(name) is not None


def _matches(parts: list[_Part | None], names: list[str]) -> bool:
    """Match from the left; on a mismatch let the last `**` (None) take one more folder, unless that is hidden.

    Trying only the last `**` again is enough, and keeps the time within parts x names: the shortest match of what
    stands before it leaves the most to the rest.
    """
    part = name = 0
    retry: tuple[int, int] | None = None
    while name < len(names):
        if part < len(parts) and parts[part] is None:
            retry = (part + 1, name)
            part += 1
            continue
        test = parts[part] if part < len(parts) else None
        if test is not None and test(names[name]):
            part += 1
            name += 1
            continue
        if retry is None or names[retry[1]].startswith("."):
            return False
        retry = (retry[0], retry[1] + 1)
        part, name = retry
    return part == len(parts)
