"""Accounts on disk: `accounts/000001.json` and so on, each made with put-if-absent behind all earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from lowtide.connectors.backends.spot.accounts import NOTHING, Account, next_account
from lowtide.connectors.backends.spot.names import in_fleet
from lowtide.connectors.backends.spot.rates import Rates
from lowtide.errors import StoreError
from lowtide.protocols import Store
from lowtide_worker.layout import Beat, number_of


class Accounts:
    """The accounts of the fleets of a root."""

    def __init__(self, root: Store, rates: Rates) -> None:
        self._root = root
        self._rates = rates
        self._last: dict[str, tuple[int, Account]] = {}

    def of(self, fleet: str, shard: str) -> Account | None:
        """The shard's account, if it was made. Raises Transient and StoreError."""
        number, last = self._newest(fleet)
        if shard not in last.shards:
            return None
        its = last.shards.index(shard) + 1
        return last if its == number else self._read(fleet, its)

    def last(self, fleet: str) -> Account:
        """The fleet's last account so far. Raises as `of`."""
        return self._newest(fleet)[1]

    def make(
        self,
        fleet: str,
        shard: str,
        beats: Collection[Beat],
        gone: Collection[str],
        unkept: Mapping[str, float],
        most: Callable[[Account], float],
    ) -> Account:
        """The shard's account, made now unless it was before: see `next_account`. Raises as `of`, and Terminal.

        `most` says how many seconds it may be behind the fleet's last account.
        """
        while True:
            made = self.of(fleet, shard)
            if made is not None:
                return made
            number, before = self._newest(fleet)
            account = next_account(shard, beats, gone, before, unkept=unkept, most=most(before))
            # Prices stand in the account, so that it says the same whenever it is asked.
            priced = tuple(one for charge in account.charges for one in self._rates.priced(charge))
            account = msgspec.structs.replace(account, charges=priced)
            if self._root.put_if_absent(_path(fleet, number + 1), msgspec.json.encode(account)):
                self._last[fleet] = number + 1, account
                return account

    def _newest(self, fleet: str) -> tuple[int, Account]:
        number, last = self._last.get(fleet, (0, NOTHING))
        names = self._root.list(in_fleet(fleet, "accounts/"), after=_path(fleet, number) if number else "")
        newest = max((number_of(info.path.removesuffix(".json")) for info in names), default=number)
        if newest > number:
            number, last = newest, self._read(fleet, newest)
            self._last[fleet] = number, last
        return number, last

    def _read(self, fleet: str, number: int) -> Account:
        path = _path(fleet, number)
        try:
            return msgspec.json.decode(self._root.read(path), type=Account)
        except msgspec.MsgspecError as error:
            uri = self._root.uri_of(path)
            raise StoreError(f"{uri!r} is no account that this version knows: {error}", uri=uri) from error


def _path(fleet: str, number: int) -> str:
    return in_fleet(fleet, f"accounts/{number:06d}.json")
