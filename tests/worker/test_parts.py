"""Answers become parts in which each record stands once, however many write at the same time."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fleets import custom_id

from lowtide_worker.answers import usage
from lowtide_worker.beats import Tally
from lowtide_worker.layout import number_of, part_path, shard_path
from lowtide_worker.parts import Line, PartWriter, ordinal_of, read_parts
from lowtide_worker.stores import Folder, StoreError, open_folder

SHARD = "s00001-a1"


def answer(ordinal: int, by: str = "", error: bool = False) -> Line:
    response = {"status_code": 200, "body": {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}}
    line = {"custom_id": custom_id(ordinal), "response": None if error else response, "error": None}
    if error:
        line["error"] = {"code": "x", "message": by}
    else:
        response["body"]["id"] = by
    return Line(ordinal, json.dumps(line).encode())


class Hand:
    """A worker's writer, over what it has read at its start."""

    def __init__(self, folder, answered, rows=1000, seconds=1000.0, wanted=None):
        self.answered = answered
        self.tally = Tally(SHARD)
        self.writer = PartWriter(
            folder, SHARD, answered, self.tally, rows=rows, seconds=seconds, usage=usage, wanted=wanted
        )


def lines_in(path):
    parts = sorted((path / shard_path(SHARD, "parts")).glob("*"), key=lambda part: number_of(part.name))
    assert [number_of(part.name) for part in parts] == list(range(1, len(parts) + 1))
    return [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]


def test_what_was_written_is_read_again(tmp_path):
    folder = open_folder(tmp_path.as_uri(), {})

    async def story():
        hand = Hand(folder, await read_parts(folder, SHARD, 10))
        for ordinal in (7, 2):
            hand.writer.add(answer(ordinal))
        hand.writer.add(answer(4, error=True))
        await hand.writer.flush()
        hand.writer.add(answer(0))
        await hand.writer.flush()
        spell = hand.tally.spell(1.0)
        assert (spell.answered, spell.input_tokens, spell.output_tokens, spell.duplicates) == (4, 9, 6, 0)
        found = await read_parts(folder, SHARD, 10)
        assert [ordinal for ordinal in range(10) if found.seen[ordinal]] == [0, 2, 4, 7]
        assert (found.count, found.errors, found.last) == (4, 1, 2)

    asyncio.run(story())


@given(
    moves=st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 19))), max_size=60),
)
def test_whoever_writes_when_each_record_stands_in_one_part(tmp_path_factory, moves):
    path = tmp_path_factory.mktemp("parts")
    folder = open_folder(path.as_uri(), {})

    async def story():
        hands = [Hand(folder, await read_parts(folder, SHARD, 20)) for _ in range(3)]
        asked = [set() for _ in hands]
        for who, what in moves:
            if what is None:
                await hands[who].writer.flush()
            elif what not in asked[who] and not hands[who].answered.seen[what]:
                asked[who].add(what)
                hands[who].writer.add(answer(what, by=str(who)))
        await asyncio.gather(*(hand.writer.flush() for hand in hands))
        written = [ordinal_of(line["custom_id"]) for line in lines_in(path)]
        assert sorted(written) == sorted(set().union(*asked))
        assert sum(hand.tally.answered for hand in hands) == len(written)
        given = sum(map(len, asked))
        assert sum(hand.tally.duplicates for hand in hands) == given - len(written)

    asyncio.run(story())


def test_parts_are_written_when_they_are_full_or_it_is_time(tmp_path):
    folder = open_folder(tmp_path.as_uri(), {})

    async def sizes(rows, seconds, adds):
        hand = Hand(folder, await read_parts(folder, SHARD, 100), rows, seconds)
        running = asyncio.ensure_future(hand.writer.run())
        for ordinal in adds:
            hand.writer.add(answer(ordinal))
        while hand.writer.buffered:
            await asyncio.sleep(0.01)
        running.cancel()
        return hand.answered.last

    assert asyncio.run(asyncio.wait_for(sizes(5, 1000.0, range(5)), 10)) == 1
    assert asyncio.run(asyncio.wait_for(sizes(1000, 0.05, range(5, 8)), 10)) == 2


class Interrupted(Folder):
    """A store whose next answers are lost after the work was done."""

    lose = 0

    async def put_if_absent(self, path, data):
        made = await super().put_if_absent(path, data)
        if self.lose:
            self.lose -= 1
            raise StoreError("the answer was lost")
        return made


def test_a_part_whose_writing_was_cut_short_is_written_once(tmp_path):
    plain = open_folder(tmp_path.as_uri(), {})
    folder = Interrupted(plain.uri, plain._store)

    async def story():
        hand = Hand(folder, await read_parts(folder, SHARD, 10))
        hand.writer.add(answer(1))
        folder.lose = 1
        with pytest.raises(StoreError):
            await hand.writer.flush()
        hand.writer.add(answer(2))
        assert hand.writer.buffered == 2
        await hand.writer.flush()
        assert (hand.tally.answered, hand.tally.duplicates) == (2, 0)

    asyncio.run(story())
    assert [ordinal_of(line["custom_id"]) for line in lines_in(tmp_path)] == [1, 2]


def test_answers_that_nobody_wants_any_more_are_dropped_and_hold_nobody_up(tmp_path):
    folder = open_folder(tmp_path.as_uri(), {})
    wanted = [True, False]

    async def is_wanted():
        return wanted.pop(0)

    async def story():
        hand = Hand(folder, await read_parts(folder, SHARD, 10), wanted=is_wanted)
        hand.writer.add(answer(1))
        await hand.writer.flush()
        hand.writer.add(Line(2, answer(2).data + b" " * (40 << 20)))
        await hand.writer.flush()
        await asyncio.wait_for(hand.writer.room(), 10)
        assert hand.writer.buffered == 0
        assert (hand.tally.answered, hand.tally.duplicates) == (1, 0)

    asyncio.run(story())
    assert [ordinal_of(line["custom_id"]) for line in lines_in(tmp_path)] == [1]


class Reading(Folder):
    """A store that takes its time to read: what comes meanwhile is added."""

    meanwhile = ()

    async def get(self, path):
        got = await super().get(path)
        for hand, line in self.meanwhile:
            hand.writer.add(line)
        self.meanwhile = ()
        return got


def test_what_comes_while_anothers_part_is_read_stands_in_that_part_alone(tmp_path):
    plain = open_folder(tmp_path.as_uri(), {})
    folder = Reading(plain.uri, plain._store)

    async def story():
        ghost, heir = [Hand(folder, await read_parts(folder, SHARD, 10)) for _ in range(2)]
        for ordinal in range(6):
            heir.writer.add(answer(ordinal, by="heir"))
        await heir.writer.flush()
        for ordinal in range(3):
            ghost.writer.add(answer(ordinal, by="ghost"))
        folder.meanwhile = [(ghost, answer(ordinal, by="ghost")) for ordinal in range(3, 8)]
        await ghost.writer.flush()
        assert ghost.writer.buffered == 0
        spell = ghost.tally.spell(1.0)
        assert (spell.answered, spell.duplicates, spell.input_tokens) == (2, 6, 6)

    asyncio.run(story())
    assert [ordinal_of(line["custom_id"]) for line in lines_in(tmp_path)] == list(range(8))


def test_a_part_of_another_shard_is_not_taken_for_ours(tmp_path):
    folder = open_folder(tmp_path.as_uri(), {})

    async def story():
        await folder.put(part_path(SHARD, 1), answer(9).data + b"\n")
        with pytest.raises(ValueError, match="record 9"):
            await read_parts(folder, SHARD, 9)

    asyncio.run(story())


@pytest.mark.parametrize("name", ["", "r1", "x0000001x", "r00000011x", "r0000001y", "r-000001x"])
def test_an_id_that_names_no_record_is_refused(name):
    with pytest.raises(ValueError, match="custom_id"):
        ordinal_of(name)
