"""The room for requests, against engines of known capacity whose time is simulated."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide_worker.pace import FIRST, Pace


@dataclass
class Simulated:
    """An engine with `slots`: an answer takes `seconds`, longer in proportion when more are in flight than slots.

    More than `bears` in flight are refused. The desk that asks keeps as many in flight as the pace has room for, or
    `offered` where that is less.
    """

    slots: int
    seconds: float = 1.0
    bears: int = 10**9
    offered: int = 10**9
    noise: float = 0.1
    seed: int = 1
    now: float = 0.0
    answered: int = 0
    refused: int = 0
    tokens: int = 100
    rooms: list[int] = field(default_factory=list)

    def run(self, pace: Callable[[Callable[[], float]], Pace], answers: int, later: int | None = None) -> Pace:
        """Ask until there are so many answers. With `later` it has that many slots after half of them."""
        draw = random.Random(self.seed)
        steered = pace(lambda: self.now)
        out: list[tuple[float, float, bool]] = []
        while self.answered < answers:
            if later and self.answered == answers // 2:
                self.slots = later
            while len(out) < min(steered.room, self.offered):
                refused = len(out) >= self.bears
                slowed = max(1.0, len(out) / self.slots) * draw.uniform(1 - self.noise, 1 + self.noise)
                steered.enter()
                heapq.heappush(out, (self.now + (0.01 if refused else self.seconds * slowed), self.now, refused))
            self.now, began, refused = heapq.heappop(out)
            self.rooms.append(steered.room)
            steered.leave()
            if refused:
                self.refused += 1
                assert self.refused < 100 + 10 * answers, "it is asked too much for ever"
                steered.pushed_back(self.now - began)
            else:
                self.answered += 1
                steered.answered(self.now - began, self.tokens)
        return steered


def between(least: int, most: int) -> Callable[[Callable[[], float]], Pace]:
    return lambda clock: Pace(least, most, clock=clock)


@given(
    slots=st.integers(4, 400),
    seed=st.integers(0, 10**6),
    seconds=st.sampled_from([0.02, 1.0, 20.0]),
    noise=st.sampled_from([0.0, 0.1, 0.5]),
)
@settings(max_examples=30)
def test_the_room_comes_to_what_the_engine_can_use(slots: int, seed: int, seconds: float, noise: float) -> None:
    """Also where all answers come in waves, as without noise, and where answers differ much in length."""
    engine = Simulated(slots=slots, seconds=seconds, seed=seed, noise=noise)
    engine.run(between(1, 512), 8000)

    later = engine.rooms[len(engine.rooms) // 2 :]
    used = sum(min(room, slots) for room in later) / len(later)
    assert used >= 0.8 * slots


def test_what_brings_nothing_is_not_kept_in_flight() -> None:
    engine = Simulated(slots=40)
    engine.run(between(4, 512), 20000)

    later = engine.rooms[len(engine.rooms) // 2 :]
    assert sum(later) / len(later) <= 2 * 40


def test_a_room_follows_what_the_engine_can_use_up_and_down() -> None:
    growing, shrinking = Simulated(slots=40), Simulated(slots=160)
    growing.run(between(4, 512), 40000, later=160)
    shrinking.run(between(4, 512), 40000, later=40)

    assert growing.rooms[-1] >= 100
    assert shrinking.rooms[-1] <= 80


def test_a_step_up_that_is_refused_is_taken_back_to_where_it_was() -> None:
    engine = Simulated(slots=200, bears=40)
    pace = engine.run(between(4, 512), 64)

    # 32 were borne, and 64 were not.
    assert pace.room == FIRST


def test_a_large_engine_is_full_after_a_few_rounds() -> None:
    engine = Simulated(slots=256, seconds=10.0)
    engine.run(between(4, 256), 4 * 256)

    assert engine.rooms[-1] >= 200
    assert engine.now < 100


@given(bears=st.integers(5, 200), seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_an_engine_that_refuses_is_seldom_asked_too_much(bears: int, seed: int) -> None:
    engine = Simulated(slots=1000, bears=bears, seed=seed)
    engine.run(between(1, 512), 6000)

    later = engine.rooms[len(engine.rooms) // 2 :]
    assert engine.refused < 0.1 * engine.answered + 600
    assert sum(later) / len(later) >= 0.5 * bears
    assert sum(room > bears for room in later) <= 0.25 * len(later)


@given(
    least=st.integers(1, 40),
    wider=st.integers(0, 400),
    steps=st.lists(
        st.tuples(st.booleans(), st.floats(0, 100), st.integers(0, 10**6), st.floats(0, 50)), min_size=1, max_size=300
    ),
)
@settings(max_examples=50)
def test_the_room_never_leaves_its_bounds(least: int, wider: int, steps: list[tuple[bool, float, int, float]]) -> None:
    now = 0.0
    pace = Pace(least, least + wider, clock=lambda: now)
    for _ in range(least + wider):
        pace.enter()
    for pushed, seconds, tokens, passes in steps:
        now += passes
        if pushed:
            pace.pushed_back(seconds)
        else:
            pace.answered(seconds, tokens)
        assert least <= pace.room <= least + wider


def test_one_overload_is_one_cut_however_many_feel_it() -> None:
    now = 0.0
    pace = Pace(1, 512, clock=lambda: now)
    now = 10.0
    for _ in range(FIRST):
        pace.pushed_back(5.0)

    assert FIRST / 2 <= pace.room < FIRST


def test_work_that_offers_little_does_not_make_room_nor_take_it() -> None:
    engine = Simulated(slots=100, offered=3)
    pace = engine.run(between(1, 512), 2000)

    assert pace.room == FIRST


@pytest.mark.parametrize(("least", "most"), [(0, 4), (5, 4)])
def test_bounds_that_hold_nothing_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="requests in flight"):
        Pace(least, most)
