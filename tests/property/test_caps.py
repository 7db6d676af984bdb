"""Caps that several runs share: whatever dies, overlaps or comes late, they hold, and no reservation is left over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.moves import EXAMPLES, Disturbed, Wait, machine_settings, points
from support.standins import PRICE, ListedDocuments, MemoryStore
from support.world import WORK, Clock, Crash, StrictProvider, WatchedStore, World, limits_of

from lowtide.budget.account import Account, AccountState, Payer, Release, Settle
from lowtide.budget.caps import Cap
from lowtide.journal import Journal
from lowtide.ledger import spent
from lowtide.records import Outcome
from lowtide.shards import Phase
from lowtide.states import RunState

NOVEMBER = 1_795_651_200.0
"""26 November 2026, so that a few days lead into another month."""

# ---- one account


@dataclass(frozen=True)
class Step:
    """One process asks the account for something; at its `at`th write it dies, or `between` happens first."""

    kind: str
    attempt: int
    cents: int
    who: int
    at: int
    dies: bool
    between: tuple[Step, ...]


PAYERS = (
    Payer("runs/a/all/1111111111111111", "a", {"team": "red"}),
    Payer("runs/b/all/2222222222222222", "b", {"team": "red"}),
    Payer("runs/c/all/3333333333333333", "c", {}),
)
CAPS = (
    Cap("everything", Decimal("1.00"), "root"),
    Cap("red team", Decimal("0.60"), "root", tags={"team": "red"}),
    Cap("month_usd", Decimal("0.40"), "job", job="a"),
)
_plain = st.builds(
    Step,
    kind=st.sampled_from(["reserve", "reserve", "settle", "release"]),
    attempt=st.integers(0, 5),
    cents=st.integers(0, 30),
    who=st.integers(0, 2),
    at=st.integers(1, 3),
    dies=st.booleans(),
    between=st.just(()),
)
steps = st.builds(
    Step,
    kind=st.sampled_from(["reserve", "reserve", "reserve", "settle", "release"]),
    attempt=st.integers(0, 5),
    cents=st.integers(0, 30),
    who=st.integers(0, 2),
    at=st.integers(1, 3),
    dies=st.sampled_from([False, False, True]),
    between=st.lists(_plain, max_size=3).map(tuple),
)


class Books:
    """Three processes with an account each over one store, and what must come out."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.reserved: dict[str, int] = {}
        self.settled: dict[str, int] = {}
        self._step: Step | None = None
        self._left = 0
        self.accounts = [self._account(who) for who in range(3)]

    def _account(self, who: int) -> Account:
        store = WatchedStore(self.store, self._point)
        return Account(store, "2026-11", f"p{who}", snapshot_every=3)

    def _point(self, name: str) -> None:
        step = self._step
        self._left -= 1
        if step is None or self._left:
            return
        self._step = None
        for other in step.between:
            self.take(other)
        if step.dies:
            self.accounts[step.who] = self._account(step.who)
            raise Crash

    def take(self, step: Step) -> None:
        """Carry it out. What the process was told counts, and what it died with may count or not."""
        name, usd = f"{step.who}-{step.attempt}", Decimal(step.cents) / 100
        account, payer = self.accounts[step.who], PAYERS[step.who]
        self._step, self._left = step, step.at
        with suppress(Crash):
            match step.kind:
                case "reserve":
                    account.reserve(payer, name, usd, CAPS, at=1.0)
                case "settle":
                    # Nothing costs more than was reserved for it.
                    most = account.refresh().lines.get(name)
                    if most is not None:
                        account.close(payer, [Settle(name, min(usd, most.reserved))], at=1.0)
                case "release":
                    account.close(payer, [Release(name)], at=1.0)
        self._step = None
        self.check()

    def check(self) -> None:
        state = Account(self.store, "2026-11", "auditor").refresh()
        for cap in CAPS:
            room = state.room(cap)
            assert room.left >= 0, room
            assert room.spent + room.reserved == sum(
                line.spent + line.reserved
                for line in state.lines.values()
                if cap.covers(state.spenders[line.run].job, state.spenders[line.run].tags)
            )
        for name, usd in self.settled.items():
            assert state.lines[name].spent == usd, "what is settled stays as it is"
        self.settled = {name: line.spent for name, line in state.lines.items() if line.settled}


@settings(max_examples=EXAMPLES, deadline=None, derandomize="CI" in os.environ)
@given(st.lists(steps, min_size=1, max_size=20))
def test_an_account_never_passes_a_cap(moves: list[Step]) -> None:
    books = Books()
    for step in moves:
        books.take(step)
    again = Account(books.store, "2026-11", "reader", snapshot_every=3)
    whole = Account(books.store, "2026-11", "auditor")
    books.store.objects = {path: data for path, data in books.store.objects.items() if "snapshots" not in path}
    assert again.refresh() == whole.refresh()


# ---- whole runs

DOCUMENTS = {f"d{i}": f"text {i}" for i in range(6)}
JOBS = ("a", "b", "c")
TAGS = {"a": {"team": "red"}, "b": {"team": "red"}, "c": {"team": "blue"}}
usd = st.sampled_from([Decimal("0.005"), Decimal("0.0095"), Decimal("0.014"), Decimal("0.019"), Decimal(1)])


@dataclass(frozen=True, kw_only=True)
class Pass(Disturbed):
    """By a process of one job; the process that overtakes it may be another job's."""

    job: str
    who: int
    other: str


@dataclass(frozen=True)
class Answer:
    job: str
    which: int
    outcome: Outcome


@dataclass(frozen=True)
class Kill:
    job: str


Move = Pass | Wait | Answer | Kill
somewhere = points(60, "put budget", "put budget", "after put", "before submit", "after submit")
jobs = st.sampled_from(JOBS)
passes = st.builds(
    Pass,
    job=jobs,
    who=st.integers(0, 1),
    faults=st.lists(st.sampled_from(["lost", "lost before", "quota", "transient", None]), max_size=2),
    how=st.sampled_from(["undisturbed", "dies", "overtaken", "overtaken"]),
    at=somewhere,
    other=jobs,
    then=st.one_of(st.none(), somewhere),
)
answers = st.builds(Answer, jobs, st.integers(0, 2), st.sampled_from(["completed", "partial", "expired"]))
waits = st.builds(Wait, st.sampled_from([1.0, 61.0, 121.0, 1000.0, 4000.0, 5 * 86_400.0]))
moves = st.one_of(passes, passes, passes, answers, answers, waits, st.builds(Kill, jobs))


class CapsMachine(RuleBasedStateMachine):
    """Three jobs, each with processes and a provider of its own, under one root with one set of caps."""

    @initialize(everything=usd, red=usd, own=usd, live=st.integers(1, 2))
    def begin(self, everything: Decimal, red: Decimal, own: Decimal, live: int) -> None:
        self.clock, self.store = Clock(NOVEMBER), MemoryStore()
        self.caps = (
            Cap("everything", everything, "root"),
            Cap("red team", red, "root", tags={"team": "red"}),
            Cap("month_usd", own, "job", job="a"),
        )
        self.worlds = {job: self._world(job, live) for job in JOBS}

    def _world(self, job: str, live: int) -> World:
        work = replace(WORK, job=job, documents=ListedDocuments(DOCUMENTS, batch=2), tags=TAGS[job], caps=self.caps)
        return World(self.clock, self.store, StrictProvider(self.clock, live), work, limits_of(live))

    @rule(move=moves)
    def go_on(self, move: Move) -> None:
        match move:
            case Pass():
                process = self.worlds[move.job].pick(move.who)
                move.carry_out(process, lambda: self.worlds[move.other].pick(move.who, but=process))
            case Wait(seconds):
                self.clock.now += seconds
            case Answer(job, which, outcome):
                provider = self.worlds[job].provider
                if provider.open:
                    batch = provider.open[which % len(provider.open)]
                    provider.process(batch, ["ok"] * (len(batch.requests) if outcome == "completed" else 1))
                    provider.end(batch, outcome)
            case Kill(job):
                self.worlds[job].pick(0).alive = False

    @invariant()
    def no_cap_is_passed(self) -> None:
        months = self._months()
        for state in months.values():
            for cap in self.caps:
                assert state.room(cap).left >= 0, state.room(cap)
        for cap in self.caps:
            billed = sum((_usd(world) for job, world in self.worlds.items() if cap.covers(job, TAGS[job])), Decimal(0))
            assert billed <= cap.usd * len(months)

    @invariant()
    def whatever_is_out_is_reserved(self) -> None:
        months = self._months()
        for job, world in self.worlds.items():
            for batch in world.provider.batches.values():
                lines = [state.lines[batch.token] for state in months.values() if batch.token in state.lines]
                assert lines, f"{batch.token} of {job} is out, and nothing was reserved for it"
                assert batch.outcome or any(line.reserved for line in lines)

    def _months(self) -> dict[str, AccountState]:
        if not hasattr(self, "store"):
            return {}
        names = sorted({path.split("/")[1] for path in self.store.objects if path.startswith("budget/")})
        return {name: Account(self.store, name, "auditor").refresh() for name in names}

    def _states(self) -> Iterator[tuple[str, RunState]]:
        for path in list(self.store.objects):
            if path.endswith("/plan.json"):
                yield path.split("/")[1], Journal(self.store, path.removesuffix("/plan.json"), "auditor").refresh()

    def teardown(self) -> None:
        if not hasattr(self, "worlds"):
            return
        begun = {job for job, _ in self._states()}
        for job in sorted(begun):
            self.worlds[job].drain()
        months = self._months()
        assert not [line for state in months.values() for line in state.open.values()]
        bought = sum((line.spent for state in months.values() for line in state.lines.values()), Decimal(0))
        assert bought == sum(map(_usd, self.worlds.values()), Decimal(0))
        for job, state in self._states():
            assert spent(state, PRICE) == _usd(self.worlds[job])
            assert all(shard.phase is Phase.SETTLED for shard in state.shards.values())
        self.no_cap_is_passed()


def _usd(world: World) -> Decimal:
    """What the job's provider has earned."""
    return PRICE.amount(world.provider.bill)


CapsMachine.TestCase.settings = machine_settings(EXAMPLES // 2, steps=25)
TestCapsMachine = pytest.mark.slow(CapsMachine.TestCase)
