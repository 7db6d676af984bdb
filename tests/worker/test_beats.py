"""The account of a worker's time, and the beat that tells it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide_worker.beats import Account, Beats, Tally
from lowtide_worker.layout import Beat, beat_path
from lowtide_worker.notices import Machine
from lowtide_worker.stores import Folder, open_folder


class Clock:
    def __init__(self):
        self.now = 500.0

    def __call__(self):
        return self.now


BLANK = Beat(worker="w", state="booting", started=1000.0, at=1000.0)


@given(st.lists(st.tuples(st.sampled_from(["boot", "wait", "one", "two", "beat"]), st.floats(0, 1e4)), max_size=40))
def test_boot_waiting_and_spells_add_up_to_the_whole_time(turns):
    clock = Clock()
    account = Account(clock, started=1000.0)
    tallies = {name: Tally(name, clock) for name in ("one", "two")}
    expected = {"boot": 0.0, "wait": 0.0, "one": 0.0, "two": 0.0}
    doing = "boot"
    for what, seconds in turns:
        clock.now += seconds
        expected[doing] += seconds
        if what == "beat":
            account.fill(BLANK)
            continue
        doing = what
        if what in tallies:
            account.work(tallies[what])
        else:
            {"boot": account.boot, "wait": account.wait}[what]()
    beat = account.fill(BLANK)
    spells = {spell.shard: spell.seconds for spell in beat.spells}
    assert beat.boot == pytest.approx(expected["boot"])
    assert beat.waited == pytest.approx(expected["wait"])
    assert spells == {name: pytest.approx(expected[name]) for name in spells}
    assert beat.started + beat.boot + beat.waited + sum(spells.values()) == pytest.approx(beat.at)


def test_lost_is_what_came_behind_the_last_part_and_the_share_of_duplicates():
    clock = Clock()
    tally = Tally("s", clock)
    clock.now += 60
    tally.answered, tally.duplicates = 30, 10
    tally.wrote()
    assert tally.spell(60.0).lost == pytest.approx(15.0)
    clock.now += 20
    tally.broke_off()
    assert tally.spell(80.0).lost == pytest.approx(20.0 + 15.0)


def test_a_beat_tells_all_and_the_last_one_how_it_ended(tmp_path):
    folder = open_folder(tmp_path.as_uri(), {})

    def read():
        return msgspec.json.decode((tmp_path / beat_path("w")).read_bytes(), type=Beat)

    async def story():
        machine = Machine("i-1", "g6.xlarge", "eu-west-1", "eu-west-1a", 12.5)
        beats = Beats(folder, "w", 0.02, Account(), machine, "job:1")
        beats.in_flight = lambda: 7
        beats.state = "working"
        assert await beats.store_time() == pytest.approx((tmp_path / beat_path("w")).stat().st_mtime, abs=1e-3)
        found = read()
        assert (found.instance, found.zone, found.job, found.up_before) == ("i-1", "eu-west-1a", "job:1", 12.5)
        assert (found.state, found.in_flight, found.exit_code) == ("working", 7, None)
        running = asyncio.ensure_future(beats.run())
        before = read().at
        while read().at <= before:
            await asyncio.sleep(0.01)
        running.cancel()
        await beats.write(75)
        assert (read().state, read().exit_code) == ("ended", 75)

    asyncio.run(asyncio.wait_for(story(), 20))


class Late(Folder):
    """A store whose first write takes its time, and cannot be called back, as those of its library cannot."""

    late = 0.5

    async def put(self, path, data):
        seconds, self.late = self.late, 0.0
        await asyncio.shield(asyncio.ensure_future(self._put(path, data, seconds)))

    async def _put(self, path, data, seconds):
        await asyncio.sleep(seconds)
        await super().put(path, data)


def test_the_last_beat_is_not_written_over_by_one_that_was_interrupted(tmp_path):
    plain = open_folder(tmp_path.as_uri(), {})
    folder = Late(plain.uri, plain._store)

    async def story():
        beats = Beats(folder, "w", 60.0, Account(), Machine(), "")
        writing = asyncio.ensure_future(beats.write())
        await asyncio.sleep(0.1)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await beats.write(0)
        await asyncio.sleep(1.0)

    asyncio.run(asyncio.wait_for(story(), 20))
    assert msgspec.json.decode((tmp_path / beat_path("w")).read_bytes(), type=Beat).exit_code == 0
