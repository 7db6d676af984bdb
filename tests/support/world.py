"""A small world for one run: a clock, a store, a strict provider, and processes that die or meet at any point.

The provider checks every create call on the spot: a token that it knows, or a record that is open in a batch or was
answered for good, is a request paid twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import orjson
from support.standins import PRICE, ListedDocuments, MemoryStore, echo_operation

from lowtide.engine import Progress, Run, open_run
from lowtide.engine.context import Context
from lowtide.errors import QuotaFull, SubmitUnknown, Terminal, Transient
from lowtide.journal import Journal
from lowtide.operations import Operation
from lowtide.plan import Work
from lowtide.protocols import Store
from lowtide.records import (
    Answer,
    BatchStatus,
    FileContent,
    FileInfo,
    Finding,
    Limits,
    Outcome,
    OutputFile,
    Request,
    Shard,
    Usage,
)
from lowtide.windows import Window

Hook = Callable[[str], None]
"""Called with the name of a point at which a process may die or be overtaken: `before put journal/000003.json`."""

Kind = Literal[
    "ok",
    "same twice",
    "answered twice",
    "invalid",
    "refused",
    "error",
    "try again",
    "expired",
    "silent",
    "stray",
    "torn",
    "lost",
    "cut",
]
"""What the provider makes of a record. `stray` and `torn` stand for a good answer with rubbish before it; `lost` and
`cut` are charged, and their line is missing, or broken.
"""

KINDS: tuple[Kind, ...] = (
    "ok",
    "same twice",
    "answered twice",
    "invalid",
    "refused",
    "error",
    "try again",
    "expired",
    "silent",
    "stray",
    "torn",
    "lost",
    "cut",
)

_FINAL = frozenset({"ok", "same twice", "answered twice", "refused", "error", "stray", "torn"})


class Crash(BaseException):
    """The process ends here. Not an Exception, so nothing that handles errors handles this."""


class WatchedStore:
    """A process's way to a store: every change has a point before it and a point after it."""

    def __init__(self, store: Store, hook: Hook) -> None:
        self._store = store
        self._hook = hook

    @property
    def uri(self) -> str:
        return self._store.uri

    def uri_of(self, path: str) -> str:
        return self._store.uri_of(path)

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        return self._store.list(prefix, after=after)

    def info(self, path: str) -> FileInfo | None:
        return self._store.info(path)

    def read(self, path: str) -> bytes:
        return self._store.read(path)

    def open(self, path: str) -> BinaryIO:
        return self._store.open(path)

    def read_many(self, files: Iterable[FileInfo], *, largest: int) -> Iterator[FileContent]:
        return self._store.read_many(files, largest=largest)

    def write(self, path: str, data: bytes) -> None:
        self._hook(f"before write {path}")
        self._store.write(path, data)
        self._hook(f"after write {path}")

    def writer(self, path: str) -> AbstractContextManager[BinaryIO]:
        @contextmanager
        def watched() -> Iterator[BinaryIO]:
            with self._store.writer(path) as out:
                yield out
                self._hook(f"before write {path}")
            self._hook(f"after write {path}")

        return watched()

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self._hook(f"before put {path}")
        won = self._store.put_if_absent(path, data)
        self._hook(f"after put {path}")
        return won

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        self._hook(f"before replace {path}")
        won = self._store.replace(path, source, expected=expected)
        self._hook(f"after replace {path}")
        return won

    def delete(self, path: str) -> None:
        self._hook(f"before delete {path}")
        self._store.delete(path)
        self._hook(f"after delete {path}")


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Accepted:
    """A batch as the provider keeps it. `said` is what became of each record that it has looked at."""

    batch_id: str
    token: str
    requests: list[dict[str, str]]
    visible_at: float
    said: list[Kind] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    outcome: Outcome | None = None
    stopping: bool = False
    charges: Counter[str] = field(default_factory=Counter)

    @property
    def usage(self) -> Usage:
        """What the provider counts for the whole batch."""
        cached, reasoning = self.charges["cached_input"], self.charges["reasoning"]
        return Usage(self.charges["input"] + cached, self.charges["output"] + reasoning, cached, reasoning)

    @property
    def keys(self) -> list[str]:
        """Names for the records that hold in all attempts: the shard's part of the token, and the record id."""
        shard = self.token.rpartition("-")[0]
        return [f"{shard}/{request['id']}" for request in self.requests]


class StrictProvider:
    """The other side. Raises AssertionError, on the spot, for whatever would be paid twice.

    It `tells` what it charges, or not; then it loses nothing. What it has lost may be asked again once that is
    `forgiven`: somebody wanted it.
    """

    def __init__(self, clock: Callable[[], float], live: int = 100, *, tells: bool = False) -> None:
        self.live = live
        self.tells = tells
        self.forgiven = False
        self.lost: set[str] = set()
        self.batches: dict[str, Accepted] = {}
        self.bill: Counter[str] = Counter()
        self.submissions = 0
        self.answered: set[str] = set()
        self.asked: Counter[str] = Counter()
        self._clock = clock

    @property
    def open(self) -> list[Accepted]:
        return [batch for batch in self.batches.values() if batch.outcome is None]

    def create(self, token: str, data: bytes, lag: float) -> str:
        """Accept a batch; look-ups see it `lag` seconds later."""
        self.submissions += 1
        batch = Accepted(
            f"b{len(self.batches) + 1}", token, [orjson.loads(line) for line in data.splitlines()], self._clock() + lag
        )
        again = [known.batch_id for known in self.batches.values() if known.token == token]
        assert not again, f"{token} is submitted a second time: {again[0]} was accepted under this name"
        busy = {key: known.batch_id for known in self.open for key in known.keys}
        assert batch.requests, f"{token} holds no records"
        assert len(self.open) < self.live, f"{token} is submitted while {self.live} batches are open"
        for key in batch.keys:
            assert key not in busy, f"{key} is submitted in {token} while {busy[key]} holds it"
            assert key not in self.answered, f"{key} is submitted in {token} after it was answered"
            assert self.forgiven or key not in self.lost, f"{key} is submitted in {token} after it was charged"
        self.asked.update(batch.keys)
        self.batches[batch.batch_id] = batch
        return batch.batch_id

    def find(self, token: str) -> str | None:
        for batch in self.batches.values():
            if batch.token == token and batch.visible_at <= self._clock():
                return batch.batch_id
        return None

    def process(self, batch: Accepted, kinds: Sequence[Kind]) -> None:
        """Look at so many more of the batch's records, with these results, and put them on the bill."""
        for kind in kinds:
            if batch.outcome is not None or len(batch.said) >= len(batch.requests):
                return
            request, key = batch.requests[len(batch.said)], batch.keys[len(batch.said)]
            if kind in ("lost", "cut", "silent") and not self.tells:
                # Who does not tell what he charges has a line for everything.
                batch.said.append("expired")
                kind_said: Kind = "expired"
            else:
                batch.said.append(kind)
                kind_said = kind
            if kind_said in ("lost", "cut"):
                [answer] = _answers(request, "ok", len(batch.said))
                self._charge(batch, answer)
                self.lost.add(key)
                if kind == "cut":
                    batch.lines.append(orjson.dumps(answer)[:-4])
                continue
            for answer in _answers(request, kind_said, len(batch.said)):
                line = orjson.dumps(answer)
                if line not in batch.lines:
                    self._charge(batch, answer)
                batch.lines.append(line)
            if kind == "torn":
                batch.lines.append(orjson.dumps({"record_id": request["id"]})[:-4])

    def end(self, batch: Accepted, outcome: Outcome, seed: int = 0) -> None:
        """Do no more on the batch. The output comes in any order."""
        if batch.outcome is not None:
            return
        whole = len(batch.said) == len(batch.requests)
        batch.outcome = "partial" if outcome == "completed" and not whole and not self.tells else outcome
        random.Random(seed).shuffle(batch.lines)
        for key, kind in zip(batch.keys, batch.said, strict=False):
            if kind in _FINAL:
                self.answered.add(key)

    def finish(self, batch: Accepted, kind: Kind = "ok") -> None:
        """Process what is left of the batch, and end it."""
        self.process(batch, [kind] * len(batch.requests))
        self.end(batch, "completed")

    def _charge(self, batch: Accepted, answer: Mapping[str, object]) -> None:
        tokens = {
            name: int(str(answer.get(f"{name}_tokens", 0))) for name in ("input", "cached", "output", "reasoning")
        }
        charges = {
            "input": tokens["input"] - tokens["cached"],
            "cached_input": tokens["cached"],
            "output": tokens["output"] - tokens["reasoning"],
            "reasoning": tokens["reasoning"],
        }
        self.bill.update(charges)
        batch.charges.update(charges)


def _answers(request: Mapping[str, str], kind: Kind, nth: int) -> list[dict[str, object]]:
    """What stands in the output for a record. Token counts differ from record to record, so that sums tell."""

    def answer(status: str, text: object = "", extra: int = 0, **more: object) -> dict[str, object]:
        tokens = {"input_tokens": 20 + nth + extra, "cached_tokens": 3, "output_tokens": 7 + nth, "reasoning_tokens": 2}
        return {"record_id": request["id"], "status": status, "text": text, **tokens, **more}

    good = answer("ok", orjson.dumps({"echo": request["text"]}).decode())
    said: dict[Kind, list[dict[str, object]]] = {
        "ok": [good],
        "torn": [good],
        "same twice": [good, good],
        "answered twice": [good, answer("ok", good["text"], 100)],
        "invalid": [answer("ok", "I cannot do that as JSON")],
        "refused": [answer("refused", error="filtered")],
        "error": [answer("error", error="too long for the model")],
        "try again": [answer("error", error="overloaded", retryable=True)],
        "expired": [answer("unanswered", error="ran out of time")],
        "silent": [],
        "lost": [],
        "cut": [],
        "stray": [good | {"record_id": f"r9999999{request['id'][8:]}"}, good],
    }
    return said[kind]


Fault = Literal["lost", "lost before", "quota", "transient", "terminal"]
"""What goes wrong with a create call. `lost` is accepted, and the answer gets lost; the others are not accepted."""


class WatchedBackend:
    """A process's way to the provider: every call has a point before it and a point after it.

    `faults` are what goes wrong with the next create calls, in order. Batches show in look-ups `lag` seconds late.
    """

    name = "stand-in"
    provider = "nobody"
    region = "here"
    model = "echo-1"
    places: tuple[str, ...] = ()
    parameters: Mapping[str, str | int | float | bool] = {}

    def __init__(self, other_side: StrictProvider, limits: Limits, hook: Hook, *, lag: float = 0.0) -> None:
        self.other_side = other_side
        self.limits = limits
        self.faults: list[Fault | None] = []
        self._hook = hook
        self._lag = lag
        self._decoder = msgspec.json.Decoder(Answer)

    def refusal(self, operation: Operation) -> str | None:
        return None

    def encode(self, request: Request) -> bytes:
        return orjson.dumps({"id": request.record_id, "op": request.operation.name, "text": request.text})

    def submit(self, shard: Shard, token: str) -> str:
        fault = self.faults.pop(0) if self.faults else None
        self._hook("before submit")
        match fault:
            case "lost before":
                raise SubmitUnknown("no answer")
            case "quota":
                raise QuotaFull("no room")
            case "transient":
                raise Transient("connection refused")
            case "terminal":
                raise Terminal("no such model")
            case _:
                with shard.open() as source:
                    data = source.read()
        assert len(data) == shard.size
        batch_id = self.other_side.create(token, data, self._lag)
        assert len(self.other_side.batches[batch_id].requests) == shard.records
        self._hook("after submit")
        if fault == "lost":
            raise SubmitUnknown("connection reset after the request was sent")
        return batch_id

    def find(self, token: str) -> list[str]:
        self._hook("before find")
        found = self.other_side.find(token)
        self._hook("after find")
        return [] if found is None else [found]

    def poll(self, batch_id: str) -> BatchStatus:
        self._hook("before poll")
        batch = self.other_side.batches[batch_id]
        tells = self.other_side.tells and batch.outcome is not None
        status = BatchStatus(
            "Ended" if batch.outcome else "InProgress",
            batch.outcome,
            answered=len(batch.said),
            charged=sum(kind != "silent" for kind in batch.said) if tells else None,
            usage=batch.usage if tells else None,
        )
        self._hook("after poll")
        return status

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        batch = self.other_side.batches[batch_id]
        assert batch.outcome is not None, "the output of a batch is read before it has ended"
        half = len(batch.lines) // 2
        self._hook("before outputs")
        yield OutputFile("a/answers.jsonl", _chunks(b"".join(line + b"\n" for line in batch.lines[:half])))
        self._hook("between outputs")
        yield OutputFile("a/more.jsonl", _chunks(b"\n".join(batch.lines[half:])))

    def parse(self, line: bytes) -> Answer | None:
        try:
            return self._decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError("not an answer") from error

    def cancel(self, batch_id: str) -> None:
        self._hook("before cancel")
        self.other_side.batches[batch_id].stopping = True
        self._hook("after cancel")

    def discard(self, batch_id: str) -> None:
        self._hook("before discard")

    def examine(self) -> Iterator[Finding]:
        raise AssertionError("nobody examines here")


def _chunks(data: bytes, size: int = 61) -> Iterator[bytes]:
    """Small ones, so that lines lie across their borders."""
    return iter([data[at : at + size] for at in range(0, len(data), size)])


@dataclass
class World:
    """What all processes share. `work` is complete but for the process's own store and backend."""

    clock: Clock
    store: MemoryStore
    provider: StrictProvider
    work: Work
    limits: Limits
    lag: float = 0.0
    snapshot_every: int = 5
    processes: dict[str, Process] = field(default_factory=dict)

    def start(self, host: str = "here", *, skew: float = 0.0) -> Process:
        """A new process on that host, whose clock is `skew` seconds fast. It has not done anything yet."""
        process = Process(self, f"p{len(self.processes) + 1}", host, skew)
        self.processes[process.name] = process
        return process

    def pick(self, number: int, host: str = "here", *, but: Process | None = None) -> Process:
        """The living process of this number, `but` not counted; a new one on that host if there are not so many."""
        alive = [process for process in self.processes.values() if process.alive and process is not but]
        return alive[number] if number < len(alive) else self.start(host)

    def finish(self, process: Process | None = None, *, passes: int, seconds: float = 100) -> Process:
        """Everything is fair from now on: the provider answers, time goes by, and the run comes to its end."""
        process = process or self.start()
        for _ in range(passes):
            progress = process.advance()
            if progress is not None and progress.done:
                return process
            for batch in self.provider.open:
                self.provider.finish(batch)
            self.clock.now += seconds
        raise AssertionError(f"never done: {process.run.state}")

    def drain(self) -> Process:
        """The same with a new process, which must be able to open the run."""
        process = self.start()
        process.open()
        return self.finish(process, passes=100)


WORK = Work(
    job="test",
    window=Window("all", None, None),
    operations=(echo_operation(),),
    backend=None,  # type: ignore[arg-type]  # each process has its own
    documents=ListedDocuments({}),
    root=None,  # type: ignore[arg-type]
    price=PRICE,
    reading={"uri": "memory"},
    shard_records=2,
    attempts=2,
    grace=timedelta(seconds=120),
)
"""A job without documents, to be replaced in part."""


def limits_of(live: int, *, consistent: bool = True) -> Limits:
    """A provider's limits, of which only the batches at a time matter."""
    return Limits(1000, 100_000, 10_000, live, consistent_lookup=consistent)


@dataclass
class _Fate:
    happen: Callable[[], None]
    point: str
    left: int


class Process:
    """One process: its view of the run, the point at which it meets its fate, and whether it lives."""

    def __init__(self, world: World, name: str, host: str, skew: float) -> None:
        self.name = name
        self._skew = skew
        self.host = host
        self.alive = True
        self.points = 0
        self._began = 0
        self._world = world
        self._fates: list[_Fate] = []
        self.backend = WatchedBackend(world.provider, world.limits, self._pass, lag=world.lag)
        self._work = replace(world.work, root=WatchedStore(world.store, self._pass), backend=self.backend)
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        assert self._run is not None, "the process has not opened its run"
        return self._run

    def meet(self, fate: Callable[[], None], point: str, nth: int) -> None:
        """At the `nth` point from now on with `point` in its name call `fate`, which may raise or let others act."""
        self._fates.append(_Fate(fate, point, nth))

    def die(self) -> None:
        """For `meet`: kill -9."""
        self.alive = False
        raise Crash

    def open(self, *, retry: bool = False) -> None:
        """Ask for the run as the command line does."""
        self._began = self.points
        opened = open_run(self._work, retry=retry, clock=self.clock)
        journal = Journal(self._work.root, opened.plan.prefix, self.name, snapshot_every=self._world.snapshot_every)
        journal.refresh()
        self._run = Run(Context(self._work, opened.plan, journal, self.name, self.clock, self._sees))

    def clock(self) -> float:
        return self._world.clock() + self._skew

    def advance(self) -> Progress | None:
        """One pass, after opening the run if need be. None if the process died, or the provider said no for good."""
        if not self.alive:
            return None
        self._began = self.points
        try:
            if self._run is None:
                self.open()
            return self.run.advance()
        except (Crash, Terminal):
            return None
        finally:
            self._fates.clear()

    def _pass(self, name: str) -> None:
        if not self.alive:
            # What a dead process's `finally` blocks would still do, kill -9 does not.
            raise Crash
        self.points += 1
        assert self.points - self._began < 2000, "a pass without an end"
        for fate in list(self._fates):
            if fate.point in name:
                fate.left -= 1
                if not fate.left:
                    self._fates.remove(fate)
                    fate.happen()

    def _sees(self, owner: str) -> bool | None:
        other = self._world.processes.get(owner)
        return None if other is None or other.host != self.host else other.alive
