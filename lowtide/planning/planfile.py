"""The file that `lowtide plan --out` writes and `lowtide apply` reads: a plan, and everything that it rests on."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from lowtide import __version__
from lowtide.errors import ConfigError
from lowtide.plan import Inputs, PlannedPrice, RunPlan, Work, read_listing

FORMAT = "lowtide plan 1"
"""Goes up when an older version could not read the file any more."""

_READING, _MAKING = 1 << 20, 10_000

Prints = npt.NDArray[np.uint64]
"""For each file, 32 bits of its address and 32 of its etag and size: how many have changed is told by."""


class PlannedCandidate(msgspec.Struct, frozen=True):
    """A backend that the job allowed when it was planned, and what it charged."""

    backend: str
    model: str
    region: str
    parameters: dict[str, str | int | float | bool]
    price: PlannedPrice


class PlannedSettings(msgspec.Struct, frozen=True):
    """What else of the job file decides what a run does. `deadline_seconds` counts from the start."""

    root: str
    reading: dict[str, object]
    fields: tuple[str, ...]
    shard_records: int
    attempts: int
    deadline_seconds: float
    run_usd: Decimal | None
    approve_above_usd: Decimal | None
    tags: dict[str, str]

    @classmethod
    def of(cls, work: Work) -> PlannedSettings:
        return cls(
            root=work.root.uri,
            reading=dict(work.reading),
            fields=work.fields,
            shard_records=work.shard_records,
            attempts=work.attempts,
            deadline_seconds=work.deadline.total_seconds(),
            run_usd=work.run_usd,
            approve_above_usd=work.approve_above_usd,
            tags=dict(work.tags),
        )


class PlanFile(msgspec.Struct, frozen=True):
    """A plan that was written down. `job_file` is absolute; `files` are the inputs' `Prints`, in base64."""

    format: str
    lowtide: str
    job_file: str
    window: str
    use_cache: bool
    plan: RunPlan
    candidates: tuple[PlannedCandidate, ...]
    settings: PlannedSettings
    files: str

    @property
    def prints(self) -> Prints:
        """The inputs as they were. Raises ConfigError if they cannot be read."""
        try:
            return np.frombuffer(base64.b64decode(self.files, validate=True), dtype="<u8").astype(np.uint64)
        except (binascii.Error, ValueError) as error:
            raise ConfigError(f"files: found what is no list of inputs ({error}); {_AGAIN}") from error


_AGAIN = "a plan file is written by lowtide plan --out and not by hand: write it again"


@dataclass(frozen=True, slots=True)
class ChangedFiles:
    """How many of the inputs are others now."""

    more: int
    less: int
    changed: int


def prints_of(inputs: Inputs) -> Prints:
    """The prints of a listing, in the order of the files."""
    found: list[Prints] = [np.empty(0, np.uint64)]
    digests: list[bytes] = []
    for info in read_listing(inputs.path):
        address = hashlib.blake2b(info.uri.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        content = f"{info.etag}\0{info.size}".encode("utf-8", "surrogatepass")
        digests.append(hashlib.blake2b(content, digest_size=4).digest() + address)
        if len(digests) == _MAKING:
            found.append(np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))
            digests.clear()
    found.append(np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))
    return np.concatenate(found)


def compare_prints(before: Prints, now: Prints) -> ChangedFiles:
    """What has become of the inputs. Two of a hundred thousand files may be taken for each other."""
    addresses_before, addresses_now = before >> np.uint64(32), now >> np.uint64(32)
    stayed = int(np.isin(addresses_now, addresses_before).sum())
    same = int(np.isin(now, before).sum())
    return ChangedFiles(len(now) - stayed, len(before) - stayed, max(stayed - same, 0))


def write_plan(path: Path, plan: RunPlan, work: Work, job_file: Path, prints: Prints) -> None:
    """Write the plan. Raises ConfigError if the file cannot be written."""
    content = PlanFile(
        format=FORMAT,
        lowtide=__version__,
        job_file=str(job_file.absolute()),
        window=plan.window,
        use_cache=work.use_cache,
        plan=plan,
        candidates=tuple(candidates_of(work)),
        settings=PlannedSettings.of(work),
        files=base64.b64encode(prints.astype("<u8").tobytes()).decode(),
    )
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: the plan cannot be written: {error.strerror or type(error).__name__}") from error


def read_plan(path: Path) -> PlanFile:
    """Read a plan that `write_plan` wrote. Raises ConfigError that names the file and the field."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or type(error).__name__}; "
            f"write a plan with: lowtide plan --out {path}"
        ) from error
    try:
        found = msgspec.json.decode(data, type=_Head)
        if found.format == FORMAT:
            plan = msgspec.json.decode(data, type=PlanFile)
            plan.prints  # noqa: B018 - raises for what is none
            return plan
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_field(str(error))}; {_AGAIN}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: not a plan: {error}; {_AGAIN}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    raise ConfigError(
        f"{path}: format: found {found.format!r}, and this version of lowtide ({__version__}) reads {FORMAT!r}; "
        "write the plan again"
    )


class _Head(msgspec.Struct):
    format: str


def _field(message: str) -> str:
    """msgspec's words, with the field first: "Expected `int`, got `str` - at `$.plan.files`"."""
    what, _, where = message.partition(" - at `$")
    name = where.rstrip("`").lstrip(".")
    return f"{name}: {what[:1].lower()}{what[1:]}" if name else what[:1].lower() + what[1:]


def candidates_of(work: Work) -> Iterator[PlannedCandidate]:
    """The work's backends as a plan file has them."""
    for candidate in work.allowed:
        backend = candidate.backend
        yield PlannedCandidate(
            backend.name, backend.model, backend.region, dict(backend.parameters), PlannedPrice.of(candidate.price)
        )
