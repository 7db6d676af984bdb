"""What may be spent, on what, and in which time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `usd` in a calendar month (UTC), for the runs of one job, or of all jobs whose tags hold `tags`.

    `job` is "" for all jobs of the root. `source` says where the cap stands, for messages.
    """

    name: str
    usd: Decimal
    source: str
    job: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def covers(self, job: str, tags: Mapping[str, str]) -> bool:
        """Whether what a run of this job, with these tags, spends counts towards the cap."""
        return self.job in ("", job) and all(tags.get(name) == value for name, value in self.tags.items())
