"""Workers on AWS Batch: one job after the other, each an array of workers, for as long as shards are unfinished.

What is kept of them stands in the fleet's folder: see `batch_generations`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import msgspec

from lowtide.connectors.backends.spot import batch_examine
from lowtide.connectors.backends.spot.aws import Aws
from lowtide.connectors.backends.spot.batch_generations import Generation, Generations, Intent, Placed, Seen
from lowtide.connectors.backends.spot.batch_jobs import LARGEST_ARRAY, Job, Jobs
from lowtide.connectors.backends.spot.batch_silence import Silence
from lowtide.connectors.backends.spot.spot_prices import SpotPrices
from lowtide.connectors.backends.spot.vain import GivenUp, Tries, how_of, tries_of
from lowtide.connectors.backends.spot.watching import Shards, Written, shards_of, store_time
from lowtide.errors import ConfigError, QuotaFull, Terminal, Transient
from lowtide.protocols import Store
from lowtide.records import Finding

_JOBS = "lt-"
_REASON = "Lowtide has no more work for it"
_KEYS = ("engine", "in_flight", "queue", "job_definition")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where workers run, on what, and how many.

    `queue` and `definition` are names or ARNs. Workers x the dearest Spot price of `instances` stays within
    `max_usd_per_hour`, those of other runs in the queue included. A job that cannot be found `grace_seconds` after it
    was to be submitted is not there. After `in_vain` jobs that failed while nothing new was written, the fleet is given
    up; it is tried again as `vain.Tries` says, and beside workers that get something done as `vain.InRow` does. What
    was seen is believed for `look_seconds`.
    """

    queue: str
    definition: str
    instances: tuple[str, ...]
    max_usd_per_hour: Decimal | None = None
    timeout_seconds: int = 86_400
    grace_seconds: float = 120.0
    look_seconds: float = 10.0
    in_vain: int = 5


@dataclass
class BatchLauncher:
    """Implements `launching.Launcher`. `root` is the store that fleets lie in, as `spot/<fleet>/`."""

    aws: Aws
    root: Store
    settings: Settings
    prices: SpotPrices
    clock: Callable[[], float] = time.time
    name: str = "batch"
    _looked: dict[str, tuple[float, int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._silence = Silence(self.root, self.clock)
        self._generations = Generations(self.root)

    @property
    def _jobs(self) -> Jobs:
        return Jobs(self.aws, self.settings.queue, self.settings.definition, self.settings.timeout_seconds)

    def ensure(self, fleet: str, uri: str, workers: int) -> None:
        """See to it that up to `workers` workers run, or are queued, as far as `max_usd_per_hour` goes.

        One job is submitted for those that are missing, but never more than there are unfinished shards. Raises
        SubmitUnknown (the next call looks for the job), QuotaFull (also where the price has risen over what was
        allowed), Transient, ConfigError where queue or job definition are not there, and Terminal: where AWS refuses
        the job otherwise, or one after the other fails in vain; see `vain.Tries` for when it is tried again.
        """
        seen_at, alive = self._looked.get(fleet, (float("-inf"), 0))
        if alive >= workers and self.clock() - seen_at < self.settings.look_seconds:
            return
        seen = self._see(fleet)
        self._end_silent(fleet, seen)
        shards = shards_of(self.root, fleet)
        missing = min(workers, shards.unfinished, LARGEST_ARRAY) - seen.alive
        if missing <= 0:
            return
        how = how_of(self.root, fleet, self.settings.queue, self.settings.definition)
        missing = self._missing(fleet, seen, how, shards, missing)
        room = self._room(fleet, seen.alive) if missing > 0 else 0
        if room > 0:
            self._submit(fleet, uri, seen, how, min(missing, room), shards.written)

    def running(self, fleet: str) -> int:
        """Workers that run or are queued, those included of whom it is not known yet. Raises Transient."""
        return self._see(fleet).alive

    def stop(self, fleet: str) -> None:
        """End all jobs of the fleet, those included whose submission was never confirmed. Raises Transient.

        AWS sends SIGTERM first, and kills what is left of a worker after 30 seconds. None of them is held against those
        that follow.
        """
        self._looked.pop(fleet, None)
        generations = self._generations.of(fleet)
        for job in self._living(fleet, generations):
            self._jobs.end(job.job_id, _REASON)
        self._let_go(fleet, generations)

    def release(self, fleet: str) -> None:
        """Where all shards have ended, give up what is queued; workers that run end by themselves. Raises Transient."""
        if shards_of(self.root, fleet).unfinished:
            return
        self._looked.pop(fleet, None)
        for job in self._living(fleet, self._generations.of(fleet)):
            self._jobs.give_up(job.job_id, _REASON)

    def examine(self) -> Iterator[Finding]:
        """Credentials, queue, compute environments, job definition, and prices of the instance types."""
        yield from batch_examine.findings(
            self.aws,
            self.settings.queue,
            self.settings.definition,
            self.settings.instances,
            self.prices,
            self.settings.max_usd_per_hour,
        )

    def _see(self, fleet: str) -> Seen:
        generations = tuple(self._resolved(fleet, one) for one in self._generations.of(fleet))
        jobs = self._jobs.look([one.placed.job for one in generations if one.placed is not None and one.placed.job])
        seen = Seen(generations, jobs, {one.number: self._workers(one, jobs) for one in generations})
        self._looked[fleet] = self.clock(), seen.alive
        return seen

    def _living(self, fleet: str, generations: Iterable[Generation]) -> list[Job]:
        """Jobs that run or are queued, those included whose submission was never confirmed."""
        ids: list[str] = []
        for one in generations:
            if one.placed is not None and one.placed.job:
                ids.append(one.placed.job)
            else:
                ids += self._jobs.named(_job_name(fleet, one.number))
        return [job for job in self._jobs.look(ids).values() if job.alive]

    def _workers(self, one: Generation, jobs: Mapping[str, Job]) -> int:
        if one.placed is not None and one.placed.job in jobs:
            return jobs[one.placed.job].alive
        # It is being submitted, or AWS does not tell of it yet.
        may_live = one.placed is None or (one.placed.job and not self._past(one.placed.at))
        return one.intent.workers if one.intent is not None and may_live else 0

    def _resolved(self, fleet: str, one: Generation) -> Generation:
        """Look for a job that nobody has confirmed; it is given up only when the grace period is over."""
        if one.placed is not None or one.intent is None:
            return one
        found = self._jobs.named(one.intent.name)
        if not found and not self._past(one.intent.at):
            return one
        return replace(one, placed=self._place(fleet, one.number, found[0] if found else ""))

    def _place(self, fleet: str, number: int, job: str) -> Placed:
        """Write down what came of an intent, unless somebody else has: then theirs counts."""
        path, placed = _path(fleet, f"jobs/{number:06d}.job"), Placed(job, self.clock())
        if self.root.put_if_absent(path, msgspec.json.encode(placed)):
            return placed
        return msgspec.json.decode(self.root.read(path), type=Placed)

    def _past(self, at: float) -> bool:
        # A time that lies far ahead is that of a wrong clock.
        return abs(self.clock() - at) >= self.settings.grace_seconds

    def _missing(self, fleet: str, seen: Seen, how: str, shards: Shards, missing: int) -> int:
        """How many of those that are missing may be tried, by what has failed while nothing new was written.

        Raises Terminal where that is none, and nobody is at work.
        """
        failed = seen.failed_since(shards.written)
        tries = tries_of(len(failed), seen.given_up(), how, shards.written)
        if tries.is_hopeless(self.settings.in_vain) and not seen.alive:
            raise self._give_up(fleet, seen, failed, GivenUp("", how, shards.written)).terminal(_KEYS)
        further = tries.further(self.settings.in_vain, seen.alive, lambda: store_time(self.root, fleet), _KEYS)
        if further is None and seen.alive:
            in_row = seen.beside_others(how, lambda job: self._silence.has_answered(fleet, job))
            further = in_row.further(self.settings.in_vain, self.clock())
        return missing if further is None else min(missing, further)

    def _give_up(self, fleet: str, seen: Seen, failed: Sequence[Job], because: GivenUp) -> Tries:
        """Write down that the fleet is given up; where somebody else has in this moment, theirs counts."""
        last = failed[-1]
        jobs = "one more job of AWS Batch has" if len(failed) == 1 else f"{len(failed)} jobs of AWS Batch have"
        why = (
            f"{jobs} failed, and nothing was answered meanwhile: {self._jobs.why(last) or 'AWS gives no reason'}; look "
            f"at the workers' log for the job {last.job_id!r}"
        )
        path = _path(fleet, f"jobs/{seen.generations[-1].number:06d}.vain")
        self.root.put_if_absent(path, msgspec.json.encode(msgspec.structs.replace(because, why=why)))
        info = self.root.info(path)
        if info is None:
            raise Transient(f"{self.root.uri_of(path)!r} was removed as soon as it was written")
        now = info.modified.timestamp(), self._generations.record(info, GivenUp)
        return replace(tries_of(0, [*seen.given_up(), now], because.how, because.written), why=why)

    def _let_go(self, fleet: str, generations: Sequence[Generation]) -> None:
        if generations and not generations[-1].past:
            self.root.put_if_absent(_path(fleet, f"jobs/{generations[-1].number:06d}.past"), b"")

    def _end_silent(self, fleet: str, seen: Seen) -> None:
        """End workers that give no sign any more, which AWS takes for running: others start in their place."""
        alive = {job.job_id for job in seen.jobs.values() if job.alive}
        suspects = [one for one in self._silence.of(fleet) if one.job.partition(":")[0] in alive]
        jobs = self._jobs.look(sorted({one.job for one in suspects})) if suspects else {}
        for one in suspects:
            since = jobs[one.job].runs_since if one.job in jobs else None
            # A later attempt of the same job has not given its first sign yet.
            if since is not None and since <= one.at:
                self._jobs.end(one.job, "Lowtide has seen no sign of it any more")

    def _room(self, fleet: str, alive: int) -> int:
        """How many workers `max_usd_per_hour` allows to add. Raises QuotaFull where that is none, and none runs."""
        most = self._affordable()
        if self.settings.max_usd_per_hour is None:
            return most - alive
        others = self._jobs.workers_of_others(_JOBS, f"{_JOBS}{fleet}-j")
        room = most - alive - others
        if room <= 0 and not alive:
            instances = ", ".join(self.settings.instances)
            why = (
                f"{others} workers of other runs in the queue use it up; they make room when they have ended"
                if most
                else f"one worker costs more now; wait for a lower Spot price of {instances}, or allow more"
            )
            raise QuotaFull(f"max_usd_per_hour {self.settings.max_usd_per_hour}: {why}")
        return room

    def _affordable(self) -> int:
        """How many workers `max_usd_per_hour` allows, if each has an instance of the dearest type to itself."""
        most = self.settings.max_usd_per_hour
        if most is None:
            return LARGEST_ARRAY
        dearest = Decimal(0)
        for instance in self.settings.instances:
            price = self.prices.dearest_now(instance)
            if price is None:
                raise Terminal(
                    f"instances: AWS knows no Spot price of {instance!r} in {self.aws.region}, so max_usd_per_hour "
                    "cannot be held to; leave it out, or choose another region"
                )
            dearest = max(dearest, price)
        return min(int(most / dearest), LARGEST_ARRAY) if dearest else LARGEST_ARRAY

    def _submit(self, fleet: str, uri: str, seen: Seen, how: str, workers: int, written: Written) -> None:
        number = max((one.number for one in seen.generations), default=0) + 1
        name, path = _job_name(fleet, number), _path(fleet, f"jobs/{number:06d}.json")
        intent = Intent(name, workers, self.clock(), written, how)
        if not self.root.put_if_absent(path, msgspec.json.encode(intent)):
            return  # Somebody else submits it.
        try:
            job = self._jobs.submit(name, uri, workers)
        except (QuotaFull, Transient, Terminal, ConfigError) as error:
            # Nothing was accepted, so there is nothing to look for.
            self.root.delete(path)
            if isinstance(error, Terminal):
                batch_examine.expect(self.aws, self.settings.queue, self.settings.definition)
            raise
        if self._place(fleet, number, job).job != job:
            # We were away for so long that it was given up, and others run in its place.
            self._jobs.end(job, _REASON)
        self._looked[fleet] = self.clock(), seen.alive + workers


def _job_name(fleet: str, number: int) -> str:
    return f"{_JOBS}{fleet}-j{number}"


def _path(fleet: str, name: str) -> str:
    return f"spot/{fleet}/{name}"
