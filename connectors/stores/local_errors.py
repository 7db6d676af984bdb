"""What the operating system says, in this project's own errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from lowtide.errors import LowtideError, NotFound, StoreError, Transient

Doing = Literal["list", "read", "write", "delete"]

ENDED_BY_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})

_PASSING = frozenset(
    {errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.ENFILE, errno.EMFILE}
)
_ADVICE = {
    errno.EACCES: "give this user the right to {doing} it",
    errno.EPERM: "the file system does not allow it; writing needs one that has hard links",
    errno.ENOTSUP: "the file system does not know how; writing needs one that has hard links and flock",
    errno.ENOLCK: "the file system has no locks; use another",
    errno.ENOSPC: "free some space on the device",
    errno.EDQUOT: "free some of the quota",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENAMETOOLONG: "a part of a path may have 255 bytes, a whole path 4096",
    errno.ENOTDIR: "a part of the path is itself a file",
    errno.EISDIR: "it is a folder",
    errno.ENOTEMPTY: "it is a folder",
}


@contextmanager
def translated(uri: str, doing: Doing) -> Iterator[None]:
    """Turn an OSError about this object into NotFound, Transient or StoreError, which name it and say what to do."""
    try:
        yield
    except OSError as error:
        raise reported(error, uri, doing) from error


def reported(error: OSError, uri: str, doing: Doing) -> LowtideError:
    """The error to raise instead."""
    if doing == "read" and error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}:
        return NotFound(f"there is no object {uri!r}", uri=uri)
    if error.errno in _PASSING:
        return Transient(f"cannot {doing} {uri!r} now: {error.strerror}")
    advice = _ADVICE.get(error.errno or 0)
    reason = f"{error.strerror} ({advice.format(doing=doing)})" if advice else error.strerror
    return StoreError(f"cannot {doing} {uri!r}: {reason}", uri=uri)
