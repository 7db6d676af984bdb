"""The fold from events to the state: what may follow what, and what each event changes."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import events as e
from lowtide.shards import Phase
from lowtide.states import TRANSITIONS, IllegalEvent, RunState, apply, fold

BUILT = e.ShardBuilt(
    at=1.0,
    shard=1,
    documents=4,
    records=3,
    size=90,
    requests="requests/a.jsonl",
    index="index/a.parquet",
    file=2,
    document=1,
    owner="o",
    input_tokens=22,
)


def submitting(attempt: int = 1, shard: int = 1, reserved: str = "0.5") -> e.Submitting:
    return e.Submitting(
        at=2.0, shard=shard, attempt=attempt, token="t", owner="o", expires=602.0, reserved=Decimal(reserved)
    )


def submitted(attempt: int = 1, shard: int = 1) -> e.Submitted:
    return e.Submitted(at=3.0, shard=shard, attempt=attempt, batch_id=f"b{attempt}")


def ended(attempt: int = 1) -> e.Ended:
    return e.Ended(at=4.0, shard=1, attempt=attempt, outcome="expired", provider_state="Expired", reason="24 hours")


def collected(attempt: int = 1, remaining: int = 1, answers: str = "answers/a") -> e.Collected:
    tallies = (e.Tally("input", 10), e.Tally("input", 5, "expired"))
    return e.Collected(
        at=5.0, shard=1, attempt=attempt, remaining=remaining, counts={"ok": 2}, tallies=tallies, answers=answers
    )


def retrying(attempt: int = 2) -> e.Retrying:
    return e.Retrying(at=5.0, shard=1, attempt=attempt, requests="requests/b.jsonl", records=1, size=30)


SETTLED = e.Settled(at=6.0, shard=1, rows="rows/a", counts={"ok": 3, "skipped": 1})
EVERY: list[e.AnyEvent] = [
    submitting(),
    e.Missing(at=2.5, shard=1, attempt=1),
    e.Absent(at=2.5, shard=1, attempt=1),
    e.Refused(at=2.5, shard=1, attempt=1, reason="full", not_before=9.0),
    submitted(),
    ended(),
    collected(),
    retrying(),
    SETTLED,
]


def state_after(*happened: e.AnyEvent) -> RunState:
    return fold(RunState(), [(number, (event,)) for number, event in enumerate(happened, start=1)])


REACH: dict[Phase, tuple[e.AnyEvent, ...]] = {
    Phase.BUILT: (BUILT,),
    Phase.SUBMITTING: (BUILT, submitting()),
    Phase.SUBMITTED: (BUILT, submitting(), submitted()),
    Phase.ENDED: (BUILT, submitting(), submitted(), ended()),
    Phase.COLLECTED: (BUILT, submitting(), submitted(), ended(), collected()),
    Phase.SETTLED: (BUILT, submitting(), submitted(), ended(), collected(), SETTLED),
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", EVERY, ids=lambda event: type(event).__name__)
def test_only_what_the_table_draws_can_happen(phase: Phase, event: e.AnyEvent) -> None:
    before = state_after(*REACH[phase])
    expected = TRANSITIONS.get((phase, type(event)))
    if expected is None:
        with pytest.raises(IllegalEvent, match=r"cannot follow .* of shard 1"):
            apply(before, 99, (event,))
    else:
        assert apply(before, 99, (event,)).shards[1].phase is expected


def test_nothing_that_was_answered_can_be_submitted_without_a_retry() -> None:
    """The only ways back to `built` are those after which the provider owes an answer for every record."""
    back = {event.__name__ for (_, event), phase in TRANSITIONS.items() if phase is Phase.BUILT}
    assert back == {"Refused", "Absent", "Retrying"}
    assert [event.__name__ for (phase, event) in TRANSITIONS if phase is Phase.BUILT] == ["Submitting", "Settled"]


@pytest.mark.parametrize("event", [submitting(2), submitting(0), retrying(1), retrying(3)])
def test_an_event_of_another_attempt_does_not_fit(event: e.AnyEvent) -> None:
    reach = REACH[Phase.COLLECTED if isinstance(event, e.Retrying) else Phase.BUILT]
    with pytest.raises(IllegalEvent, match="another attempt"):
        apply(state_after(*reach), 99, (event,))


def test_an_event_of_a_shard_that_was_never_built_does_not_fit() -> None:
    with pytest.raises(IllegalEvent, match="shard 7, which was never built"):
        apply(state_after(BUILT), 99, (submitting(shard=7),))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_shards_are_built_one_after_the_other(number: int) -> None:
    with pytest.raises(IllegalEvent, match="out of turn"):
        apply(state_after(BUILT), 2, (msgspec.structs.replace(BUILT, shard=number),))


def test_the_build_finishes_once() -> None:
    finished = e.BuildFinished(at=2.0, documents=4)
    for late in (finished, msgspec.structs.replace(BUILT, shard=2)):
        with pytest.raises(IllegalEvent):
            apply(state_after(BUILT, finished), 3, (late,))


def test_a_failed_entry_leaves_the_state_as_it_was() -> None:
    before = state_after(*REACH[Phase.SUBMITTED])
    copy = msgspec.json.decode(msgspec.json.encode(before), type=RunState)
    with pytest.raises(IllegalEvent):
        apply(before, 4, (ended(), ended()))
    assert before == copy


def test_folding_at_once_is_folding_one_by_one() -> None:
    happened = [e.Requested(at=0.5), *REACH[Phase.COLLECTED], retrying(), submitting(2), submitted(2)]
    stepwise = RunState()
    for number, event in enumerate(happened, start=1):
        stepwise = apply(stepwise, number, (event,))
    assert stepwise == state_after(*happened)
    assert fold(RunState(), [(1, tuple(happened))]) == msgspec.structs.replace(stepwise, entry=1)


@given(st.integers(0, 11))
def test_the_state_survives_being_written_down_at_any_time(cut: int) -> None:
    happened = [
        e.Requested(at=0.5),
        *REACH[Phase.COLLECTED],
        retrying(),
        submitting(2),
        submitted(2),
        e.Reopened(at=7.0, attempts=3),
    ]
    before = state_after(*happened[:cut])
    assert msgspec.json.decode(msgspec.json.encode(before), type=RunState) == before


def test_reservations_are_those_of_intents_and_of_batches_not_yet_collected() -> None:
    history = [*REACH[Phase.COLLECTED], retrying(), submitting(2, reserved="0.25"), submitted(2)]
    held = [state_after(*history[:count]).reserved for count in range(1, len(history) + 1)]
    assert held == [Decimal(amount) for amount in ("0", "0.5", "0.5", "0.5", "0", "0", "0.25", "0.25")]


@pytest.mark.parametrize(
    "no", [e.Refused(at=2.5, shard=1, attempt=1, reason="full"), e.Absent(at=2.5, shard=1, attempt=1)]
)
def test_what_was_not_accepted_is_not_reserved(no: e.AnyEvent) -> None:
    state = state_after(BUILT, submitting(), no)
    assert state.reserved == 0
    assert not state.attempts
    assert state.shards[1].owner == ""


def test_a_missing_batch_is_missing_since_it_was_first_missed() -> None:
    first, second = (e.Missing(at=at, shard=1, attempt=1) for at in (10.0, 20.0))
    assert state_after(BUILT, submitting(), first, second).shards[1].missing_since == 10.0
    again = state_after(BUILT, submitting(), first, e.Absent(at=30.0, shard=1, attempt=1), submitting())
    assert again.shards[1].missing_since == 0.0


def test_refusals_count_until_one_is_accepted() -> None:
    refused = e.Refused(at=2.5, shard=1, attempt=1, reason="full", not_before=7.5)
    twice = state_after(BUILT, submitting(), refused, submitting(), refused)
    assert (twice.shards[1].refusals, twice.shards[1].not_before) == (2, 7.5)
    accepted = state_after(BUILT, submitting(), refused, submitting(), submitted())
    assert accepted.shards[1].refusals == 0


def test_a_retry_keeps_what_was_answered_and_asks_for_the_rest() -> None:
    shard = state_after(*REACH[Phase.COLLECTED], retrying()).shards[1]
    assert (shard.attempt, shard.records, shard.requests, shard.size) == (2, 1, "requests/b.jsonl", 30)
    assert (shard.total, shard.first_requests, shard.answers) == (3, "requests/a.jsonl", ("answers/a",))
    assert shard.batch_id == ""


def test_a_shard_that_is_given_up_keeps_count_of_what_could_still_be_asked() -> None:
    assert state_after(BUILT, SETTLED).shards[1].remaining == 3
    assert state_after(*REACH[Phase.SETTLED]).shards[1].remaining == 1


def test_a_reopened_shard_counts_its_attempts_from_there() -> None:
    reopened = e.Reopened(at=7.0, attempts=3)
    shard = state_after(*REACH[Phase.SETTLED], reopened, retrying()).shards[1]
    assert (shard.base, shard.attempt, shard.reopenings, shard.rows) == (1, 2, 1, "")
    settled = state_after(*REACH[Phase.SETTLED], reopened, retrying(), SETTLED).shards[1]
    assert settled.reopenings == 1


def test_a_cancelled_run_is_no_longer_cancelled_once_it_is_reopened() -> None:
    cancelled = state_after(BUILT, e.CancelRequested(at=2.0))
    assert cancelled.cancelled
    reopened = apply(cancelled, 9, (e.Reopened(at=3.0, attempts=3),))
    assert not reopened.cancelled
    assert reopened.extra_attempts == 1


def test_settled_means_that_no_shard_waits_for_anything() -> None:
    finished = e.BuildFinished(at=2.0, documents=4)
    assert not state_after(BUILT, finished).settled
    assert not state_after(BUILT, SETTLED).settled
    assert state_after(BUILT, finished, SETTLED).settled


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
def test_asking_again_after_publishing_counts_by_order_and_not_by_the_clocks(skew: float) -> None:
    """The machine that asks may be an hour behind the one that has published, or ahead."""
    published = e.Published(at=10_000.0, rows=4, counts={"ok": 4})
    again = e.Requested(at=10_000.0 + skew)
    assert state_after(published, again).published_at == 0
    assert state_after(again, published).published_at


def test_the_build_goes_on_where_the_last_shard_ended() -> None:
    state = state_after(e.Building(at=0.0, owner="o", expires=60.0), BUILT)
    assert (state.file, state.document, state.builder, state.builder_expires) == (2, 1, "o", 61.0)
    done = apply(state, 3, (e.BuildFinished(at=2.0, documents=4, bytes_read=9),))
    assert (done.builder, done.builder_expires, done.documents, done.bytes_read) == ("", 0.0, 4, 9)


def test_an_attempt_keeps_what_the_ledger_needs() -> None:
    attempt = state_after(*REACH[Phase.COLLECTED]).attempts["1-1"]
    assert (attempt.batch_id, attempt.records, attempt.reserved) == ("b1", 3, Decimal("0.5"))
    assert (attempt.submitted_at, attempt.ended_at, attempt.collected_at) == (3.0, 4.0, 5.0)
    assert attempt.tallies == (e.Tally("input", 10), e.Tally("input", 5, "expired"))
