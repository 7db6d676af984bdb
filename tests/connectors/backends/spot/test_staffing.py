"""Who is told how to work, and what becomes of workers when there is nothing left for them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from support.spot_support import FLEET, Bench, token

from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import LowtideError, Transient


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalStore(tmp_path, sync="none"))


def test_workers_are_stopped_where_the_job_file_was_mended_and_nowhere_else(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), token())
    bench.reopened().poll(token())
    assert bench.launcher.stopped == []
    bench.fleet = msgspec.structs.replace(bench.fleet, most=8)
    again = bench.reopened()
    for _ in range(3):
        again.poll(token())
    assert bench.launcher.stopped == [FLEET]
    assert b'"most":8' in bench.root.read(f"spot/{FLEET}/fleet.json")


def test_workers_that_could_not_be_stopped_are_stopped_by_the_next_poll(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), token())
    bench.fleet = msgspec.structs.replace(bench.fleet, most=8)
    stop, refusals = bench.launcher.stop, [Transient("AWS cannot be reached now")]

    def refused_once(fleet: str) -> None:
        if refusals:
            raise refusals.pop()
        stop(fleet)

    bench.launcher.stop = refused_once  # type: ignore[method-assign]  # a stand-in's own
    for _ in range(2):
        try:
            bench.reopened().poll(token())
        except LowtideError:
            continue
    assert bench.launcher.stopped == [FLEET]


def test_what_is_queued_is_given_up_with_the_last_shard_and_not_before(bench: Bench) -> None:
    batches = [bench.backend.submit(bench.shard(), token(number)) for number in (1, 2)]
    for number, batch in enumerate(batches):
        bench.worker(f"w{number}").claim(batch).part(batch, range(4)).end(batch, 4).beat(code=0)
        bench.backend.poll(batch)
        assert bench.launcher.released == [FLEET] * number
    assert bench.launcher.stopped == []


def test_a_process_that_has_submitted_nothing_asks_for_all_workers_at_once(bench: Bench) -> None:
    """Each tick is one. Shards that have ended need nobody."""
    bench.workers = 9
    for number in range(1, 8):
        bench.backend.submit(bench.shard(), token(number))
    for number in (1, 2):
        bench.worker(f"w{number}").claim(token(number)).end(token(number), 4)
    tick = bench.reopened()
    for number in range(3, 8):
        tick.poll(token(number))
    assert bench.launcher.asked == [5]


def test_what_ended_before_a_poll_is_not_counted_again_from_the_list(bench: Bench) -> None:
    for number in range(1, 4):
        bench.backend.submit(bench.shard(), token(number))
    tick = bench.reopened()
    tick.poll(token(1))
    bench.worker().claim(token(1)).end(token(1), 4)
    tick.poll(token(1))
    bench.clock.now += 11.0
    tick.poll(token(2))
    assert bench.launcher.asked == [3, 2]
