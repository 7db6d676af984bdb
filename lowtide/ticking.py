"""One pass over all open runs of a root: whose turn it is, and that no run's trouble is another's.

A root with nothing open costs one listing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

import msgspec

from lowtide import engine, openruns
from lowtide import events as e
from lowtide.engine.publishing import published_table
from lowtide.engine.run import Run
from lowtide.errors import ConfigError, LowtideError, StalePlan, Transient
from lowtide.openruns import Asked
from lowtide.plan import Work, run_id_of
from lowtide.protocols import Store

_LOG = logging.getLogger("lowtide.tick")

Assemble = Callable[[str, str, Asked], Work]
"""Makes the work of a job file and a window, as it was asked for."""


@dataclass(frozen=True, slots=True)
class Note:
    """That a run is open: `at` is when that was noted, in seconds since the epoch by the store's clock."""

    job: str
    window: str
    run_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A job and window with open runs; the note that was written last comes first."""

    job: str
    window: str
    notes: tuple[Note, ...]


class Taken(msgspec.Struct, frozen=True):
    """What became of a turn: `state` is the run's, in words; `error` says what stood in its way.

    A run that is `troubled` may go on by itself next time; one that `failed` waits for somebody.
    """

    job: str
    window: str
    run_id: str
    outcome: Literal["advanced", "troubled", "failed"]
    state: str = ""
    error: str = ""


def turns(root: Store) -> Iterator[Turn]:
    """The jobs and windows that have open runs. One listing; no note is read."""
    for (job, window), notes in groupby(_notes(root), key=attrgetter("job", "window")):
        latest_first = sorted(notes, key=lambda note: (note.at, note.run_id), reverse=True)
        yield Turn(job, window, tuple(latest_first))


def run_of(root: Store, turn: Turn, assemble: Assemble, *, clock: Callable[[], float] = time.time) -> Run | None:
    """The run of a turn that was last asked for, with earlier ones to wind down; None if none is open any more.

    A run whose first process died before its journal said that it is asked for, is asked for now. Raises ConfigError
    if its job file cannot be read, StalePlan if that is for another root or job by now, and CorruptJournal.
    """
    read = ((note, openruns.read_asked(root, *_key(note))) for note in turn.notes)
    asked = {note: found for note, found in read if found is not None}
    if not asked:
        return None
    work = _work(root, turn, next(iter(asked.values())), assemble)
    sought = ((note, engine.find_run(work, run_id=note.run_id, clock=clock)) for note in asked)
    begun = {note: run for note, run in sought if run is not None}
    last = engine.find_run(work, clock=clock)
    if last is None and not begun:
        raise StalePlan(
            f"job {turn.job}, window {turn.window}: noted as open, and has no plan under {root.uri}; ask for it again"
        )
    latest = max(begun, key=lambda note: begun[note].state.requested_at or note.at, default=None)
    if latest is None or (
        last is not None and last.state.requested_at > (begun[latest].state.requested_at or latest.at)
    ):
        # What is published was asked for later: only what is left behind it has to be wound down.
        if last is None:
            return None
        bare = _work(root, turn, Asked(job_file=next(iter(asked.values())).job_file), assemble)
        return engine.with_chores(engine.find_run(bare, run_id=last.plan.run_id, clock=clock) or last)
    run = begun[latest]
    if asked[latest] != work.asked:
        found = engine.find_run(_work(root, turn, asked[latest], assemble), run_id=latest.run_id, clock=clock)
        run = run if found is None else found
    plan, work = run.plan, run.context.work
    if not run.state.build_finished and run_id_of(work, plan.inputs_sha256, plan.refresh) != plan.run_id:
        raise StalePlan(
            f"run {plan.run_id} has not read its documents, and the job file would read others, or otherwise"
        )
    if not run.state.requested_at:
        requested = published_table(root, turn.job, turn.window).requested_at + 1e-6
        run.context.journal.append(e.Requested(at=max(clock(), requested)))
    return engine.with_chores(run)


def take_turns(
    root: Store,
    assemble: Assemble,
    advance: Callable[[Run], str],
    failed: Callable[[Turn, Run | None, Taken], None] = lambda turn, run, taken: None,
) -> Iterator[Taken]:
    """Each open run once, whatever happens to the others. `advance` makes one pass, and says where the run stands.

    `failed` hears of those that something stood in the way of; it must not raise.
    """
    for turn in turns(root):
        taken = _take(root, turn, assemble, advance, failed)
        if taken is not None:
            yield taken


def _take(
    root: Store,
    turn: Turn,
    assemble: Assemble,
    advance: Callable[[Run], str],
    failed: Callable[[Turn, Run | None, Taken], None],
) -> Taken | None:
    run: Run | None = None
    try:
        run = run_of(root, turn, assemble)
        if run is None:
            return None
        taken = Taken(turn.job, turn.window, run.plan.run_id, "advanced", advance(run), run.trouble)
        _close(root, turn, run)
        return taken
    except Exception as error:
        run_id = run.plan.run_id if run else turn.notes[0].run_id
        outcome: Literal["troubled", "failed"] = "troubled" if isinstance(error, Transient) else "failed"
        taken = Taken(turn.job, turn.window, run_id, outcome, error=in_words(error))
        # Without the trace, which may hold what a document says.
        _LOG.error("job %s, window %s, run %s: %s", turn.job, turn.window, run_id, taken.error)
        failed(turn, run, taken)
        return taken


def _close(root: Store, turn: Turn, run: Run) -> None:
    """Take back the note of a run whose process died after it had published, and before it could do that itself."""
    state = run.refresh()
    for note in turn.notes:
        # One that was written later is that of somebody who asks for the run again just now.
        if note.run_id == run.plan.run_id and note.at <= state.published_at:
            asked = openruns.read_asked(root, *_key(note))
            openruns.close(root, *_key(note))
            if asked is not None and not run.refresh().published_at:
                openruns.write_asked(root, *_key(note), asked)


def in_words(error: Exception) -> str:
    """What may be said of an error: our own words; of what others raise only its kind, since theirs may hold texts."""
    return str(error) if isinstance(error, LowtideError) else f"unexpected: {type(error).__name__}"


def _notes(root: Store) -> Iterator[Note]:
    for info in root.list(openruns.FOLDER):
        parts = info.path.removeprefix(openruns.FOLDER).split("/")
        if len(parts) == 3:
            job, window, run_id = parts
            yield Note(job, window, run_id, info.modified.timestamp())


def _key(note: Note) -> tuple[str, str, str]:
    return note.job, note.window, note.run_id


def _work(root: Store, turn: Turn, asked: Asked, assemble: Assemble) -> Work:
    if not asked.job_file:
        raise ConfigError(f"job {turn.job}, window {turn.window}: it is not noted which job file its run goes by")
    work = assemble(asked.job_file, turn.window, asked)
    if (work.job, work.root.uri) != (turn.job, root.uri):
        raise StalePlan(
            f"{asked.job_file}: is for job {work.job} under {work.root.uri} now; run {turn.notes[0].run_id} was begun "
            f"for job {turn.job} under {root.uri}: put the job file back until that is finished"
        )
    return work
