"""What became of each record: every answer kept once, every token counted once, whatever the output looks like."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.standins import Provider, StandInBackend, echo_operation

from lowtide import ids
from lowtide.collecting.columns import LOST, Outcome
from lowtide.collecting.outcomes import Outcomes, split_lines
from lowtide.collecting.tallies import waste_of
from lowtide.operations import Invalid, Operation, Output, Template
from lowtide.prices import PICO, Price
from lowtide.records import Answer, Usage

BACKEND = StandInBackend(Provider())
CHECKS = ["aaaaaaaa", "bbbbbbbb", "cccccccc"]
TYPES = ("input", "cached_input", "output", "reasoning")
PRICE = Price("p", "test", {name: Decimal(at) / 10**9 for at, name in enumerate(TYPES, start=3)})


def operations(width: int = 2) -> tuple[Operation, ...]:
    return tuple(echo_operation(f"op{at}") for at in range(width))


def outcomes(width: int = 2) -> Outcomes:
    return Outcomes(CHECKS, operations(width))


def record(ordinal: int, width: int = 2) -> str:
    return ids.record_id(ordinal, CHECKS[ordinal // width])


def said(text: str) -> str:
    return orjson.dumps({"echo": text}).decode()


def answer(ordinal: int, status: str = "ok", text: str | None = None, **more: object) -> Answer:
    tokens = {"input_tokens": 10, "output_tokens": 2} | more
    return msgspec.convert(
        {"record_id": record(ordinal), "status": status, "text": said("x") if text is None else text, **tokens}, Answer
    )


def lines(answers: Iterable[Answer]) -> list[bytes]:
    return [msgspec.json.encode(given) for given in answers]


def collected(*answers: Answer, into: Outcomes | None = None, attempt: int = 1) -> Outcomes:
    into = into or outcomes()
    into.collect(BACKEND, lines(answers), attempt, PRICE)
    return into


def tokens(found: Outcomes) -> dict[tuple[str, str], int]:
    return {(tally.token_type, tally.waste): tally.quantity for tally in found.tallies.entries()}


def test_answers_find_their_records_in_any_order() -> None:
    answers = [answer(at, text=said(f"text {at}")) for at in (5, 0, 3)]
    found = collected(*answers)
    assert [outcome and outcome.text for outcome in found.records] == ["text 0", None, None, "text 3", None, "text 5"]
    assert found.remaining(range(6)) == [1, 2, 4]
    assert found.counts(range(6)) == {"ok": 3, "unanswered": 3}


def test_the_first_of_two_answers_is_kept_and_the_second_is_waste() -> None:
    found = collected(answer(0, text=said("first")), answer(0, text=said("second"), input_tokens=7))
    outcome = found.records[0]
    assert outcome is not None
    assert (outcome.text, outcome.input_tokens) == ("first", 10)
    assert tokens(found) == {
        ("input", ""): 10,
        ("output", ""): 2,
        ("input", "duplicate"): 7,
        ("output", "duplicate"): 2,
    }


def test_the_very_same_answer_twice_was_processed_once() -> None:
    found = collected(answer(0), answer(1), answer(0), answer(1), answer(0))
    assert tokens(found) == {("input", ""): 20, ("output", ""): 4}


def test_a_second_answer_that_is_delivered_twice_was_processed_once() -> None:
    first, second, third = (answer(0, input_tokens=count) for count in (1, 10, 100))
    found = collected(first, second, third, second, third, first)
    assert tokens(found)["input", ""] == 1
    assert tokens(found)["input", "duplicate"] == 110


@pytest.mark.parametrize(
    "stray",
    [
        "r9999999xaaaaaaaa",
        "r0000000xbbbbbbbb",
        "r0000006xcccccccc",
        "",
        "somebody-else",
        "r-000001xaaaaaaaa",
        "R0000000xaaaaaaaa",
        "r٠٠٠٠٠٠٠xaaaaaaaa",
    ],
)
def test_an_answer_for_no_record_of_ours_is_kept_nowhere_and_counted(stray: str) -> None:
    found = collected(msgspec.structs.replace(answer(0), record_id=stray), answer(1))
    assert [at for at, outcome in enumerate(found.records) if outcome] == [1]
    assert tokens(found)["input", "duplicate"] == 10


@pytest.mark.parametrize(
    "line",
    [b"{", b"not json", b"\xff\xfe", b"[]", b'{"record_id": 5, "status": "ok"}', b'{"record_id": "r"}', b"\x00", b" "],
)
def test_a_malformed_line_is_counted_and_nothing_else_is_lost(line: bytes) -> None:
    found = outcomes()
    found.collect(BACKEND, [lines([answer(0)])[0], line, b"", lines([answer(1)])[0]], 1)
    assert found.malformed == 1
    assert found.counts(range(2)) == {"ok": 2}


def test_an_invalid_answer_may_be_asked_again_and_its_tokens_are_waste() -> None:
    found = collected(answer(0, text="I would rather not"), answer(1))
    outcome = found.records[0]
    assert outcome is not None
    assert (outcome.status, outcome.reason, outcome.text) == ("invalid", "not JSON", "I would rather not")
    assert found.remaining([0, 1]) == [0]
    assert tokens(found)["input", "invalid"] == 10


def test_an_invalid_answer_and_then_a_good_one_is_good_and_costs_both() -> None:
    found = collected(answer(0, text="no", cached_tokens=4))
    collected(answer(0, text=said("yes"), input_tokens=30, reasoning_tokens=1), into=found, attempt=2)
    outcome = found.records[0]
    assert outcome is not None
    assert (outcome.status, outcome.text, outcome.reason, outcome.attempt) == ("ok", "yes", None, 2)
    assert (outcome.input_tokens, outcome.output_tokens) == (40, 4)
    assert (outcome.cached_tokens, outcome.reasoning_tokens) == (4, 1)
    assert found.remaining([0]) == []


@pytest.mark.parametrize(("retryable", "remaining"), [(True, [0]), (False, [])])
def test_an_error_is_asked_again_only_if_that_may_help(retryable: bool, remaining: list[int]) -> None:
    found = collected(answer(0, "error", "", error="overloaded", retryable=retryable, output_tokens=0))
    outcome = found.records[0]
    assert outcome is not None
    assert (outcome.status, outcome.reason, outcome.text) == ("error", "overloaded", None)
    assert found.remaining([0]) == remaining
    assert tokens(found) == {("input", "retried" if retryable else "invalid"): 10}


def test_a_refusal_is_final_and_paid_for() -> None:
    found = collected(answer(0, "refused", "I may not say", error="filter"))
    outcome = found.records[0]
    assert outcome is not None
    assert (outcome.status, outcome.reason, outcome.text) == ("refused", "filter", "I may not say")
    assert found.remaining([0]) == []
    assert tokens(found) == {("input", ""): 10, ("output", ""): 2}


def test_what_expired_is_asked_again_and_what_it_had_cost_is_waste() -> None:
    found = collected(answer(0, "unanswered", "", error="24 hours are over", output_tokens=0))
    assert found.remaining([0]) == [0]
    assert found.counts([0]) == {"unanswered": 1}
    assert tokens(found) == {("input", "expired"): 10}


def test_a_record_that_an_attempt_does_not_mention_stays_as_it_was() -> None:
    found = collected(answer(0, text="no"), answer(1))
    before = found.records
    collected(answer(2), into=found, attempt=2)
    assert found.records[:2] == before[:2]


@pytest.mark.parametrize("late", ["ok", "error", "unanswered", "refused"])
def test_an_answer_that_was_kept_is_not_lost_to_one_that_was_not_asked_for(late: str) -> None:
    found = collected(answer(0, text=said("kept")), answer(1, "refused", ""), answer(2, text="no"))
    before = found.records
    collected(answer(0, late, input_tokens=7), answer(1, late, input_tokens=5), answer(2), into=found, attempt=2)
    assert found.records[:2] == before[:2]
    assert found.remaining(range(3)) == []
    assert tokens(found)["input", "duplicate"] == 12


def test_tallies_are_those_of_one_attempt_and_outcomes_those_of_all() -> None:
    first = collected(answer(0), answer(1, text="no"))
    stored = io.BytesIO()
    first.save(stored)
    second = outcomes()
    second.load(io.BytesIO(stored.getvalue()))
    assert second.records == first.records
    collected(answer(1, input_tokens=5), into=second, attempt=2)
    assert tokens(second) == {("input", ""): 5, ("output", ""): 2}
    assert second.records[1] is not None
    assert second.records[1].input_tokens == 15


def test_nothing_at_all_can_be_stored_and_read() -> None:
    stored = io.BytesIO()
    outcomes().save(stored)
    again = outcomes()
    again.load(io.BytesIO(stored.getvalue()))
    assert again.records == [None] * 6
    assert again.remaining(range(6)) == list(range(6))


def test_an_empty_output_answers_nothing() -> None:
    found = collected()
    assert found.remaining(range(6)) == list(range(6))
    assert found.tallies.entries() == ()


def test_half_a_surrogate_pair_in_an_answer_is_no_crash() -> None:
    def validate(text: str) -> Output | Invalid:
        return Output(text="a\ud800", label="\udfff", document="\ud800")

    found = Outcomes(CHECKS, [Operation("prompt", "odd", "", Template.parse("{{ text }}"), validate)])
    line = b'{"record_id":"r0000000xaaaaaaaa","status":"ok","text":"x"}'
    found.collect(BACKEND, [line], 1)
    found.save(io.BytesIO())
    assert found.counts([0]) == {"ok": 1}


def test_a_record_that_was_charged_and_has_no_line_is_lost_and_not_asked_again() -> None:
    found = collected(answer(0), answer(1), answer(2), answer(3))
    assert found.find_lost(range(6), 6) == [4, 5]
    found.give_up([4, 5], 1)
    assert found.remaining(range(6)) == []
    assert found.remaining(range(6), lost=True) == [4, 5]
    lost = found.records[4]
    assert lost is not None
    assert (lost.status, lost.reason, lost.cost) == ("error", LOST, 0)
    assert found.counts(range(6)) == {"ok": 4, "error": 2}


def test_a_record_that_was_not_charged_may_be_asked_again() -> None:
    found = collected(answer(0), answer(1), answer(2, "unanswered", input_tokens=0, output_tokens=0))
    assert found.find_lost(range(6), 2) == []
    assert found.find_lost(range(6), None) == []
    assert found.find_lost(range(6), None, completed=True) == [3, 4, 5]
    assert found.remaining(range(6)) == [2, 3, 4, 5]


def test_where_it_is_open_which_records_were_charged_none_is_asked_again() -> None:
    found = collected(answer(0), answer(1), answer(2, "unanswered", input_tokens=0, output_tokens=0))
    assert found.find_lost(range(6), 3) == [3, 4, 5]


def test_a_broken_line_says_which_record_was_lost() -> None:
    found = outcomes()
    found.collect(BACKEND, [*lines([answer(0)]), lines([answer(3)])[0][:60]], 1, PRICE)
    assert found.find_lost(range(6), None) == [3]
    assert found.find_lost(range(6), 1) == []
    assert found.find_lost(range(6), 2) == [1, 2, 3, 4, 5], "the broken line may be that of a record that failed"


def test_a_broken_line_beside_a_good_one_loses_nothing() -> None:
    found = outcomes()
    found.collect(BACKEND, [lines([answer(3)])[0][:60], *lines([answer(3)])], 1, PRICE)
    assert found.find_lost([3], 1) == []
    assert found.find_lost([3], None) == []


def test_a_lost_answer_that_is_asked_and_paid_for_again_is_kept() -> None:
    found = collected(answer(0))
    found.give_up(found.find_lost([0, 1], 2), 1)
    found.tallies.clear()
    collected(answer(1, text=said("at last")), into=found, attempt=2)
    assert found.records[1] is not None
    assert (found.records[1].status, found.records[1].lost) == ("ok", False)
    assert tokens(found) == {("input", ""): 10, ("output", ""): 2}


def test_tokens_that_the_provider_counts_and_no_line_does_are_waste() -> None:
    found = collected(answer(0, cached_tokens=4))
    found.tallies.reconcile(Usage(input_tokens=35, output_tokens=9, cached_tokens=4, reasoning_tokens=1))
    assert tokens(found) == {
        ("input", ""): 6,
        ("cached_input", ""): 4,
        ("output", ""): 2,
        ("input", "lost"): 25,
        ("output", "lost"): 6,
        ("reasoning", "lost"): 1,
    }


def test_a_provider_that_gives_no_details_is_not_charged_for_them_again() -> None:
    found = collected(answer(0, cached_tokens=4, reasoning_tokens=1))
    found.tallies.reconcile(Usage(input_tokens=13, output_tokens=2))
    assert tokens(found) == {
        ("input", ""): 6,
        ("cached_input", ""): 4,
        ("output", ""): 1,
        ("reasoning", ""): 1,
        ("input", "lost"): 3,
    }


def test_an_answer_behind_an_error_of_the_same_record_is_kept() -> None:
    found = collected(answer(0, "error", "", error="overloaded", retryable=True, output_tokens=0), answer(0))
    assert found.records[0] is not None
    assert found.records[0].status == "ok"
    assert found.remaining([0]) == []
    assert tokens(found) == {("input", "retried"): 10, ("input", ""): 10, ("output", ""): 2}


def test_an_error_with_tokens_before_its_answer_hides_no_lost_record() -> None:
    failed = answer(0, "error", "", error="overloaded", retryable=True)
    found = collected(failed, answer(0))
    assert found.find_lost([0, 1], 2) == [1]


def test_all_of_a_surplus_batch_is_waste() -> None:
    output = [*lines([answer(0), answer(0), answer(1)]), b"{torn"]
    tallies = waste_of(BACKEND, output, Usage(input_tokens=50, output_tokens=4), "duplicate")
    assert {(tally.token_type, tally.waste): tally.quantity for tally in tallies} == {
        ("input", "duplicate"): 50,
        ("output", "duplicate"): 4,
    }


kinds = st.sampled_from(["ok", "invalid", "refused", "error", "again", "unanswered"])
counts = st.integers(0, 50)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    kind = draw(kinds)
    ordinal = draw(st.integers(0, 7))
    status = {"invalid": "ok", "again": "error"}.get(kind, kind)
    cached, reasoning = draw(counts), draw(counts)
    return Answer(
        record_id=record(ordinal) if ordinal < 6 else f"r000000{ordinal}xaaaaaaaa",
        status=status,  # type: ignore[arg-type]
        text="no" if kind == "invalid" else said("yes"),
        error=draw(st.sampled_from(["", "why"])),
        retryable=kind == "again",
        input_tokens=cached + draw(counts),
        cached_tokens=cached,
        output_tokens=reasoning + draw(counts),
        reasoning_tokens=reasoning,
        answered_at=draw(st.sampled_from([0.0, 1_800_000_000.25])),
    )


def by_type(given: Answer) -> dict[str, int]:
    return {
        "input": given.input_tokens - given.cached_tokens,
        "cached_input": given.cached_tokens,
        "output": given.output_tokens - given.reasoning_tokens,
        "reasoning": given.reasoning_tokens,
    }


def naively(attempts: Sequence[Sequence[Answer]]) -> tuple[dict[int, Outcome], list[Counter[tuple[str, str]]]]:
    """The same, record by record, as one would write it down first."""
    kept: dict[int, Outcome] = {}
    bills = []
    for number, given_now in enumerate(attempts, start=1):
        bill = Counter[tuple[str, str]]()
        before = dict(kept)
        seen: dict[int, list[Answer]] = {}
        weak: set[int] = set()
        final = {at for at, outcome in kept.items() if not outcome.retryable}
        for one in given_now:
            at = ids.ordinal_of(one.record_id)
            stray = at >= 6 or at in final
            if not stray and one in seen.setdefault(at, []):
                continue
            waste = "duplicate"
            if not stray:
                taken = not seen[at] or (at in weak and one.status == "ok")
                seen[at].append(one)
                if taken:
                    weak = weak | {at} if one.status in ("error", "unanswered") else weak - {at}
                    invalid = one.status == "ok" and one.text == "no"
                    error = "retried" if one.retryable else "invalid"
                    waste = {"ok": "", "refused": "", "error": error, "unanswered": "expired"}[one.status]
                    waste = "invalid" if invalid else waste
                    old = before.get(at)
                    kept[at] = Outcome(
                        status="invalid" if invalid else one.status,
                        reason="not JSON" if invalid else None if one.status == "ok" else one.error or None,
                        text={"ok": "no" if invalid else "yes", "refused": one.text}.get(one.status),
                        document=one.text if one.status == "ok" and not invalid else None,
                        label=None,
                        confidence=None,
                        language=None,
                        input_tokens=one.input_tokens + (old.input_tokens if old else 0),
                        output_tokens=one.output_tokens + (old.output_tokens if old else 0),
                        cached_tokens=one.cached_tokens + (old.cached_tokens if old else 0),
                        reasoning_tokens=one.reasoning_tokens + (old.reasoning_tokens if old else 0),
                        answered_at=one.answered_at,
                        attempt=number,
                        retryable=invalid or one.status == "unanswered" or one.retryable,
                        lost=False,
                        cost=int(PRICE.amount(by_type(one)) * PICO) + (old.cost if old else 0),
                    )
                    if old and old.status == "invalid" and (one.status == "unanswered" or one.retryable):
                        # Something was said before, and nothing since.
                        kept[at] = kept[at]._replace(
                            status="invalid", reason=old.reason, text=old.text, answered_at=old.answered_at
                        )
            for token_type, quantity in by_type(one).items():
                bill[token_type, waste] += quantity
        bills.append(+bill)
    return kept, bills


@settings(max_examples=300)
@given(st.lists(st.lists(answers(), max_size=12), min_size=1, max_size=3), st.booleans())
def test_collecting_is_what_a_loop_over_records_would_do(attempts: list[list[Answer]], stored: bool) -> None:
    kept, bills = naively(attempts)
    found = outcomes()
    for number, given_now in enumerate(attempts, start=1):
        found.tallies.clear()
        collected(*given_now, into=found, attempt=number)
        assert tokens(found) == bills[number - 1]
        if stored:
            out = io.BytesIO()
            found.save(out)
            found = outcomes()
            found.load(io.BytesIO(out.getvalue()))
    assert dict(enumerate(found.records)) == {at: kept.get(at) for at in range(6)}
    assert found.remaining(range(6)) == [at for at in range(6) if at not in kept or kept[at].retryable]


@settings(max_examples=200)
@given(
    st.lists(st.text().map(lambda text: orjson.dumps({"text": text})), max_size=12), st.integers(1, 9), st.booleans()
)
def test_lines_that_lie_across_chunks_come_out_whole(documents: list[bytes], size: int, ended: bool) -> None:
    """U+2028 and U+0085 end a line for `str.splitlines`, and stand as they are inside a JSON string."""
    documents.append(orjson.dumps({"text": "a\u2028b\u2029c\u0085d\x0b\x0c"}))
    data = b"\n".join(documents) + (b"\n" if ended else b"")
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert list(split_lines(chunks)) == documents
    assert list(split_lines([*chunks, b""])) == documents


def test_an_output_without_a_last_line_end_keeps_its_last_line() -> None:
    assert list(split_lines([b"a\nb"])) == [b"a", b"b"]
    assert list(split_lines([b"a\n", b"\n", b"b\n"])) == [b"a", b"", b"b"]
    assert list(split_lines([])) == []
