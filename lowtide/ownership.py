"""Who wrote an intent, and whether that process can still be alive.

An owner is `host:boot:namespace:pid:start:nonce`. Only on the same host, boot and process namespace can liveness be
told; for any other owner nothing is known, and its lease must run out.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

_PARTS = 6


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "?"


def _start(pid: int) -> str:
    """The process's start in clock ticks since boot, field 22 of /proc/PID/stat (proc(5)).

    "" if there is no such process or it is dead and unburied; "?" where there is no /proc, or where it hides the
    processes of others (the mount option hidepid).
    """
    if not Path("/proc/self/stat").exists():
        return "?"
    stat = _text(f"/proc/{pid}/stat")
    if ")" not in stat:
        return "?" if _exists(pid) else ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return "?"


def _place() -> list[str]:
    return [socket.gethostname().replace(":", "."), _text("/proc/sys/kernel/random/boot_id")[:8], _namespace()]


def this_owner() -> str:
    """This process, and this use of it: two calls never give the same."""
    return ":".join([*_place(), str(os.getpid()), _start(os.getpid()), secrets.token_hex(3)])


def is_alive(owner: str) -> bool | None:
    """Whether the owner's process runs; None if that cannot be told from here."""
    parts = owner.split(":")
    if len(parts) != _PARTS or parts[:3] != _place() or "?" in owner or not parts[3].isdecimal():
        return None
    started = _start(int(parts[3]))
    if started == "?":
        return None
    if started == parts[4] and int(parts[3]) == os.getpid():
        # Another use of this very process: whether it is still at it, only its claim's time can tell.
        return None
    return started == parts[4]
