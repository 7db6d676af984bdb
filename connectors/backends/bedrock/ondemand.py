"""Batches of our own for what is too little for a job: each record is asked on demand, once, whoever asks it.

A batch is a folder of the run's root, `ondemand/<token>/`:

    requests.jsonl         the request lines
    batch.json             says with which model and in which form; the batch exists once this does
    claims/<record id>     written before a record is asked, by put-if-absent: whoever wrote it asks, and nobody else
    answers/<record id>    written behind it: the record's line, as a job would have written it, and for good
    cancelled              nothing more is asked
    discarded              written before anything of the batch is removed, and never removed itself

A claim without an answer is somebody's question on its way. If its process is gone, the answer may have been written
and paid, and nobody can fetch it: the record gets an error, and is not asked again. A claim is withdrawn only by its
owner, and only if the model has certainly not been asked.

Claims are removed with the batch, so a process that was suspended before its first claim would win them all again. It
sees `discarded` then: a claim of a discarded batch is won only after that was written, and whoever wins a claim looks
at `discarded`, `cancelled` and the record's answer directly before each call. What is left is the time between this
look and the call. Who is suspended there for longer than a claim lasts (six to seven minutes, and the clocks' skew) is
given up for lost, and asks and pays afterwards for an answer that nobody fetches: still once for that record, since
nobody else can win its claim.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from lowtide.connectors.backends.bedrock import names
from lowtide.connectors.backends.bedrock.answers import parse
from lowtide.connectors.backends.bedrock.asking import Ask, Invocation, Line, NotAsked, Pace, ask, lost
from lowtide.connectors.backends.bedrock.connection import CALL_SECONDS, Aws
from lowtide.decisions import CLOCK_SKEW
from lowtide.errors import LowtideError, NotFound, StoreError, Terminal, Transient
from lowtide.ownership import is_alive, this_owner
from lowtide.protocols import Store
from lowtide.records import BatchStatus, OutputFile, Shard, Usage

SLICE_SECONDS = 30.0
"""How long one poll begins new calls; those that are under way are waited for."""

THREADS = 8

_FOLDER = "ondemand"
_DISCARDED = "discarded"
_STORING_TRIES = 5
_LARGEST_LINE = 1 << 28
_RECORD = re.compile(r"[A-Za-z0-9_-]{1,128}")


_ask: msgspec.json.Decoder[Ask] = msgspec.json.Decoder(Ask)


class _Batch(msgspec.Struct, frozen=True):
    model: str
    invocation: Invocation
    records: int
    created_at: float


class _Claim(msgspec.Struct, frozen=True):
    owner: str
    expires: float


@dataclass(frozen=True)
class _Look:
    """What lies in a batch's folder: the ids of the records that are claimed and that are answered."""

    batch: _Batch
    claimed: frozenset[str]
    answered: frozenset[str]
    cancelled: bool

    @property
    def open(self) -> frozenset[str]:
        """Claimed, and not answered."""
        return self.claimed - self.answered


@dataclass
class _Work:
    """One poll's share of a batch."""

    folder: str
    batch: _Batch
    until: float
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[LowtideError] = field(default_factory=list)


class Lane:
    """The batches on demand under one root. Any number of processes may poll the same one."""

    def __init__(
        self,
        root: Store,
        aws: Aws,
        model: str,
        invocation: Invocation,
        *,
        slice_seconds: float = SLICE_SECONDS,
        threads: int = THREADS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._aws = aws
        self._model = model
        self._invocation: Invocation = invocation
        self._slice = slice_seconds
        self._threads = threads
        self._clock = clock
        self._owner = this_owner()
        self._asking: set[str] = set()
        self._pace = Pace()

    def owns(self, batch_id: str) -> bool:
        """Whether this is the id of a batch on demand."""
        return batch_id.startswith(f"{_FOLDER}/")

    def submit(self, shard: Shard, token: str) -> str:
        """Make the batch; nobody is asked yet. The same token gives the same batch, and one that was discarded is not
        made again. Raises Transient or Terminal.
        """
        if not names.is_token(token):
            raise Terminal(f"{token!r} cannot be the name of a batch: letters, digits and inner '-', at most 63")
        folder = f"{_FOLDER}/{token}"
        if self._is_discarded(folder):
            return folder
        batch = _Batch(self._model, self._invocation, shard.records, self._clock())
        try:
            if self._root.info(f"{folder}/batch.json") is None:
                with shard.open() as source:
                    data = source.read()
                _check(shard, data)
                self._root.write(f"{folder}/requests.jsonl", data)
                self._root.put_if_absent(f"{folder}/batch.json", msgspec.json.encode(batch))
                if self._is_discarded(folder):
                    # Another process has made, ended and discarded it meanwhile.
                    self._remove(folder)
        except StoreError as error:
            raise Terminal(f"the requests cannot be written to {self._root.uri!r}: {error}") from error
        return folder

    def find(self, token: str) -> list[str]:
        """The batch with this token, seen as soon as it was made."""
        folder = f"{_FOLDER}/{token}"
        there = self._root.info(f"{folder}/batch.json") is not None
        return [folder] if there and not self._is_discarded(folder) else []

    def poll(self, batch_id: str) -> BatchStatus:
        """Ask what nobody has asked yet, for a while, and say how far it is.

        Raises Transient, and Terminal for what would fail every record: nothing was asked then that is not recorded.
        """
        look = self._look(batch_id)
        failure: LowtideError | None = None
        if len(look.answered) < look.batch.records:
            self._give_up_the_dead(batch_id, look)
            if not look.cancelled:
                failure = self._work(batch_id, look)
            look = self._look(batch_id)
        if len(look.answered) >= look.batch.records:
            return self._ended(batch_id, look, "completed")
        if look.cancelled:
            if look.open:
                return BatchStatus("stopping", answered=len(look.answered))
            return self._ended(batch_id, look, "cancelled")
        if failure is not None:
            raise failure
        return BatchStatus("asking", answered=len(look.answered))

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        """`answers.jsonl`: one line for each record that has been asked. Its chunks raise Transient, rather than end
        too early, if the batch is discarded while they are read.
        """
        yield OutputFile("answers.jsonl", (line + b"\n" for line in self._lines(batch_id)))

    def cancel(self, batch_id: str) -> None:
        """Nothing more is asked; what is being asked is waited for. No effect on a batch that has ended."""
        if self._root.info(f"{batch_id}/batch.json") is not None:
            self._root.put_if_absent(f"{batch_id}/cancelled", b"{}")

    def discard(self, batch_id: str) -> None:
        """Remove an ended batch, but for the mark that says so."""
        if next(iter(self._root.list(f"{batch_id}/")), None) is None:
            return
        self._root.put_if_absent(f"{batch_id}/{_DISCARDED}", b"{}")
        self._remove(batch_id)

    def _remove(self, batch_id: str) -> None:
        # Requests first: a process that finds answers and claims gone finds nothing to ask either.
        self._root.delete(f"{batch_id}/requests.jsonl")
        for info in list(self._root.list(f"{batch_id}/")):
            if info.path not in {f"{batch_id}/batch.json", f"{batch_id}/{_DISCARDED}"}:
                self._root.delete(info.path)
        self._root.delete(f"{batch_id}/batch.json")

    def _is_discarded(self, batch_id: str) -> bool:
        return self._root.info(f"{batch_id}/{_DISCARDED}") is not None

    def _gone(self, batch_id: str) -> Transient:
        # Collected and discarded by another process meanwhile, so there is nothing to be said of it here.
        return Transient(f"{self._root.uri_of(batch_id)!r} holds no batch on demand (any more)")

    def _look(self, batch_id: str) -> _Look:
        """Raises Transient if the batch is not there, or not wholly any more."""
        try:
            batch = msgspec.json.decode(self._root.read(f"{batch_id}/batch.json"), type=_Batch)
        except NotFound:
            raise self._gone(batch_id) from None
        claimed, answered, cancelled = set(), set(), False
        for info in self._root.list(f"{batch_id}/"):
            kind, _, record = info.path[len(batch_id) + 1 :].partition("/")
            if kind == _DISCARDED:
                # Listed behind answers and claims, so a listing that misses some of those has it.
                raise self._gone(batch_id)
            if kind == "claims":
                claimed.add(record)
            elif kind == "answers":
                answered.add(record)
            cancelled |= kind == "cancelled"
        return _Look(batch, frozenset(claimed), frozenset(answered), cancelled)

    def _give_up_the_dead(self, batch_id: str, look: _Look) -> None:
        """Give a final error to what was asked by somebody who is gone."""
        for record in look.open:
            try:
                claim = msgspec.json.decode(self._root.read(f"{batch_id}/claims/{record}"), type=_Claim)
            except NotFound:
                continue
            if self._is_dead(claim, f"{batch_id}/{record}"):
                self._root.put_if_absent(f"{batch_id}/answers/{record}", lost(record))

    def _is_dead(self, claim: _Claim, place: str) -> bool:
        if claim.owner == self._owner:
            return place not in self._asking
        # No call lasts as long as a claim, so whoever has not answered by then has been suspended at the least.
        return is_alive(claim.owner) is False or self._clock() > claim.expires + CLOCK_SKEW

    def _work(self, batch_id: str, look: _Look) -> LowtideError | None:
        """Ask what is not claimed. Returns what would fail every record."""
        try:
            # Read behind the listing, so that what is being discarded is never asked.
            asks = _asks(self._root.read(f"{batch_id}/requests.jsonl"))
        except NotFound:
            raise Transient(f"{self._root.uri_of(batch_id)!r} holds no requests (any more)") from None
        unclaimed = [
            item for item in asks if item.record_id not in look.claimed and item.record_id not in look.answered
        ]
        work = _Work(batch_id, look.batch, time.monotonic() + self._slice)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="lowtide-ondemand") as pool:
            try:
                for _ in pool.map(lambda item: self._one(work, item), unclaimed):
                    pass
            finally:
                work.stop.set()
        return work.failures[0] if work.failures else None

    def _one(self, work: _Work, request: Ask) -> None:
        """Claim the record, ask, and keep the answer; withdraw the claim if it was not asked."""
        record = request.record_id
        if work.stop.is_set() or time.monotonic() > work.until:
            return
        claim, place = f"{work.folder}/claims/{record}", f"{work.folder}/{record}"
        self._asking.add(place)
        try:
            if not self._claimed(claim):
                return
            reply = self._asked(work, request, claim)
            if isinstance(reply, Line):
                self._keep(f"{work.folder}/answers/{record}", reply)
            else:
                self._withdraw(claim)
                self._note(work, reply)
        except LowtideError as error:
            work.failures.append(error)
            work.stop.set()
        finally:
            self._asking.discard(place)

    def _asked(self, work: _Work, request: Ask, claim: str) -> Line | NotAsked:
        def over() -> bool:
            # Looked at behind the claim: whoever cancels sees either the claim, or that nothing is asked any more. The
            # mark of a discarded batch comes last, so that nothing but it stands between its look and the call.
            marks = ("cancelled", f"answers/{request.record_id}", _DISCARDED)
            return any(self._root.info(f"{work.folder}/{mark}") is not None for mark in marks)

        try:
            return ask(self._aws, work.batch.model, work.batch.invocation, request, self._pace, work.until, over)
        except LowtideError:
            # Raised by the look, so before a call.
            self._withdraw(claim)
            raise

    def _claimed(self, claim: str) -> bool:
        """Whether the record is this process's to ask. Raises Transient or StoreError: then it is not asked."""
        expires = self._clock() + self._slice + CALL_SECONDS + 60
        try:
            return self._root.put_if_absent(claim, msgspec.json.encode(_Claim(self._owner, expires)))
        except LowtideError:
            with suppress(LowtideError):
                if msgspec.json.decode(self._root.read(claim), type=_Claim).owner == self._owner:
                    self._withdraw(claim)
            raise

    def _note(self, work: _Work, reply: NotAsked) -> None:
        if reply.error is not None:
            work.failures.append(reply.error)
            work.stop.set()

    def _withdraw(self, claim: str) -> None:
        # If this fails, the record is taken for lost later: that costs an answer, and never a second one.
        with suppress(LowtideError):
            self._root.delete(claim)

    def _keep(self, path: str, reply: Line) -> None:
        """Write down an answer that is paid for. Raises Transient or StoreError: then it is lost."""
        for attempt in range(1, _STORING_TRIES + 1):
            try:
                self._root.put_if_absent(path, reply.data)
                return
            except Transient:
                if attempt == _STORING_TRIES:
                    raise
                time.sleep(0.2 * 2**attempt)

    def _lines(self, batch_id: str) -> Iterator[bytes]:
        files = self._root.list(f"{batch_id}/answers/")
        for content in self._root.read_many(files, largest=_LARGEST_LINE):
            if content.error is not None:
                raise Transient(f"{content.info.uri!r} cannot be read: {content.error}")
            yield content.data
        if self._is_discarded(batch_id):
            raise self._gone(batch_id)

    def _ended(self, batch_id: str, look: _Look, state: str) -> BatchStatus:
        charged = asked = answered = cached = 0
        for line in self._lines(batch_id):
            answer = parse(line)
            if answer is not None and (answer.status in {"ok", "refused"} or answer.input_tokens):
                charged += 1
                asked += answer.input_tokens
                answered += answer.output_tokens
                cached += answer.cached_tokens
        return BatchStatus(
            provider_state=state,
            outcome="cancelled" if state == "cancelled" else "completed",
            answered=len(look.answered),
            charged=charged,
            usage=Usage(input_tokens=asked, output_tokens=answered, cached_tokens=cached),
        )


def _asks(data: bytes) -> list[Ask]:
    return [_ask.decode(line) for line in data.split(b"\n") if line]


def _check(shard: Shard, data: bytes) -> None:
    """Refuse what could never end: a record that is missing, stands twice, or cannot be an object's name."""
    if len(data) != shard.size:
        raise Terminal(f"{shard.uri} holds {len(data)} bytes, and the plan says {shard.size}: build the shard again")
    try:
        records = {item.record_id for item in _asks(data)}
    except ValueError as error:
        raise Terminal(f"{shard.uri} holds a line that is no request: {error}") from error
    if len(records) != shard.records or not all(map(_RECORD.fullmatch, records)):
        raise Terminal(f"{shard.uri} does not hold {shard.records} records with ids of letters, digits, '-' and '_'")
