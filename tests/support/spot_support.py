"""A backend `spot` over a folder, with a launcher that starts nobody, and workers that tests play by hand."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec
import orjson
from support.outputs import answers_in

from lowtide.connectors.backends.openai_batch.requests import RequestEncoder
from lowtide.connectors.backends.spot import SpotBackend
from lowtide.connectors.backends.spot.names import in_fleet, place_of
from lowtide.connectors.backends.spot.rates import OwnRates, Rates
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import LowtideError
from lowtide.protocols import Store
from lowtide.records import Answer, Finding, Shard
from lowtide_worker.layout import (
    END,
    Beat,
    Claim,
    End,
    Engine,
    Fleet,
    Outcome,
    Spell,
    beat_path,
    claim_path,
    part_path,
    shard_path,
)

FLEET = "0123456789abcdef-0a0b0c0d"


def token(number: int = 1, attempt: int = 1) -> str:
    """The token of a shard's attempt, in a run that is always the same."""
    return f"lt-{FLEET}-s{number:05d}-a{attempt}"


def record_id(ordinal: int) -> str:
    return f"r{ordinal:07d}x0badcafe"


@dataclass
class StandInLauncher:
    """Implements Launcher: notes what is asked of it."""

    name: str = "stand-in"
    asked: list[int] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    refuses: LowtideError | None = None
    uri: str = ""

    def ensure(self, fleet: str, uri: str, workers: int) -> None:
        self.asked.append(workers)
        self.uri = uri
        if self.refuses is not None:
            raise self.refuses

    def running(self, fleet: str) -> int:
        return 0

    def stop(self, fleet: str) -> None:
        self.stopped.append(fleet)

    def release(self, fleet: str) -> None:
        self.released.append(fleet)

    def examine(self) -> Iterator[Finding]:
        yield Finding("workers", True, "none")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """One backend, and what tests do with it."""

    root: Store
    fleet: Fleet = field(
        default_factory=lambda: Fleet(model="small", engine=Engine(url="http://127.0.0.1:9"), lease_seconds=45.0)
    )
    rates: Rates = field(default_factory=lambda: OwnRates(Decimal("3.60")))
    launcher: StandInLauncher = field(default_factory=StandInLauncher)
    clock: Clock = field(default_factory=Clock)
    workers: int = 3

    def __post_init__(self) -> None:
        self.backend = self.reopened()

    def reopened(self, root: Store | None = None) -> SpotBackend:
        """The same backend in another process."""
        encoder = RequestEncoder(
            call="chat", url="/v1/chat/completions", name="small", model="small", parameters={}, native=False
        )
        return SpotBackend(
            root or self.root,
            self.fleet,
            self.launcher,
            self.rates,
            provider="own",
            region="",
            workers=self.workers,
            encoder=encoder,
            parameters={},
            clock=self.clock,
        )

    def shard(
        self, records: int = 4, *, may_cost: Decimal | None = None, attempt: int = 1, ordinals: Sequence[int] = ()
    ) -> Shard:
        """One of so many records, or of those that an earlier attempt has left."""
        left = ordinals or range(records)
        data = b"".join(orjson.dumps({"custom_id": record_id(n), "body": {"n": "x" * n}}) + b"\n" for n in left)
        records = len(left)
        self.root.write("requests/shard.jsonl", data)
        uri = self.root.uri_of("requests/shard.jsonl")
        return Shard("run", 1, attempt, records, len(data), uri, lambda: io.BytesIO(data), may_cost=may_cost)

    def answers(self, batch_id: str) -> list[Answer]:
        return answers_in(self.backend, batch_id)

    def worker(self, name: str = "w1", *, at: float = 1_800_000_000.0) -> HandWorker:
        assert isinstance(self.root, LocalStore)
        return HandWorker(self.root, name, at)


class HandWorker:
    """Writes what a worker would. `at` is what o'clock it is, for it and for the store."""

    def __init__(self, root: Store, name: str, at: float) -> None:
        self.root, self.name, self.started, self.at = root, name, at, at

    def claim(self, batch: str, number: int = 1) -> HandWorker:
        self._put(
            batch, lambda shard: claim_path(shard, number), msgspec.json.encode(Claim(worker=self.name, at=self.at))
        )
        return self

    def part(self, batch: str, ordinals: Sequence[int], number: int = 1) -> HandWorker:
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        choice = {"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        body = {"choices": [choice], "usage": usage}
        lines = [
            orjson.dumps({"custom_id": record_id(n), "response": {"status_code": 200, "body": body}, "error": None})
            for n in ordinals
        ]
        self._put(batch, lambda shard: part_path(shard, number), b"\n".join(lines) + b"\n")
        return self

    def end(
        self, batch: str, answered: int, outcome: Outcome = "completed", reason: str = "", *, errors: int = 0
    ) -> HandWorker:
        end = End(outcome=outcome, answered=answered, errors=errors, at=self.at, reason=reason)
        self._put(batch, lambda shard: shard_path(shard, END), msgspec.json.encode(end))
        return self

    def beat(self, *spells: Spell, code: int | None = None, **more: object) -> HandWorker:
        told = Beat(
            worker=self.name,
            state="working" if code is None else "ended",
            started=self.started,
            at=self.at,
            spells=spells,
            exit_code=code,
        )
        path = in_fleet(FLEET, beat_path(self.name))
        self.root.write(path, msgspec.json.encode(msgspec.structs.replace(told, **more)))
        self._date(path)
        return self

    def _put(self, batch: str, path_of: Callable[[str], str], data: bytes) -> None:
        place = place_of(batch)
        assert place is not None
        path = in_fleet(place.fleet, path_of(place.shard))
        assert self.root.put_if_absent(path, data)
        self._date(path)

    def _date(self, path: str) -> None:
        uri = self.root.uri_of(path)
        assert uri.startswith("file://")
        os.utime(uri[len("file://") :], (self.at, self.at))
