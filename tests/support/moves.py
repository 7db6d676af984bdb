"""Moves that state machines over runs have in common: passes that something happens to, and time that goes by."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from support.world import Fault, Process

EXAMPLES = int(os.environ.get("LOWTIDE_EXAMPLES", "400"))


@dataclass(frozen=True)
class Point:
    """The `nth` point in a pass with `name` in its name."""

    name: str
    nth: int


def points(most: int, *names: str) -> st.SearchStrategy[Point]:
    """One of the first `most` points of any name, or of the first four with one of these names."""
    return st.one_of(
        st.builds(Point, st.just(""), st.integers(1, most)),
        st.builds(Point, st.sampled_from(names), st.integers(1, 4)),
    )


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """A process makes a pass, with these faults of its create calls. At point `at` of it, `how` happens.

    If it does not die there, another process makes a whole pass at this point, in which that one dies at point `then`.
    """

    faults: list[Fault | None]
    how: str
    at: Point
    then: Point | None

    def carry_out(
        self, process: Process, rival: Callable[[], Process], meanwhile: Callable[[Process], None] = lambda rival: None
    ) -> None:
        """The process makes its pass. What happens `meanwhile` comes before the rival's."""

        def meet() -> None:
            if self.how == "dies":
                process.die()
            other = rival()
            meanwhile(other)
            if self.then:
                other.meet(other.die, self.then.name, self.then.nth)
            other.advance()

        process.backend.faults = list(self.faults)
        if self.how != "undisturbed":
            process.meet(meet, self.at.name, self.at.nth)
        process.advance()
        process.backend.faults = []


@dataclass(frozen=True)
class Wait:
    seconds: float


def machine_settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=max(examples, 1),
        stateful_step_count=steps,
        deadline=None,
        derandomize="CI" in os.environ,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
