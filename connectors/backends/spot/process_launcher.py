"""Workers as processes of this machine: each holds a slot's lock for as long as it lives, and outlives this process.

slots/000/          a worker's place: see `process_slots`
fleets/<fleet>      how often workers of the fleet have ended with an error, how far it had come by then, and whether it
                    was given up for that

Whoever finds that a worker has ended counts that for the worker's fleet, and clears the slot.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lowtide.connectors.backends.folders import examine_folder, exclusive
from lowtide.connectors.backends.spot.environment import worker_environment
from lowtide.connectors.backends.spot.names import in_fleet
from lowtide.connectors.backends.spot.process_slots import Slot, write_whole
from lowtide.connectors.backends.spot.vain import InRow, Tries, how_of
from lowtide.connectors.backends.spot.watching import Written, shards_of
from lowtide.errors import NotFound, StoreError, Transient
from lowtide.protocols import Store
from lowtide.records import Finding
from lowtide_worker import layout

# The inner shell waits for the worker and notes its end; the outer one leaves at once, so that nobody of ours has to
# wait for it. Both the worker and the shell that waits hold the lock.
_SCRIPT = """
slot=$1; fleet=$2; name=$3; shift 3
{
  "$@" >>"$slot/log" 2>&1 &
  echo "$fleet $! $name" >"$slot/worker.new" && mv "$slot/worker.new" "$slot/worker"
  wait $!
  echo $? >"$slot/exit.new" && mv "$slot/exit.new" "$slot/exit"
} &
"""
_LOG_BYTES = 4_000_000
_SILENT_LEASES = 3
"""A worker that has given no sign for so many leases is ended: others have had its shard for two of them."""

_KEYS = ("engine", "in_flight")


class _Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How often workers of a fleet have `failed` since so much was `written`, and it was not given up.

    `ended` more have failed since somebody looked how far it is; the last of them said why in `log`, and ended with
    `code`, or was killed together with whoever waited for it. It was given up `times`, last `at` a time of this
    machine's clock because of `why`, when workers were told `how` to work.

    Whatever others have written: `in_row` have failed one after the other that had answered nothing, the last of them
    at `in_row_at`; of those in `unread` nobody has looked yet what they answered. `tried` was started last since then.
    """

    failed: int = 0
    written: Written = Written()
    ended: int = 0
    code: int | None = None
    log: str = ""
    times: int = 0
    at: float = 0.0
    why: str = ""
    how: str = ""
    in_row: int = 0
    in_row_at: float = 0.0
    unread: tuple[str, ...] = ()
    tried: str = ""

    @property
    def tries(self) -> Tries:
        return Tries(self.failed, self.times, self.at, self.why)

    def given_up(self, how: str, at: float) -> _Progress:
        workers = "one more worker has" if self.failed == 1 else f"{self.failed} workers have"
        last = "was killed" if self.code is None else f"ended with code {self.code}"
        why = f"{workers} ended with an error, and nothing was answered meanwhile; the last one {last}: see {self.log}"
        return msgspec.structs.replace(self, failed=0, times=self.times + 1, at=at, why=why, how=how)


@dataclass
class ProcessLauncher:
    """Implements `launching.Launcher`. `root` is the store that fleets lie in; `directory` keeps the slots.

    At most `most` workers run on this machine, whosever fleets they are. After `in_vain` workers of a fleet that ended
    before the work was done, without having been told to, and while nothing new was written, the fleet is given up; it
    is tried again as `vain.Tries` says, and beside workers that get something done as `vain.InRow` does. One that gives
    no sign any more is killed, so that its slot is free again.
    """

    root: Store
    directory: Path
    most: int
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    in_vain: int = 5
    clock: Callable[[], float] = time.time
    name: str = "process"
    _looked: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def ensure(self, fleet: str, uri: str, workers: int) -> None:
        """See to it that `workers` workers run for the fleet, as far as there are free slots.

        Raises Transient if the disk refuses, and Terminal where workers end with an error, again and again; see
        `vain.Tries` for when it is tried again.
        """
        with self._alone():
            self._ensure(fleet, uri, workers)

    def running(self, fleet: str) -> int:
        """How many workers of the fleet hold a slot."""
        with self._alone():
            return sum(held and slot.worker.fleet == fleet for slot, held in self._slots())

    def stop(self, fleet: str) -> None:
        """Tell the fleet's workers to stop: SIGTERM, after which each ends by itself within seconds.

        What has failed before is forgotten: whoever stops workers has changed something.
        """
        with self._alone():
            for slot, held in self._slots():
                pid = slot.pid_of(fleet) if held else 0
                if pid:
                    slot.tell(pid)
                elif not held and slot.worker.fleet == fleet:
                    slot.clear()
            before = self._progress(fleet)
            if before != _Progress(written=before.written):
                self._note(fleet, _Progress(written=before.written))

    def release(self, fleet: str) -> None:
        """Nothing: no worker is queued, and those that run end by themselves."""

    def examine(self) -> Iterator[Finding]:
        """Whether slots can be kept in `directory`."""
        said = f"up to {self.most} on this machine; "
        yield examine_folder("workers", self.directory, "LOWTIDE_SPOT_DIR", said)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process looks at slots or fills them meanwhile. Raises Transient if the disk refuses."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with exclusive(self.directory / ".lock"):
                yield
        except OSError as error:
            raise Transient(f"{self.directory}: {error.strerror or type(error).__name__}") from error

    def _slots(self) -> Iterator[tuple[Slot, bool]]:
        """Every slot that was ever used, and whether it is held."""
        for path in sorted((self.directory / "slots").glob("[0-9]*")):
            slot = Slot(path)
            descriptor = slot.lock()
            if descriptor is not None:
                os.close(descriptor)
            yield slot, descriptor is None

    def _ensure(self, fleet: str, uri: str, workers: int) -> None:
        held: list[Slot] = []
        for slot, is_held in self._slots():
            if slot.worker.fleet == fleet and is_held:
                held.append(slot)
            elif slot.worker.fleet == fleet:
                self._note_end(slot)
        self._end_silent(fleet, held)
        missing = self._missing(fleet, workers - len(held), [slot.worker.name for slot in held])
        for number in range(self.most):
            if missing <= 0:
                return
            slot = Slot(self.directory / "slots" / f"{number:03d}")
            descriptor = slot.lock()
            if descriptor is None:
                continue
            try:
                self._note_end(slot)
                self._start(slot, descriptor, fleet, uri)
                before = self._progress(fleet)
                if before.in_row:
                    self._note(fleet, msgspec.structs.replace(before, tried=slot.worker.name))
            finally:
                os.close(descriptor)
            missing -= 1

    def _note_end(self, slot: Slot) -> None:
        """The slot is free: note how its last worker has ended, for its fleet, and clear it."""
        fleet, _, name = slot.worker
        if fleet and slot.exit_code != 0 and not slot.was_told:
            before = self._progress(fleet)
            now = msgspec.structs.replace(
                before,
                ended=before.ended + 1,
                code=slot.exit_code,
                log=str(slot.path / "log"),
                unread=(*before.unread, name),
            )
            self._note(fleet, now)
        slot.clear()

    def _missing(self, fleet: str, missing: int, alive: Sequence[str]) -> int:
        """How many of those that are missing may be tried, by what has failed while nothing new was written.

        `alive` are the names of those that live. Raises Terminal where that is none, and nobody is at work.
        """
        before = self._progress(fleet)
        if not (before.ended or before.failed or before.times or before.in_row):
            return missing
        written, how = shards_of(self.root, fleet).written, how_of(self.root, fleet)
        now = self._in_row(fleet, before, alive)
        # How many of them ended before the last part was written, nobody knows.
        if written.is_more_than(before.written) or (before.times and how != before.how):
            now = _Progress(written=written, in_row=now.in_row, in_row_at=now.in_row_at, tried=now.tried)
        else:
            now = msgspec.structs.replace(now, failed=before.failed + before.ended, written=written, ended=0)
        is_given_up = now.tries.is_hopeless(self.in_vain) and not alive
        now = now.given_up(how, self.clock()) if is_given_up else now
        if now != before:
            self._note(fleet, now)
        if is_given_up:
            raise now.tries.terminal(_KEYS)
        if missing <= 0:
            return 0
        if written == Written():
            # Nobody knows yet whether a worker can live here at all.
            missing = max(0, min(missing, self.in_vain - now.failed - len(alive))) if not now.times else missing
        further = now.tries.further(self.in_vain, len(alive), self.clock, _KEYS)
        if further is None and alive:
            further = InRow(now.in_row, now.in_row_at, now.tried in alive).further(self.in_vain, self.clock())
        return missing if further is None else min(missing, further)

    def _in_row(self, fleet: str, before: _Progress, alive: Sequence[str]) -> _Progress:
        """Look what those have answered that have ended, and who was tried last."""
        in_row, tried = before.in_row, before.tried
        for name in before.unread:
            in_row = 0 if self._has_answered(fleet, name) else in_row + 1
        at = self.clock() if before.unread else before.in_row_at
        if tried in alive and self._has_answered(fleet, tried):
            # It tells nothing of those that fail from now on.
            in_row, tried = 0, ""
        return msgspec.structs.replace(before, in_row=in_row, in_row_at=at, unread=(), tried=tried)

    def _has_answered(self, fleet: str, name: str) -> bool:
        """Whether the worker has answered anything, by its beat. Raises Transient and StoreError."""
        for info in self.root.list(in_fleet(fleet, f"workers/{name}-")) if name else ():
            with contextlib.suppress(NotFound, msgspec.MsgspecError):
                beat = msgspec.json.decode(self.root.read(info.path), type=layout.Beat)
                if any(spell.answered for spell in beat.spells):
                    return True
        return False

    def _progress(self, fleet: str) -> _Progress:
        try:
            return msgspec.json.decode((self.directory / "fleets" / fleet).read_bytes(), type=_Progress)
        except (FileNotFoundError, msgspec.MsgspecError):
            return _Progress()

    def _note(self, fleet: str, progress: _Progress) -> None:
        path = self.directory / "fleets" / fleet
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, msgspec.json.encode(progress))

    def _end_silent(self, fleet: str, held: Iterable[Slot]) -> None:
        """Kill workers that give no sign any more: a machine's slots are few, and others wait for them."""
        now = time.monotonic()
        try:
            told = msgspec.json.decode(self.root.read(in_fleet(fleet, layout.FLEET)), type=layout.Fleet)
            if now - self._looked.get(fleet, -math.inf) < told.lease_seconds / 3:
                return
            listed = self.root.list(in_fleet(fleet, "workers/"))
            # Others are on their way to become one.
            beats = {info.path.rpartition("/")[2]: info.etag for info in listed if info.path.endswith(".json")}
        except (NotFound, msgspec.MsgspecError):
            return  # Its workers end by themselves.
        except (StoreError, Transient):
            return  # They cannot write their beats either.
        self._looked[fleet] = now
        for slot in held:
            whose = slot.worker
            etag = next((etag for beat, etag in beats.items() if beat.startswith(f"{whose.name}-")), "")
            if whose.pid and whose.name and slot.silence(etag) > _SILENT_LEASES * told.lease_seconds:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(whose.pid, signal.SIGKILL)

    def _start(self, slot: Slot, lock: int, fleet: str, uri: str) -> None:
        """Start a worker that inherits the lock and outlives this process. Raises OSError."""
        log = slot.path / "log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(slot.path / "log.1")
        name = f"{re.sub(r'[^A-Za-z0-9]', '-', socket.gethostname())[:40]}-{slot.path.name}-{secrets.token_hex(4)}"
        # Before the worker can write its own id, nobody may take the slot for another fleet's.
        write_whole(slot.path / "worker", f"{fleet} 0 {name}".encode())
        worker = [sys.executable, "-P", "-m", "lowtide_worker.main", "--fleet", uri]
        environment = worker_environment(uri, self.environ) | {
            "LOWTIDE_SLOT": str(int(slot.path.name)),
            # Workers are named after their job, and we are what starts jobs here: so we know their beats.
            "AWS_BATCH_JOB_ID": name,
        }
        done = subprocess.run(
            ["/bin/sh", "-c", _SCRIPT, "sh", str(slot.path), fleet, name, *worker],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=slot.path,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,
            check=False,
        )
        if done.returncode:
            raise OSError(done.returncode, "the worker could not be started")


def default_directory(environ: Mapping[str, str]) -> Path:
    """`$LOWTIDE_SPOT_DIR`, else `lowtide/spot` in the user's state folder. It has to be on a local disk: `flock`."""
    own = environ.get("LOWTIDE_SPOT_DIR")
    if own:
        return Path(own).absolute()
    state = environ.get("XDG_STATE_HOME")
    base = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "lowtide" / "spot"
