"""The file that `lowtide plan --out` writes and `lowtide apply` reads: a plan, and everything that it rests on."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from lowtide import __version__
from lowtide.errors import ConfigError, StalePlan
from lowtide.inputs import Inputs, read_listing
from lowtide.plainjson import plain_json
from lowtide.plan import PlannedPrice, RunPlan, Work

FORMAT = "lowtide plan 1"
"""Goes up when an older version could not read the file any more."""

_READING, _MAKING = 1 << 20, 10_000

_SMALLEST, _LARGEST = -100, 26
"""Powers of ten that amounts lie between: decimal128(38,12) has 26 digits before the point, and it takes a gigabyte to
write out what a file may call 1e-999999999."""

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
    """A plan that was written down. `job_file` is absolute; `files` are the inputs' `Prints`, in base64.

    `sha256` is the digest of all else: a plan is applied as it was written, or not at all.
    """

    format: str
    lowtide: str
    job_file: str
    window: str
    use_cache: bool
    plan: RunPlan
    candidates: tuple[PlannedCandidate, ...]
    settings: PlannedSettings
    files: str
    sha256: str = ""

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
    """Write the plan, with its digest. Raises ConfigError if the file cannot be written."""
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
        path.write_bytes(sealed(plain_json(content)) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: the plan cannot be written: {error.strerror or type(error).__name__}") from error


def check_place(path: Path) -> None:
    """Raise ConfigError if no plan can be written there, before anything is read for it."""
    folder = path.parent
    if path.is_dir():
        raise ConfigError(f"{path}: the plan cannot be written: it is a folder; name a file, such as {path}/plan.json")
    if not folder.is_dir():
        raise ConfigError(f"{path}: the plan cannot be written: there is no folder {folder}; make it, or name another")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{path}: the plan cannot be written: you may not write there; name another place")


def read_plan(path: Path) -> PlanFile:
    """Read a plan that `write_plan` wrote, as it was written.

    Raises ConfigError that names the file and what is wrong with it, and StalePlan if another version of Lowtide wrote
    it: that may plan otherwise.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or type(error).__name__}; "
            f"write a plan with: lowtide plan --out {path}"
        ) from error
    try:
        found = msgspec.json.decode(data, type=_Format)
        if found.format == FORMAT:
            return _checked(data, path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_field(str(error))}; {_AGAIN}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a plan: {error}; {_AGAIN}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    raise ConfigError(
        f"{path}: format: found {found.format!r}, and this version of lowtide ({__version__}) reads {FORMAT!r}; "
        "write the plan again"
    )


def sealed(data: bytes) -> bytes:
    """The JSON of a plan file with its digest, whatever that was before."""
    content = msgspec.json.decode(data)
    content["sha256"] = _digest(content)
    return msgspec.json.format(msgspec.json.encode(content))


def _digest(content: dict[str, object]) -> str:
    """The SHA-256 of everything but the digest, whatever the spaces between and the order of the names."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


class _Format(msgspec.Struct):
    format: str


class _HeadPlan(msgspec.Struct):
    refresh: int


class _Head(msgspec.Struct):
    """What is needed to say how a plan is made again. Every version writes it."""

    lowtide: str
    job_file: str
    window: str
    use_cache: bool
    plan: _HeadPlan
    sha256: str


def make_again(planned: PlanFile | _Head, path: Path) -> str:
    """The command that writes a new plan in the place of this one."""
    options = ["--no-cache"] * (not planned.use_cache) + ["--refresh"] * bool(planned.plan.refresh)
    window = ["--window", planned.window] * (planned.window != "all")
    return shlex.join(["lowtide", "plan", planned.job_file, *window, *options, "--out", str(path)])


def _checked(data: bytes, path: Path) -> PlanFile:
    """The plan, if it is whole, of this version, and fits together."""
    head = msgspec.json.decode(data, type=_Head)
    if head.sha256 != _digest(msgspec.json.decode(data)):
        raise ConfigError(f"was changed after it was written: make a new plan with: {make_again(head, path)}")
    if head.lowtide != __version__:
        raise StalePlan(
            f"{path}: was written by version {head.lowtide} of lowtide, and this is {__version__}: "
            f"make a new plan with: {make_again(head, path)}"
        )
    planned = msgspec.json.decode(data, type=PlanFile)
    planned.prints  # noqa: B018 - raises for what is none
    for place in _boundless(msgspec.to_builtins(planned, builtin_types=(Decimal,)), ""):
        raise ConfigError(f"{place}: found what is no amount in USD; {_AGAIN}")
    for place in _unfit(planned):
        raise ConfigError(f"plan.{place}: is not what the rest of the file says; {_AGAIN}")
    return planned


def _boundless(value: object, place: str) -> Iterator[str]:
    """Where there are amounts that are not finite, or beyond all bounds."""
    if isinstance(value, Decimal):
        if not value.is_finite() or not _SMALLEST < value.adjusted() < _LARGEST:
            yield place
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _boundless(one, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _boundless(one, f"{place}[{number}]")


def _unfit(planned: PlanFile) -> Iterator[str]:
    """The parts of the plan that are not those of its settings, or of one of its candidates."""
    plan, settings = planned.plan, planned.settings
    if plan.window != planned.window:
        yield "window"
    for name in ("fields", "shard_records", "attempts", "run_usd", "approve_above_usd", "tags"):
        if getattr(plan, name) != getattr(settings, name):
            yield name
    price = plan.price or PlannedPrice("", "", {})
    chosen = PlannedCandidate(plan.backend, plan.model, plan.region, plan.parameters, price)
    alike = [found for found in planned.candidates if (found.backend, found.model) == (plan.backend, plan.model)]
    if not alike:
        yield "backend"
    elif chosen not in alike or plan.price_id != price.price_id:
        yield "price"
    if plan.options and [option.cost_usd for option in plan.options if option.chosen] != [plan.cost_usd]:
        yield "cost_usd"


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
