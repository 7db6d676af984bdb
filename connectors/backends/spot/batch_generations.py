"""What stands in a fleet's folder of its jobs at AWS Batch: those that were submitted, and what came of them.

SubmitJob has no client token, so each is written ahead, by put-if-absent:

    jobs/000001.json    what is about to be submitted, and under which name
    jobs/000001.job     what came of it: the job's id, or "" once it is sure that there is none
    jobs/000001.vain    jobs up to here have failed, and nothing was answered: it was given up, for this reason
    jobs/000001.past    workers were stopped: what came up to here is not held against those that follow

Whoever writes the first submits; whoever writes the second decides what is taken for the truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from lowtide.connectors.backends.spot.batch_jobs import Job
from lowtide.connectors.backends.spot.names import in_fleet
from lowtide.connectors.backends.spot.vain import GivenUp, InRow
from lowtide.connectors.backends.spot.watching import Written
from lowtide.errors import NotFound, StoreError
from lowtide.protocols import Store
from lowtide.records import FileInfo

_FILE = re.compile(r"(\d{6})\.(json|job|vain|past)")
_Record = TypeVar("_Record", bound=msgspec.Struct)


class Intent(msgspec.Struct, frozen=True):
    """A job that is about to be submitted, when so much was `written`, and workers were told `how` to work."""

    name: str
    workers: int
    at: float
    written: Written
    how: str = ""


class Placed(msgspec.Struct, frozen=True):
    """What came of an intent; "" as its `job` says that nothing did."""

    job: str
    at: float


@dataclass(frozen=True, slots=True)
class Generation:
    """One job of a fleet, as far as it is known. `placed` is None while its submission is under way, or unknown.

    With it the fleet was `given_up`, at a time of the store's. If it is `past`, neither it nor one before it is held
    against those that follow.
    """

    number: int
    intent: Intent | None
    placed: Placed | None
    given_up: tuple[float, GivenUp] | None
    past: bool


@dataclass
class Generations:
    """Reads them in the fleets of a root. None of the files is ever changed: each is read once."""

    root: Store
    _read: dict[str, tuple[str, msgspec.Struct]] = field(default_factory=dict, init=False, repr=False)

    def of(self, fleet: str) -> list[Generation]:
        """All of them, the oldest first. Raises Transient and StoreError."""
        intents: dict[int, Intent] = {}
        placed: dict[int, Placed] = {}
        given_up: dict[int, tuple[float, GivenUp]] = {}
        past: set[int] = set()
        for info in self.root.list(in_fleet(fleet, "jobs/")):
            found = _FILE.fullmatch(info.path.rpartition("/")[2])
            if found is None:
                continue
            number = int(found[1])
            try:
                if found[2] == "past":
                    past.add(number)
                elif found[2] == "vain":
                    given_up[number] = info.modified.timestamp(), self.record(info, GivenUp)
                elif found[2] == "json":
                    intents[number] = self.record(info, Intent)
                else:
                    placed[number] = self.record(info, Placed)
            except NotFound:
                continue  # It was refused, and taken back by whoever had written it.
        return [
            Generation(number, intents.get(number), placed.get(number), given_up.get(number), number in past)
            for number in sorted({*intents, *placed, *given_up, *past})
        ]

    def record(self, info: FileInfo, kind: type[_Record]) -> _Record:
        """What stands in a file. Raises NotFound where it was removed, and StoreError where it is no such record."""
        # By the etag as well: what was taken back is followed by another of that name.
        etag, known = self._read.get(info.path, ("", None))
        if etag == info.etag and isinstance(known, kind):
            return known
        try:
            found = msgspec.json.decode(self.root.read(info.path), type=kind)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{info.uri!r} is no record of a job: {error}; remove it", uri=info.uri) from error
        self._read[info.path] = info.etag, found
        return found


@dataclass(frozen=True, slots=True)
class Seen:
    """The generations of a fleet, jobs by id as AWS tells of them, and by generation the workers that live, or may."""

    generations: tuple[Generation, ...]
    jobs: Mapping[str, Job]
    workers: Mapping[int, int]

    @property
    def alive(self) -> int:
        return sum(self.workers.values())

    def failed_since(self, written: Written) -> list[Job]:
        """Jobs that failed, the oldest first, and nothing was written since they were submitted.

        Not those that it was given up for.
        """
        return [
            job
            for _, intent, job in self._held_against()
            if job is not None and job.failed and not written.is_more_than(intent.written)
        ]

    def beside_others(self, how: str, has_answered: Callable[[str], bool]) -> InRow:
        """The latest jobs in a row of which no worker has answered anything, whatever others have written meanwhile.

        Only those whose workers were told that way `how` to work.
        """
        failed, last, is_tried = 0, 0.0, False
        for number, intent, job in reversed(self._held_against()):
            if intent.how != how or (job is not None and (job.status == "SUCCEEDED" or has_answered(job.job_id))):
                break
            if job is not None and job.failed:
                failed, last = failed + 1, last or intent.at
            else:
                is_tried = is_tried or self.workers[number] > 0
        return InRow(failed, last, is_tried)

    def given_up(self) -> Iterator[tuple[float, GivenUp]]:
        """When and why the fleet was given up, the oldest first."""
        past = max((one.number for one in self.generations if one.past), default=0)
        return (one.given_up for one in self.generations if one.given_up is not None and one.number > past)

    def _held_against(self) -> list[tuple[int, Intent, Job | None]]:
        past = max((one.number for one in self.generations if one.past or one.given_up), default=0)
        return [
            (one.number, one.intent, self.jobs.get(one.placed.job) if one.placed is not None else None)
            for one in self.generations
            if one.number > past and one.intent is not None
        ]
