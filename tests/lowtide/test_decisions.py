"""What to do next: a pure function, tested as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

import msgspec
import pytest

from lowtide import events as e
from lowtide.budget.caps import Holder, Room
from lowtide.decisions import (
    CLOCK_SKEW,
    Build,
    Collect,
    Decision,
    Poll,
    Publish,
    Reopen,
    Resolve,
    Rules,
    Settle,
    Submit,
    decide,
)
from lowtide.states import RunState, apply, fold

NOW = 1000.0
PRICE = Decimal("1.5")


def rules(
    *,
    live: int = 10,
    cap: Decimal | None = None,
    consistent: bool = False,
    grace: float = 120.0,
    attempts: int = 3,
    rooms: tuple[Room, ...] = (),
    held: Mapping[int, Decimal] | None = None,
    approved: bool = True,
    start: Decimal = Decimal(0),
) -> Rules:
    return Rules(
        attempts,
        grace,
        live,
        consistent,
        cap,
        lambda shard, alone: PRICE + (start if alone else 0),
        rooms=rooms,
        held=held or {},
        approved=approved,
    )


def decided(
    state: RunState,
    now: float = NOW,
    spent: Decimal = Decimal(0),
    stale: Callable[[str, float], bool] = lambda owner, expires: False,
    **bounds: object,
) -> Decision:
    return decide(state, now=now, rules=rules(**bounds), spent=spent, stale=stale)  # type: ignore[arg-type]


def built(shards: int, *, records: int = 2, finished: bool = True) -> RunState:
    happened: list[e.AnyEvent] = [e.Requested(at=1.0)]
    happened += [
        e.ShardBuilt(
            at=1.0,
            shard=shard,
            documents=2,
            records=records,
            size=20,
            requests="r",
            index="i",
            file=0,
            document=shard,
            owner="builder",
        )
        for shard in range(1, shards + 1)
    ]
    if finished:
        happened.append(e.BuildFinished(at=2.0, documents=2 * shards))
    return fold(RunState(), [(1, tuple(happened))])


def then(state: RunState, *happened: e.AnyEvent) -> RunState:
    return apply(state, state.entry + 1, happened)


def submitting(shard: int, attempt: int = 1, reserved: Decimal = PRICE) -> e.Submitting:
    return e.Submitting(
        at=3.0, shard=shard, attempt=attempt, token="t", owner="other", expires=603.0, reserved=reserved
    )


def submitted(shard: int, attempt: int = 1) -> e.Submitted:
    return e.Submitted(at=4.0, shard=shard, attempt=attempt, batch_id=f"b{shard}")


def answered(shard: int, *, remaining: int = 0, attempt: int = 1) -> tuple[e.AnyEvent, ...]:
    return (
        e.Ended(at=5.0, shard=shard, attempt=attempt, outcome="completed", provider_state="Ended"),
        e.Collected(at=6.0, shard=shard, attempt=attempt, remaining=remaining, counts={}, tallies=()),
        e.Settled(at=6.0, shard=shard, rows="rows", counts={"ok": 2}),
    )


def settled(shards: int, *, remaining: int = 0) -> RunState:
    state = built(shards)
    for shard in range(1, shards + 1):
        state = then(state, submitting(shard), submitted(shard), *answered(shard, remaining=remaining))
    return state


def given_up(decision: Decision) -> list[int]:
    """The shards that all actions give up for the budget."""
    assert all(isinstance(action, Settle) and action.reason == "budget" for action in decision.actions)
    return [action.shard for action in decision.actions if isinstance(action, Settle)]


def room(left: str, label: str = "cap 'team'") -> Room:
    return Room(label, Decimal(10), Decimal(10) - Decimal(left), Decimal(0))


def test_what_is_not_built_is_built_first() -> None:
    assert decided(RunState()) == Decision((Build(),))
    assert decided(built(2, finished=False)).actions == ()
    stale = decided(built(2, finished=False), stale=lambda owner, expires: owner == "builder" and expires == 61.0)
    assert stale.actions == (Build(),)


def test_nothing_is_submitted_before_every_document_is_in_a_shard() -> None:
    """How much there is to pay for is known only then."""
    state = built(2, finished=False)
    assert not any(isinstance(action, Submit) for action in decided(state, stale=lambda *_: True).actions)


def test_as_many_batches_as_the_provider_has_room_for_are_submitted() -> None:
    state = then(built(5), submitting(1), submitted(1), submitting(2))
    assert decided(state, live=4).actions == (Poll(1), Submit(3, PRICE), Submit(4, PRICE))


@pytest.mark.parametrize("ended", [False, True])
def test_an_ended_batch_makes_room(ended: bool) -> None:
    state = then(built(2), submitting(1), submitted(1))
    if ended:
        state = then(state, answered(1)[0])
    actions = decided(state, live=1).actions
    assert actions == ((Collect(1), Submit(2, PRICE)) if ended else (Poll(1),))


def test_what_is_paid_for_is_brought_in_before_more_is_bought() -> None:
    state = then(built(4), submitting(1), submitted(1), submitting(2), submitted(2), answered(2)[0], submitting(3))
    actions = decided(state, consistent=True, stale=lambda *_: True).actions
    assert actions == (Resolve(3), Poll(1), Collect(2), Submit(4, PRICE))


def test_an_intent_is_left_alone_while_its_owner_may_be_at_it() -> None:
    state = then(built(1), submitting(1))
    assert decided(state).actions == ()
    seen: list[tuple[str, float]] = []

    def stale(owner: str, expires: float) -> bool:
        seen.append((owner, expires))
        return True

    assert decided(state, stale=stale).actions == (Resolve(1),)
    assert seen == [("other", 603.0 + CLOCK_SKEW)]


@pytest.mark.parametrize(("after", "looks"), [(0.0, False), (119.9, False), (120.0, True), (500.0, True)])
def test_a_missing_batch_is_looked_up_again_after_the_grace_period(after: float, looks: bool) -> None:
    state = then(built(1), submitting(1), e.Missing(at=NOW, shard=1, attempt=1))
    actions = decided(state, now=NOW + after, stale=lambda *_: True).actions
    assert actions == ((Resolve(1),) if looks else ())


def test_where_lookups_are_consistent_nobody_waits_for_the_grace_period() -> None:
    state = then(built(1), submitting(1), e.Missing(at=NOW, shard=1, attempt=1))
    assert decided(state, consistent=True, stale=lambda *_: True).actions == (Resolve(1),)


def test_a_refused_shard_waits_for_its_time() -> None:
    state = then(built(1), submitting(1), e.Refused(at=3.0, shard=1, attempt=1, reason="full", not_before=NOW + 5))
    assert decided(state).actions == ()
    assert not decided(state).done
    assert decided(state, now=NOW + 5).actions == (Submit(1, PRICE),)


@pytest.mark.parametrize(
    ("cap", "spent", "submissions"),
    [("4.5", "0", 3), ("4.49", "0", 2), ("4.5", "0.01", 2), ("3", "1.5", 1), ("1.5", "0", 1), (None, "1000", 3)],
)
def test_no_more_is_reserved_than_the_cap_has_left(cap: str | None, spent: str, submissions: int) -> None:
    decision = decided(built(3), cap=Decimal(cap) if cap else None, spent=Decimal(spent))
    assert len([action for action in decision.actions if isinstance(action, Submit)]) == submissions
    assert decision.over_budget == (submissions < 3)


def test_a_cap_is_reached_to_the_last_decimal() -> None:
    assert given_up(decided(built(1), cap=PRICE - Decimal("0.000000000001"))) == [1]
    assert decided(built(1), cap=PRICE).actions == (Submit(1, PRICE),)


@pytest.mark.parametrize(("left", "submissions"), [("4.5", 3), ("4.49", 2), ("1.5", 1), ("1.4", 0), ("-3", 0)])
def test_no_more_is_submitted_than_the_caps_of_the_root_have_left(left: str, submissions: int) -> None:
    decision = decided(built(3), rooms=(room("9"), room(left)))
    assert len([action for action in decision.actions if isinstance(action, Submit)]) == submissions
    assert decision.over_budget == decision.over_root == (submissions < 3)


def test_what_a_shard_holds_already_it_needs_no_room_for() -> None:
    decision = decided(built(3), rooms=(room("0.5"),), held={1: Decimal(1), 2: PRICE})
    assert decision.actions == (Submit(1, PRICE), Submit(2, PRICE))
    assert decided(built(3), rooms=(room("0"),), held={3: PRICE}).actions == (Submit(3, PRICE),)


def test_the_rows_of_a_shard_that_is_given_up_say_which_cap_and_who_holds_it() -> None:
    holder = Holder("runs/daily/2026-W47/0123456789abcdef", Decimal("0.90"))
    full = Room("month_usd 5.00 USD of job weekly", Decimal(5), Decimal("3.80"), Decimal("0.90"), (holder,))
    [settle] = decided(built(1), rooms=(full,), cap=Decimal(100)).actions
    assert settle == Settle(
        1,
        "budget",
        "budget: month_usd 5.00 USD of job weekly has 0.30 left (3.80 spent, 0.90 reserved by run 0123456789abcdef of "
        "job daily, window 2026-W47; this shard may cost up to 1.50)",
    )
    [settle] = decided(built(1), rooms=(full,), cap=Decimal(1)).actions
    assert isinstance(settle, Settle)
    assert settle.detail.startswith("budget: run_usd 1.00 USD of this run has 1.00 left")


def test_nothing_is_given_up_for_the_root_while_something_of_our_own_is_out() -> None:
    waiting = then(built(2), submitting(1), submitted(1))
    assert decided(waiting, rooms=(room("0"),)) == Decision((Poll(1),), over_budget=True, over_root=True)
    assert given_up(decided(then(waiting, *answered(1)), rooms=(room("0"),))) == [2]


def test_a_run_that_is_not_approved_waits_and_gives_nothing_up() -> None:
    assert decided(built(2), approved=False) == Decision(())
    assert decided(built(2), approved=False, rooms=(room("0"),), cap=Decimal(0)) == Decision(())
    assert decided(built(2, records=0), approved=False).actions == (Settle(1, ""), Settle(2, ""))
    cancelled = then(built(1), e.CancelRequested(at=7.0))
    assert decided(cancelled, approved=False).actions == (Settle(1, "cancelled"),)


def test_a_start_is_reserved_for_a_batch_that_no_other_is_out_beside_and_for_none_of_the_rest() -> None:
    """Shards that are sent in one go have one another."""
    state = built(10)
    sent = [action for action in decided(state, start=Decimal(6)).actions if isinstance(action, Submit)]
    assert [action.reserve for action in sent] == [PRICE + 6] + [PRICE] * 9
    state = then(state, submitting(1), submitted(1))
    sent = [action for action in decided(state, start=Decimal(6)).actions if isinstance(action, Submit)]
    assert [action.reserve for action in sent] == [PRICE] * 9


def test_what_others_have_reserved_counts() -> None:
    state = then(built(2), submitting(1))
    assert decided(state, cap=Decimal("2.9")).actions == ()
    assert decided(state, cap=Decimal("3")).actions == (Submit(2, PRICE),)


def test_shards_are_given_up_for_the_budget_only_when_nothing_can_free_any() -> None:
    """A batch that ends for less than was reserved may leave enough for the next."""
    waiting = then(built(3), submitting(1), submitted(1))
    assert decided(waiting, cap=Decimal(2)) == Decision((Poll(1),), over_budget=True)
    done = then(waiting, *answered(1))
    assert decided(done, cap=Decimal(2)).actions == (Submit(2, PRICE),)
    assert given_up(decided(done, cap=Decimal(2), spent=Decimal("0.51"))) == [2, 3]


def test_a_shard_that_waits_for_its_time_keeps_others_from_being_given_up() -> None:
    refused = e.Refused(at=3.0, shard=1, attempt=1, reason="full", not_before=NOW + 5)
    state = then(built(2), submitting(1), refused)
    assert decided(state, cap=PRICE).actions == (Submit(2, PRICE),)
    assert decided(state, cap=PRICE, live=0).actions == ()


def test_a_shard_without_records_is_settled_without_asking() -> None:
    assert decided(built(2, records=0), cap=Decimal(0)).actions == (Settle(1, ""), Settle(2, ""))


def test_a_cancelled_run_buys_nothing_more_and_keeps_what_it_has() -> None:
    state = then(built(4), submitting(1), submitted(1), submitting(2), submitted(2), answered(2)[0], submitting(3))
    state = then(state, e.CancelRequested(at=7.0))
    actions = decided(state, consistent=True, stale=lambda *_: True).actions
    assert actions == (Resolve(3), Poll(1, stop=True), Collect(2), Settle(4, "cancelled"))


def test_a_run_that_is_cancelled_while_it_is_built_is_done() -> None:
    assert decided(then(built(2, finished=False), e.CancelRequested(at=7.0))) == Decision((), done=True)


def test_a_settled_run_is_published_once() -> None:
    state = settled(2)
    assert decided(state).actions == (Publish(),)
    published = then(state, e.Published(at=9.0, rows=4, counts={"ok": 4}))
    assert decided(published) == Decision((), done=True)


@pytest.mark.parametrize("at", [0.5, 9.0, 5000.0])
def test_a_published_run_that_is_asked_for_again_is_published_again(at: float) -> None:
    """Whatever the clock of the machine that asks says."""
    state = then(settled(1), e.Published(at=9.0, rows=2, counts={}), e.Requested(at=at))
    assert decided(state).actions == (Publish(),)
    again = then(state, e.Published(at=at - 100, rows=2, counts={}))
    assert decided(again).done


def test_unanswered_rows_are_asked_again_once_the_run_is_reopened() -> None:
    state = settled(2, remaining=1)
    assert decided(state).actions == (Publish(),)
    reopened = then(state, e.Reopened(at=8.0, attempts=3, everything=True))
    assert decided(reopened).actions == (Reopen(1), Reopen(2))
    retried = then(reopened, e.Retrying(at=9.0, shard=1, attempt=2, requests="r2", records=1, size=10))
    assert decided(retried).actions == (Reopen(2), Submit(1, PRICE))
    once = then(retried, submitting(1, 2), submitted(1, 2), *answered(1, remaining=1, attempt=2))
    assert decided(once).actions == (Reopen(2),)


def test_a_shard_that_was_answered_in_full_is_not_reopened() -> None:
    assert decided(then(settled(2), e.Reopened(at=8.0, attempts=3, everything=True))).actions == (Publish(),)


def test_waiting_is_not_being_done() -> None:
    waiting = decided(then(built(1), submitting(1)))
    assert waiting == Decision(())
    assert not waiting.done


def test_deciding_changes_nothing() -> None:
    state = settled(2, remaining=1)
    before = msgspec.json.encode(state)
    decided(state, cap=Decimal(1))
    assert msgspec.json.encode(state) == before
