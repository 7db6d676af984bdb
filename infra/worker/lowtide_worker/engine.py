"""The inference engine as the worker's subprocess: started, watched, started again, and ended with the worker."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from lowtide_worker import layout
from lowtide_worker.keys import headers
from lowtide_worker.ports import EngineFailed

STOP_SECONDS = 5.0
"""For how long an engine may put its things in order after SIGTERM."""

_URL_SECONDS = 60.0
"""For how long an engine is waited for that somebody else has started."""

LOG = "engine.log"

HEALTHY = "healthy"

TIMEOUTS = (TimeoutError, asyncio.TimeoutError)
"""One and the same from Python 3.11 on."""

_GUARD = Path(__file__).with_name("guard.py")
_TAIL_BYTES = 65536
_PORTS_TRIED = 3
_NOT_STARTED = 127
_LOOK = aiohttp.ClientTimeout(total=5.0)
_SPOKEN_ALL_SECONDS = 5.0
_KILLED_SECONDS = 2.0
_LOOKS_EVERY = 0.05

_PORT_TAKEN = re.compile(rb"address already in use", re.IGNORECASE)

# An engine's log may quote prompts. So only these are looked for, and named in words of our own.
_KNOWN: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        (rb"no available memory for the cache blocks", "the model leaves no GPU memory for its cache"),
        (rb"free memory on device .{0,200}? is less than desired", "something else holds the GPU's memory"),
        (rb"cuda out of memory|outofmemoryerror|cudaerrormemoryallocation|cudamalloc failed", "out of GPU memory"),
        (rb"no cuda gpus are available|no nvidia driver|cuda driver version is insufficient", "no GPU it can use"),
        (rb"no kernel image is available|only supported on gpus with compute capability", "the GPU is too old for it"),
        (
            rb"max seq len .{0,200}? is larger than the maximum number of tokens",
            "too little GPU memory for the context",
        ),
        (rb"illegal memory access|device-side assert|cuda error|cublas_status_|nccl error", "a CUDA error"),
        (rb"cannot allocate memory|std::bad_alloc|memoryerror\b|failed to allocate", "out of memory"),
        (rb"not a valid model identifier|repositorynotfounderror|failed to load model", "the model cannot be loaded"),
        (rb"no space left on device", "the disk is full"),
        (rb"(?:modulenotfounderror|importerror): [^\n]*\s*\Z", "a Python package is missing"),
        (rb"unrecognized arguments|error: argument", "an argument of its command is wrong"),
    )
)


class Supervisor:
    """Starts `engine.command`, or only waits for the engine at `engine.url`. `folder` gets the engine's log.

    The engine runs under a guard that ends it when this process ends, in whatever way. Its health check
    carries the `key`.
    """

    def __init__(
        self, engine: layout.Engine, model: str, folder: Path, *, key: str = "", stop_seconds: float = STOP_SECONDS
    ) -> None:
        if bool(engine.command) == bool(engine.url):
            raise ValueError("an engine has either a command or a url")
        self._engine, self._model, self._stop_seconds, self._key = engine, model, stop_seconds, key
        self.log = folder / LOG
        self._guard: asyncio.subprocess.Process | None = None
        self._pid: int | None = None
        self._up = False

    @property
    def alive(self) -> bool:
        """False once its process has ended. Of an engine at a url nothing is known but that it was healthy."""
        return self._up and (self._guard is None or self._guard.returncode is None)

    @property
    def pid(self) -> int | None:
        """The engine's process, which leads its process group, if one was started here."""
        return self._pid

    async def start(self) -> str:
        """Start it, after ending the one before, and wait until it is healthy: its base url, without a path.

        Raises EngineFailed where it cannot be started, ends, or is not healthy within `boot_seconds`.
        """
        await self.stop()
        if self._engine.url:
            url = layout.base_of(self._engine.url)
            await self._healthy(url)
            self._up = True
            return url
        for attempt in range(1, _PORTS_TRIED + 1):
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            try:
                await self._launch(port)
                await self._healthy(url)
            except EngineFailed:
                if await self._end() and attempt < _PORTS_TRIED and _PORT_TAKEN.search(self._tail()):
                    continue
                raise
            except BaseException:
                await self._end()
                raise
            self._up = True
            return url
        raise AssertionError("the last attempt returns or raises")

    async def stop(self) -> None:
        """End what was started: SIGTERM, and SIGKILL after `stop_seconds`. Does nothing to an engine at a url.

        Raises EngineFailed where it cannot be ended, as when a driver does not let go of it.
        """
        if not await self._end():
            raise EngineFailed(f"the engine cannot be ended: process {self._pid} is there after SIGKILL still")

    async def _end(self) -> bool:
        """Whether it is gone; takes `stop_seconds` and a few more at most."""
        self._up = False
        guard, self._guard = self._guard, None
        if guard is None:
            return True
        if guard.stdin is not None:
            guard.stdin.close()
        ended = asyncio.ensure_future(guard.wait())
        try:
            await asyncio.wait((ended,), timeout=self._stop_seconds + _SPOKEN_ALL_SECONDS)
        finally:
            # A guard that was killed, or hangs, or may not be waited for, has not ended the engine.
            in_order = ended.done() and ended.result() >= 0
            if not in_order:
                if self._pid is not None:
                    _kill(self._pid)
                with contextlib.suppress(ProcessLookupError):
                    guard.kill()
        if in_order:
            return True
        deadline = time.monotonic() + _KILLED_SECONDS
        while not (gone := ended.done() and (self._pid is None or _gone(self._pid))) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOKS_EVERY)
        return gone

    async def _launch(self, port: int) -> None:
        command = filled(self._engine.command, model=self._model, port=port)
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        guard = [sys.executable, "-I", "-S", str(_GUARD), str(self.log), str(self._stop_seconds), *command]
        self._guard = await asyncio.create_subprocess_exec(
            *guard,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **self._engine.environment},
            start_new_session=True,
        )
        said = await self._guard.stdout.readline() if self._guard.stdout else b""
        self._pid = int(said) if said.strip().isdigit() else None
        if self._pid is None:
            code = await self._guard.wait()
            why = "there is no such program" if code == _NOT_STARTED else f"its guard ended with code {code}"
            raise EngineFailed(f"the engine's command {command[0]!r} could not be started: {why}")

    async def _healthy(self, url: str) -> None:
        """Wait for `url` to be healthy. Raises EngineFailed when its process ends or the time is over."""
        started = time.monotonic()
        last = "no answer"
        async with aiohttp.ClientSession(headers=headers(self._key)) as session:
            # One that runs already need not boot.
            patience = min(self._engine.boot_seconds, _URL_SECONDS if self._engine.url else math.inf)
            while time.monotonic() - started < patience:
                if self._guard is not None and self._guard.returncode is not None:
                    raise EngineFailed(self._ended(self._guard.returncode, time.monotonic() - started))
                last = await look(session, url + self._engine.health)
                if last == HEALTHY:
                    return
                await asyncio.sleep(min(1.0, 0.05 + (time.monotonic() - started) / 10))
        where = f"the engine at {url}" if self._engine.url else "the engine"
        why = f"{where} was not healthy after {patience:g} s: GET {self._engine.health} gives {last}"
        raise EngineFailed(why + self._meaning() if self._engine.command else why)

    def _ended(self, code: int, seconds: float) -> str:
        how = f"was killed by {_name(code - 128)}" if code > 128 else f"ended with code {code}"
        return f"the engine {how} {seconds:.0f} s after its start" + self._meaning()

    def _meaning(self) -> str:
        known = known_failure(self._tail())
        return (f": {known}" if known else "") + f"; its log is {self.log}"

    def reason(self) -> str:
        """Why the engine that was started last is gone, as far as its end and its log tell."""
        code = self._guard.returncode if self._guard else None
        known = known_failure(self._tail()) if self._engine.command else ""
        how = "runs, but does not answer" if code is None else f"ended with code {code}"
        if code is not None and code > 128:
            how = f"was killed by {_name(code - 128)}"
        return f"the engine {how}" + (f": {known}" if known else "")

    def _tail(self) -> bytes:
        """The end of the engine's log. It may quote prompts: for looking up patterns only."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return file.read()
        except FileNotFoundError:
            return b""


async def look(session: aiohttp.ClientSession, url: str) -> str:
    """HEALTHY where GET `url` answers 200, otherwise what it answers, in a few words. Never raises."""
    try:
        async with session.get(url, allow_redirects=False, timeout=_LOOK) as response:
            await response.read()
            return HEALTHY if response.status == 200 else f"HTTP {response.status}"
    except TIMEOUTS:
        return "no answer in time"
    except aiohttp.ClientConnectorError:
        return "connection refused"
    except (aiohttp.ClientError, OSError) as error:
        return type(error).__name__


def known_failure(log: bytes) -> str:
    """What the log of an engine says that is known, in words of our own; "" where nothing is."""
    return next((meaning for pattern, meaning in _KNOWN if pattern.search(log)), "")


def filled(command: Sequence[str], *, model: str, port: int) -> list[str]:
    """The command's words with `{model}` and `{port}` filled in; other braces stay, since options may hold JSON."""
    values: Mapping[str, str] = {"{model}": model, "{port}": str(port)}
    return [re.sub(r"\{model\}|\{port\}", lambda found: values[found[0]], word) for word in command]


def free_port() -> int:
    """A loopback port that nobody listens on now; another process may still take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _gone(pid: int) -> bool:
    """Whether that process has ended, be it that nobody has waited for it yet."""
    try:
        os.kill(pid, 0)
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
            in "ZX"
        )
    except ProcessLookupError:
        return True
    except OSError:
        # There is no /proc here, or it has gone in between: the next look tells.
        return False


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
