from __future__ import annotations

import io
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from lowtide.errors import StoreError
from lowtide.report.results import read_results

if TYPE_CHECKING:
    from conftest import Tables


def test_every_row_is_counted_once(tables: Tables) -> None:
    results = read_results(tables.a_week(rows=20_001)["results"], 20, 600)
    assert results.rows == results.statuses.total == 20_001
    assert sum(one.statuses.total for one in results.operations.values()) == 20_001
    topic = results.operations["topic"]
    assert topic.labels.total == topic.statuses.total
    assert topic.labels.get(None) == topic.statuses.total - topic.statuses.get("ok")


def test_costs_are_summed_to_the_last_digit(tables: Tables) -> None:
    made = [tables.row(number, cost_usd=Decimal("0.000000000001") + number, cached=number == 0) for number in range(3)]
    made[2] = {**made[2], "cost_if_realtime_usd": None}
    results = read_results(tables.results(made), 5, 600)
    assert results.cost == Decimal("3.000000000003")
    assert results.batch == Decimal("1.000000000002")
    assert results.realtime == Decimal("0.002850000000")
    assert results.bought_earlier == 1


def test_a_million_different_labels_stay_a_thousand_and_a_rest(tables: Tables) -> None:
    made = [tables.row(number, operation_kind="classify", label=f"label {number}") for number in range(3_000)]
    labels = read_results(tables.results(made), 0, 600).operations["summarize"].labels
    assert (len(labels.ranked()), labels.beyond, labels.total) == (1_000, 2_000, 3_000)


def test_one_failed_row_among_thousands_is_in_the_sample(tables: Tables) -> None:
    made = [tables.row(number) for number in range(20_000)]
    made[12_345] = tables.row(12_345, status="refused", status_reason="the filter said no")
    results = read_results(tables.results(made), 10, 600)
    assert [sample.status for sample in results.samples] == ["ok"] * 9 + ["refused"]
    assert results.samples[-1].document_uri.endswith("012345.txt")


def test_failures_take_at_most_half_of_the_sample_unless_there_is_nothing_else(tables: Tables) -> None:
    made = [tables.row(number, status="ok" if number % 50 == 0 else "error") for number in range(1_000)]
    statuses = [sample.status for sample in read_results(tables.results(made), 10, 600).samples]
    assert (statuses.count("ok"), statuses.count("error")) == (5, 5)
    statuses = [sample.status for sample in read_results(tables.results(made[1:50]), 10, 600).samples]
    assert statuses == ["error"] * 10


def test_the_same_rows_are_drawn_whatever_their_order(tables: Tables) -> None:
    made = [tables.row(number) for number in range(2_000)]
    drawn = [
        {sample.document_uri for sample in read_results(tables.results(order), 8, 600).samples}
        for order in (made, made[::-1])
    ]
    assert len(drawn[0]) == 8
    assert drawn[0] == drawn[1]


def test_a_sample_is_the_row_it_says_it_is(tables: Tables) -> None:
    made = [tables.row(number, customer=f"customer {number}") for number in range(5_000)]
    for sample in read_results(tables.results(made), 30, 600).samples:
        number = int(sample.document_uri[-10:-4])
        assert sample.output == made[number]["output_text"]
        assert sample.input_tokens == made[number]["input_tokens"]
        assert sample.fields == (("customer", f"customer {number}"),)


def test_long_texts_are_cut_before_they_are_held(tables: Tables) -> None:
    results = read_results(tables.results([tables.row(1, output_text="x" * 5_000_000)]), 5, 600)
    assert len(results.samples[0].output) == 601


def test_missing_columns_are_unknown_not_fatal(tables: Tables) -> None:
    results = read_results(tables.write({"status": ["ok", None], "note": [{"a": 1}, None]}), 5, 600)
    assert (results.rows, results.statuses.get("ok"), results.statuses.get("")) == (2, 1, 1)
    assert results.samples[0].fields == (("note", "{'a': 1}"),)
    assert read_results(tables.write({"other": [1, 2, 3]}), 5, 600).rows == 3


def test_progress_reaches_the_number_of_rows(tables: Tables) -> None:
    seen: list[tuple[int, int]] = []
    table = tables.results([tables.row(number) for number in range(20_000)])
    read_results(table, 5, 600, lambda done, whole: seen.append((done, whole)))
    assert seen[-1] == (20_000, 20_000)
    assert len(seen) > 1


def test_what_is_not_parquet_is_named(tables: Tables) -> None:
    with pytest.raises(StoreError, match="the results table cannot be read as Parquet"):
        read_results(io.BytesIO(b"PAR1 not really"), 5, 600)
    cut = tables.results([tables.row(number) for number in range(2_000)]).getvalue()
    with pytest.raises(StoreError, match="results"):
        read_results(io.BytesIO(cut[: len(cut) // 2]), 5, 600)
