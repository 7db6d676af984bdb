"""When it is tried again where workers fail and nothing gets done: by what files tell, so that every process knows.

For `batch` these are files of the root, and times are the store's: it is the same wherever it is asked. For `process`
failures and times lie on the machine whose workers failed, by its own clock: another machine counts its own ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from lowtide.connectors.backends.spot.names import in_fleet
from lowtide.connectors.backends.spot.watching import Written
from lowtide.errors import NotFound, Terminal
from lowtide.protocols import Store
from lowtide_worker import layout

SHORTEST_PAUSE = 900.0
LONGEST_PAUSE = 21_600.0
"""Seconds. The pause doubles with each further try, from the one to the other."""


def how_of(root: Store, fleet: str, *others: str) -> str:
    """Tells one way to work from another: by what is in `fleet.json`, and by what else decides whether workers live."""
    try:
        told = root.read(in_fleet(fleet, layout.FLEET))
    except NotFound:
        told = b""
    return hashlib.sha256(b"\0".join([told, *(other.encode() for other in others)])).hexdigest()[:16]


class GivenUp(msgspec.Struct, frozen=True):
    """A fleet was given up because of `why`, when workers were told `how` to work, and so much was `written`."""

    why: str
    how: str
    written: Written


@dataclass(frozen=True, slots=True)
class Tries:
    """What came of a fleet's workers since something was written, or they were told to work otherwise.

    It was given up `times`, last `at` so many seconds since the epoch because of `why`; `failed` have since then.
    """

    failed: int
    times: int = 0
    at: float = 0.0
    why: str = ""

    def is_hopeless(self, in_vain: int) -> bool:
        """Whether enough have failed to give it up: one, where it was given up before."""
        return self.failed >= (1 if self.times else in_vain)

    @property
    def pause(self) -> float:
        """Seconds from the last time until it is tried again.

        The first time it is at once: somebody has mended an image, or a right, and starts the run again.
        """
        return min(SHORTEST_PAUSE * 2 ** min(self.times - 2, 9), LONGEST_PAUSE) if self.times > 1 else 0.0

    def further(self, in_vain: int, alive: int, now: Callable[[], float], keys: Sequence[str]) -> int | None:
        """How many more may be tried while so many live; None where it does not bound them.

        Raises Terminal within the pause. Where nobody lives, and it is hopeless, it has to be given up first. `keys`
        are those of the job file's section that `how_of` goes by.
        """
        if alive:
            return 0 if self.times or self.is_hopeless(in_vain) else None
        # A time that lies far ahead is that of a wrong clock.
        if self.pause and abs(now() - self.at) < self.pause:
            raise self.terminal(keys)
        return 1 if self.times else None

    def terminal(self, keys: Sequence[str]) -> Terminal:
        """Why it was given up, and when it is tried again."""
        if not self.pause:
            return Terminal(f"{self.why}; mend what it says, and start the run again: then one worker is tried first")
        again = datetime.fromtimestamp(self.at + self.pause, UTC)
        changed = f"{', '.join(keys[:-1])} or {keys[-1]}"
        return Terminal(
            f"{self.why}; mend what it says. One worker is tried again from {again:%Y-%m-%d %H:%M} UTC on, where the "
            f"run is started then, or a tick comes; at once if you change {changed} in the job file"
        )


def tries_of(failed: int, given_up: Iterable[tuple[float, GivenUp]], how: str, written: Written) -> Tries:
    """`given_up` are all times, with when that was, the oldest first; those count that nothing has changed since."""
    found = Tries(failed)
    for at, one in given_up:
        stands = one.how == how and not written.is_more_than(one.written)
        found = Tries(failed, found.times + 1, at, one.why) if stands else Tries(failed)
    return found


@dataclass(frozen=True, slots=True)
class InRow:
    """The latest tries of a fleet that nothing came of, while other workers of it may get something done.

    So many `failed` in a row, the `last` of them tried at that time; whether one more `is_tried` now.
    """

    failed: int = 0
    last: float = 0.0
    is_tried: bool = False

    def further(self, in_vain: int, now: float) -> int | None:
        """How many more may be tried beside those that live; None where it does not bound them.

        What others write tells nothing of these: after `in_vain`, one is tried after each pause. `now` is told by the
        clock that has told of the `last`.
        """
        if self.failed < in_vain:
            return None
        pause = Tries(0, self.failed - in_vain + 2).pause
        return 1 if not self.is_tried and abs(now - self.last) >= pause else 0
