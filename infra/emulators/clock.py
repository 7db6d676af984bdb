"""The emulators' time: the wall clock, made faster and moved on at will."""

from __future__ import annotations

import threading
import time

# How long a sleeper waits at most before it looks whether it has been told to stop, in real seconds.
_LOOK_SECONDS = 0.25


class Clock:
    """Emulated time, in seconds since the epoch. Whatever has to do with time asks it. Thread-safe.

    It starts at the wall clock's time and runs `speed` times as fast; `advance` moves it on at once and wakes every
    sleeper. It never goes back, except in `reset`.
    """

    def __init__(self, speed: float = 1.0) -> None:
        _check_speed(speed)
        self._changed = threading.Condition()
        self._first_speed = speed
        self._speed = speed
        self._emulated = time.time()
        self._real = time.monotonic()

    @property
    def speed(self) -> float:
        """Emulated seconds in one real second."""
        return self._speed

    def now(self) -> float:
        """The emulated time, in seconds since the epoch."""
        with self._changed:
            return self._now()

    def advance(self, seconds: float) -> None:
        """Move on by that many emulated seconds. Raises ValueError where they are negative."""
        if seconds < 0:
            raise ValueError(f"the clock does not go back: {seconds}")
        with self._changed:
            self._settle()
            self._emulated += seconds
            self._changed.notify_all()

    def set_speed(self, factor: float) -> None:
        """From now on a real second is that many emulated ones. 0 stands still. Raises ValueError below 0."""
        _check_speed(factor)
        with self._changed:
            self._settle()
            self._speed = factor
            self._changed.notify_all()

    def reset(self) -> None:
        """Back to the wall clock's time, at the first speed."""
        with self._changed:
            self._emulated = time.time()
            self._real = time.monotonic()
            self._speed = self._first_speed
            self._changed.notify_all()

    def sleep_until(self, moment: float, stop: threading.Event) -> bool:
        """Wait until the emulated time is `moment`, and say True; False as soon as `stop` is set."""
        with self._changed:
            while not stop.is_set():
                left = moment - self._now()
                if left <= 0:
                    return True
                real = left / self._speed if self._speed > 0 else _LOOK_SECONDS
                self._changed.wait(min(real, _LOOK_SECONDS))
        return False

    def sleep(self, seconds: float, stop: threading.Event) -> bool:
        """Wait that many emulated seconds, and say True; False as soon as `stop` is set."""
        return self.sleep_until(self.now() + seconds, stop)

    def _now(self) -> float:
        return self._emulated + (time.monotonic() - self._real) * self._speed

    def _settle(self) -> None:
        self._emulated = self._now()
        self._real = time.monotonic()


def _check_speed(factor: float) -> None:
    if factor < 0:
        raise ValueError(f"the clock does not run backwards: {factor}")
