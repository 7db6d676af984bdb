"""Whether a run may be changed behind its back: only one that nobody is at, and whose batches are all in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from lowtide.errors import CorruptJournal, NotFound
from lowtide.journal import Journal
from lowtide.openruns import path_of
from lowtide.ownership import is_alive, this_owner
from lowtide.plan import RunPlan
from lowtide.protocols import Store
from lowtide.rootwalk import RunPlace
from lowtide.shards import Phase
from lowtide.states import RunState

PATIENCE = 3600.0
"""Seconds beyond its lease after which even a living builder's claim no longer holds."""


class Standing(StrEnum):
    """Where a run stands. `unbuilt`: only its files are listed. `dropped`: it ended while it was still reading."""

    UNBUILT = "unbuilt"
    DROPPED = "dropped"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True)
class Opened:
    """A run as it was looked at: its journal, its plan (None where it was never written), and where it stands."""

    place: RunPlace
    journal: Journal
    plan: RunPlan | None
    standing: Standing

    @property
    def state(self) -> RunState:
        return self.journal.state

    @property
    def prefix(self) -> str:
        return self.place.prefix

    @property
    def is_unread(self) -> bool:
        """Whether it was stopped and its costs are known, and its answers are left at the provider, if there are any.

        That is where a run ends whose job file asks something else by now. It may still be gone on with, and would
        bring its answers back; so it is not closed before somebody gives them up.
        """
        state = self.state
        out = any(shard.phase in (Phase.SUBMITTING, Phase.SUBMITTED) for shard in state.shards.values())
        known = all(attempt.known_at for attempt in state.attempts.values())
        return state.cancelled and state.build_finished and not state.settled and known and not out


def look_at(store: Store, place: RunPlace, clock: Callable[[], float]) -> Opened:
    """Read the run's journal. Raises CorruptJournal where it cannot be read: nobody knows then what is out."""
    journal = Journal(store, place.prefix, this_owner())
    state = journal.refresh()
    return Opened(place, journal, read_plan(store, place), _standing(store, place, state, clock()))


def read_plan(store: Store, place: RunPlace) -> RunPlan | None:
    """The run's plan; None if it has none. Raises CorruptJournal for one that this version does not know."""
    path = f"{place.prefix}/plan.json"
    try:
        return msgspec.json.decode(store.read(path), type=RunPlan)
    except NotFound:
        return None
    except msgspec.DecodeError as error:
        raise CorruptJournal(f"{store.uri_of(path)}: not a plan that this version knows: {error}") from error


def _standing(store: Store, place: RunPlace, state: RunState, now: float) -> Standing:
    if not state.build_finished:
        if not is_free(state, now):
            return Standing.OPEN
        if not state.shards:
            return Standing.UNBUILT
        # Nothing is sent before all is read, so this one has bought nothing.
        return Standing.DROPPED if state.cancelled or not is_marked(store, place) else Standing.OPEN
    if not state.settled:
        return Standing.OPEN
    if state.published_at:
        return Standing.CLOSED
    return Standing.CLOSED if state.cancelled and not is_marked(store, place) else Standing.OPEN


def is_free(state: RunState, now: float) -> bool:
    """Whether nobody builds the run's shards."""
    if not state.builder:
        return True
    alive = is_alive(state.builder)
    return alive is False or now > state.builder_expires + (PATIENCE if alive else 0.0)


def is_marked(store: Store, place: RunPlace) -> bool:
    """Whether the run is on the list of those that are not finished."""
    return store.info(path_of(place.job, place.window, place.run_id)) is not None
