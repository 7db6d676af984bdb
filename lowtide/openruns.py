"""The runs of a root that were begun and are not finished: one listing finds them all.

    open/<job>/<window>/<run id>    how the run was asked for, as JSON

Whoever comes next, a person or a tick, knows from it which job file the run goes by, and what was asked beyond that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from lowtide.errors import CorruptJournal, NotFound
from lowtide.protocols import Store

FOLDER = "open/"

MOST_OTHERS = 4
"""So many earlier job files of a run are kept, beside the one that it was last asked for with."""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run was asked for, beyond what its plan says.

    `job_file` is the job file's path where the run was last asked for; `others` are those of earlier times, the newest
    first: each machine has its own. The run may cost at most `max_usd`, beside the job file's own caps, and goes to one
    of `backends` (their kinds; all of the job's if there are none). A run of a `backfill` (its id) keeps to its
    `max_usd`, whoever asks for it meanwhile.
    """

    job_file: str = ""
    max_usd: Decimal | None = None
    backends: tuple[str, ...] = ()
    backfill: str = ""
    others: tuple[str, ...] = ()

    @property
    def job_files(self) -> tuple[str, ...]:
        """All job files that the run was asked for with, the newest first."""
        return tuple(path for path in dict.fromkeys((self.job_file, *self.others)) if path)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is open, and how it was asked for. If its note is `unreadable`, that says why, and what to do."""

    job: str
    window: str
    run_id: str
    asked: Asked
    unreadable: str = ""


def path_of(job: str, window: str, run_id: str) -> str:
    """Where it stands that a run is open."""
    return f"{FOLDER}{job}/{window}/{run_id}"


def ids_of(root: Store, job: str, window: str) -> Iterator[str]:
    """The ids of a job's and window's runs that are not known to be finished."""
    for info in root.list(f"{FOLDER}{job}/{window}/"):
        yield info.path.rpartition("/")[2]


def list_open(root: Store) -> Iterator[OpenRun]:
    """All runs of the root that are not known to be finished, in the order of their jobs and windows.

    A note that cannot be read stands in nobody else's way: its run comes with the reason.
    """
    for info in root.list(FOLDER):
        parts = info.path.removeprefix(FOLDER).split("/")
        if len(parts) == 3:
            job, window, run_id = parts
            try:
                asked = read_asked(root, job, window, run_id)
            except CorruptJournal as error:
                yield OpenRun(job, window, run_id, Asked(), str(error))
                continue
            if asked is not None:
                yield OpenRun(job, window, run_id, asked)


def read_asked(root: Store, job: str, window: str, run_id: str) -> Asked | None:
    """How an open run was asked for; None if it is not open. Raises CorruptJournal for what cannot be read."""
    path = path_of(job, window, run_id)
    try:
        return msgspec.json.decode(root.read(path), type=Asked)
    except NotFound:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptJournal(
            f"{root.uri_of(path)}: not a note of an open run that this version knows: {error}; write {{}} into it, and "
            f"ask for job {job}, window {window}, again"
        ) from error


def write_asked(root: Store, job: str, window: str, run_id: str, asked: Asked) -> None:
    """Note that a run is open."""
    root.write(path_of(job, window, run_id), msgspec.json.encode(asked))


def close(root: Store, job: str, window: str, run_id: str) -> None:
    """Note that a run is finished."""
    root.delete(path_of(job, window, run_id))


def close_ended(root: Store, job: str, window: str, run_id: str, ended: Callable[[], bool]) -> None:
    """Note that a run is finished, unless somebody asks for it just now.

    `ended` reads the run anew, and says whether nothing is left to do. Who asks for a run writes its note first, then
    its journal, and looks for the note once more: whichever of the two comes last, the note is there.
    """
    asked = read_asked(root, job, window, run_id)
    if asked is None:
        return
    close(root, job, window, run_id)
    if not ended():
        root.put_if_absent(path_of(job, window, run_id), msgspec.json.encode(asked))


def bounded(asked: Asked, before: Asked | None) -> Asked:
    """What is asked, within what the run was allowed before: by a backfill, or by who named a cap, until it is done.

    The job files of earlier times are kept: who asked last may have done so where no worker ever looks.
    """
    if before is None:
        return asked
    files = tuple(dict.fromkeys((*asked.job_files, *before.job_files)))[: MOST_OTHERS + 1]
    asked = msgspec.structs.replace(asked, job_file=files[0] if files else "", others=files[1:])
    if asked.backfill:
        return asked
    if not before.backfill:
        return asked if asked.max_usd is not None else msgspec.structs.replace(asked, max_usd=before.max_usd)
    caps = [cap for cap in (asked.max_usd, before.max_usd) if cap is not None]
    return msgspec.structs.replace(asked, backfill=before.backfill, max_usd=min(caps, default=None))
