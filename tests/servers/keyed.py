"""A way to the OpenAI emulator for workers, who know an engine's address and no key: it adds one to each request.

Run as a program: `python keyed.py --port PORT --to URL`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

_KEY = {"Authorization": "Bearer emulated", "Content-Type": "application/json"}


@contextmanager
def keyed(url: str) -> Iterator[str]:
    """The address of an engine that is the emulator at `url`; `/health` answers as well."""
    from servers.process import serving

    program = [sys.executable, str(Path(__file__)), "--to", url]
    with serving(lambda port: [*program, "--port", str(port)], ready="/health") as found:
        yield found


async def _serve(port: int, to: str) -> None:
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response()
        async with session.post(to + request.path, data=await request.read(), headers=_KEY) as answer:
            passed = {name: answer.headers[name] for name in ("Content-Type", "Retry-After") if name in answer.headers}
            return web.Response(body=await answer.read(), status=answer.status, headers=passed)

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", required=True)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.to))


if __name__ == "__main__":
    main()
