from __future__ import annotations

import threading
import time

import pytest

from lowtide.emulators.clock import Clock


def test_it_starts_at_the_wall_clocks_time_and_runs_with_it():
    clock = Clock()
    assert abs(clock.now() - time.time()) < 1
    first = clock.now()
    time.sleep(0.05)
    assert 0.05 <= clock.now() - first < 1


def test_speed_multiplies_time_and_zero_stands_still():
    clock = Clock(speed=1000.0)
    first = clock.now()
    time.sleep(0.02)
    assert clock.now() - first >= 20
    clock.set_speed(0)
    still = clock.now()
    time.sleep(0.02)
    assert clock.now() == still


def test_advance_moves_on_at_once_and_wakes_sleepers():
    clock, stop, woken = Clock(speed=0), threading.Event(), []
    sleeper = threading.Thread(target=lambda: woken.append(clock.sleep(3600, stop)))
    sleeper.start()
    first = clock.now()
    clock.advance(3599)
    sleeper.join(0.4)
    assert sleeper.is_alive()
    clock.advance(1)
    sleeper.join(10)
    assert woken == [True]
    assert clock.now() - first == pytest.approx(3600)


def test_a_sleeper_that_is_told_to_stop_says_so():
    clock, stop = Clock(), threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert clock.sleep(3600, stop) is False


def test_reset_goes_back_to_now_at_the_first_speed():
    clock = Clock(speed=2.0)
    clock.set_speed(50)
    clock.advance(10_000)
    clock.reset()
    assert clock.speed == 2.0
    assert abs(clock.now() - time.time()) < 1


@pytest.mark.parametrize("wrong", [lambda clock: clock.advance(-1), lambda clock: clock.set_speed(-1)])
def test_it_never_goes_back(wrong):
    with pytest.raises(ValueError, match="back"):
        wrong(Clock())
