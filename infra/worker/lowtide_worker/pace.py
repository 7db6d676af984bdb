"""How many requests may be in flight: raised until the engine answers no faster for it, lowered when it complains.

Throughput is reckoned by Little's law from the answers alone: with `n` requests in flight, of which each yields
`tokens / seconds`, the engine yields n times that. So it does not matter that answers come in waves. Only answers to
requests that were asked at the present room are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST = 32
"""Where a climb begins: low enough for any engine, and few doublings away from what a large one bears."""

MORE = 2.0
"""By what a first climb multiplies the room."""

GAIN = 1.05
"""What a step up has to bring in throughput to be kept."""

PROBE = 1.25
"""By what a settled room is tried larger, or smaller."""

ROUNDS = 8
"""For how many rounds a room stays settled before another one is tried."""

CUT = 0.7
"""By what push-back multiplies the room."""

_ANSWERS, _SECONDS = 16, 0.2
"""A round takes as many answers as there is room for, at least these, and at least this long."""

_FILLED = 0.8


class Pace:
    """The room for requests in flight, always from `least` to `most`. Not safe for several threads."""

    def __init__(self, least: int, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"from {least} to {most} requests in flight: least has to be 1 or more, and most no less")
        self._least, self._most, self._clock = least, most, clock
        self._room = self._kept = self._within(FIRST)
        self._best = 0.0
        self._step = MORE
        self._settled = self._down_next = False
        self._rounds = 0
        self._out = 0
        self._changed = self._at = clock()
        self._begin()

    @property
    def room(self) -> int:
        return self._room

    def enter(self) -> None:
        """A request goes out."""
        self._count(1)

    def leave(self) -> None:
        """It is no longer out, however it ended."""
        self._count(-1)

    def answered(self, seconds: float, tokens: float) -> None:
        """An answer of `tokens` came after `seconds`."""
        now = self._clock()
        if now - seconds < self._changed:
            return
        self._answers += 1
        self._tokens += max(tokens, 1.0)
        self._seconds += max(seconds, 1e-6)
        if self._answers < max(_ANSWERS, self._room) or now - self._begun < _SECONDS:
            return
        self._count(0)
        in_flight = self._area / (now - self._begun)
        rate = in_flight * self._tokens / self._seconds
        self._begin()
        # With less in flight than there is room for, it is not the engine that holds the work up: nothing to be learnt.
        if in_flight >= _FILLED * self._room:
            self._judge(rate)

    def pushed_back(self, seconds: float) -> None:
        """The engine had too much to do for a request asked `seconds` ago: 429, 503, out of time or of memory.

        What was asked before the room last changed says nothing of the present one.
        """
        if self._clock() - seconds < self._changed:
            return
        self._settle(self._kept if self._kept < self._room else self._within(int(self._room * CUT)), 0.0)
        self._changed = self._clock()

    def _judge(self, rate: float) -> None:
        if self._settled:
            self._best = rate
            self._rounds += 1
            if self._rounds >= ROUNDS:
                self._try_another()
            return
        smaller = self._room < self._kept
        if rate < self._best * (1.0 if smaller else GAIN):
            self._settle(self._kept, self._best)
            return
        self._kept, self._best = self._room, rate
        wider = self._room if smaller else self._up(self._step)
        if wider == self._room:
            self._settle(self._room, rate)
        else:
            self._move(wider)

    def _try_another(self) -> None:
        """From a settled room one step up, and the next time one step down: fewer in flight are fewer to lose."""
        other = self._within(int(self._room / PROBE)) if self._down_next else self._up(PROBE)
        self._down_next = not self._down_next
        self._rounds = 0
        if other != self._room:
            self._settled, self._kept, self._step = False, self._room, PROBE
            self._move(other)

    def _settle(self, room: int, rate: float) -> None:
        self._settled, self._rounds, self._kept, self._best = True, 0, room, rate
        self._move(room)

    def _move(self, room: int) -> None:
        if room != self._room:
            self._room = room
            self._changed = self._clock()
            self._begin()

    def _begin(self) -> None:
        """Count anew."""
        self._begun = self._at = self._clock()
        self._answers = 0
        self._area = self._tokens = self._seconds = 0.0

    def _count(self, more: int) -> None:
        """Add up for how long how many were out."""
        now = self._clock()
        self._area += self._out * (now - self._at)
        self._at = now
        self._out += more

    def _up(self, step: float) -> int:
        return self._within(max(self._room + 1, int(self._room * step)))

    def _within(self, room: int) -> int:
        return max(self._least, min(self._most, room))
