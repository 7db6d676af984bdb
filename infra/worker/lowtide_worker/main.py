"""`lowtide-worker --fleet URI`: take shards of a fleet, one after the other, until nothing is left or it has to go."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from lowtide_worker.beats import Account, Beats
from lowtide_worker.bench import EngineBench
from lowtide_worker.claims import Claims, Held
from lowtide_worker.engine import TIMEOUTS
from lowtide_worker.keys import BadKey, engine_key
from lowtide_worker.layout import FLEET, RETRY, STORE_FAILED, Fleet
from lowtide_worker.notices import Watch, look_around
from lowtide_worker.ports import EngineFailed, Notices
from lowtide_worker.purse import Purse
from lowtide_worker.scratch import scratch
from lowtide_worker.stores import Folder, Missing, Refused, StoreError, open_folder
from lowtide_worker.work import LONGEST_DRAIN_SECONDS, Shift

_log = logging.getLogger(__name__)

DONE, ENGINE_FAILED, BAD_INPUT = 0, 1, 2

GONE_SECONDS = 19.0
"""The process ends at the latest that long after a notice, whatever hangs."""

_WRITE_SECONDS = 3.5
_BEAT_SECONDS = 2.0
_STOP_SECONDS = 2.5
_CLOSE_SECONDS = 15.0


class BadInput(Exception):
    """The worker was told something that cannot be; the message says what to do."""


class Worker:
    """One worker of a fleet."""

    def __init__(
        self,
        folder: Folder,
        fleet: Fleet,
        bench: EngineBench,
        beats: Beats,
        claims: Claims,
        notices: Notices,
    ) -> None:
        self._fleet = fleet
        self._folder = folder
        self._bench = bench
        self._beats = beats
        self._claims = claims
        self._notices = notices
        self._purse = Purse(folder, fleet)
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Work until the end: the exit code, which the last beat says too. The engine is ended whatever happens."""
        working = asyncio.ensure_future(self._work())
        noticing = asyncio.ensure_future(self._notices.wait())
        beating = asyncio.ensure_future(self._beats.run())
        try:
            await asyncio.wait({working, noticing, beating}, return_when=asyncio.FIRST_COMPLETED)
            if beating.done():
                beating.result()
            if not working.done():
                reason = noticing.result()
                _log.warning("%s: stopping", reason)
                self._beats.state, self._beats.note = "stopping", reason
                end_process_in(GONE_SECONDS)
                self._stop.set()
                drain = min(self._fleet.drain_seconds, LONGEST_DRAIN_SECONDS)
                await asyncio.wait({working}, timeout=drain + _WRITE_SECONDS)
            return await self._leave(working, beating)
        finally:
            for task in (working, noticing, beating):
                task.cancel()
            await asyncio.gather(working, noticing, beating, return_exceptions=True)
            await self._close()

    async def _leave(self, working: asyncio.Future[int], beating: asyncio.Future[None]) -> int:
        code = RETRY
        if working.done():
            try:
                code = working.result()
            except EngineFailed as error:
                code, self._beats.note = ENGINE_FAILED, str(error)
                _log.error("%s", error)
            except StoreError as error:
                code, self._beats.note = RETRY if self._stop.is_set() else STORE_FAILED, str(error)
                _log.error("%s", error)
            except (ValueError, msgspec.MsgspecError) as error:
                code, self._beats.note = BAD_INPUT, f"what lies in the fleet's folder cannot be read: {error}"
                _log.error("%s", self._beats.note)
        else:
            working.cancel()
            await asyncio.wait({working}, timeout=1.0)
        end_process_in(GONE_SECONDS, code)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with contextlib.suppress(StoreError, asyncio.TimeoutError):
            await asyncio.wait_for(self._beats.write(code), _BEAT_SECONDS)
        await self._close()
        return code

    async def _close(self) -> None:
        """End the engine, or leave that to its guard, which does so once this process is gone."""
        try:
            await asyncio.wait_for(self._bench.close(), _STOP_SECONDS if self._stop.is_set() else _CLOSE_SECONDS)
        except TIMEOUTS:
            _log.warning("the engine has not ended yet")
        except EngineFailed as error:
            _log.error("%s", error)

    async def _work(self) -> int:
        left = await self._claims.unfinished()
        while left and not self._stop.is_set():
            if any(not one.cancelled for one in left) and await self._affords() and not await self._boot():
                left = await self._claims.unfinished()
                continue
            held = None if self._stop.is_set() else await self._next()
            if held is None:
                return RETRY if self._stop.is_set() else DONE
            self._beats.state = "working"
            shift = Shift(self._folder, self._fleet, held, self._claims, self._bench, self._beats, self._stop)
            try:
                ended = await shift.run()
                _log.info("shard %s: %s", held.shard, ended)
            except Missing as error:
                # Somebody has removed the shard, which is theirs to do.
                _log.warning("shard %s was given up: %s", held.shard, error)
            self._beats.account.wait()
            left = await self._claims.unfinished()
        return RETRY if left else DONE

    async def _affords(self) -> bool:
        """Whether the fleet may take more time; shards are ended, and no engine is started, where it may not."""
        await self._beats.write()
        return not await self._purse.is_empty()

    async def _boot(self) -> bool:
        """Wait until the engine is up, the worker has to go, or the fleet's time is used up.

        False where meanwhile others have ended all that there was to ask: the engine's start was given up.
        """
        self._beats.account.boot()
        broke = asyncio.ensure_future(self._purse.wait_until_empty())
        starting = asyncio.ensure_future(self._bench.desk())
        stopped = asyncio.ensure_future(self._stop.wait())
        needless = asyncio.ensure_future(self._wait_until_nothing_is_left())
        try:
            await asyncio.wait({starting, stopped, broke, needless}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            for seen in (broke, needless):
                if seen.done():
                    seen.result()
            return starting.done() or not needless.done()
        finally:
            for watch in (stopped, broke, needless):
                watch.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
            self._beats.account.wait()

    async def _wait_until_nothing_is_left(self) -> None:
        while await self._claims.is_work_left():
            await asyncio.sleep(self._fleet.beat_seconds)

    async def _next(self) -> Held | None:
        """The next shard, once one is free; None when there is none for too long, or the worker has to go."""
        self._beats.account.wait()
        until = time.monotonic() + self._fleet.idle_seconds
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            while not self._stop.is_set():
                left = await self._claims.unfinished()
                held = await self._claims.take(left, await self._beats.store_time()) if left else None
                if held or not left or time.monotonic() >= until or await self._purse.is_empty():
                    return held
                self._beats.state = "waiting"
                await asyncio.wait({stopped}, timeout=self._fleet.beat_seconds)
            return None
        finally:
            stopped.cancel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 0 when nothing is left, 75 if told to go, 74 without store, 1 without engine, 2 without fleet."""
    parser = argparse.ArgumentParser(prog="lowtide-worker", description=__doc__)
    parser.add_argument("--fleet", default=os.environ.get("LOWTIDE_FLEET"), help="the fleet's folder; or LOWTIDE_FLEET")
    options = parser.parse_args(arguments)
    if not options.fleet:
        parser.error("--fleet is missing: give the address of a fleet's folder, or set LOWTIDE_FLEET")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        code = asyncio.run(work(options.fleet, os.environ))
    except BadInput as error:
        print(f"lowtide-worker: {error}", file=sys.stderr)
        code = BAD_INPUT
    except StoreError as error:
        print(f"lowtide-worker: {error}", file=sys.stderr)
        code = STORE_FAILED
    # A thread of a library that still waits for an answer must not keep the machine.
    sys.stderr.flush()
    os._exit(code)


async def work(uri: str, environ: Mapping[str, str]) -> int:
    """Work for the fleet at that address: the exit code. Raises BadInput and StoreError before the work begins."""
    account = Account()
    try:
        key = engine_key(environ)
    except BadKey as error:
        raise BadInput(str(error)) from None
    folder, fleet = await _read_fleet(uri, environ)
    name = worker_name(environ)
    claims = Claims(folder, name, fleet.lease_seconds)
    if not await claims.unfinished():
        return DONE
    machine = await look_around(environ)
    watch = Watch(machine, heard=lambda: end_process_in(GONE_SECONDS))
    beats = Beats(folder, name, fleet.beat_seconds, account, machine, environ.get("AWS_BATCH_JOB_ID", ""))
    with contextlib.ExitStack() as stack:
        try:
            own = stack.enter_context(scratch(name))
        except OSError as error:
            raise BadInput(f"there is no place for temporary files: {error}") from None
        try:
            bench = EngineBench(fleet, own.path, key)
        except ValueError as error:
            raise BadInput(f"{uri}/{FLEET}: {error}") from None
        code = await Worker(folder, fleet, bench, beats, claims, watch).run()
        if code == ENGINE_FAILED:
            own.keep()
        return code


async def _read_fleet(uri: str, environ: Mapping[str, str]) -> tuple[Folder, Fleet]:
    try:
        folder = open_folder(uri, environ)
        return folder, msgspec.json.decode((await folder.get(FLEET)).data, type=Fleet)
    except (ValueError, Missing, Refused) as error:
        raise BadInput(str(error)) from None
    except msgspec.MsgspecError as error:
        raise BadInput(f"{uri}/{FLEET}: {error}") from None


def worker_name(environ: Mapping[str, str]) -> str:
    """A name of this process alone: that of its job or its machine, and something random."""
    base = environ.get("AWS_BATCH_JOB_ID") or socket.gethostname()
    return f"{re.sub(r'[^A-Za-z0-9-]', '-', base)[:60]}-{secrets.token_hex(4)}"


def end_process_in(seconds: float, code: int = RETRY) -> None:
    """Even an event loop that is stuck must not keep a worker that has to go."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    main()
