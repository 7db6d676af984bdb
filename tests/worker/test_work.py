"""One shard under an engine that a test chooses: who is found guilty of its death, and when the shard is given up."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fleets import Yard, request

from lowtide_worker import layout
from lowtide_worker.beats import Account, Beats
from lowtide_worker.claims import Claims, Held
from lowtide_worker.feeding import Record
from lowtide_worker.notices import Machine
from lowtide_worker.ports import EngineDown
from lowtide_worker.stores import open_folder
from lowtide_worker.work import Shift, Trouble

SHARD = "s00001-a1"


class Desk:
    """Answers at once. Dies on the messages of `deadly`, and when more than `bears` are in flight."""

    def __init__(self, most, deadly, bears, asked):
        self.room, self.deadly, self.bears, self.asked = most, deadly, bears, asked
        self.flying = 0
        self.dead = False

    async def ask(self, line):
        told = json.loads(line)
        content = told["body"]["messages"][0]["content"]
        self.asked[content] += 1
        self.flying += 1
        try:
            for _ in range(2):
                if self.dead or content in self.deadly or self.flying > self.bears:
                    self.dead = True
                    raise EngineDown("the engine is gone")
                await asyncio.sleep(0)
        finally:
            self.flying -= 1
        body = {"usage": {"prompt_tokens": 2, "completion_tokens": 1}}
        return json.dumps(
            {"custom_id": told["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
        ).encode()


class Bench:
    def __init__(self, most, deadly=(), bears=10**6, desk=Desk):
        self.most, self.deadly, self.bears, self.desk_of = most, set(deadly), bears, desk
        self.asked = Counter()
        self.rooms = []

    async def desk(self):
        return self.desk_of(self.most, self.deadly, self.bears, self.asked)

    async def renew(self, most):
        self.rooms.append(most)
        return self.desk_of(most, self.deadly, self.bears, self.asked)

    def reason(self):
        return ""


async def shift(home, bench, stop=None, held=None, fleet=None, **settings):
    fleet = fleet or home.fleet(layout.Engine(url="http://127.0.0.1:1", **settings), most=bench.most)
    folder = open_folder(home.uri, {})
    beats = Beats(folder, "w", fleet.beat_seconds, Account(), Machine(), "")
    claims = Claims(folder, "w", fleet.lease_seconds)
    held = held or Held(SHARD, False, 1)
    return await Shift(folder, fleet, held, claims, bench, beats, stop or asyncio.Event()).run(), beats


def run(home, bench, **settings):
    left, beats = asyncio.run(asyncio.wait_for(shift(home, bench, **settings), 60))
    return left, beats


@pytest.fixture
def home(tmp_path):
    return Yard(tmp_path)


def failed(home):
    return sorted(row for row, line in home.answers(SHARD).items() if line["error"])


@settings(max_examples=30)
@example(deadly=199, most=1, restarts=3)
@given(deadly=st.integers(0, 199), most=st.sampled_from([1, 2, 7, 64, 256]), restarts=st.integers(2, 4))
def test_a_deadly_prompt_costs_one_row_wherever_it_stands(tmp_path_factory, deadly, most, restarts):
    home = Yard(tmp_path_factory.mktemp("shift"))
    home.shard(SHARD, [str(row) for row in range(200)])
    bench = Bench(most, {str(deadly)})
    left, beats = run(home, bench, restarts=restarts)
    assert left == "ended"
    end = home.end(SHARD)
    assert (end.outcome, end.answered, end.errors) == ("completed", 200, 1)
    assert failed(home) == [deadly]
    assert beats.restarts <= 3
    assert bench.asked[str(deadly)] == beats.restarts


def test_several_deadly_prompts_cost_a_row_each(home):
    home.shard(SHARD, [str(row) for row in range(500)])
    left, _ = run(home, Bench(16, {"17", "203", "204", "498", "499"}), restarts=3)
    assert left == "ended"
    assert home.end(SHARD).outcome == "completed"
    assert failed(home) == [17, 203, 204, 498, 499]


def test_an_engine_that_bears_less_than_it_is_asked_gets_less_and_no_row_is_lost(home):
    home.shard(SHARD, [str(row) for row in range(500)])
    bench = Bench(64, bears=20)
    run(home, bench, restarts=3)
    end = home.end(SHARD)
    assert (end.outcome, end.answered, end.errors) == ("completed", 500, 0)
    assert bench.rooms[-1] <= 20
    assert max(bench.asked.values()) <= 4


def test_an_engine_that_never_answers_fails_the_shard_after_its_restarts(home):
    home.shard(SHARD, [str(row) for row in range(500)])
    bench = Bench(8, {str(row) for row in range(500)})
    left, beats = run(home, bench, restarts=3)
    assert left == "ended"
    end = home.end(SHARD)
    assert end.outcome == "failed"
    assert "again and again" in end.reason
    assert "the engine is gone" in end.reason
    assert beats.restarts <= 2 * 3
    assert (end.answered, end.errors) == (0, 0)


def test_trouble_asks_suspects_alone_before_its_restarts_are_used_up():
    trouble = Trouble(restarts=3, most=64)
    records = [Record(row, b"") for row in range(64)]
    sizes = []
    while trouble.now > 1:
        assert trouble.death(records[: trouble.now], kept=0) is None
        trouble.barren += 1
        sizes.append(trouble.now)
    assert sizes == [8, 1]
    assert trouble.death([records[5]], kept=0) == records[5]
    assert not trouble.hopeless
    assert trouble.most == 64


def test_trouble_that_nobody_is_guilty_of_halves_what_was_in_flight():
    trouble = Trouble(restarts=3, most=64)
    trouble.death([Record(row, b"") for row in range(40)], kept=5)
    trouble.cleared()
    assert trouble.now == trouble.most == 20


def test_a_shard_on_which_its_time_was_spent_already_is_partial_and_asks_nothing(home):
    home.shard(SHARD, ["a", "b"], seconds=10.0)
    spells = (layout.Spell(shard=SHARD, seconds=10.0),)
    beat = layout.Beat(worker="x", state="ended", started=0.0, at=10.0, spells=spells)
    path = home.folder / layout.beat_path("x")
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(beat))
    bench = Bench(4)
    run(home, bench)
    assert home.end(SHARD).outcome == "partial"
    assert not bench.asked


def test_a_shard_that_was_claimed_since_is_dropped_after_its_answers_were_written(home):
    home.shard(SHARD, [str(row) for row in range(5000)])
    path = home.folder / layout.claim_path(SHARD, 2)

    async def story():
        bench = Bench(4, desk=Slow)
        working = asyncio.ensure_future(shift(home, bench))
        await asyncio.sleep(0.3)
        path.parent.mkdir(parents=True)
        path.write_bytes(b'{"worker":"heir","at":1.0}')
        left, _ = await asyncio.wait_for(working, 30)
        return left, bench.asked

    left, asked = asyncio.run(story())
    assert left == "lost"
    assert not home.has_ended(SHARD)
    answers = home.answers(SHARD)
    assert 0 < len(answers) < 5000
    assert asked.total() - len(answers) <= 4


class NeverUp(Bench):
    async def desk(self):
        await asyncio.sleep(600)


@pytest.mark.parametrize(
    ("cause", "left", "outcome"),
    [
        ("stop", "stopped", None),
        ("end", "lost", "completed"),
        ("cancel", "ended", "cancelled"),
        ("time", "ended", "partial"),
    ],
)
def test_the_start_of_an_engine_at_a_shard_is_broken_off_with_the_work_and_counts_as_boot(home, cause, left, outcome):
    home.shard(SHARD, ["a", "b"], seconds=1.0)
    shard = home.folder / layout.shard_path(SHARD)
    stop = asyncio.Event()

    def give_cause():
        if cause == "stop":
            stop.set()
        elif cause == "end":
            end = layout.End(outcome="completed", answered=2, errors=0, at=1.0)
            (shard / layout.END).write_bytes(msgspec.json.encode(end))
        elif cause == "cancel":
            (shard / layout.CANCEL).touch()
        else:
            beat = layout.Beat(worker="x", state="ended", started=0.0, at=10.0, boot=10.0)
            path = home.folder / layout.beat_path("x")
            path.parent.mkdir(parents=True)
            path.write_bytes(msgspec.json.encode(beat))

    async def story():
        working = asyncio.ensure_future(shift(home, NeverUp(4), stop=stop))
        await asyncio.sleep(0.5)
        assert not working.done()
        give_cause()
        return await asyncio.wait_for(working, 30)

    found, beats = asyncio.run(story())
    assert found == left
    assert (home.end(SHARD).outcome if home.has_ended(SHARD) else None) == outcome
    beat = beats.account.fill(beats._beat)
    assert beat.boot > 0.4
    assert sum(spell.seconds for spell in beat.spells) < 0.4


class Slow(Desk):
    async def ask(self, line):
        await asyncio.sleep(0.01)
        return await super().ask(line)


def test_a_shard_that_ended_between_its_claim_and_its_beginning_is_not_begun_again(home):
    home.shard(SHARD, ["a", "b"])
    run(home, Bench(4))
    for part in (home.folder / layout.shard_path(SHARD, "parts")).iterdir():
        part.unlink()
    bench = Bench(4)
    left, beats = run(home, bench)
    assert left == "lost"
    assert not bench.asked
    assert home.answers(SHARD) == {}
    (spell,) = beats.account.fill(beats._beat).spells
    assert spell.lost > 0


@pytest.mark.parametrize("cause", ["end", "deletion"])
def test_whoever_was_paused_for_long_looks_before_it_writes(home, cause):
    home.shard(SHARD, [str(row) for row in range(5000)])
    shard = home.folder / layout.shard_path(SHARD)

    async def story():
        fleet = home.fleet(layout.Engine(url="http://127.0.0.1:1"), most=4, part_seconds=600.0, lease_seconds=1.0)
        working = asyncio.ensure_future(shift(home, Bench(4, desk=Slow), fleet=fleet))
        await asyncio.sleep(0.3)
        # As if it was paused: the watch looks no more, and meanwhile all was collected.
        if cause == "end":
            (shard / layout.END).write_bytes(b"{}")
        else:
            (shard / layout.TASK).unlink()
        parts = shard / "parts"
        await asyncio.sleep(0.3)
        before = {path.name for path in parts.iterdir()}
        left, _ = await asyncio.wait_for(working, 30)
        return left, before, {path.name for path in parts.iterdir()}

    left, before, after = asyncio.run(story())
    assert left == "lost"
    # Within the lease it may write, since nobody can have taken the shard.
    assert len(after) - len(before) < 20


def test_a_shard_that_is_all_answered_is_only_ended(home):
    home.shard(SHARD, ["a", "b"])
    run(home, Bench(4))
    (home.folder / layout.shard_path(SHARD, layout.END)).unlink()
    bench = Bench(4)
    run(home, bench)
    assert (home.end(SHARD).outcome, home.end(SHARD).answered) == ("completed", 2)
    assert not bench.asked


def test_memory_does_not_grow_with_the_rows(tmp_path):
    rows = 200_000
    requests = tmp_path / "requests.jsonl"
    with requests.open("wb") as out:
        for row in range(rows):
            out.write(request(row, f"{row} " + "a sentence of some length, " * 20) + b"\n")
    program = Path(__file__).parents[1] / "support" / "shift_memory.py"
    told = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(rows)], check=True, capture_output=True, text=True
    )
    early, late = map(float, told.stdout.split())
    assert late < 200
    assert late - early < 15
