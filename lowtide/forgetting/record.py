"""What is kept of a document that was forgotten: that it was, when, by whom, and how much was touched. No text.

    forgotten/20261120T131500Z-<mark>-<nonce>.begun.json    written before anything is removed
    forgotten/20261120T131500Z-<mark>-<nonce>.done.json     written behind everything

`<mark>` stands for what was forgotten: a hash with the root's salt, so that whoever holds the root, and knows what was
forgotten, can show that it was; nobody can tell from it whose document it was. Records are never changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from lowtide.forgetting.target import Target
from lowtide.ownership import is_alive
from lowtide.protocols import Store

FOLDER = "forgotten/"
SALT = ".lowtide/salt"
_BEGUN, _DONE = ".begun.json", ".done.json"
_LONGEST = 3600.0
"""Seconds after which one that was begun elsewhere is taken for dead."""


class Begun(msgspec.Struct, frozen=True):
    """Somebody began to forget. `at` is a time in UTC, `owner` the process."""

    mark: str
    at: datetime
    by: str
    owner: str


class Done(msgspec.Struct, frozen=True):
    """Nothing is left. `touched`: files and entries by kind, of this call; a call before it may have died."""

    mark: str
    at: datetime
    by: str
    touched: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Open:
    """A record that was begun and is not done."""

    name: str
    begun: Begun


def mark_of(store: Store, target: Target) -> str:
    """What stands for the target in records. The root's salt is made if there is none."""
    store.put_if_absent(SALT, secrets.token_hex(32).encode())
    return target.mark(store.read(SALT))


def begin(store: Store, begun: Begun) -> str:
    """Write that it begins; returns the record's name."""
    name = f"{begun.at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{begun.mark}-{secrets.token_hex(3)}"
    store.put_if_absent(f"{FOLDER}{name}{_BEGUN}", msgspec.json.encode(begun))
    return name


def finish(store: Store, name: str, done: Done) -> None:
    """Write that it is done."""
    store.put_if_absent(f"{FOLDER}{name}{_DONE}", msgspec.json.encode(done))


def unfinished(store: Store) -> Iterator[Open]:
    """What was begun and is not done, whoever began it."""
    paths = [info.path for info in store.list(FOLDER)]
    done = {path.removesuffix(_DONE) for path in paths if path.endswith(_DONE)}
    for path in paths:
        name = path.removesuffix(_BEGUN)
        if path.endswith(_BEGUN) and name not in done:
            yield Open(name.removeprefix(FOLDER), msgspec.json.decode(store.read(path), type=Begun))


def is_at_work(begun: Begun, now: datetime) -> bool:
    """Whether its process may still be at it."""
    alive = is_alive(begun.owner)
    return alive is not False and (now - begun.at).total_seconds() < _LONGEST
