"""Where all runs of a root stand: the open ones by their journals, the done ones by the table of runs.

The journal of a run that is done is never read: one row of `tables/runs` says all that is shown of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.budget.approval import awaits_approval, command_of
from lowtide.decisions import CLOCK_SKEW
from lowtide.errors import CorruptJournal, LowtideError, NotFound
from lowtide.journal import Journal
from lowtide.ledger import spent
from lowtide.openruns import Asked, OpenRun, list_open
from lowtide.plan import RunPlan
from lowtide.protocols import Store
from lowtide.records import FileInfo
from lowtide.shards import Phase
from lowtide.states import RunState

STUCK_AFTER = 3600.0
"""Seconds beyond a run's deadline, or beyond the lease of whoever was at it, after which somebody should look."""

BUILDING, APPROVAL, ASKING, PUBLISHING = "building", "waiting for approval", "asking", "publishing"
DONE, OVER_BUDGET, CANCELLED, STUCK, UNREADABLE = "done", "over budget", "cancelled", "stuck", "unreadable"
_RUNS = re.compile(r"tables/runs/job=(?P<job>[^/]+)/window=(?P<window>[^/]+)/(?P<run>[^/]+)\.parquet")


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run. Times are seconds since the epoch, 0 where there is none; money is USD.

    `expected` is when the run should be done by the pace so far, or by its plan where there is none yet. `reason` says
    what it waits for, if anything. `job_file` and `backfill` are how an open run was asked for.
    """

    job: str
    window: str
    run_id: str
    state: str
    open: bool
    backend: str = ""
    model: str = ""
    started: float = 0.0
    finished: float = 0.0
    deadline: float = 0.0
    expected: float = 0.0
    documents: int = 0
    requests: int = 0
    answered: int = 0
    batches: int = 0
    oldest_batch: float = 0.0
    cost_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)
    failed_rows: int = 0
    job_file: str = ""
    backfill: str = ""
    reason: str = ""

    @property
    def late(self) -> bool:
        """Whether it is expected behind its deadline."""
        return bool(self.deadline) and self.expected > self.deadline


@dataclass(frozen=True, slots=True)
class RootStatus:
    """All open runs of a root, then the last done ones of each window. `warnings` say what could not be read."""

    root: str
    runs: tuple[RunStatus, ...]
    warnings: tuple[str, ...] = ()


def root_status(store: Store, *, now: float, last: int = 3) -> RootStatus:
    """Read the journals of the open runs, and the rows of the `last` done runs of each window."""
    warnings: list[str] = []
    opened = [_of_open(store, run, now, warnings) for run in list_open(store)]
    ids = {run.run_id for run in opened}
    done = [run for run in done_runs(store, last=last, warnings=warnings) if run.run_id not in ids]
    opened.sort(key=lambda run: (run.job, run.window, run.started))
    return RootStatus(store.uri, (*opened, *done), tuple(warnings))


def _of_open(store: Store, run: OpenRun, now: float, warnings: list[str]) -> RunStatus:
    """Where an open run stands; where its note, plan or journal cannot be read, what can be, and what is wrong."""
    prefix = f"runs/{run.job}/{run.window}/{run.run_id}"
    found = RunStatus(run.job, run.window, run.run_id, UNREADABLE, True, job_file=run.asked.job_file)
    why = run.unreadable
    try:
        plan = msgspec.json.decode(store.read(f"{prefix}/plan.json"), type=RunPlan)
        found = status_of(plan, Journal(store, prefix, "").refresh(), run.asked, now)
    except (NotFound, CorruptJournal, msgspec.DecodeError) as error:
        why = why or f"{store.uri_of(prefix)}: {error}"
    if not why:
        return found
    warnings.append(why)
    return replace(found, state=UNREADABLE, reason=why)


def status_of(plan: RunPlan, state: RunState, asked: Asked, now: float) -> RunStatus:
    """Where an open run stands, by its plan and its journal."""
    shards = list(state.shards.values())
    requests = sum(shard.total for shard in shards)
    answered = sum(_answered(shard.phase, shard.total, shard.records, shard.remaining) for shard in shards)
    out = [shard for shard in shards if shard.phase in (Phase.SUBMITTING, Phase.SUBMITTED)]
    word, reason = _in_words(plan, state, now)
    return RunStatus(
        plan.job,
        plan.window,
        plan.run_id,
        word,
        open=True,
        backend=plan.backend,
        model=plan.model,
        started=state.started_at,
        deadline=plan.deadline,
        expected=_expected(plan, state, requests, answered, now),
        documents=sum(shard.documents for shard in shards),
        requests=requests,
        answered=answered,
        batches=len(out) + len(state.surplus),
        oldest_batch=min((shard.intended_at or shard.since for shard in out), default=0.0),
        cost_usd=spent(state, plan.price.price()) if plan.price else Decimal(0),
        reserved_usd=state.reserved,
        job_file=asked.job_file,
        backfill=asked.backfill,
        reason=reason,
    )


def _answered(phase: Phase, total: int, records: int, remaining: int) -> int:
    if phase is Phase.SETTLED:
        return total - remaining
    return total if phase in (Phase.ENDED, Phase.COLLECTED) else total - records


def _in_words(plan: RunPlan, state: RunState, now: float) -> tuple[str, str]:
    """The state in a word or two, and what it waits for."""
    shards = list(state.shards.values())
    waiting = next((f"shard {s.number}: {s.reason}" for s in shards if s.phase is Phase.BUILT and s.reason), "")
    if state.published_at:
        given_up = {shard.given_up for shard in shards}
        return (OVER_BUDGET if "budget" in given_up else CANCELLED if state.cancelled else DONE), ""
    if awaits_approval(plan, state) and state.build_finished:
        return APPROVAL, command_of(plan)
    if any(shard.given_up == "budget" for shard in shards) and not state.cancelled:
        return OVER_BUDGET, waiting
    if why := _stuck(plan, state, now):
        return STUCK, why
    if state.cancelled:
        return CANCELLED, "its batches are being stopped" if not state.settled else ""
    if not state.build_finished:
        return BUILDING, ""
    return (PUBLISHING if state.settled else ASKING), waiting


def _stuck(plan: RunPlan, state: RunState, now: float) -> str:
    """Why somebody should look at the run; "" if nobody need."""
    if now > plan.deadline + STUCK_AFTER:
        return "its deadline is over: does anything advance it? lowtide run goes on with it, lowtide cancel ends it"
    if state.builder and not state.build_finished and now > state.builder_expires + STUCK_AFTER:
        return "who read its documents has stopped: lowtide run goes on with it"
    stale = [s for s in state.shards.values() if s.phase is Phase.SUBMITTING and now > s.expires + STUCK_AFTER]
    if stale:
        return f"shard {stale[0].number}: nobody has looked what became of its create call"
    if state.settled and now > max((s.since for s in state.shards.values()), default=now) + STUCK_AFTER + CLOCK_SKEW:
        return "all is answered, and nobody has published it: lowtide run does"
    return ""


def _expected(plan: RunPlan, state: RunState, requests: int, answered: int, now: float) -> float:
    """By the pace since the first batch was submitted; by the plan as long as nothing is answered."""
    planned = next((option.finish for option in plan.options if option.chosen), 0.0)
    begun = min((attempt.submitted_at for attempt in state.attempts.values()), default=0.0)
    if not begun or not answered or not state.build_finished:
        return max(planned, now) if planned else 0.0
    if answered >= requests:
        return now
    return now + (now - begun) * (requests - answered) / answered


def done_runs(store: Store, *, last: int, warnings: list[str]) -> Iterator[RunStatus]:
    """The `last` runs of each window that have written their row, the newest first; windows in order."""
    if not last:
        return
    files: defaultdict[tuple[str, str], list[FileInfo]] = defaultdict(list)
    for info in store.list("tables/runs/"):
        if found := _RUNS.fullmatch(info.path):
            files[found["job"], found["window"]].append(info)
    for _, infos in sorted(files.items()):
        # The newest file was written last: its run finished last, or was asked for once more.
        for info in sorted(infos, key=lambda info: (info.modified, info.path), reverse=True)[:last]:
            run = _read_row(store, info, warnings)
            if run is not None:
                yield run


def last_runs(store: Store) -> list[RunStatus]:
    """Of each job the run that was done last, whatever its window: one listing, and one row for each job."""
    newest: dict[str, FileInfo] = {}
    for info in store.list("tables/runs/"):
        if named := _RUNS.fullmatch(info.path):
            known = newest.setdefault(named["job"], info)
            if (info.modified, info.path) > (known.modified, known.path):
                newest[named["job"]] = info
    found = (_read_row(store, info, []) for _, info in sorted(newest.items()))
    return [run for run in found if run is not None]


def _read_row(store: Store, info: FileInfo, warnings: list[str]) -> RunStatus | None:
    """The run of one file of the table of runs; None, and a warning, for a file that holds no such row."""
    named = _RUNS.fullmatch(info.path)
    try:
        with store.open(info.path) as source:
            [row] = pq.read_table(source, partitioning=None, use_threads=False).to_pylist()
        return _of_row(named["job"], named["window"], row) if named else None
    except (LowtideError, pa.ArrowException, ValueError, KeyError, OSError) as error:
        warnings.append(f"{info.uri}: no row of a run ({type(error).__name__})")
        return None


def _of_row(job: str, window: str, row: dict[str, object]) -> RunStatus:
    def number(name: str) -> int:
        return int(str(row.get(name) or 0))

    def seconds(name: str) -> float:
        at = row.get(name)
        return at.timestamp() if hasattr(at, "timestamp") else 0.0

    cancelled = bool(row.get("cancelled"))
    requests = number("requests")
    return RunStatus(
        job,
        window,
        str(row["run_id"]),
        CANCELLED if cancelled else OVER_BUDGET if _was_cut(row) else DONE,
        open=False,
        backend=str(row.get("backend") or ""),
        model=str(row.get("model") or ""),
        started=seconds("started"),
        finished=seconds("finished"),
        deadline=seconds("deadline"),
        expected=seconds("finished"),
        documents=number("documents"),
        requests=requests,
        answered=requests if not _was_cut(row) else number("asked_requests"),
        batches=0,
        cost_usd=Decimal(str(row.get("cost_usd") or 0)),
        failed_rows=number("error") + number("invalid") + number("refused"),
    )


def _was_cut(row: dict[str, object]) -> bool:
    """Whether requests were left that were never asked: of a run that was not cancelled, for want of money."""
    asked = row.get("asked_requests")
    return asked is not None and int(str(asked)) < int(str(row.get("requests") or 0))


def age_in_words(seconds: float) -> str:
    """A length of time in at most five characters: `45s`, `12m`, `7h`, `3d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
