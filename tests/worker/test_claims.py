"""Who has a shard, by what lies in the fleet's folder and the store's own times."""

from __future__ import annotations

import asyncio
import os
import time

import msgspec
import pytest

from lowtide_worker import layout
from lowtide_worker.claims import Claims, Held, Unfinished, seconds_spent
from lowtide_worker.stores import open_folder

NOW = time.time()
LEASE = 45.0
SHARD = "s00001-a1"


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path)


class Fleet:
    def __init__(self, path):
        self.path = path

    def put(self, name, data=b"{}", age=0.0):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (NOW - age, NOW - age))

    def task(self, shard=SHARD):
        self.put(layout.shard_path(shard, layout.TASK))

    def claim(self, worker, number, age=0.0, shard=SHARD):
        self.put(
            layout.claim_path(shard, number), msgspec.json.encode(layout.Claim(worker=worker, at=NOW + 1e6)), age=age
        )

    def beat(self, worker, state="working", age=0.0, spells=()):
        # The worker's own clock is wrong, which must not matter.
        beat = layout.Beat(worker=worker, state=state, started=NOW + 1e6, at=NOW + 1e6, spells=spells)
        self.put(layout.beat_path(worker), msgspec.json.encode(beat), age=age)

    def claims(self, worker="me", lease=LEASE):
        return Claims(open_folder(self.path.as_uri(), {}), worker, lease)

    def take(self, *shards, worker="me"):
        claims = self.claims(worker)
        left = [Unfinished(shard, False) for shard in shards or (SHARD,)]
        return asyncio.run(claims.take(left, NOW))


def test_work_is_left_until_each_shard_has_ended_or_is_cancelled(fleet):
    claims = fleet.claims()

    def is_left():
        return asyncio.run(claims.is_work_left())

    assert not is_left()
    for number in (1, 2, 3):
        fleet.task(f"s{number:05d}-a1")
    assert is_left()
    fleet.put("shards/s00001-a1/end.json")
    fleet.put("shards/s00002-a1/cancel")
    assert is_left()
    fleet.put("shards/s00003-a1/end.json")
    assert not is_left()
    fleet.task("s00004-a1")
    assert is_left()
    fleet.put("shards/s00004-a1/cancel")
    assert not is_left()


def test_a_shard_nobody_has_is_claimed(fleet):
    fleet.task()
    assert fleet.take() == Held(SHARD, False, 1)
    claim = msgspec.json.decode((fleet.path / layout.claim_path(SHARD, 1)).read_bytes(), type=layout.Claim)
    assert claim.worker == "me"


def test_a_shard_of_a_worker_that_beats_is_left_to_it(fleet):
    fleet.claim("other", 1, age=1000.0)
    fleet.beat("other", age=LEASE - 1)
    assert fleet.take() is None
    fleet.beat("other", "stopping", age=1.0)
    assert fleet.take() is None


def test_a_shard_of_a_worker_that_beats_no_more_is_taken_over(fleet):
    fleet.claim("first", 1, age=2000.0)
    fleet.claim("other", 2, age=1000.0)
    fleet.beat("first", age=1.0)
    fleet.beat("other", age=LEASE + 1)
    assert fleet.take() == Held(SHARD, False, 3)


def test_a_shard_of_a_worker_that_ended_is_taken_over_at_once(fleet):
    fleet.claim("other", 1)
    fleet.beat("other", "ended")
    assert fleet.take() == Held(SHARD, False, 2)


def test_a_claim_without_a_beat_holds_for_one_lease(fleet):
    fleet.claim("other", 1, age=LEASE - 1)
    assert fleet.take() is None
    fleet.claim("other", 1, age=LEASE + 1)
    assert fleet.take() == Held(SHARD, False, 2)


def test_a_claim_is_younger_than_the_beat_of_who_made_it(fleet):
    fleet.claim("other", 1, age=1.0)
    fleet.beat("other", age=LEASE + 1)
    assert fleet.take() is None


def test_its_own_claim_is_gone_on_with(fleet):
    fleet.claim("me", 4)
    assert fleet.take() == Held(SHARD, False, 4)


def test_what_nobody_has_touched_goes_before_what_another_lost(fleet):
    fleet.claim("other", 1)
    fleet.beat("other", "ended")
    assert fleet.take(SHARD, "s00002-a1") == Held("s00002-a1", False, 1)


def test_of_many_workers_one_gets_a_shard(fleet):
    fleet.task()

    async def race():
        shards = [Unfinished(SHARD, False)]
        return await asyncio.gather(*(fleet.claims(f"w{one}").take(shards, NOW) for one in range(10)))

    assert asyncio.run(race()).count(None) == 9


def test_a_later_claim_is_seen(fleet):
    claims = fleet.claims()
    fleet.claim("me", 1)
    assert asyncio.run(claims.holds(SHARD, 1))
    fleet.claim("other", 2)
    assert not asyncio.run(claims.holds(SHARD, 1))


def test_shards_are_left_that_have_a_task_and_no_end(fleet):
    for number in range(40):
        fleet.task(f"s{number:05d}-a1")
    fleet.put(layout.shard_path("s00003-a1", layout.END))
    fleet.put(layout.shard_path("s00005-a1", layout.CANCEL))
    fleet.put(layout.shard_path("s00099-a1", "parts/000001.jsonl"))
    claims = fleet.claims()
    left = asyncio.run(claims.unfinished())
    names = [f"s{number:05d}-a1" for number in range(40) if number != 3]
    assert sorted(one.shard for one in left) == names
    assert [one.shard for one in left if one.cancelled] == ["s00005-a1"]
    fleet.put(layout.shard_path("s00004-a1", layout.END))
    assert len(asyncio.run(claims.unfinished())) == 38


def test_the_time_of_all_workers_at_a_shard_is_counted(fleet):
    spells = (layout.Spell(shard=SHARD, seconds=10.0), layout.Spell(shard="other", seconds=100.0))
    fleet.beat("a", spells=spells)
    fleet.beat("b", "ended", spells=(layout.Spell(shard=SHARD, seconds=2.5), layout.Spell(shard=SHARD, seconds=1.0)))
    assert asyncio.run(seconds_spent(open_folder(fleet.path.as_uri(), {}), SHARD)) == 13.5
