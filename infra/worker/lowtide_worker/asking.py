"""Asking the engine: a line of OpenAI's batch input becomes one of its batch output, whatever the engine does.

What is wrong with a request (400, 413, 415, 422) ends it at once; what would be said of any other as well (401, 403,
404, 405) ends the work; an engine that has too much to do (429, 503) is asked again for as long as one request may
take; everything else is tried a few times. Nothing of a prompt goes into an error.

A failure is a request's own only if the engine answers others: one that fails at everything, healthy as it may look,
would otherwise turn a whole shard into errors. So before a request is given up, something asked since its last try
has to have an answer: another request, or the simplest one there is.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import aiohttp
import msgspec

from lowtide_worker.answers import (
    CHAT,
    Asked,
    failed,
    id_of,
    out_of_memory,
    read_asked,
    read_completion,
    spliced,
    tokens,
    told,
)
from lowtide_worker.engine import HEALTHY, TIMEOUTS, look
from lowtide_worker.keys import NAMES, WANTS_KEY, headers
from lowtide_worker.layout import Fleet, base_of
from lowtide_worker.pace import Pace
from lowtide_worker.ports import EngineDown, EngineFailed
from lowtide_worker.quotes import BAD_JSON

_FINAL = frozenset({400, 413, 415, 422})
_REFUSES_ALL = frozenset({401, 403, 404, 405})
"""No key, no right, no such model or path: what is said of one request holds for all."""
_BUSY = frozenset({429, 503})
_HEADERS = {"Content-Type": "application/json"}

_CONNECT_SECONDS = 10.0
_LOOKS, _BETWEEN_LOOKS, _LOOK_HOLDS = 2, 0.3, 1.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_INPUT_WEIGHT = 1 / 8

_QUICKLY_TOLD = 16 * 1024
"""Bytes of a request up to which a refusal is looked through at once; others would hold the event loop up."""


@dataclass(frozen=True)
class _Try:
    """What one try gave: the answer's line, or the line to settle for when there is no further try.

    `blame` names a failure that may be the engine's alone.
    """

    line: bytes = b""
    failed: bytes = b""
    busy: bool = False
    wait: float | None = None
    blame: str = ""


class HttpDesk:
    """Asks the engine at `url`, whose process is `alive`, until it is down: from then on every request raises.

    It is down when it refuses or breaks connections, or fails, and its health check fails too; when it is `broken`: it
    fails, and at the simplest request too; and when it has given no answer at all for `hang_seconds` while something
    was asked. `most` is the largest room where it is not the fleet's. `key` goes with whatever is asked.
    Made inside a running loop, and closed at the end: `async with HttpDesk(...) as desk`.
    """

    def __init__(
        self,
        url: str,
        fleet: Fleet,
        *,
        alive: Callable[[], bool] = lambda: True,
        most: int | None = None,
        key: str = "",
    ) -> None:
        self._base, self._fleet, self._alive, self._key = base_of(url), fleet, alive, key
        most = max(1, fleet.most if most is None else most)
        self._pace = Pace(min(fleet.least, most), most)
        timeout = aiohttp.ClientTimeout(total=fleet.request_seconds, sock_connect=_CONNECT_SECONDS)
        # A connection for each request in flight: the room is what limits them.
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=_HEADERS | headers(key))
        self._out = 0
        self._sign = time.monotonic()
        self._looked = self._sign - _LOOK_HOLDS
        self._looking = asyncio.Lock()
        self._fallen = asyncio.Event()
        self._why = ""
        self.broken = False
        self._proving = asyncio.Lock()
        self._proven = -math.inf
        """When the latest one was asked of those that have an answer. What comes late proves nothing of the present."""
        self._simplest = _simplest(fleet.model)
        self._telling = asyncio.Lock()
        self._watch = asyncio.create_task(self._watch_for_hang())
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HttpDesk:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def room(self) -> int:
        return self._pace.room

    async def close(self) -> None:
        """Break off what is in flight: it raises EngineDown where it was asked."""
        self._fall("the desk was closed")
        self._watch.cancel()
        if self._closing:
            await self._closing

    async def ask(self, line: bytes) -> bytes:
        """The output line for an input line, without a newline.

        Raises EngineDown where the request is not answered, and EngineFailed where none like it ever will be.
        """
        try:
            asked = read_asked(line)
        except BAD_JSON as error:
            return failed(id_of(line), None, "invalid_line", f"the request cannot be read: {type(error).__name__}")
        started = time.monotonic()
        failures = pushes = 0
        while True:
            if self._why:
                raise EngineDown(self._why)
            began = time.monotonic()
            tried = await self._try(asked)
            if tried.line:
                return tried.line
            failures, pushes = failures + (not tried.busy), pushes + tried.busy
            spent = time.monotonic() - started
            # Too much to do is no fault of the request: it may take its whole time.
            if failures >= self._fleet.tries or (tried.busy and spent >= self._fleet.request_seconds):
                if tried.blame:
                    await self._prove(began)
                return tried.failed
            await self._pause(min(_pause(failures + pushes, tried.wait), self._fleet.request_seconds))

    async def prove(self) -> None:
        """See whether the engine answers the simplest request. Raises EngineDown, and then it is `broken`."""
        await self._prove(time.monotonic())

    async def _prove(self, since: float) -> None:
        """Nothing, if something asked since then has an answer. Whoever comes meanwhile shares what is found out."""
        async with self._proving:
            blame = ""
            for tries in range(1, self._fleet.tries + 1):
                if self._why:
                    raise EngineDown(self._why)
                if self._proven >= since:
                    return
                began = time.monotonic()
                tried = await self._try(self._simplest)
                if not tried.blame:
                    # One that only refuses it, or has no time for it, has not failed.
                    self._proven = max(self._proven, began)
                    return
                blame = tried.blame
                await self._pause(_pause(tries, tried.wait))
            self.broken = True
            self._fall(f"the engine looks healthy, and fails at the simplest request: {blame}")
            raise EngineDown(self._why)

    async def _try(self, asked: Asked) -> _Try:
        """Ask once. Raises EngineDown and EngineFailed."""
        began = time.monotonic()
        if not self._out:
            self._sign = began
        self._out += 1
        self._pace.enter()
        try:
            path = asked.url if asked.url.startswith("/v1/") else CHAT
            async with self._session.post(self._base + path, data=bytes(asked.body), allow_redirects=False) as response:
                body = await response.read()
            status, wait = response.status, _retry_after(response.headers.get("Retry-After"))
        except aiohttp.ServerTimeoutError:
            return await self._broken(asked, "it took no connection")
        except TIMEOUTS:
            self._pace.pushed_back(time.monotonic() - began)
            await self._look()
            said = f"no answer within {self._fleet.request_seconds:g} s"
            return _Try(failed=failed(asked.custom_id, None, "timeout", said))
        except (aiohttp.ClientError, OSError) as error:
            return await self._broken(asked, type(error).__name__)
        finally:
            self._out -= 1
            self._pace.leave()
        now = time.monotonic()
        self._sign = now
        if status != 200:
            return await self._refused(asked, status, body, now - began, wait)
        answer = read_completion(body)
        if answer is None:
            said = "the engine's answer is no completion"
            return _Try(failed=failed(asked.custom_id, None, "invalid_answer", said), blame=said)
        self._proven = max(self._proven, began)
        given, made = tokens(answer)
        self._pace.answered(now - began, made + given * _INPUT_WEIGHT)
        return _Try(line=spliced(asked.custom_id, body))

    async def _refused(self, asked: Asked, status: int, body: bytes, seconds: float, wait: float | None) -> _Try:
        code, said = await self._told(status, body, bytes(asked.body))
        if status in _REFUSES_ALL:
            raise EngineFailed(
                f"the engine refuses what it is asked: HTTP {status}, {code}: {said}{self._hint(status)}"
            )
        line = failed(asked.custom_id, status, code, said)
        if status in _FINAL:
            return _Try(line=line)
        if status in _BUSY or out_of_memory(body):
            self._pace.pushed_back(seconds)
        if status >= 500:
            await self._look()
        blame = f"HTTP {status}, {code}" if status >= 500 else ""
        return _Try(failed=line, busy=status in _BUSY, wait=wait, blame=blame)

    async def _told(self, status: int, body: bytes, asked: bytes) -> tuple[str, str]:
        if len(asked) <= _QUICKLY_TOLD:
            return told(status, body, asked, self._key)
        async with self._telling:
            return await asyncio.to_thread(told, status, body, asked, self._key)

    def _hint(self, status: int) -> str:
        if status not in WANTS_KEY:
            return ""
        if self._key:
            return f"; the key in the worker's environment was sent, {' or '.join(NAMES)}"
        return f"; no key was sent: {NAMES[0]} is not in the worker's environment"

    async def _broken(self, asked: Asked, how: str) -> _Try:
        """A connection that broke: of the engine's end, or of this request alone. Raises EngineDown."""
        await self._look()
        said = f"the connection to the engine broke: {how}"
        return _Try(failed=failed(asked.custom_id, None, "connection_lost", said), blame=said)

    async def _look(self) -> None:
        """Raise EngineDown if the engine is down; whoever comes while one looks, or soon after, shares what is seen."""
        async with self._looking:
            if not self._why and not self._alive():
                self._fall("the engine's process has ended")
            if not self._why and time.monotonic() - self._looked >= _LOOK_HOLDS:
                await self._look_closely()
            if self._why:
                raise EngineDown(self._why)

    async def _look_closely(self) -> None:
        seen = ""
        for _ in range(_LOOKS):
            seen = await look(self._session, self._base + self._fleet.engine.health)
            if seen == HEALTHY:
                self._looked = time.monotonic()
                return
            await self._pause(_BETWEEN_LOOKS)
            if self._why:
                return
        self._fall(f"the engine fails its health check: {seen}")

    async def _watch_for_hang(self) -> None:
        patience = self._fleet.engine.hang_seconds
        while not self._why:
            await asyncio.sleep(max(0.01, self._sign + patience - time.monotonic()) if self._out else patience / 4)
            if self._out and time.monotonic() - self._sign >= patience:
                self._fall(f"the engine hangs: no answer for {patience:g} s")

    def _fall(self, why: str) -> None:
        """From now on the engine is down. What is in flight breaks, since its connections do."""
        if not self._why:
            self._why = why
            self._fallen.set()
            self._closing = asyncio.create_task(self._session.close())

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the engine lives."""
        try:
            await asyncio.wait_for(self._fallen.wait(), seconds)
        except TIMEOUTS:
            return


def _simplest(model: str) -> Asked:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    return Asked(custom_id="", body=msgspec.Raw(msgspec.json.encode(body)))


def _retry_after(header: str | None) -> float | None:
    """The seconds that a server asks to wait for; a date, which no inference engine sends, is not looked at."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _pause(tries: int, asked: float | None) -> float:
    """Seconds before the next try: longer from time to time, and not the same for all that failed together."""
    if asked is not None:
        return asked + random.uniform(0, _FIRST_WAIT)  # noqa: S311 - spreads load, hides nothing
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(tries - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
