"""How many workers a fleet needs: as many as it has open shards, up to the most that the job file allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from lowtide.connectors.backends.spot.launching import Launcher
from lowtide.connectors.backends.spot.names import Place, in_fleet
from lowtide.connectors.backends.spot.watching import Crew, shards_of
from lowtide.errors import LowtideError, Terminal
from lowtide.protocols import Store
from lowtide_worker.layout import FLEET, Fleet

PAUSE = 10.0
"""Seconds between two times that a launcher is asked for no more than before: a hundred shards are polled at once."""

# Another process may see a shard's end, and this one none. After so long it is not counted any more.
_OPEN_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """When the launcher was asked for so many workers, and what went wrong."""

    at: float
    workers: int
    error: LowtideError | None


class Staff:
    """Has workers started for the fleets of a root. `fleet` is how they work, `crew` tells what they have said."""

    def __init__(
        self,
        root: Store,
        fleet: Fleet,
        launcher: Launcher,
        crew: Callable[[str], Crew],
        *,
        most: int,
        pause: float,
        clock: Callable[[], float],
    ) -> None:
        self._root = root
        self._fleet = fleet
        self._launcher = launcher
        self._crew = crew
        self._most = most
        self._pause = pause
        self._clock = clock
        self._told: set[str] = set()
        self._open: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._listed: set[str] = set()
        self._asked: dict[str, _Asked] = {}

    def tell(self, fleet: str, *, anew: bool = False) -> None:
        """Write how to work, once; with `anew` also where it was removed since.

        Where a job file was mended since, the workers that run are replaced.
        """
        path = in_fleet(fleet, FLEET)
        if fleet in self._told and not (anew and self._root.info(path) is None):
            return
        data = msgspec.json.encode(self._fleet)
        if not self._root.put_if_absent(path, data) and self._root.read(path) != data:
            # Those that are at work were told otherwise: they write what they have, and others begin. Where that fails,
            # what was told still stands there, and it is tried again.
            self._launcher.stop(fleet)
            self._root.write(path, data)
        self._told.add(fleet)

    def expect(self, place: Place) -> None:
        """The shard is open: workers are asked for it, and for others that came meanwhile, by the next `ensure`."""
        self._open[place.fleet][place.shard] = self._clock()

    def ensure(self, place: Place, *, most: int | None = None) -> None:
        """The shard is open: see to it that workers run, no more than `most`. Raises what the launcher last said."""
        now = self._clock()
        self.tell(place.fleet)
        seen = self._open[place.fleet]
        if place.fleet not in self._listed:
            # A tick's process has submitted none of them. Each of its polls would ask for one worker more, and so start
            # as many jobs of one worker.
            seen |= dict.fromkeys(shards_of(self._root, place.fleet).open, now)
            self._listed.add(place.fleet)
        seen[place.shard] = now
        for shard in [shard for shard, at in seen.items() if now - at > _OPEN_SECONDS]:
            del seen[shard]
        workers = min(len(seen), self._most if most is None else min(most, self._most))
        last = self._asked.get(place.fleet)
        if last is None or workers > last.workers or now - last.at >= self._pause:
            last = self._asked[place.fleet] = _Asked(now, workers, self._launch(place, workers))
        if last.error is not None:
            raise last.error

    def closed(self, place: Place) -> bool:
        """The shard has ended: whether it was the last one of its fleet that this process knows to be open."""
        seen = self._open[place.fleet]
        seen.pop(place.shard, None)
        return not seen

    def _launch(self, place: Place, workers: int) -> LowtideError | None:
        """Ask the launcher; its error, if it has one."""
        uri = self._root.uri_of(in_fleet(place.fleet, "").rstrip("/"))
        self.tell(place.fleet, anew=True)
        try:
            self._launcher.ensure(place.fleet, uri, workers)
        except Terminal as error:
            said = self._crew(place.fleet).last_words
            return Terminal(f"{error}; the last worker said: {said}" if said else str(error))
        except LowtideError as error:
            return error
        return None
