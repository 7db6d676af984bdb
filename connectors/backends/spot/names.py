"""Where the batches of this backend lie in the root: one folder for each run's plan, one in it for each shard."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lowtide_worker import layout

FOLDER = "spot/"

_TOKEN = re.compile(r"lt-(?P<fleet>[0-9A-Za-z]+-[0-9A-Za-z]+)-(?P<shard>s\d{5,9}-a\d{1,6})")


@dataclass(frozen=True, slots=True)
class Place:
    """A shard in its fleet, by the token of its attempt, which is the batch's id as well."""

    token: str
    fleet: str
    shard: str

    def path(self, name: str) -> str:
        """A file of the shard, in the root; with "" the prefix of all of them."""
        return in_fleet(self.fleet, layout.shard_path(self.shard, name))


def place_of(token: str) -> Place | None:
    """Where a token's batch lies; None for what is no token, and must not become a path."""
    found = _TOKEN.fullmatch(token)
    return Place(token, found["fleet"], found["shard"]) if found else None


def in_fleet(fleet: str, path: str) -> str:
    """A file of the fleet, in the root."""
    return f"{FOLDER}{fleet}/{path}"
