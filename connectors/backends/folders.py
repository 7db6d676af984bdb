"""Folders of this machine in which backends keep what runs here: whether they can be made, and who holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lowtide.records import Finding


def hold(path: Path) -> int | None:
    """A descriptor that holds the lock at `path` until it is closed; None if somebody else holds it.

    The lock belongs to the open file, so it passes to a process that inherits the descriptor, and ends with it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for a lock file, and hold it for the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def examine_folder(name: str, folder: Path, variable: str, said: str = "") -> Finding:
    """Whether the folder can be made, and how much room it has; `variable` is what names another one."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(name, False, f"{folder}: {error.strerror}; set {variable} to another folder")
    return Finding(name, True, f"{said}{folder}: {free >> 20:,} MiB free")
