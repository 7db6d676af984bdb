"""llama.cpp's own server over one model file: llama.py MODEL PORT

It comes with the package xllamacpp. As `llama-server` does, it serves `/health`, `/v1/chat/completions` and `/metrics`,
computes the answers to several requests in one batch, and counts their tokens.
"""

from __future__ import annotations

import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__)

SLOTS = 8
CONTEXT_EACH = 512
"""How many tokens a request and its answer may have together."""

_PREDICTED = re.compile(r"^llamacpp:tokens_predicted_total (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Llama:
    """A running engine at `url`."""

    url: str

    def predicted(self) -> int:
        """How many tokens of answers it has computed, whether anybody got them or not."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:  # noqa: S310 - loopback
            found = _PREDICTED.search(answer.read().decode())
        if found is None:
            raise AssertionError("the engine does not count its tokens")
        return int(found[1])


def command(model: Path) -> tuple[str, ...]:
    """The command of an engine that a worker starts itself: the worker fills in the port."""
    return (sys.executable, str(PROGRAM), str(model), "{port}")


@contextmanager
def running(model: Path) -> Iterator[Llama]:
    """One that runs beside the workers, which know its address only."""
    from servers.process import serving  # what runs as a program knows only its own folder

    with serving(lambda port: [sys.executable, str(PROGRAM), str(model), str(port)], ready="/health") as url:
        yield Llama(url)


def main(model: str, port: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_EACH * SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.use_jinja = True
    params.endpoint_metrics = True
    params.cache_ram_mib = 0
    params.fit_params = False
    params.ui = False
    server = xllamacpp.Server(params)
    print("serving at", server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
