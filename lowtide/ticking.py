"""One pass over all open runs of a root: whose turn it is, and that no run's trouble is another's.

A root with nothing open costs one listing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

import msgspec

from lowtide import engine, openruns
from lowtide import events as e
from lowtide.engine.publishing import published_table
from lowtide.engine.run import Run
from lowtide.errors import ConfigError, CorruptJournal, LowtideError, NotFound, StalePlan, Transient
from lowtide.journal import Journal
from lowtide.openruns import Asked
from lowtide.plan import Work, run_id_of
from lowtide.protocols import Store
from lowtide.states import RunState

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


def run_of(
    root: Store,
    turn: Turn,
    notes: Mapping[Note, Asked | CorruptJournal],
    assemble: Assemble,
    *,
    clock: Callable[[], float] = time.time,
) -> Run | None:
    """The run of a turn that was last asked for, with earlier ones to wind down; None if none is open any more.

    None as well if its own note is one of those that cannot be read: what may be spent on it is not known. It goes by
    the newest of its job files that can be read here and that its plan fits. A run whose first process died before its
    journal said that it is asked for, is asked for now. Raises ConfigError or StalePlan, naming all its job files, if
    there is none such, and CorruptJournal.
    """
    known = {note: asked for note, asked in notes.items() if isinstance(asked, Asked)}
    if not known:
        return None
    begun = {note: state for note in notes if (state := _state_of(root, turn, note.run_id)) is not None}
    last_id = _last_id(root, turn)
    last = _state_of(root, turn, last_id) if last_id else None
    latest = max(begun, key=lambda note: begun[note].requested_at or note.at, default=None)
    since = begun[latest].requested_at or latest.at if latest else 0.0
    if last is not None and (latest is None or last.requested_at > since):
        # What is published was asked for later: only what is left behind it has to be wound down.
        files = [path for asked in known.values() for path in asked.job_files]
        return _fitting(root, turn, Asked(), files, last_id, assemble, clock)
    if latest is None:
        raise StalePlan(
            f"job {turn.job}, window {turn.window}: noted as open, and has no plan under {root.uri}; ask for it again"
        )
    if latest not in known:
        return None
    run = _fitting(root, turn, known[latest], known[latest].job_files, latest.run_id, assemble, clock)
    if not run.state.requested_at:
        requested = published_table(root, turn.job, turn.window).requested_at + 1e-6
        run.context.journal.append(e.Requested(at=max(clock(), requested)))
    return run


def _read_notes(root: Store, turn: Turn) -> dict[Note, Asked | CorruptJournal]:
    """How each run of the turn was asked for, or why that cannot be read; without those that are finished by now."""
    found: dict[Note, Asked | CorruptJournal] = {}
    for note in turn.notes:
        try:
            asked = openruns.read_asked(root, *_key(note))
        except CorruptJournal as error:
            found[note] = error
            continue
        if asked is not None:
            found[note] = asked
    return found


def _state_of(root: Store, turn: Turn, run_id: str) -> RunState | None:
    """Where a run stands; None if it was never planned."""
    prefix = f"runs/{turn.job}/{turn.window}/{run_id}"
    if root.info(f"{prefix}/plan.json") is None:
        return None
    return Journal(root, prefix, "").refresh()


def _last_id(root: Store, turn: Turn) -> str:
    """The run of the job and window that was last asked for, as the commands know it; "" if there is none."""
    try:
        return root.read(f"runs/{turn.job}/{turn.window}/latest").decode()
    except NotFound:
        return ""


def _fitting(
    root: Store,
    turn: Turn,
    asked: Asked,
    job_files: Sequence[str],
    run_id: str,
    assemble: Assemble,
    clock: Callable[[], float],
) -> Run:
    """The run by the first of the job files that can be read here and that its plan fits.

    Raises ConfigError if none is noted, what speaks against the one there is, or against each of several; Transient if
    that may pass for one of them.
    """
    if not job_files:
        raise ConfigError(f"job {turn.job}, window {turn.window}: it is not noted which job file its run goes by")
    refused: dict[str, LowtideError] = {}
    for path in dict.fromkeys(job_files):
        try:
            return _fitting_run(_work(root, turn, path, asked, assemble), run_id, clock)
        except CorruptJournal:
            raise
        except LowtideError as error:
            refused[path] = error
    errors = list(refused.values())
    if len(errors) == 1:
        raise errors[0]
    told = "".join(f"\n  {path}: {error}" for path, error in refused.items())
    kind = next(
        (kind for kind in (Transient, StalePlan) if any(isinstance(error, kind) for error in errors)), ConfigError
    )
    raise kind(f"none of the job files of run {run_id} can be used here:{told}")


def _fitting_run(work: Work, run_id: str, clock: Callable[[], float]) -> Run:
    """The run, to be advanced with this work. Raises StalePlan if its plan was made for another."""
    found = engine.find_run(work, run_id=run_id, clock=clock)
    if found is None:
        raise StalePlan(f"run {run_id} has no plan under {work.root.uri}")
    run = engine.with_chores(found)
    if run.decide().done and not run.chores:
        return run
    run.fit.check()
    plan = run.plan
    if not run.state.build_finished and run_id_of(work, plan.inputs_sha256, plan.refresh) != plan.run_id:
        raise StalePlan(
            f"run {plan.run_id} has not read its documents, and the job file would read others, or otherwise"
        )
    return run


def take_turns(
    root: Store,
    assemble: Assemble,
    advance: Callable[[Run], str],
    failed: Callable[[Turn, Run | None, Taken], None] = lambda turn, run, taken: None,
) -> Iterator[Taken]:
    """Each open run once, whatever happens to the others. `advance` makes one pass, and says where the run stands.

    A run whose note cannot be read is told of by itself. `failed` hears of those that something stood in the way of; it
    must not raise.
    """
    for turn in turns(root):
        yield from _take(root, turn, assemble, advance, failed)


def _take(
    root: Store,
    turn: Turn,
    assemble: Assemble,
    advance: Callable[[Run], str],
    failed: Callable[[Turn, Run | None, Taken], None],
) -> Iterator[Taken]:
    def stopped(error: Exception, run_id: str) -> Taken:
        outcome: Literal["troubled", "failed"] = "troubled" if isinstance(error, Transient) else "failed"
        taken = Taken(turn.job, turn.window, run_id, outcome, error=in_words(error))
        # Without the trace, which may hold what a document says.
        _LOG.error("job %s, window %s, run %s: %s", turn.job, turn.window, run_id, taken.error)
        failed(turn, run, taken)
        return taken

    run: Run | None = None
    about = turn.notes[0].run_id
    try:
        notes = _read_notes(root, turn)
        for note, asked in notes.items():
            if isinstance(asked, CorruptJournal):
                yield stopped(asked, note.run_id)
        about = next((note.run_id for note, asked in notes.items() if isinstance(asked, Asked)), about)
        run = run_of(root, turn, notes, assemble)
        if run is None:
            return
        taken = Taken(turn.job, turn.window, run.plan.run_id, "advanced", advance(run), _trouble(run))
        _close(root, turn, run)
        yield taken
    except Exception as error:
        yield stopped(error, run.plan.run_id if run else about)


def _trouble(run: Run) -> str:
    """What the pass could not do, and may be able to next time: of the run, and of those before it."""
    said = (run.trouble, run.lookout.blind, *(before.lookout.blind for before in run.before))
    return "; ".join(dict.fromkeys(each for each in said if each))


def _close(root: Store, turn: Turn, run: Run) -> None:
    """Take back the note of a run that has nothing left to do: its process died before it could do that itself."""
    state = run.refresh()
    for note in turn.notes:
        # One that was written later is that of somebody who asks for the run again just now.
        if note.run_id == run.plan.run_id and note.at <= state.published_at:
            openruns.close_ended(root, *_key(note), lambda: bool(run.refresh().published_at))
    run.close_dropped()


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


def _work(root: Store, turn: Turn, job_file: str, asked: Asked, assemble: Assemble) -> Work:
    others = tuple(path for path in asked.job_files if path != job_file)
    work = assemble(job_file, turn.window, msgspec.structs.replace(asked, job_file=job_file, others=others))
    if (work.job, work.root.uri) != (turn.job, root.uri):
        raise StalePlan(
            f"{job_file}: is for job {work.job} under {work.root.uri} now; run {turn.notes[0].run_id} was begun "
            f"for job {turn.job} under {root.uri}: put the job file back until that is finished"
        )
    return work
