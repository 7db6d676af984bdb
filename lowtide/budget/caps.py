"""What may be spent, on what, and in which time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from lowtide.money import exact
from lowtide.windows import month_after


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

    @property
    def label(self) -> str:
        """The cap in a sentence: `month_usd 5.00 USD of job weekly`."""
        if self.job:
            return f"{self.name} {exact(self.usd)} USD of job {self.job}"
        return f"cap {self.name!r} of {exact(self.usd)} USD a month ({self.source})"


def job_caps(job: str, month_usd: Decimal | None) -> tuple[Cap, ...]:
    """The cap that a job's own file sets on its months, if any."""
    if month_usd is None:
        return ()
    return (Cap("month_usd", month_usd, f"budget.month_usd of job {job}", job),)


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that has money of a cap reserved, and so much of it."""

    run: str
    usd: Decimal

    def __str__(self) -> str:
        _, job, window, run_id = self.run.split("/")
        window = "" if window == "all" else f", window {window}"
        return f"{exact(self.usd)} reserved by run {run_id} of job {job}{window}"


@dataclass(frozen=True, slots=True)
class Room:
    """What a cap has left. `label` names the cap in a sentence; `holders` are runs with open reservations.

    `by_root` is false for the run's own cap, which nobody else spends.
    """

    label: str
    usd: Decimal
    spent: Decimal
    reserved: Decimal
    holders: tuple[Holder, ...] = ()
    by_root: bool = True

    @property
    def left(self) -> Decimal:
        """USD that may still be reserved; below zero for a cap that was set lower than what is spent."""
        return self.usd - self.spent - self.reserved

    def refusal(self, needed: Decimal) -> str:
        """Why a shard that may cost so much is not asked."""
        reserved = [str(holder) for holder in self.holders[:_NAMED]]
        rest = sum((holder.usd for holder in self.holders[_NAMED:]), Decimal(0))
        if rest or (self.reserved and not reserved):
            reserved.append(f"{exact(rest or self.reserved)} reserved{' by others' if rest else ''}")
        figures = ", ".join([f"{exact(self.spent)} spent", *reserved])
        state = "is used up" if self.left <= 0 else f"has {exact(self.left)} left"
        return f"{self.label} {state} ({figures}; this shard may cost up to {exact(needed)})"


_NAMED = 2


def month_of(at: float) -> str:
    """The calendar month of a time, in UTC: `2026-11`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def months_between(first: float, last: float) -> list[str]:
    """The calendar months from one time to another, both included."""
    found, at = [month_of(first)], datetime.fromtimestamp(first, UTC).replace(day=1, hour=12)
    while found[-1] < month_of(last):
        at = month_after(at)
        found.append(at.strftime("%Y-%m"))
    return found
