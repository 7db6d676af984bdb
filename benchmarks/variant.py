"""One measurement in a fresh process: python -m benchmarks.variant CASE VARIANT DATA OUT SIZE [SERVICE].

Prints one JSON object. With the variant `setup`, makes the data and measures nothing.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.case import Setting
from benchmarks.cases import load


def main(name: str, variant: str, data: str, out: str, size: str, service: str = "") -> None:
    """Prepare, then measure."""
    case = load(name)
    if variant == "setup":
        case.setup(Path(data), int(size))
        return
    if not case.whole_process:
        # pyarrow imports pandas when it first converts a list. That is an import, and imports are not measured.
        import_module("pyarrow").array([""])
    work = case.variants[variant](Setting(Path(data), Path(out), int(size), service))
    cpu, wall = 0.0 if case.whole_process else _cpu_seconds(), time.perf_counter()
    check = work()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rss = _peak_rss()
    check()
    print(json.dumps({"cpu": cpu, "wall": wall, "rss": rss, "child_rss": children}))


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _peak_rss() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss is inherited over exec from the process that started this one; VmHWM is not.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
