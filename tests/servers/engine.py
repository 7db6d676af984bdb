"""A stand-in for an inference engine: fast, counts what it is asked, and fails on what a prompt tells it to.

Run as a program it serves `/health` and `/v1/chat/completions` on a loopback port; `python engine.py --help` names its
options. It echoes the last message. A message may hold one of these marks:

    [too-long]      400, as vLLM answers a prompt that passes the model's context
    [refuse:N]      500 the first N times
    [busy:N]        429 the first N times
    [slow:SECONDS]  answered that much later
    [hang]          never answered
    [freeze]        from then on nothing is answered, /health neither
    [poison]        the process dies
    [break]         from then on everything is answered with 500, and /health is well

As with vLLM, a key in VLLM_API_KEY has to come with all that is asked below /v1; /health takes none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec
from aiohttp import web

PROGRAM = Path(__file__)

_MARK = re.compile(r"\[(too-long|refuse|busy|slow|hang|freeze|poison|break)(?::([\d.]+))?\]")
_COMPLETION_TOKENS = 7


class _Message(msgspec.Struct):
    content: str


class _Body(msgspec.Struct):
    messages: list[_Message]
    model: str = ""


def tokens_of(content: str) -> tuple[int, int]:
    """The input and output tokens that the answer to this message counts."""
    return len(content) // 4 + 1, _COMPLETION_TOKENS


@dataclass(frozen=True)
class Engine:
    """A running stand-in at `url`."""

    url: str

    def asked(self) -> Counter[str]:
        """How often each message was asked."""
        return Counter(self._count("asked"))

    def answered(self) -> Counter[str]:
        """How often each message was answered."""
        return Counter(self._count("answered"))

    def _count(self, what: str) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/{what}", timeout=30) as answer:  # noqa: S310 - loopback
            found: dict[str, int] = json.load(answer)
            return found


def command(*options: str) -> tuple[str, ...]:
    """The command of an engine that a worker starts itself: the worker fills in the port."""
    return (sys.executable, str(PROGRAM), "--port", "{port}", *options)


@contextmanager
def running(*options: str, key: str = "") -> Iterator[Engine]:
    """One that runs beside the workers, which know its address only. It wants that key, if any."""
    from servers.process import serving  # what runs as a program knows only its own folder

    with serving(
        lambda port: [sys.executable, str(PROGRAM), "--port", str(port), *options],
        ready="/health",
        environ=lambda _: {"VLLM_API_KEY": key},
    ) as url:
        yield Engine(url)


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._healthy_at = time.monotonic() + options.boot
        self._asked: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._frozen = False
        self._refuses: int = options.refuses
        self._slots = asyncio.Semaphore(options.slots) if options.slots else None
        self._random = random.Random(options.seed)
        self._body = msgspec.json.Decoder(_Body)
        self._json = msgspec.json.Encoder()
        self._log: TextIO | None = options.log.open("a", buffering=1) if options.log else None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        key = os.environ.get("VLLM_API_KEY")
        if key and request.path.startswith("/v1/") and request.headers.get("Authorization") != f"Bearer {key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        if request.path == "/v1/chat/completions":
            return await self._complete(request)
        if self._frozen:
            await asyncio.sleep(86400)
        if request.path == "/health":
            return web.Response(status=200 if time.monotonic() >= self._healthy_at else 503)
        if request.path in {"/asked", "/answered"}:
            return web.json_response(self._asked if request.path == "/asked" else self._answered)
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": self._options.model, "object": "model"}]})
        return _error(404, f"there is no {request.path}")

    async def _complete(self, request: web.BaseRequest) -> web.Response:
        try:
            body = self._body.decode(await request.read())
        except msgspec.MsgspecError as error:
            return _error(400, str(error))
        content = body.messages[-1].content
        if self._options.count:
            self._asked[content] += 1
        if self._log:
            self._log.write(json.dumps(content) + "\n")
        if self._slots:
            async with self._slots:
                return await self._answer(body, content)
        return await self._answer(body, content)

    async def _answer(self, body: _Body, content: str) -> web.Response:
        failure = await self._fail(content) if "[" in content else None
        if self._refuses:
            return _error(self._refuses, "CUDA error: an illegal memory access was encountered", "server_error")
        if failure is not None:
            return failure
        if self._frozen:
            await asyncio.sleep(86400)
        if self._options.latency:
            await asyncio.sleep(self._options.latency * self._random.uniform(0.5, 1.5))
        if self._options.count:
            self._answered[content] += 1
        prompt, completion = tokens_of(content)
        message = {"role": "assistant", "content": f"echo: {content}"}
        answer = {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": body.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }
        return web.Response(body=self._json.encode(answer), content_type="application/json")

    async def _fail(self, content: str) -> web.Response | None:
        mark = _MARK.search(content)
        if not mark:
            return None
        kind, number = mark[1], float(mark[2] or 1)
        if kind == "poison":
            os._exit(9)
        if kind == "too-long":
            return _error(400, "This model's maximum context length is 4096 tokens.", "context_length_exceeded")
        if kind in {"refuse", "busy"} and self._asked[content] <= number:
            return _error(500 if kind == "refuse" else 429, "not now")
        if kind == "break":
            self._refuses = 500
        if kind == "freeze":
            self._frozen = True
        if kind == "hang":
            await asyncio.sleep(86400)
        if kind == "slow":
            await asyncio.sleep(number)
        return None


def _error(status: int, message: str, code: str | None = None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


async def _serve(options: argparse.Namespace) -> None:
    runner = web.ServerRunner(web.Server(Server(options).handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=2048).start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="stand-in")
    parser.add_argument(
        "--latency", type=float, default=0.0, help="mean seconds for an answer, half to half as much again"
    )
    parser.add_argument("--boot", type=float, default=0.0, help="/health says 503 for that many seconds")
    parser.add_argument("--slots", type=int, default=0, help="answer that many at a time, 0: any number")
    parser.add_argument("--refuses", type=int, default=0, help="answer every question with that status")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="append each message asked, as a line of JSON, before it is answered")
    parser.add_argument("--no-count", dest="count", action="store_false", help="count nothing: for long measurements")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
