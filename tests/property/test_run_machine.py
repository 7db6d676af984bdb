"""One run in a hostile world: whatever dies, overlaps, gets lost or comes late, it converges and pays nothing twice."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.engine_support import results
from support.moves import EXAMPLES, Disturbed, Point, Wait, machine_settings, points
from support.standins import ListedDocuments, MemoryStore, echo_operation
from support.world import KINDS, WORK, Clock, Kind, Process, StrictProvider, World, limits_of

from lowtide import events as e
from lowtide.collecting.columns import LOST
from lowtide.engine.publishing import ledger_path, results_path
from lowtide.journal import Journal
from lowtide.ledger import spent
from lowtide.prices import Price
from lowtide.records import Outcome
from lowtide.states import RunState, fold

DOCUMENTS = {f"d{i}": None if i == 3 else f"text {i}" for i in range(8)}
OPERATIONS = (echo_operation(), echo_operation("again"))
ROWS = len(DOCUMENTS) * len(OPERATIONS)
GRACE = 120.0
PRICE = Price(
    "test",
    "made up",
    {
        "input": Decimal("0.000001"),
        "cached_input": Decimal("0.000000500001"),
        "output": Decimal("0.000002"),
        "reasoning": Decimal("0.000002"),
    },
)


@dataclass(frozen=True, kw_only=True)
class Pass(Disturbed):
    """By one of up to three processes, and overtaken by another of them."""

    who: int
    host: str
    other: int


@dataclass(frozen=True)
class Answer:
    """The provider looks at some records of a batch, and ends it unless `outcome` is None."""

    which: int
    kinds: list[Kind]
    outcome: Outcome | None
    seed: int


@dataclass(frozen=True)
class Kill:
    who: int


@dataclass(frozen=True)
class Cancel:
    pass


@dataclass(frozen=True)
class AskAgain:
    who: int
    retry: bool


Move = Pass | Wait | Answer | Kill | Cancel | AskAgain

few = st.integers(0, 2)
somewhere = points(70, "before submit", "after submit", "find", "poll", "outputs", "put", "write", "replace")
passes = st.builds(
    Pass,
    who=few,
    host=st.sampled_from(["here", "here", "there"]),
    faults=st.lists(
        st.sampled_from(["lost", "lost", "lost before", "quota", "transient", "terminal", None]), max_size=3
    ),
    how=st.sampled_from(["undisturbed", "dies", "overtaken", "overtaken", "asked again", "cancelled", "answered"]),
    at=somewhere,
    other=few,
    then=st.one_of(st.none(), somewhere),
)
answers = st.builds(
    Answer,
    which=few,
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    outcome=st.sampled_from([None, "completed", "partial", "failed", "expired"]),
    seed=st.integers(0, 99),
)
waits = st.builds(Wait, st.sampled_from([1.0, 20.0, 61.0, GRACE, 301.0, 601.0, 4000.0]))
rare = st.one_of(st.builds(Kill, few), st.builds(Cancel), st.builds(AskAgain, few, st.booleans()))
# One rule with one argument: rules of their own would be switched off for whole examples.
moves = st.one_of(passes, passes, passes, answers, answers, waits, waits, rare)


class RunMachine(RuleBasedStateMachine):
    """Rules are what may happen; invariants hold after each; at the end everything is fair, and must converge."""

    @initialize(
        lag=st.sampled_from([None, 0.0, 30.0, GRACE - 1]),
        live=st.integers(1, 3),
        cap=st.sampled_from([None, None, None, Decimal("0.004"), Decimal("0.009"), Decimal("0.02")]),
        begun=st.sampled_from(["not at all", "built", "submitted"]),
        tells=st.booleans(),
    )
    def begin(self, lag: float | None, live: int, cap: Decimal | None, begun: str, tells: bool) -> None:
        clock = Clock()
        self.cap = cap
        self.world = World(
            clock,
            MemoryStore(),
            StrictProvider(clock, live, tells=tells),
            replace(
                WORK,
                operations=OPERATIONS,
                documents=ListedDocuments(DOCUMENTS, batch=2),
                price=PRICE,
                shard_records=4,
                grace=timedelta(seconds=GRACE),
                run_usd=cap,
            ),
            limits_of(live, consistent=lag is None),
            lag or 0.0,
        )
        self.seen: bytes | None = None
        self.prefix = ""
        process = self.world.start()
        if begun == "built":
            process.open()
            process.run.perform(process.run.decide().actions)
        elif begun == "submitted":
            process.advance()

    @rule(move=moves)
    def go_on(self, move: Move) -> None:
        world, provider = self.world, self.world.provider
        match move:
            case Pass():
                self._make_a_pass(move)
            case Wait(seconds):
                world.clock.now += seconds
            case Answer(which, kinds, outcome, seed) if provider.open:
                batch = provider.open[which % len(provider.open)]
                provider.process(batch, kinds)
                if outcome:
                    provider.end(batch, "cancelled" if batch.stopping else outcome, seed)
            case Kill(who):
                world.pick(who).alive = False
            case Cancel():
                self._cancel()
            case AskAgain(who, retry):
                provider.forgiven |= retry
                world.pick(who, "there").open(retry=retry)

    def _make_a_pass(self, move: Pass) -> None:
        world, provider = self.world, self.world.provider
        process = world.pick(move.who, move.host)

        def meanwhile(rival: Process) -> None:
            match move.how:
                case "asked again":
                    provider.forgiven = True
                    rival.open(retry=True)
                    rival.advance()
                    for batch in provider.open:
                        provider.finish(batch)
                case "cancelled":
                    self._cancel()
                case "answered":
                    for batch in provider.open:
                        provider.finish(batch, "ok" if move.then else "try again")

        move.carry_out(process, lambda: world.pick(move.other, move.host, but=process), meanwhile)

    def _cancel(self) -> None:
        if not self._begun():
            return
        journal = Journal(self.world.store, self._prefix(), "somebody")
        if not journal.refresh().published_at:
            journal.append(e.CancelRequested(at=self.world.clock()))

    def _begun(self) -> bool:
        return any(path.endswith("journal/000001.json") for path in self.world.store.objects)

    def _prefix(self) -> str:
        if not self.prefix:
            found = next(path for path in self.world.store.objects if path.endswith("journal/000001.json"))
            self.prefix = found.removesuffix("/journal/000001.json")
        return self.prefix

    @invariant()
    def reservations_stay_under_the_cap(self) -> None:
        if self._begun() and self.cap is not None:
            journal = Journal(self.world.store, self._prefix(), "auditor")
            state = journal.refresh()
            assert spent(state, PRICE) + state.reserved <= self.cap

    @invariant()
    def the_published_table_is_whole(self) -> None:
        table = self.world.store.objects.get(results_path("test", "all"))
        if table is not None and table is not self.seen:
            rows = pq.read_table(io.BytesIO(table)).to_pylist()
            assert Counter((row["document_uri"], row["operation"]) for row in rows) == Counter(
                (uri, operation.name) for uri in DOCUMENTS for operation in OPERATIONS
            )
            self.seen = table

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.drain()
        state = self._check_truth()
        if state.cancelled:
            self.world.drain()
            state = self._check_truth()
        assert not state.cancelled
        self._check_rows(state)
        if not any(shard.given_up for shard in state.shards.values()):
            before = self.world.provider.submissions, dict(self.world.store.objects)
            self.world.drain()
            after = self.world.provider.submissions, dict(self.world.store.objects)
            assert after == before, "the same again is not for nothing"

    def _check_truth(self) -> RunState:
        journal = Journal(self.world.store, self._prefix(), "auditor")
        state = journal.refresh()
        history = [(number, entry.events) for number, entry in journal.history()]
        assert fold(RunState(), history) == state
        counted = Counter[str]()
        for attempt in state.attempts.values():
            for tally in attempt.tallies:
                counted[tally.token_type] += tally.quantity
        assert counted == +self.world.provider.bill
        assert state.reserved == 0
        assert not self.world.provider.open
        return state

    def _check_rows(self, state: RunState) -> None:
        objects = self.world.store.objects
        ledger = pq.read_table(
            io.BytesIO(objects[ledger_path("test", "all", self.prefix.rpartition("/")[2])])
        ).to_pylist()
        actual = Counter[str]()
        for line in ledger:
            if line["kind"] == "actual":
                actual[line["token_type"]] += line["quantity"]
        assert actual == +self.world.provider.bill
        assert len({line["entry_id"] for line in ledger}) == len(ledger)
        rows = pq.read_table(io.BytesIO(objects[results_path("test", "all")])).to_pylist()
        assert len(rows) == ROWS
        for row in rows:
            text = DOCUMENTS[row["document_uri"]]
            if text is None:
                assert (row["status"], row["status_reason"]) == ("skipped", "broken")
            elif row["status"] == "ok":
                assert row["output_text"] == text
            else:
                assert row["status"] in ("invalid", "refused", "error", "skipped")
                assert row["status_reason"]
                assert row["status"] != "skipped" or row["status_reason"].startswith("budget")
                assert row["attempts"] > 1 or row["status_reason"] != "overloaded"
                assert not row["status_reason"].startswith("no answer after 1 attempt")
                assert row["status_reason"] != LOST or self.world.provider.lost
        answered = sum(row["status"] in ("ok", "refused") or "too long" in (row["status_reason"] or "") for row in rows)
        assert answered == len(self.world.provider.answered)


RunMachine.TestCase.settings = machine_settings(EXAMPLES, steps=30)
TestRunMachine = pytest.mark.slow(RunMachine.TestCase)


@pytest.mark.parametrize("outcome", ["partial", "expired"])
def test_an_attempt_that_says_nothing_of_a_record_counts_as_one(outcome: Outcome) -> None:
    """What the machine has found: all is overloaded at first, then one record is answered and no more."""
    machine = RunMachine()
    machine.begin(lag=None, live=1, cap=None, begun="submitted", tells=False)
    provider = machine.world.provider
    undisturbed = Pass(faults=[], how="undisturbed", at=Point("", 1), then=None, who=0, host="here", other=0)
    while not (batch := provider.open[0]).token.endswith("-a2"):
        provider.finish(batch, "try again")
        machine.go_on(undisturbed)
    machine.go_on(Answer(0, ["ok"], outcome, 0))
    machine.teardown()
    rows = results(machine.world.store)
    attempts = Counter(row["attempts"] for row in rows if row["status_reason"] == "overloaded")
    assert attempts == {2: len(batch.requests) - 1}
