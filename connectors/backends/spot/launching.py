"""What the backend asks of whatever starts its workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lowtide.records import Finding


class Launcher(Protocol):
    """Keeps workers running for a fleet, which is a folder of the root: see `lowtide_worker.layout`.

    A worker too many costs its boot and nothing else, so a launcher may err on that side, but it does not start workers
    without a bound where they cannot live.
    """

    @property
    def name(self) -> str:
        """`process`, `batch`."""

    def ensure(self, fleet: str, uri: str, workers: int) -> None:
        """See to it that up to `workers` workers run, or are queued, for the fleet whose folder is at `uri`.

        May be called again at any time, by anybody, and is cheap where they do. Ends workers that give no sign any
        more. Raises SubmitUnknown, QuotaFull, Transient, ConfigError where the job file names what is not there, and
        Terminal where workers fail again and again while nothing is answered.
        """

    def running(self, fleet: str) -> int:
        """How many workers run, or are queued, by what the launcher sees. Raises Transient."""

    def stop(self, fleet: str) -> None:
        """Tell the fleet's workers to stop: they write what they have, and end. No error if there are none.

        `ensure` starts others in their place once they have ended. What has gone wrong before is not held against them.
        """

    def release(self, fleet: str) -> None:
        """No shard is unfinished any more: give up workers that are queued and do not run. Raises Transient."""

    def examine(self) -> Iterator[Finding]:
        """Look whether everything is there that starting a worker needs. Starts none."""
