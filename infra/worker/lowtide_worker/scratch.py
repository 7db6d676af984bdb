"""A folder of a worker's own on its machine, for its engine's log, which may quote prompts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "lowtide-worker-"
_NEW = ".lowtide-worker-"
_LOCK = "lock"
_KEPT = "kept"
_KEPT_SECONDS = 86400.0
_MOST_KEPT = 5
"""An engine that cannot start fails each worker in the same way; the last few logs say all that there is to say."""


class Scratch:
    """`path` is removed at the end; or, kept to be read, by another worker a day later, or once newer ones are kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self) -> None:
        """Have it lie here for a day."""
        with contextlib.suppress(OSError):
            (self.path / _KEPT).touch()


@contextmanager
def scratch(name: str, base: Path | None = None) -> Iterator[Scratch]:
    """A folder for the worker of that name in `base`, by default the system's folder for such; raises OSError.

    Those of workers that were killed are removed: their locks are free. They may hold lines of documents.
    """
    base = base or Path(tempfile.gettempdir())
    _sweep(base)
    path = base / f"{_PREFIX}{name}"
    # It is locked before it has its name, so that nobody takes it for a dead worker's.
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=base))
    lock = os.open(new / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(path)
        yield Scratch(path)
    finally:
        if not (path / _KEPT).exists():
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(new, ignore_errors=True)
        os.close(lock)


def _sweep(base: Path) -> None:
    kept: list[tuple[float, Path]] = []
    for path in (*base.glob(f"{_PREFIX}*"), *base.glob(f"{_NEW}*")):
        with contextlib.suppress(OSError):
            if not path.is_dir() or path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            if _left(path):
                shutil.rmtree(path, ignore_errors=True)
            elif (path / _KEPT).exists():
                kept.append(((path / _KEPT).stat().st_mtime, path))
    for _, path in sorted(kept, reverse=True)[_MOST_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _left(path: Path) -> bool:
    """Whether nobody is at it, and nobody is to read it."""
    lock_file, kept = path / _LOCK, path / _KEPT
    if path.name.startswith(_NEW) or kept.exists() or not lock_file.exists():
        return time.time() - path.stat().st_mtime > _KEPT_SECONDS
    lock = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
