"""Start the emulators on a loopback port: `python -m lowtide.emulators --port 0 --faults faults.yaml --speed 60`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lowtide.emulators.answers import NoTokenizer, tokens_by
from lowtide.emulators.app import App, Service
from lowtide.emulators.bedrock import service as bedrock
from lowtide.emulators.bill import Bill
from lowtide.emulators.clock import Clock
from lowtide.emulators.control import Control
from lowtide.emulators.faults import BadPlan, Faults, read_plan
from lowtide.emulators.openai import service as openai
from lowtide.emulators.web import Server


@contextmanager
def serving(
    port: int = 0,
    *,
    faults: Mapping[str, object] | None = None,
    speed: float = 1.0,
    seed: int = 0,
    tokens: str = "bytes",
    s3_url: str | None = None,
    blob: str | None = None,
) -> Iterator[Server]:
    """The emulators, answering at `server.url` for as long as the block lasts.

    State is kept in a temporary folder that goes with the block. `s3_url` and `blob` say where S3 and Blob storage
    are; without them AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) and AZURE_STORAGE_CONNECTION_STRING do. `tokens` on
    the bill are a quarter of the `bytes`, or those of `o200k`, the tokenizer of OpenAI's newer models. Raises BadPlan,
    NoTokenizer, and OSError where the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="lowtide-emulators-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        app = App(
            folder=folder,
            clock=Clock(speed),
            bill=Bill(folder),
            faults=Faults(faults),
            seed=seed,
            tokens=tokens_by(tokens),
            s3_url=s3_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
            blob=blob or os.environ.get("AZURE_STORAGE_CONNECTION_STRING"),
        )
        services: Sequence[Service] = (bedrock.service(app), openai.service(app))
        routes = [*Control(app, services).routes(), *(route for service in services for route in service.routes())]
        server = Server(port, routes, folder, app.stopping, app.clock.now)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="serve")
        thread.start()
        try:
            yield server
        finally:
            app.stopping.set()
            server.shutdown()
            server.server_close()
            thread.join()
            for service in services:
                service.reset()
            app.bill.close()


@dataclass(frozen=True)
class _Options:
    port: int
    faults: Path | None
    speed: float
    seed: int
    tokens: str
    s3: str | None
    blob: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted. The first line of output is the address, e.g. `http://127.0.0.1:34567`."""
    options = _options(arguments)
    try:
        plan = None if options.faults is None else read_plan(options.faults)
    except (BadPlan, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    try:
        with serving(
            options.port,
            faults=plan,
            speed=options.speed,
            seed=options.seed,
            tokens=options.tokens,
            s3_url=options.s3,
            blob=options.blob,
        ) as server:
            sys.stdout.write(f"{server.url}\n")
            sys.stdout.flush()
            done.wait()
    except NoTokenizer as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _options(arguments: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(
        prog="lowtide emulate", description="Bedrock, OpenAI and Azure OpenAI batch APIs on the loopback."
    )
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--faults", type=Path, help="YAML plan of what is to go wrong")
    parser.add_argument("--speed", type=float, default=1.0, help="emulated seconds in one real second")
    parser.add_argument("--seed", type=int, default=0, help="goes into every answer")
    parser.add_argument(
        "--tokens",
        choices=("bytes", "o200k"),
        default="bytes",
        help="how tokens are counted: a quarter of the bytes, or by OpenAI's tokenizer",
    )
    parser.add_argument("--s3", metavar="URL", help="the S3 server; default: AWS_ENDPOINT_URL_S3")
    parser.add_argument(
        "--blob",
        metavar="URL",
        help="Blob storage, a URL or connection string; default: AZURE_STORAGE_CONNECTION_STRING",
    )
    return _Options(**vars(parser.parse_args(arguments)))
