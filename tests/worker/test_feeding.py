"""Requests on their way to the engine: each asked once, never more at a time than there is room for."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.fleets import request

from lowtide_worker.feeding import BadRequests, Feed, Round
from lowtide_worker.ports import EngineDown

ROWS = 300


async def chunks(rows=ROWS, size=60):
    lines = [request(number, str(number)) for number in range(rows)]
    for start in range(0, rows, size):
        await asyncio.sleep(0)
        yield lines[start : start + size]


class Server:
    """A desk that notes what is in flight. `room` may change at any time; it dies on the records of `deadly`."""

    def __init__(self, room=10, deadly=()):
        self.room = room
        self.deadly = deadly
        self.asked = Counter()
        self.now = 0
        self.most = 0
        self.down = False
        self.after = lambda: None

    async def ask(self, line):
        self.asked[line] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(25):
                await asyncio.sleep(0)
                if self.down or any(b'"r%07dx' % ordinal in line for ordinal in self.deadly):
                    self.down = True
                    raise EngineDown("gone")
        finally:
            self.now -= 1
        self.after()
        return line


async def no_wait():
    pass


def feed(seen=None, rows=ROWS):
    return Feed(chunks(), bytearray(rows) if seen is None else seen)


def round_of(desk, source, most=50, keep=lambda line: None):
    return Round(desk, source.take, keep, most=most, room=no_wait)


def test_each_record_without_an_answer_is_asked_once_and_no_other():
    seen = bytearray(ROWS)
    seen[3] = seen[ROWS - 1] = 1
    desk, kept = Server(), []

    async def story():
        await round_of(desk, feed(seen), keep=kept.append).run()

    asyncio.run(story())
    assert sorted(line.ordinal for line in kept) == [row for row in range(ROWS) if not seen[row]]
    assert set(desk.asked.values()) == {1}
    assert desk.most == 10


def test_the_room_is_followed_up_and_down():
    desk = Server(room=2)
    rooms = iter([2] * 40 + [20] * 120 + [5] * 1000)
    high = []

    def after():
        desk.room = next(rooms)
        high.append((desk.room, desk.now))

    desk.after = after
    asyncio.run(round_of(desk, feed()).run())
    assert max(now for room, now in high[:40]) <= 2
    assert max(now for room, now in high[60:160]) >= 15
    assert max(now for room, now in high[200:]) <= 5
    assert len(high) == ROWS


def test_no_more_are_in_flight_than_the_round_allows():
    desk = Server(room=100)
    asyncio.run(round_of(desk, feed(), most=8).run())
    assert desk.most == 8


def test_what_was_in_flight_when_the_engine_died_can_be_asked_again():
    dying, kept = Server(room=10, deadly={100}), Counter()

    async def story():
        source = feed()
        first = round_of(dying, source, keep=lambda line: kept.update([line.ordinal]))
        await first.run()
        assert first.dead == "gone"
        assert 100 in first.flying
        assert len(first.flying) <= 10
        assert first.kept == len(kept)
        source.give_back([*first.untouched, *first.flying.values()])
        await round_of(Server(), source, keep=lambda line: kept.update([line.ordinal])).run()

    asyncio.run(story())
    assert kept == Counter(range(ROWS))


def test_a_closed_round_lets_what_is_in_flight_be_answered():
    desk, kept = Server(), []

    async def story():
        asking = round_of(desk, feed(), keep=kept.append)
        desk.after = lambda: asking.close() if len(kept) > 20 else None
        await asking.run()
        assert asking.flying == {}

    asyncio.run(story())
    assert 20 < len(kept) <= 40
    assert len(kept) == desk.asked.total()


def test_a_round_that_is_cut_off_says_what_was_in_flight():
    class Never(Server):
        async def ask(self, line):
            self.asked[line] += 1
            await asyncio.sleep(3600)

    desk = Never(room=4)

    async def story():
        asking = round_of(desk, feed())
        running = asyncio.ensure_future(asking.run())
        while desk.asked.total() < 4:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        assert {record.line for record in asking.flying.values()} == set(desk.asked)

    asyncio.run(story())


def test_what_was_taken_while_the_round_was_closed_is_not_lost():
    source, taken = feed(), asyncio.Event()

    async def slow():
        record = await source.take()
        taken.set()
        await asyncio.sleep(0.01)
        return record

    async def story():
        asking = Round(Server(room=1), slow, lambda line: None, most=1, room=no_wait)
        running = asyncio.ensure_future(asking.run())
        await taken.wait()
        asking.close()
        await running
        assert [record.ordinal for record in asking.untouched] == [0]

    asyncio.run(story())


def test_reading_goes_on_where_a_round_that_was_cut_off_had_waited():
    go = asyncio.Event()

    async def slow():
        async for some in chunks():
            await go.wait()
            yield some

    async def story():
        source = Feed(slow(), bytearray(ROWS))
        cut = asyncio.ensure_future(round_of(Server(), source).run())
        await asyncio.sleep(0.01)
        cut.cancel()
        await asyncio.wait({cut})
        go.set()
        desk = Server()
        await round_of(desk, source).run()
        assert desk.asked.total() == ROWS

    asyncio.run(story())


@pytest.mark.parametrize(("rows", "says"), [(ROWS - 1, "more than"), (ROWS + 1, "300 lines")])
def test_a_file_of_another_length_is_told(rows, says):
    with pytest.raises(BadRequests, match=says):
        asyncio.run(round_of(Server(), feed(rows=rows)).run())


def test_a_line_of_another_record_is_told():
    async def wrong():
        yield [request(0, "a"), request(2, "b")]

    with pytest.raises(BadRequests, match="line 2"):
        asyncio.run(round_of(Server(), Feed(wrong(), bytearray(2))).run())
