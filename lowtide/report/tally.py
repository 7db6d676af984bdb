"""Counting that cannot grow without bound, whatever the values are."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Tally(Generic[Key]):
    """Counts by key for the first `limit` distinct keys; what comes under any other key is counted together."""

    def __init__(self, limit: int = 1_000) -> None:
        self._limit = limit
        self._counts: dict[Key, int] = {}
        self.beyond = 0

    def add(self, key: Key, count: int) -> None:
        """Count so many more under that key."""
        if key in self._counts or len(self._counts) < self._limit:
            self._counts[key] = self._counts.get(key, 0) + count
        else:
            self.beyond += count

    def get(self, key: Key) -> int:
        """How often that key was counted."""
        return self._counts.get(key, 0)

    def ranked(self) -> list[tuple[Key, int]]:
        """Keys and counts, the most frequent first, ties in the order of their names."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], str(item[0])))

    @property
    def total(self) -> int:
        """Everything that was counted."""
        return sum(self._counts.values()) + self.beyond
