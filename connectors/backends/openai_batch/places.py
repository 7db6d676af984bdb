"""The deployments that share a run, and which of them have room."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lowtide.connectors.backends.openai_batch.account import Account

if TYPE_CHECKING:
    from lowtide.connectors.backends.openai_batch.remote import Remote

_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0


@dataclass(frozen=True)
class Place:
    """One deployment, or OpenAI's one and only. `model` stands in the lines, `region` in the ledger."""

    region: str
    model: str
    account: Account

    def name(self, backend: str) -> str:
        """What tells it from others: `openai-batch:HOST/PATH`, or `azure-batch:REGION@HOST/DEPLOYMENT`."""
        host, slash, path = self.account.address.partition("://")[2].partition("/")
        where = host.lower() + slash + path
        if self.account.service.provider != "azure":
            return f"{backend}:{where}"
        region = f"{self.region}@" if self.region else ""
        return f"{backend}:{region}{re.sub(r'/openai(/v1)?$', '', where)}/{self.model}"

    @cached_property
    def remote(self) -> Remote:
        """Its API. The SDK takes a second or more to import, so it is imported when something is called."""
        from lowtide.connectors.backends.openai_batch.remote import Remote  # noqa: PLC0415

        return Remote(self.account)


@dataclass(slots=True)
class _Rest:
    refusals: int = 0
    since: float = 0.0
    until: float = 0.0


class Room:
    """Which places were full, and when to ask each again: after 5 s, and twice as long each time, up to 5 minutes.

    `clock` gives seconds. Safe for threads. What is remembered is this process's own: another finds out by asking.
    """

    def __init__(self, places: Sequence[Place], clock: Callable[[], float]) -> None:
        self._places = tuple(places)
        self._clock = clock
        self._rests = {place.region: _Rest() for place in places}
        self._lock = threading.Lock()

    def candidates(self) -> list[Place]:
        """The places to try now: those never full first, in the job's order, then the least recently full."""
        now = self._clock()
        with self._lock:
            awake = [place for place in self._places if self._rests[place.region].until <= now]
            return sorted(awake, key=lambda place: self._rests[place.region].since)

    def wait(self) -> float:
        """Seconds until a place may be tried again."""
        with self._lock:
            return max(0.0, min(rest.until for rest in self._rests.values()) - self._clock())

    def full(self, place: Place) -> None:
        """It has refused a batch, or failed one, for want of room."""
        now = self._clock()
        with self._lock:
            rest = self._rests[place.region]
            if rest.until > now:
                # Another batch of the same moment.
                return
            pause = min(_FIRST_PAUSE * 2**rest.refusals, _LONGEST_PAUSE)
            rest.refusals = min(rest.refusals + 1, 10)
            rest.since, rest.until = now, now + pause

    def took(self, place: Place) -> None:
        """It has accepted a batch."""
        with self._lock:
            self._rests[place.region] = _Rest()

    def eased(self, place: Place) -> None:
        """A batch of it has ended, so that there may be room now."""
        with self._lock:
            self._rests[place.region].until = 0.0
