"""What lies in the folder of a fleet: the files by which workers and their orchestrator know of each other.

    fleet.json                      how to work; written over where the job file was mended
    shards/<shard>/task.json        what is to be answered, written once: the shard exists from then on
    shards/<shard>/claims/000001    who works at it, in the order of the claims: the last one counts
    shards/<shard>/parts/000001.jsonl   answers, each part written once
    shards/<shard>/cancel           exists once somebody asked to stop; written again each time somebody asks
    shards/<shard>/end.json         how it ended, written once
    workers/<worker>.json           a worker's beat: what it does and has done, written over by that worker alone
    accounts/000001.json            whose time has been charged so far; the last one counts
    jobs/000001.*                   what the launcher has submitted, and what came of it; no worker reads it
    now                             written over to see what time it is at the store

All that counts once is made with put-if-absent, so that of many writers one wins, and is never changed: tasks, claims,
parts, ends, accounts and jobs. A line of a part is one of OpenAI's batch output: `{"custom_id", "response":
{"status_code", "body"}, "error"}`. A record stands in one line of one part: whoever writes a part has read all earlier
ones. Once a shard is collected, its parts, all claims but the last and `cancel` are removed.

Times are seconds since the epoch by the worker's clock; whether a worker lives is read from the store's own times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

FLEET = "fleet.json"
TASK = "task.json"
END = "end.json"
CANCEL = "cancel"

RETRY = 75
"""Exit code of a worker that was interrupted: start another one (`EX_TEMPFAIL` of sysexits.h)."""

STORE_FAILED = 74
"""Exit code of a worker whose store refuses, or did not answer for minutes, as the next one's may (`EX_IOERR`)."""

Outcome = Literal["completed", "partial", "failed", "cancelled"]

State = Literal["booting", "working", "waiting", "stopping", "ended"]

_NUMBER = re.compile(r"(\d{6})(?:\.jsonl)?")


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The inference engine: a command that serves `/v1/chat/completions`, or the address of one that is running.

    `{model}` and `{port}` are filled in in the command's words. `environment` is added to the worker's own. It has
    `boot_seconds` to become healthy (GET `health` answers 200), and is taken for hung when no answer has come for
    `hang_seconds` while something is asked. It is started again up to `restarts` times for one shard, each time with
    half as many requests in flight.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    health: str = "/health"
    environment: Mapping[str, str] = {}
    boot_seconds: float = 1800.0
    hang_seconds: float = 900.0
    restarts: int = 3


def base_of(url: str) -> str:
    """The address that paths like `/v1/chat/completions` are appended to, of an engine's `url`."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """How the workers of a fleet work.

    Between `least` and `most` requests are in flight. Answers are written as a part every `part_rows` rows or
    `part_seconds`, whichever comes first. A request is tried `tries` times, each for `request_seconds` at most. A
    worker that has not given a sign for `lease_seconds` has lost its shard; one beats every `beat_seconds`. A worker
    that finds nothing to do waits `idle_seconds` for a shard that another one loses. One that was told to stop lets the
    requests in flight go on for `drain_seconds`. Where machines are `rented` for their workers, they are paid from
    their boot on.
    """

    model: str
    engine: Engine
    least: int = 4
    most: int = 256
    part_rows: int = 200
    part_seconds: float = 5.0
    tries: int = 3
    request_seconds: float = 600.0
    beat_seconds: float = 5.0
    lease_seconds: float = 45.0
    idle_seconds: float = 60.0
    drain_seconds: float = 8.0
    rented: bool = True


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: `requests` is the address of its JSONL file (`file://`, `s3://`, `abfs://`) of `size` bytes.

    Each line is one of OpenAI's batch input; `custom_id` is `r`, the record's ordinal in seven digits, `x`, and a
    check. The ordinal is the line's number from 0; where a shard holds what an earlier attempt has left, ordinals rise
    with each line, and all are below `ordinals`. At most `seconds` are spent on it, over all workers; None: as many
    as it takes. Those of all shards without an account bound what workers boot and wait for as well.
    """

    requests: str
    records: int
    size: int
    ordinals: int | None = None
    seconds: float | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who works at a shard, since when."""

    worker: str
    at: float


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a shard ended: `answered` records have a line, `errors` of them say why there is no answer."""

    outcome: Outcome
    answered: int
    errors: int
    at: float
    reason: str = ""


class Spell(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's time at one shard: `seconds` in all, of which `lost` went into nothing that is kept.

    Lost is what came behind its last part, where it ended in the middle, and the share of answers that another worker
    had written first (`duplicates`).
    """

    shard: str
    seconds: float
    lost: float = 0.0
    answered: int = 0
    duplicates: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker does, and has done since it began.

    `boot` is the time from `started` until its engine was healthy, restarts of the engine included; `waited` what it
    had nothing to do for. `started`, `boot`, `waited` and the seconds of its spells add up to `at`: what is missing in
    a beat that is not the last was lost by a worker that died. `up_before` is for how long the machine had been up when
    the worker began, None where nobody says.
    """

    worker: str
    state: State
    started: float
    at: float
    boot: float = 0.0
    waited: float = 0.0
    spells: tuple[Spell, ...] = ()
    up_before: float | None = None
    instance: str = ""
    instance_type: str = ""
    region: str = ""
    zone: str = ""
    job: str = ""
    in_flight: int = 0
    restarts: int = 0
    note: str = ""
    exit_code: int | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one worker that were charged so far, by what they went into."""

    kept: float = 0.0
    lost: float = 0.0
    boot: float = 0.0
    idle: float = 0.0

    @property
    def seconds(self) -> float:
        return self.kept + self.lost + self.boot + self.idle


class Accounted(msgspec.Struct, frozen=True, kw_only=True):
    """What an account tells of itself and all before it: which shards have one, and what was charged by worker."""

    shards: tuple[str, ...] = ()
    workers: dict[str, Claimed] = {}


def shard_path(shard: str, name: str = "") -> str:
    """A file of a shard, or the prefix of all of them."""
    return f"shards/{shard}/{name}"


def claim_path(shard: str, number: int) -> str:
    return shard_path(shard, f"claims/{number:06d}")


def part_path(shard: str, number: int) -> str:
    return shard_path(shard, f"parts/{number:06d}.jsonl")


def beat_path(worker: str) -> str:
    return f"workers/{worker}.json"


def number_of(name: str) -> int:
    """The number in the name of a claim or a part, 0 if it is neither."""
    found = _NUMBER.fullmatch(name.rpartition("/")[2])
    return int(found[1]) if found else 0
