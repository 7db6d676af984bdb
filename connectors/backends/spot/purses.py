"""How much machine time the caps leave to a fleet: what is reserved for its open shards, less what was not charged yet.

Each account charges no more than what is reserved for its shard, and the last of a fleet's open shards bears what is
left over. Workers stop before all that is reserved is used up (`lowtide_worker.purse`), so that it has room there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec

from lowtide.connectors.backends.spot.accounting import Accounts
from lowtide.connectors.backends.spot.accounts import Account
from lowtide.connectors.backends.spot.names import Place, in_fleet
from lowtide.connectors.backends.spot.watching import Crew
from lowtide.errors import NotFound, StoreError
from lowtide.protocols import Store
from lowtide_worker.layout import TASK, Task, shard_path
from lowtide_worker.reckoning import seconds_left


class Purses:
    """Those of the fleets of a root. A fleet's shards are listed once in `pause` seconds, and only under a cap."""

    def __init__(
        self, root: Store, accounts: Accounts, *, rented: bool, pause: float, clock: Callable[[], float]
    ) -> None:
        self._root = root
        self._accounts = accounts
        self._rented = rented
        self._pause = pause
        self._clock = clock
        self._tasks: dict[str, Task] = {}
        self._looked: dict[str, float] = {}
        self._left: dict[str, float | None] = {}

    def left(self, place: Place, crew: Crew) -> float | None:
        """Seconds that the fleet's workers may take together from now on; None where nothing limits them.

        Raises Transient and StoreError.
        """
        if self._seconds(place.fleet, place.shard) is None:
            return None
        now = self._clock()
        if now - self._looked.get(place.fleet, -math.inf) >= self._pause:
            account = self._accounts.last(place.fleet)
            allowed = {shard: self._seconds(place.fleet, shard) for shard in self._open(place.fleet, account)}
            beats = [seen.beat for seen in crew.workers.values()]
            self._left[place.fleet] = seconds_left(allowed, beats, account, rented=self._rented)
            self._looked[place.fleet] = now
        return self._left[place.fleet]

    def most(self, place: Place, before: Account) -> float:
        """Seconds that the shard's account may be, behind those `before`; `math.inf` for the last that is open."""
        seconds = self._seconds(place.fleet, place.shard)
        if seconds is None or not any(shard != place.shard for shard in self._open(place.fleet, before)):
            return math.inf
        return seconds

    def _open(self, fleet: str, account: Account) -> Iterator[str]:
        """Shards that have a task and no account."""
        known, top = frozenset(account.shards), in_fleet(fleet, "shards/")
        for info in self._root.list(top):
            shard, _, name = info.path[len(top) :].partition("/")
            if name == TASK and shard not in known:
                yield shard

    def _seconds(self, fleet: str, shard: str) -> float | None:
        path = in_fleet(fleet, shard_path(shard, TASK))
        if path not in self._tasks:
            try:
                self._tasks[path] = msgspec.json.decode(self._root.read(path), type=Task)
            except NotFound:
                return None
            except msgspec.MsgspecError as error:
                uri = self._root.uri_of(path)
                raise StoreError(f"{uri!r} is no task that this version knows: {error}", uri=uri) from error
        return self._tasks[path].seconds
