"""The backend `spot`: shards in folders of the root, pulled and answered by workers on machines that may go away."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal

import msgspec

from lowtide import ids
from lowtide.connectors.backends.openai_batch.answers import parse_answer
from lowtide.connectors.backends.openai_batch.requests import RequestEncoder, Value
from lowtide.connectors.backends.spot.accounting import Accounts
from lowtide.connectors.backends.spot.accounts import Account
from lowtide.connectors.backends.spot.engines import examine_engine
from lowtide.connectors.backends.spot.launching import Launcher
from lowtide.connectors.backends.spot.names import FOLDER, Place, place_of
from lowtide.connectors.backends.spot.purses import Purses
from lowtide.connectors.backends.spot.rates import Rates
from lowtide.connectors.backends.spot.staffing import PAUSE, Staff
from lowtide.connectors.backends.spot.watching import Crew, Crews, ShardFiles, end_of, holds_of, look, store_time
from lowtide.errors import LowtideError, NotFound, OurBug, QuotaFull, StoreError, SubmitUnknown, Terminal, Transient
from lowtide.operations import Operation
from lowtide.protocols import Store
from lowtide.records import Answer, BatchStatus, Compute, Finding, Limits, OutputFile, Request, Shard
from lowtide_worker import layout
from lowtide_worker.layout import END, TASK, Claim, End, Fleet, Outcome, Task, number_of

RECORDS = 1_000_000
"""The most requests in a shard: a worker holds a byte for each, and reads all earlier answers when it takes it over."""

BYTES = 64 << 30
REQUEST_BYTES = 8 << 20
"""More than the longest contexts of open models, 1 million tokens, take in any language's usual text."""

LIVE = 100
"""Shards that may be open at once. It costs nothing to have them wait; each is looked at once in every poll."""

BOOT_SECONDS = 300.0
"""What plans take for the start of an instance, its image and the model's weights: an assumption, until runs tell."""

_ENDING_SECONDS = 30.0
"""What a worker takes to begin and to end, beside the boot of its machine."""

_ORCHESTRATOR = "orchestrator"
"""Stands in a claim in place of a worker: it has no beat, and asks nothing."""

_TAIL = 1 << 16
_CUSTOM_ID = re.compile(rb'"custom_id":"([0-9a-z]+)"')

# Clocks that count on are a little apart from those that are set.
_CLOCKS = 0.05


class SpotBackend:
    """Shards for the workers of one model. `root` is the store that the run lies in, and so do its fleets.

    `fleet` is how workers work. At most `workers` are asked of the launcher. Raises nothing and calls nobody when it is
    made. `clock` counts in seconds.
    """

    name = "spot"
    places: tuple[str, ...] = ()

    def __init__(
        self,
        root: Store,
        fleet: Fleet,
        launcher: Launcher,
        rates: Rates,
        *,
        provider: str,
        region: str,
        workers: int,
        encoder: RequestEncoder,
        parameters: Mapping[str, Value],
        poll_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.region = region
        self.limits = Limits(
            records=RECORDS,
            bytes=BYTES,
            request_bytes=REQUEST_BYTES,
            live_batches=LIVE,
            consistent_lookup=True,
            poll_seconds=poll_seconds,
            machines=workers,
            boot_seconds=BOOT_SECONDS if provider == "aws" else 0.0,
        )
        # Of processes nobody pays the machine's boot: it was not started for them.
        fleet = msgspec.structs.replace(fleet, rented=fleet.rented and launcher.name != "process")
        self._root = root
        self._fleet = fleet
        self._launcher = launcher
        self._rates = rates
        self._encoder = encoder
        self._parameters = dict(parameters)
        self._crews = Crews(root)
        self._accounts = Accounts(root, rates)
        pause = PAUSE if poll_seconds is None else poll_seconds / 2
        self._purses = Purses(root, self._accounts, rented=fleet.rented, pause=pause, clock=clock)
        self._staff = Staff(root, fleet, launcher, self._crew, most=workers, pause=pause, clock=clock)

    @property
    def model(self) -> str:
        """The model, by the name that the engine knows it by."""
        return self._fleet.model

    @property
    def parameters(self) -> Mapping[str, Value]:
        """The job's parameters, and how a schema is asked for."""
        return self._parameters

    def usd_per_hour(self) -> Decimal | None:
        """What one worker costs an hour at most, by today's prices; None where nobody knows.

        Raises Transient or Terminal.
        """
        return self._rates.most_per_hour()

    def refusal(self, operation: Operation) -> str | None:
        """Language models can do every operation."""
        return None

    def encode(self, request: Request) -> bytes:
        """A line of OpenAI's batch input, for chat completions."""
        return self._encoder.encode(request)

    def submit(self, shard: Shard, token: str) -> str:
        """Write the shard's task: it exists from then on. The same token gives the same batch, however often."""
        place = _known(token)
        if not 0 < shard.records <= RECORDS or shard.size > BYTES:
            raise OurBug(
                f"{shard.uri!r} has {shard.records:,} requests and {shard.size:,} bytes; a shard takes {RECORDS:,} and "
                f"{BYTES:,}"
            )
        task = Task(
            requests=shard.uri,
            records=shard.records,
            size=shard.size,
            ordinals=None if shard.attempt == 1 else _last_ordinal(shard) + 1,
            seconds=self._seconds_for(shard),
        )
        self._staff.tell(place.fleet, anew=True)
        try:
            self._root.put_if_absent(place.path(TASK), msgspec.json.encode(task))
        except (Transient, StoreError) as error:
            raise SubmitUnknown(f"{self._root.uri_of(place.path(TASK))}: {error}") from error
        # Workers are asked for when it is polled, for all that were submitted by then at once.
        self._staff.expect(place)
        return token

    def find(self, token: str) -> Sequence[str]:
        """The batch with this token, seen as soon as it was submitted. There is never more than one."""
        place = place_of(token)
        return [token] if place is not None and self._root.info(place.path(TASK)) is not None else []

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the shard stands; sees to it that workers run. Raises Terminal where they cannot.

        What its time cost is known once the worker that ended it has said so, seconds after the end.
        """
        place = _known(batch_id)
        files = look(self._root, place)
        if not files.task:
            reason = f"{self._root.uri_of(place.path(TASK))} is not there; was it deleted?"
            return BatchStatus("missing", "failed", reason=reason)
        if files.ended:
            return self._result(place, files)
        crew = self._crew(place.fleet, files.cancelled or 0.0)
        if files.cancelled is not None:
            if self._is_left(files, crew):
                self._end_in_place(place, files, "cancelled", "nobody was at it")
            return BatchStatus("cancelling", answered=crew.answered(place.shard))
        left, start = self._purses.left(place, crew), self.limits.boot_seconds + _ENDING_SECONDS
        if left is not None and left < start:
            return self._without_more_workers(place, files, crew)
        reason = ""
        try:
            self._staff.ensure(place, most=None if left is None else len(crew.living) + int(left / start))
        except (SubmitUnknown, QuotaFull, Transient) as error:
            # Nothing is known of the shard by that; it waits, or others work at it.
            reason = str(error)
        state = "working" if files.claims else "waiting"
        return BatchStatus(state, answered=crew.answered(place.shard), reason=reason)

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        """`answers.jsonl`: all parts, in their order. Nothing if no record was answered."""
        place = _known(batch_id)
        files = look(self._root, place)
        if files.parts:
            yield OutputFile("answers.jsonl", self._joined(files))
        elif files.ended and end_of(self._root, place).answered:
            raise Transient(f"the answers of {batch_id!r} were removed: whoever has collected them goes on from there")

    def parse(self, line: bytes) -> Answer | None:
        """See `openai_batch.answers`."""
        return parse_answer(line)

    def cancel(self, batch_id: str) -> None:
        """The worker stops asking within seconds, and writes what was answered. No effect on what has ended."""
        place = _known(batch_id)
        if self._root.info(place.path(END)) is None and self._root.info(place.path(TASK)) is not None:
            # Each time anew: so its time tells what o'clock it is at the store, and who has given no sign since.
            self._root.write(place.path(layout.CANCEL), b"")

    def discard(self, batch_id: str) -> None:
        """Delete answers, and all claims but the last. Task and end stay: whoever comes late finds the shard done."""
        place = _known(batch_id)
        files = look(self._root, place)
        if files.task and not files.ended:
            raise Transient(f"batch {batch_id!r} has not ended and still needs its files")
        for info in (*files.parts, *files.claims[:-1]):
            self._root.delete(info.path)
        self._root.delete(place.path(layout.CANCEL))

    def examine(self) -> Iterator[Finding]:
        """The root, the engine as workers will start it, and what the launcher needs."""
        try:
            next(iter(self._root.list(FOLDER)), None)
            yield Finding("shards", True, f"in {self._root.uri_of(FOLDER.rstrip('/'))}")
        except (Transient, StoreError) as error:
            yield Finding("shards", False, str(error))
        yield examine_engine(self._fleet.engine, self.model, here=self._launcher.name == "process")
        yield from self._launcher.examine()

    def _seconds_for(self, shard: Shard) -> float | None:
        """For how long workers may be at the shard, all together, so that it stays within what is reserved for it."""
        if shard.may_cost is None:
            return None
        hourly = self._rates.most_per_hour()
        return float(shard.may_cost * 3600 / hourly) if hourly else None

    def _crew(self, fleet: str, now: float = 0.0) -> Crew:
        return self._crews.of(fleet, self._fleet.lease_seconds, now)

    def _is_left(self, files: ShardFiles, crew: Crew) -> bool:
        """Whether nobody works at the shard who would end it."""
        holds = holds_of(self._root, files)
        if not holds:
            return not files.claims
        last = holds[-1].worker
        return last in crew.gone or (last not in crew.workers and crew.now - holds[-1].at > self._fleet.lease_seconds)

    def _without_more_workers(self, place: Place, files: ShardFiles, crew: Crew) -> BatchStatus:
        """Where what is reserved would not last for another worker: those that live go on, or else it ends here."""
        crew = self._crew(place.fleet, store_time(self._root, place.fleet))
        if not crew.living:
            self._end_in_place(place, files, "partial", "what is reserved for it does not last for another worker")
        reason = "what is reserved is nearly used up: no further worker is started"
        return BatchStatus("working", answered=crew.answered(place.shard), reason=reason)

    def _end_in_place(self, place: Place, files: ShardFiles, outcome: Outcome, reason: str) -> None:
        """Write a shard's end in a worker's place, under a claim, so that no worker begins with it."""
        number = max((number_of(info.path) for info in files.claims), default=0) + 1
        claim = msgspec.json.encode(Claim(worker=_ORCHESTRATOR, at=time.time()))
        if not self._root.put_if_absent(place.path(f"claims/{number:06d}"), claim):
            return
        answered = errors = 0
        for info in look(self._root, place).parts:
            for line in filter(None, self._root.read(info.path).split(b"\n")):
                try:
                    answer = parse_answer(line)
                except ValueError:
                    # It was answered, and is paid; that it cannot be read is found out when it is collected.
                    answered, errors = answered + 1, errors + 1
                    continue
                answered += answer is not None
                errors += answer is not None and answer.status == "error"
        end = End(outcome=outcome, answered=answered, errors=errors, at=time.time(), reason=reason)
        self._root.put_if_absent(place.path(END), msgspec.json.encode(end))

    def _result(self, place: Place, files: ShardFiles) -> BatchStatus:
        """How the shard has ended, with its account; none yet while that waits for a worker's beat."""
        end = end_of(self._root, place)
        last = self._staff.closed(place)
        if last:
            with contextlib.suppress(LowtideError):
                (self._launcher.stop if end.outcome == "cancelled" else self._launcher.release)(place.fleet)
        account = self._account(place, files, end)
        if account is None:
            return BatchStatus("accounting", answered=end.answered)
        compute = tuple(
            Compute(
                seconds=charge.seconds,
                usd_per_second=charge.usd_per_second,
                waste=charge.waste,
                machine=charge.instance_type,
                zone=charge.zone,
                source=charge.source,
            )
            for charge in account.charges
        )
        return BatchStatus(
            provider_state=end.outcome,
            outcome=end.outcome,
            answered=end.answered,
            reason=end.reason,
            # Errors are among them: where others were not asked yet, nothing follows from the number.
            charged=end.answered if end.outcome == "completed" or not end.answered else None,
            # What was reserved is used up, and something came of it: it is asked on, for as long as the caps allow. Or
            # nothing was there for it, until the time of workers that died is accounted for.
            fault="quota" if end.outcome == "partial" and (end.answered > end.errors or not account.charges) else "",
            region=next((charge.region for charge in account.charges if charge.region), ""),
            compute=compute,
        )

    def _account(self, place: Place, files: ShardFiles, end: End) -> Account | None:
        account = self._accounts.of(place.fleet, place.shard)
        if account is not None:
            return account
        holds = holds_of(self._root, files)
        info = self._root.info(place.path(END))
        ended = info.modified.timestamp() if info is not None else 0.0
        crew = self._crew(place.fleet, ended)
        if holds and not self._has_told(holds[-1].worker, crew, end):
            # A worker that dies within seconds of a shard's end says nothing more. How long ago that was is told by the
            # store, to whichever process looks.
            now = store_time(self._root, place.fleet)
            if now - ended <= self._fleet.lease_seconds:
                return None
            crew = self._crew(place.fleet, now)
        beats = [seen.beat for seen in crew.workers.values()]
        if not self._fleet.rented:
            beats = [msgspec.structs.replace(beat, up_before=None) for beat in beats]
        unkept = crew.unkept(holds, files)
        return self._accounts.make(
            place.fleet, place.shard, beats, crew.gone, unkept, lambda before: self._purses.most(place, before)
        )

    @staticmethod
    def _has_told(worker: str, crew: Crew, end: End) -> bool:
        """Whether the worker's beat is younger than the shard's end, so that all of its time at it is known."""
        if worker == _ORCHESTRATOR:
            return True
        seen = crew.workers.get(worker)
        return seen is not None and (seen.beat.at >= end.at - _CLOCKS or worker in crew.gone)

    def _joined(self, files: ShardFiles) -> Iterator[bytes]:
        for info in files.parts:
            try:
                data = self._root.read(info.path)
            except NotFound as error:
                raise Transient(f"{info.uri!r} was removed while it was read") from error
            yield data if data.endswith(b"\n") else data + b"\n"


def workers_for(most: int, max_usd_per_hour: Decimal | None, usd_per_hour: Decimal) -> int:
    """How many workers a cap allows at that price of each, at most `most`."""
    if max_usd_per_hour is None or not usd_per_hour:
        return most
    return min(most, math.floor(max_usd_per_hour / usd_per_hour))


def _last_ordinal(shard: Shard) -> int:
    """The ordinal of the last line, which is the highest: what an earlier attempt has left is in order."""
    length = 0
    with shard.open() as source:
        while length < shard.size:
            length = min(max(2 * length, _TAIL), shard.size)
            source.seek(shard.size - length)
            _, newline, line = source.read(length).rstrip(b"\n").rpartition(b"\n")
            if newline or length == shard.size:
                found = _CUSTOM_ID.search(line)
                ordinal = ids.ordinal_of(found[1].decode()) if found else -1
                if ordinal >= shard.records - 1:
                    return ordinal
                break
    raise Terminal(f"{shard.uri!r} does not end in a request of this backend: build the shard again")


def _known(token: str) -> Place:
    place = place_of(token)
    if place is None:
        raise Terminal(f"{token!r} is no batch of this backend: expected lt-<run>-<nonce>-s<shard>-a<attempt>")
    return place
