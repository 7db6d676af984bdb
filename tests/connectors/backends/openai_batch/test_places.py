"""Which deployment is tried next, and after which pause."""

from __future__ import annotations

import pytest
from support.openai_support import Clock

from lowtide.connectors.backends.openai_batch.account import openai_account
from lowtide.connectors.backends.openai_batch.places import Place, Room


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def room(clock):
    account = openai_account("http://127.0.0.1:9", {"OPENAI_API_KEY": "k"})
    places = [Place(name, "m", account) for name in ("a", "b", "c")]
    found = Room(places, clock)
    found.by_name = dict(zip("abc", places, strict=True))
    return found


def names(room):
    return [place.region for place in room.candidates()]


def test_a_full_place_rests_twice_as_long_each_time_up_to_five_minutes(room, clock):
    pauses = []
    for _ in range(9):
        room.full(room.by_name["a"])
        assert names(room) == ["b", "c"]
        started = clock.now
        while names(room) == ["b", "c"]:
            clock.now += 1
        pauses.append(clock.now - started)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_the_least_recently_full_comes_first_behind_those_that_never_were(room, clock):
    room.full(room.by_name["b"])
    clock.now += 1
    room.full(room.by_name["a"])
    clock.now += 100
    assert names(room) == ["c", "b", "a"]


def test_refusals_of_the_same_moment_count_once(room, clock):
    for _ in range(5):
        room.full(room.by_name["a"])
    assert room.wait() == 0
    room.full(room.by_name["b"])
    room.full(room.by_name["c"])
    assert room.wait() == 5
    clock.now += 5
    assert names(room) == ["a", "b", "c"]


def test_a_batch_that_was_taken_ends_the_rest_and_the_growth(room, clock):
    for _ in range(4):
        room.full(room.by_name["a"])
        clock.now += 1000
    room.took(room.by_name["a"])
    assert names(room) == ["a", "b", "c"]
    room.full(room.by_name["a"])
    clock.now += 5
    assert "a" in names(room)


def test_a_batch_that_ended_makes_room_at_once(room):
    room.full(room.by_name["a"])
    room.eased(room.by_name["a"])
    assert set(names(room)) == {"a", "b", "c"}
