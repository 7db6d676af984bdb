"""Workers on other machines that have stopped giving signs, by the store's clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from lowtide.connectors.backends.spot.names import in_fleet
from lowtide.connectors.backends.spot.watching import store_time
from lowtide.errors import NotFound
from lowtide.protocols import Store
from lowtide.records import FileInfo
from lowtide_worker import layout
from lowtide_worker.layout import Beat

_LEASES = 3
"""A worker that has given no sign for so many leases is ended: others have had its shard for two of them."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A job's worker that has given no sign since `at`, in seconds since the epoch by its own clock."""

    job: str
    at: float


@dataclass
class Silence:
    """Looks for them in the fleets of a root."""

    root: Store
    clock: Callable[[], float] = time.time
    _read: dict[str, tuple[str, Beat]] = field(default_factory=dict, init=False, repr=False)

    def of(self, fleet: str) -> list[Silent]:
        """The last of each job's workers, where it has not ended and is silent. Raises Transient and StoreError."""
        infos = [info for info in self.root.list(in_fleet(fleet, "workers/")) if info.path.endswith(".json")]
        lease = self._lease(fleet) if infos else None
        if lease is None:
            return []
        after = self.clock() - _LEASES * lease
        if all(beat.state == "ended" for beat in self._beats(infos, after)):
            return []
        # That was by our clock, which may be wrong: what o'clock it is at the store, writing tells.
        now = store_time(self.root, fleet)
        last: dict[str, Beat] = {}
        for beat in self._beats(infos, now - _LEASES * lease):
            if beat.job and (beat.job not in last or last[beat.job].at < beat.at):
                last[beat.job] = beat
        return [Silent(job, beat.at) for job, beat in last.items() if beat.state != "ended"]

    def has_answered(self, fleet: str, job: str) -> bool:
        """Whether a worker of the job has answered anything. Raises Transient and StoreError."""
        infos = [info for info in self.root.list(in_fleet(fleet, f"workers/{job}-")) if info.path.endswith(".json")]
        return any(spell.answered for beat in self._beats(infos, math.inf) for spell in beat.spells)

    def _beats(self, infos: list[FileInfo], before: float) -> Iterator[Beat]:
        """Those that were written before that time. What has not changed is not read again."""
        for info in infos:
            if info.modified.timestamp() >= before:
                continue
            if info.path not in self._read or self._read[info.path][0] != info.etag:
                try:
                    self._read[info.path] = info.etag, msgspec.json.decode(self.root.read(info.path), type=Beat)
                except (NotFound, msgspec.MsgspecError):
                    continue
            yield self._read[info.path][1]

    def _lease(self, fleet: str) -> float | None:
        try:
            return msgspec.json.decode(self.root.read(in_fleet(fleet, layout.FLEET)), type=layout.Fleet).lease_seconds
        except (NotFound, msgspec.MsgspecError):
            return None
