"""A shard's rows: one for each document and operation, with its status, its reason and its exact cost."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.standins import Provider, StandInBackend, echo_operation

from lowtide import ids
from lowtide.collecting.outcomes import Outcomes
from lowtide.collecting.rows import BATCH_ROWS, Verdict, build_rows, money, write_rows
from lowtide.prices import Price
from lowtide.records import Answer
from lowtide.schemas import MOMENT, MONEY, results_schema

WIDTH = 2
OPERATIONS = [echo_operation(f"op{at}") for at in range(WIDTH)]
ERROR = Verdict("error", "no answer after 3 attempts")
CANCELLED = Verdict("skipped", "cancelled")
PRICE = Price(
    "p",
    "test",
    {
        "input": Decimal("0.000000123457"),
        "cached_input": Decimal("0.000000012346"),
        "output": Decimal("0.000003333333"),
        "reasoning": Decimal("0.000007"),
    },
)


def index(documents: Sequence[bool], fields: Sequence[str] = ()) -> pa.Table:
    """An index whose n-th document is readable or not; ids sort in another order than documents come in."""
    first, firsts = 0, []
    for readable in documents:
        firsts.append(first if readable else -1)
        first += WIDTH if readable else 0
    count = len(documents)
    columns = {
        "document_id": pa.array([ids.document_id(f"u{at}", "") for at in range(count)], pa.string()),
        "document_uri": pa.array([f"u{at}" for at in range(count)], pa.string()),
        "document_modified": pa.array([datetime(2026, 11, 1, tzinfo=UTC)] * count, MOMENT),
        "content_sha256": pa.array(
            [f"{at:08d}" * 8 if good else None for at, good in enumerate(documents)], pa.string()
        ),
        "first": pa.array(firsts, pa.int32()),
        "reason": pa.array([None if good else f"broken {at}" for at, good in enumerate(documents)], pa.string()),
    }
    columns |= {f"field:{name}": pa.array([f"{name}{at}" for at in range(count)], pa.string()) for name in fields}
    return pa.table(columns)


def outcomes(documents: Sequence[bool], answers: Sequence[Answer], attempt: int = 1) -> Outcomes:
    checks = [f"{at:08d}" for at, readable in enumerate(documents) if readable]
    found = Outcomes(checks, OPERATIONS)
    found.collect(StandInBackend(Provider()), [msgspec.json.encode(answer) for answer in answers], attempt, PRICE)
    return found


def answer(documents: Sequence[bool], document: int, op: int, status: str = "ok", **more: object) -> Answer:
    ordinal = sum(documents[:document]) * WIDTH + op
    said = orjson.dumps({"echo": f"answer {document}.{op}"}).decode()
    values = {"record_id": f"r{ordinal:07d}x{document:08d}", "status": status, "text": said} | more
    return msgspec.convert(values, Answer)


def rows(
    documents: Sequence[bool], found: Outcomes, leftover: Verdict = ERROR, **more: object
) -> list[dict[str, object]]:
    settings: dict[str, object] = {
        "operations": OPERATIONS,
        "requested_at": 1_800_000_000.25,
        "attempts": 3,
        "field_names": (),
    }
    table = build_rows(index(documents, more.get("field_names", ())), found, leftover=leftover, **(settings | more))  # type: ignore[arg-type]
    found_rows: list[dict[str, object]] = table.to_pylist()
    return found_rows


def by_place(found: list[dict[str, object]]) -> dict[tuple[str, int], dict[str, object]]:
    return {(str(row["document_uri"]), int(str(row["op"]))): row for row in found}


@given(st.lists(st.booleans(), max_size=8), st.data())
def test_there_is_one_row_for_each_document_and_operation_in_the_order_of_ids(
    documents: list[bool], data: st.DataObject
) -> None:
    places = [(at, op) for at, readable in enumerate(documents) if readable for op in range(WIDTH)]
    answered = data.draw(st.permutations([place for place in places if data.draw(st.booleans())]))
    found = rows(documents, outcomes(documents, [answer(documents, at, op) for at, op in answered]))
    order = [(row["document_id"], row["op"]) for row in found]
    assert order == sorted((ids.document_id(f"u{at}", ""), op) for at in range(len(documents)) for op in range(WIDTH))
    for (uri, op), row in by_place(found).items():
        at = int(uri[1:])
        if not documents[at]:
            assert (row["status"], row["status_reason"]) == ("skipped", f"broken {at}")
        elif (at, op) in answered:
            assert (row["status"], row["output_text"]) == ("ok", f"answer {at}.{op}")
            assert row["status_reason"] is None
        else:
            assert (row["status"], row["status_reason"]) == ("error", "no answer after 3 attempts")


@pytest.mark.parametrize(
    ("leftover", "status", "more", "expected"),
    [
        (ERROR, "error", {"error": "overloaded", "retryable": True}, ("error", "overloaded")),
        (ERROR, "error", {"error": "too long"}, ("error", "too long")),
        (ERROR, "error", {}, ("error", None)),
        (ERROR, "unanswered", {"error": "24 hours"}, ("error", "no answer after 3 attempts: 24 hours")),
        (ERROR, "unanswered", {}, ("error", "no answer after 3 attempts")),
        (ERROR, "refused", {"error": "filter"}, ("refused", "filter")),
        (ERROR, "ok", {"text": "not JSON"}, ("invalid", "not JSON")),
        (CANCELLED, "error", {"error": "overloaded", "retryable": True}, ("skipped", "cancelled: overloaded")),
        (CANCELLED, "error", {"error": "too long"}, ("error", "too long")),
        (CANCELLED, "unanswered", {"error": "24 hours"}, ("skipped", "cancelled: 24 hours")),
        (CANCELLED, "refused", {"error": "filter"}, ("refused", "filter")),
        (CANCELLED, "ok", {"text": "not JSON"}, ("invalid", "not JSON")),
    ],
)
def test_a_row_says_how_its_record_ended_and_why(
    leftover: Verdict, status: str, more: dict[str, object], expected: tuple[str, str | None]
) -> None:
    found = outcomes([True], [answer([True], 0, 0, status, **more), answer([True], 0, 1)])
    first, second = rows([True], found, leftover)
    assert (first["status"], first["status_reason"]) == expected
    assert second["status"] == "ok"


def test_a_row_whose_answer_was_no_json_keeps_the_raw_text() -> None:
    (first, _) = rows([True], outcomes([True], [answer([True], 0, 0, text="I cannot")]))
    assert (first["status"], first["output_text"], first["output"]) == ("invalid", "I cannot", None)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**6)),
        min_size=1,
        max_size=4,
    )
)
def test_a_row_costs_its_tokens_times_their_prices_to_the_last_decimal(counts: list[tuple[int, int, int, int]]) -> None:
    documents = [True] * len(counts)
    answers = [
        answer(
            documents,
            at,
            0,
            input_tokens=fresh + cached,
            cached_tokens=cached,
            output_tokens=said + thought,
            reasoning_tokens=thought,
        )
        for at, (fresh, said, cached, thought) in enumerate(counts)
    ]
    found = by_place(rows(documents, outcomes(documents, answers)))
    for at, (fresh, said, cached, thought) in enumerate(counts):
        row = found[f"u{at}", 0]
        exact = PRICE.amount({"input": fresh, "cached_input": cached, "output": said, "reasoning": thought})
        assert row["cost_usd"] == exact
        assert row["cost_usd_float"] == pytest.approx(float(exact))
        assert (row["input_tokens"], row["output_tokens"], row["cached_tokens"]) == (
            fresh + cached,
            said + thought,
            cached,
        )
        assert found[f"u{at}", 1]["cost_usd"] == 0


def test_a_row_knows_its_last_attempt_and_what_all_of_them_cost() -> None:
    found = outcomes([True], [answer([True], 0, 0, text="no", input_tokens=10)])
    lines = [msgspec.json.encode(answer([True], 0, 0, input_tokens=5, answered_at=1_800_000_100.5))]
    found.collect(StandInBackend(Provider()), lines, 2, PRICE)
    row = rows([True], found)[0]
    assert (row["attempts"], row["input_tokens"], row["cost_usd"]) == (2, 15, 15 * PRICE.unit("input"))
    assert row["answered_at"] == datetime.fromtimestamp(1_800_000_100.5, UTC)
    assert row["requested_at"] == datetime.fromtimestamp(1_800_000_000.25, UTC)


def test_times_that_nobody_told_are_null() -> None:
    row = rows([True], outcomes([True], [answer([True], 0, 0)]), requested_at=0.0)[0]
    assert row["answered_at"] is None
    assert row["requested_at"] is None


def test_fields_are_carried_into_every_row_of_their_document() -> None:
    found = by_place(rows([False, True], outcomes([False, True], []), field_names=("customer",)))
    assert [found[f"u{at}", op]["customer"] for at in range(2) for op in range(2)] == ["customer0"] * 2 + [
        "customer1"
    ] * 2


def test_open_rows_count_the_attempts_that_were_made_and_answered_ones_those_they_took() -> None:
    documents = [True, True, False]
    found = outcomes(documents, [answer(documents, 0, 0), answer(documents, 0, 1, "error", retryable=True)])
    assert {place: row["attempts"] for place, row in by_place(rows(documents, found, attempts=3)).items()} == {
        ("u0", 0): 1,
        ("u0", 1): 3,
        ("u1", 0): 3,
        ("u1", 1): 3,
        ("u2", 0): 0,
        ("u2", 1): 0,
    }


def test_a_shard_without_documents_has_no_rows() -> None:
    assert rows([], outcomes([], [])) == []


def test_columns_have_the_types_of_the_results_table() -> None:
    table = build_rows(
        index([True, False]),
        outcomes([True, False], []),
        operations=OPERATIONS,
        requested_at=1.0,
        attempts=1,
        field_names=(),
        leftover=ERROR,
    )
    wanted = results_schema(())
    for name in set(table.column_names) - {"op", "ordinal", "reasoning_tokens", "key_hi", "key_lo"}:
        assert table.schema.field(name).type == wanted.field(name).type, name


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8))
def test_whole_picodollars_become_decimals_exactly(pico: list[int]) -> None:
    column = money(np.array(pico, dtype=np.int64))
    column.validate(full=True)
    assert column.type == MONEY
    assert column.to_pylist() == [Decimal(value).scaleb(-12) for value in pico]


def test_rows_can_be_read_in_batches_of_bounded_size() -> None:
    documents = [True] * BATCH_ROWS
    out = io.BytesIO()
    write_rows(
        build_rows(
            index(documents),
            outcomes(documents, []),
            operations=OPERATIONS,
            requested_at=0.0,
            attempts=0,
            field_names=(),
            leftover=ERROR,
        ),
        out,
    )
    reader = pa.ipc.open_file(io.BytesIO(out.getvalue()))
    sizes = [len(reader.get_batch(at)) for at in range(reader.num_record_batches)]
    assert sum(sizes) == WIDTH * BATCH_ROWS
    assert max(sizes) <= BATCH_ROWS
