"""What the runs of a root are doing, as text that Prometheus and OpenMetrics read.

https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md; the text is valid as Prometheus' own
format, version 0.0.4, as well. All metrics are gauges: they are what the root says at one moment, whoever asks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from lowtide.budget.account import Account
from lowtide.budget.caps import Cap, Room, month_of
from lowtide.budget.rootfile import read_caps
from lowtide.errors import ConfigError
from lowtide.protocols import Store
from lowtide.status import (
    APPROVAL,
    ASKING,
    BUILDING,
    CANCELLED,
    OVER_BUDGET,
    PUBLISHING,
    STUCK,
    UNREADABLE,
    RunStatus,
    last_runs,
    root_status,
)

PATH = "metrics/lowtide.prom"
"""Where the tick keeps them in the root."""

STATES = (BUILDING, APPROVAL, ASKING, PUBLISHING, OVER_BUDGET, CANCELLED, STUCK, UNREADABLE)

Labels = Mapping[str, str]
Value = int | float | Decimal


@dataclass(frozen=True)
class Snapshot:
    """A root at one moment, in seconds since the epoch. Money is USD, of this calendar month in UTC.

    `last` are the runs that each job has finished last. `rooms` are the caps, and what they have left.
    `unreadable_caps` says that those of the root could not be read: then each run keeps to those that it knows.
    """

    at: float
    runs: Sequence[RunStatus] = ()
    spent: Mapping[str, Decimal] = field(default_factory=dict)
    reserved: Mapping[str, Decimal] = field(default_factory=dict)
    rooms: Sequence[Room] = ()
    last: Sequence[RunStatus] = ()
    unreadable_caps: bool = False


def snapshot(store: Store, *, now: float, caps: Sequence[Cap] = ()) -> Snapshot:
    """Read the open runs, this month's account, and a listing of the runs that are done. `caps` come on top."""
    account = Account(store, month_of(now), "").refresh()
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)
    reserved: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in account.lines.values():
        job = account.spenders[line.run].job
        spent[job] += line.spent
        reserved[job] += line.reserved
    unreadable = False
    every = list(caps)
    try:
        every += read_caps(store)
    except ConfigError:
        unreadable = True
    return Snapshot(
        now,
        root_status(store, now=now, last=0).runs,
        dict(spent),
        dict(reserved),
        [account.room(cap) for cap in every],
        last_runs(store),
        unreadable,
    )


def render(found: Snapshot) -> str:
    """The text, its last line `# EOF`."""
    return "".join([*_runs(found), *_money(found), *_times(found), "# EOF\n"])


def _runs(found: Snapshot) -> list[str]:
    by_state = Counter((run.job, run.state) for run in found.runs if run.open)
    jobs = sorted({run.job for run in found.runs if run.open} | {run.job for run in found.last})
    backends = sorted({run.backend for run in found.runs if run.open and run.backend})
    opened = {name: [run for run in found.runs if run.open and run.backend == name] for name in backends}
    backlog: Counter[str] = Counter(dict.fromkeys(jobs, 0))
    for run in found.runs:
        if run.open:
            backlog[run.job] += run.requests - run.answered
    ages = []
    for name in backends:
        oldest = min((run.oldest_batch for run in opened[name] if run.oldest_batch), default=found.at)
        ages.append(({"backend": name}, max(found.at - oldest, 0.0)))
    return [
        _gauge(
            "lowtide_open_runs",
            "Runs that are not finished, by job and state.",
            (({"job": job, "state": state}, by_state[job, state]) for job in jobs for state in STATES),
        ),
        _gauge(
            "lowtide_late_runs",
            "Runs that are expected to be done behind their deadline.",
            (({"job": job}, sum(run.late for run in found.runs if run.open and run.job == job)) for job in jobs),
        ),
        _gauge(
            "lowtide_open_batches",
            "Batches that a provider works on, by backend.",
            (({"backend": name}, sum(run.batches for run in opened[name])) for name in backends),
        ),
        _gauge("lowtide_oldest_batch_age_seconds", "Since the oldest open batch was submitted; 0 for none.", ages),
        _gauge(
            "lowtide_backlog_requests",
            "Requests of open runs that are not answered yet.",
            (({"job": job}, backlog[job]) for job in sorted(backlog)),
        ),
    ]


def _money(found: Snapshot) -> list[str]:
    jobs = sorted({*found.spent, *found.reserved})
    return [
        _gauge(
            "lowtide_month_spent_usd",
            "Spent in this calendar month, in UTC, by job.",
            (({"job": job}, found.spent.get(job, Decimal(0))) for job in jobs),
        ),
        _gauge(
            "lowtide_month_reserved_usd",
            "Reserved for batches that are out.",
            (({"job": job}, found.reserved.get(job, Decimal(0))) for job in jobs),
        ),
        _gauge("lowtide_cap_usd", "What a cap allows in a month.", (({"cap": r.label}, r.usd) for r in found.rooms)),
        _gauge(
            "lowtide_cap_left_usd",
            "What a cap has left, reservations taken off; below 0 for one that was lowered.",
            (({"cap": room.label}, room.left) for room in found.rooms),
        ),
        _gauge(
            "lowtide_caps_unreadable",
            "1 if lowtide.yaml in the root cannot be read.",
            [({}, int(found.unreadable_caps))],
        ),
    ]


def _times(found: Snapshot) -> list[str]:
    return [
        _gauge(
            "lowtide_last_publish_timestamp_seconds",
            "When a run of the job was done and published last, in seconds since the epoch.",
            (({"job": run.job}, run.finished) for run in found.last),
        ),
        _gauge(
            "lowtide_last_run_failed_rows",
            "Rows of that run that were asked and have no answer.",
            (({"job": run.job}, run.failed_rows) for run in found.last),
        ),
        _gauge(
            "lowtide_last_run_cut_short",
            "1 if that run was cancelled, or left rows unasked for want of money.",
            (({"job": run.job}, int(run.state in (CANCELLED, OVER_BUDGET))) for run in found.last),
        ),
        _gauge("lowtide_snapshot_timestamp_seconds", "When this was read.", [({}, found.at)]),
    ]


def _gauge(name: str, told: str, samples: Iterable[tuple[Labels, Value]]) -> str:
    lines = [f"# HELP {name} {told}\n", f"# TYPE {name} gauge\n"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {_number(value)}\n" if inside else f"{name} {_number(value)}\n")
    return "".join(lines)


def _number(value: Value) -> str:
    return str(value) if isinstance(value, int) else f"{value:f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
