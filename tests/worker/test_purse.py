"""A worker sees the end of its fleet's time coming, whoever uses it up."""

from __future__ import annotations

import asyncio
import math
import os
import time

import msgspec
import pytest
from support.fleets import Yard

from lowtide_worker import layout
from lowtide_worker.purse import Purse
from lowtide_worker.stores import open_folder

WHOLE = 10_000.0
MARGIN = 8.0 + 5.0 + 5.0 + 15.0
"""What a worker takes to end, with the fleet's own times."""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Home(Yard):
    def purse(self, clock=time.monotonic, **settings):
        quiet = {"beat_seconds": 5.0, "part_seconds": 5.0, "drain_seconds": 8.0}
        fleet = self.fleet(layout.Engine(url="http://127.0.0.1:1"), **{**quiet, **settings})
        return Purse(open_folder(self.uri, {}), fleet, clock)

    def beat(self, worker, seconds, state="working", **more):
        beat = layout.Beat(worker=worker, state=state, started=1000.0, at=1000.0 + seconds, **more)
        self.write(layout.beat_path(worker), beat)

    def account(self, number, **said):
        self.write(f"accounts/{number:06d}.json", layout.Accounted(**said))

    def write(self, path, what):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(what))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def left(purse):
    return asyncio.run(purse.left())


def test_where_no_task_says_how_long_it_may_take_there_is_no_end(home):
    home.shard("s00001-a1", ["a"])
    home.beat("a", 1e9)
    assert left(home.purse()) == math.inf


def test_boots_waits_and_other_workers_use_it_up(home):
    home.shard("s00001-a1", ["a"], seconds=WHOLE - 1000.0)
    home.shard("s00002-a1", ["a"], seconds=1000.0)
    home.beat("a", 500.0, boot=300.0, waited=200.0)
    home.beat("dead", 1500.0, "ended")
    assert left(home.purse(Clock())) == WHOLE - 2000.0 - MARGIN


def test_what_was_charged_is_used_up_no_more_and_nor_is_it_reserved(home):
    home.shard("s00001-a1", ["a"], seconds=5000.0)
    home.shard("s00002-a1", ["a"], seconds=WHOLE)
    home.beat("a", 700.0)
    home.account(1, shards=("s00000-a1",))
    home.account(2, shards=("s00000-a1", "s00001-a1"), workers={"a": layout.Claimed(kept=600.0)})
    assert left(home.purse(Clock())) == WHOLE - 100.0 - MARGIN


def test_all_workers_that_live_use_it_up_together(home):
    home.shard("s00001-a1", ["a"], seconds=WHOLE)
    for name in ("a", "b"):
        home.beat(name, 1000.0)
    home.beat("c", 1000.0, "ended")
    clock = Clock()
    purse = home.purse(clock)
    at_first = left(purse)
    assert at_first == (WHOLE - 3000.0 - 2 * MARGIN) / 2
    clock.now += 10.0
    assert left(purse) == at_first - 10.0, "without another look"
    home.beat("a", 3000.0)
    clock.now += 51.0
    assert left(purse) == (WHOLE - 5000.0 - 2 * MARGIN) / 2


def test_who_ends_in_the_second_of_its_last_beat_lives_no_more(home):
    """As on S3, whose times are whole seconds."""
    home.shard("s00001-a1", ["a"], seconds=WHOLE)
    clock = Clock()
    purse = home.purse(clock)
    for state, living in (("working", 2), ("ended", 1)):
        home.beat("a", 1000.0)
        home.beat("b", 1000.0, state)
        for name in ("a", "b"):
            os.utime(home.folder / layout.beat_path(name), (2000.0, 2000.0))
        assert left(purse) == (WHOLE - 2000.0 - living * MARGIN) / living
        clock.now += 61.0


def test_the_less_is_left_the_sooner_it_is_looked_at_again(home):
    home.shard("s00001-a1", ["a"], seconds=100.0)
    home.beat("a", 70.0)
    clock = Clock()
    purse = home.purse(clock)
    assert left(purse) == 20.0
    home.beat("a", 95.0)
    clock.now += 10.0
    assert left(purse) < 0


def test_of_little_time_the_ending_takes_a_small_share(home):
    home.shard("s00001-a1", ["a"], seconds=10.0)
    assert left(home.purse(Clock())) == 9.0


def test_who_waits_for_its_end_wakes_up_when_it_is_there(home):
    home.shard("s00001-a1", ["a"], seconds=1.0)
    home.beat("a", 0.5)

    async def wait():
        started = time.monotonic()
        await asyncio.wait_for(home.purse().wait_until_empty(), 30)
        return time.monotonic() - started

    assert asyncio.run(wait()) >= 0.3


def test_a_task_that_somebody_removes_is_passed_over(home):
    home.shard("s00001-a1", ["a"], seconds=WHOLE)
    (home.folder / "shards" / "s00002-a1" / "claims").mkdir(parents=True)
    (home.folder / "shards" / "s00002-a1" / "claims" / "000001").write_bytes(b"{}")
    assert left(home.purse(Clock())) == WHOLE - MARGIN
