"""Work that is done ahead, in order and within bounds."""

from __future__ import annotations

import threading
import time

import pytest

from lowtide.connectors.stores.readahead import in_order


def run(items, work, *, threads=4, weight=lambda item: 1, window=100):
    return in_order(items, work, threads=threads, weight=weight, window=window)


def test_results_come_in_order_though_work_ends_in_any():
    def work(number):
        time.sleep(0.01 if number % 3 == 0 else 0)
        return number

    assert list(run(range(100), work)) == list(range(100))


def test_work_is_done_at_the_same_time():
    together = threading.Barrier(4, timeout=10)
    assert list(run(range(8), lambda number: together.wait() >= 0)) == [True] * 8


def test_what_waits_is_bounded_by_weight_and_one_heavy_item_still_passes():
    held, most = 0, 0
    lock = threading.Lock()

    def work(size):
        nonlocal held, most
        with lock:
            held += size
            most = max(most, held)
        return size

    for size in run([3, 3, 50, 3, 3, 3, 9] * 20, work, weight=lambda size: size, window=10):
        with lock:
            held -= size
    assert held == 0
    # What was handed over and not yet taken off here comes on top of the window.
    assert 50 <= most <= 50 + 10


def test_items_are_taken_no_further_ahead_than_results_may_wait():
    taken = []

    def items():
        for number in range(10_000):
            taken.append(number)
            yield number

    stream = run(items(), lambda number: number, threads=2, window=10**9)
    assert next(stream) == 0
    assert len(taken) <= 17


def test_an_error_comes_where_its_result_would_have_and_ends_the_threads():
    def work(number):
        if number == 3:
            raise ValueError("three")
        return number

    stream = run(range(100), work)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(stream)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lowtide-read")]


def test_a_stream_that_is_left_ends_its_threads():
    stream = run(range(100), lambda number: number)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lowtide-read")]
