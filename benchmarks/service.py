"""The emulated batch APIs, in a process whose CPU counts for nobody: python -m benchmarks.service FOLDER.

It prints its address, and ends when it is terminated.
"""

from __future__ import annotations

import signal
import sys
import threading

from lowtide.emulators.serve import serving


def main(folder: str) -> None:
    """Serve until terminated. The emulators have a temporary folder of their own, so `folder` stays empty."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with serving() as server:
        print(server.url.removeprefix("http://"), flush=True)
        ended.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
