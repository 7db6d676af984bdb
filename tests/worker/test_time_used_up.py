"""Workers stop before what is reserved is used up, whatever it went into, and shards end with what was answered."""

from __future__ import annotations

import time

import msgspec
import pytest
from servers import engine
from support.fleets import yard

from lowtide_worker import layout

CONTENTS = [f"record {row}" for row in range(5000)]


@pytest.fixture
def home(tmp_path):
    with yard(tmp_path) as made:
        yield made


def used(home):
    return sum(beat.at - beat.started for beat in home.beats())


def beat_of(home, seconds):
    beat = layout.Beat(worker="other", state="ended", started=1000.0, at=1000.0 + seconds, boot=seconds, exit_code=75)
    path = home.folder / layout.beat_path("other")
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(beat))


def test_an_engine_that_boots_for_too_long_is_given_up(home):
    with engine.running("--boot", "600") as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", CONTENTS, seconds=8.0)
        home.shard("s00002-a1", CONTENTS, seconds=2.0)
        started = time.monotonic()
        assert home.worker().wait(60) == 0, home.said()
        assert time.monotonic() - started < 40
        assert not server.asked()
    for shard in ("s00001-a1", "s00002-a1"):
        assert (home.end(shard).outcome, home.end(shard).answered) == ("partial", 0)
        assert "start" in home.end(shard).reason
    assert 8.0 < used(home) < 12.0


def test_what_other_workers_boots_have_used_up_is_used_up(home):
    with engine.running("--latency", "0.05") as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", CONTENTS, seconds=1000.0)
        beat_of(home, 970.0)
        assert home.worker().wait(60) == 0, home.said()
    assert home.end("s00001-a1").outcome == "partial"
    assert home.end("s00001-a1").answered > 0
    assert used(home) < 1000.0


def test_no_engine_is_started_where_nothing_is_left(home, tmp_path):
    touched = tmp_path / "touched"
    home.fleet(layout.Engine(command=("touch", str(touched))))
    home.shard("s00001-a1", CONTENTS, seconds=100.0)
    beat_of(home, 95.0)
    assert home.worker().wait(60) == 0, home.said()
    assert (home.end("s00001-a1").outcome, home.end("s00001-a1").answered) == ("partial", 0)
    assert not touched.exists()
