"""The ledger files of a root are read in batches, and only as far as they are asked for."""

from __future__ import annotations

import io
import tracemalloc
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.ledgers import at, entry, path_of, write_ledger
from support.standins import MemoryStore

from lowtide.billing.reading import BATCH_ROWS, WHEN, Selection, ledger_files, read_entries
from lowtide.errors import StoreError
from lowtide.schemas import LEDGER


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def values(store: MemoryStore, column: str, selection: Selection | None = None) -> list[object]:
    found = read_entries(store, [column], selection or Selection())
    return [value for entries in found for value in entries.rows[column].to_pylist()]


def test_job_and_window_come_from_the_path(store: MemoryStore) -> None:
    write_ledger(store, [entry()], path_of("run-1"))
    write_ledger(store, [entry("billed")], path_of("run-1.billed-2026-11"))
    write_ledger(store, [entry()], path_of("run-2", "mails", "2026-11-01--2026-11-15"))
    store.write("tables/ledger/README.txt", b"not a ledger")
    store.write("tables/results/job=tickets/window=all/results.parquet", b"no ledger either")
    assert [(file.path.rpartition("/")[2], file.job, file.window) for file in ledger_files(store)] == [
        ("run-2.parquet", "mails", "2026-11-01--2026-11-15"),
        ("run-1.billed-2026-11.parquet", "tickets", "2026-11"),
        ("run-1.parquet", "tickets", "2026-11"),
    ]
    assert [entries.file.job for entries in read_entries(store, ["kind"], Selection())] == ["mails"] + ["tickets"] * 2


def test_one_job_is_not_another_whose_name_begins_like_it(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=1)], path_of("run-1", "mail"))
    write_ledger(store, [entry(quantity=2)], path_of("run-1", "mails"))
    assert values(store, "quantity", Selection(jobs=frozenset({"mail"}))) == [1]
    assert values(store, "quantity", Selection(jobs=frozenset({"mail", "mails", "none"}))) == [1, 2]


def test_an_entry_counts_when_its_batch_began_and_else_when_it_was_written(store: MemoryStore) -> None:
    write_ledger(store, [entry(period_start=at(3), at=at(9)), entry(period_start=None, at=at(9))])
    assert values(store, WHEN) == [at(3), at(9)]


def test_days_begin_with_since_and_end_before_until(store: MemoryStore) -> None:
    write_ledger(store, [entry(quantity=day, period_start=at(day)) for day in range(1, 8)])
    assert values(store, "quantity", Selection(since=at(3), until=at(6))) == [3, 4, 5]
    assert values(store, "quantity", Selection(since=at(6))) == [6, 7]
    assert values(store, "quantity", Selection(until=at(1))) == []


def test_entries_are_found_by_all_of_the_tags(store: MemoryStore) -> None:
    tags = [{"team": "a", "stage": "test"}, {"team": "a"}, {"team": "b"}, {}]
    write_ledger(store, [entry(quantity=number, tags=given) for number, given in enumerate(tags)])
    assert values(store, "quantity", Selection(tags={"team": "a"})) == [0, 1]
    assert values(store, "quantity", Selection(tags={"team": "a", "stage": "test"})) == [0]
    assert values(store, "quantity", Selection(tags={"stage": "none"})) == []


def test_a_file_that_is_older_than_a_column_has_none_of_it(store: MemoryStore) -> None:
    older = pa.schema([field for field in LEDGER if field.name != "realtime_amount"])
    write_ledger(store, [entry()], schema=older)
    [entries] = read_entries(store, ["realtime_amount", "amount"], Selection())
    assert entries.rows.schema.field("realtime_amount").type == pa.decimal128(38, 12)
    assert entries.rows.to_pylist() == [{"realtime_amount": None, "amount": Decimal("0.001")}]


def test_columns_that_another_tool_has_retyped_are_read_as_what_they_are(store: MemoryStore) -> None:
    table = pa.Table.from_pylist([entry(quantity=7)], schema=LEDGER)
    model = table.schema.get_field_index("model")
    table = table.set_column(model, "model", table["model"].dictionary_encode())
    table = table.set_column(table.schema.get_field_index("quantity"), "quantity", pa.array([7], pa.int32()))
    out = io.BytesIO()
    pq.write_table(table, out)
    store.write(path_of("run-1"), out.getvalue())
    [entries] = read_entries(store, ["model", "quantity"], Selection())
    assert entries.rows.to_pylist() == [{"model": "amazon.nova-lite-v1:0", "quantity": 7}]
    assert entries.rows.schema.field("model").type == pa.string()


@pytest.mark.parametrize("data", [b"", b"PAR1 but no more", b"x" * 2000])
def test_a_file_that_cannot_be_read_is_named(store: MemoryStore, data: bytes) -> None:
    write_ledger(store, [entry()], path_of("run-1"))
    store.write(path_of("run-2"), data)
    with pytest.raises(StoreError, match=r"job=tickets/window=2026-11/run-2\.parquet: the ledger cannot be read"):
        values(store, "kind")


def test_a_file_that_is_cut_in_the_middle_is_named(store: MemoryStore) -> None:
    path = write_ledger(store, [entry() for _ in range(2000)])
    whole = store.objects[path]
    store.objects[path] = whole[: len(whole) // 3] + b"\0" * (len(whole) // 3) + whole[-len(whole) // 3 :]
    with pytest.raises(StoreError, match=r"run-1\.parquet: the ledger cannot be read"):
        list(read_entries(store, LEDGER.names, Selection()))


def test_a_table_that_is_no_ledger_is_named(store: MemoryStore) -> None:
    schema = pa.schema([field for field in LEDGER if field.name != "amount"])
    write_ledger(store, [entry()], schema=schema)
    with pytest.raises(StoreError, match=r"run-1\.parquet: this is no ledger: it has no column 'amount'"):
        values(store, "kind")


def test_an_amount_that_is_text_is_named_with_its_column(store: MemoryStore) -> None:
    schema = pa.schema([pa.field("amount", pa.string()) if f.name == "amount" else f for f in LEDGER])
    write_ledger(store, [entry(amount="a lot")], schema=schema)
    with pytest.raises(StoreError, match=r"run-1\.parquet: column 'amount' is string"):
        values(store, "amount")


def test_memory_is_for_a_batch_and_not_for_a_file(store: MemoryStore) -> None:
    rows = BATCH_ROWS * 12
    table = pa.Table.from_pylist([entry()], schema=LEDGER).take(pa.array([0] * rows))
    # Values that no dictionary shortens: as a whole they would be far over what is allowed below.
    table = table.set_column(0, "entry_id", pa.array([f"{number:064d}" for number in range(rows)]))
    out = io.BytesIO()
    pq.write_table(table, out, compression="none", use_dictionary=False, row_group_size=rows)
    store.write(path_of("run-1"), out.getvalue())
    before, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    seen = 0
    for entries in read_entries(store, ["entry_id", "amount", WHEN], Selection()):
        seen += len(entries.rows)
        most = max(most, pa.total_allocated_bytes() - before)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == rows
    assert most < 9 << 20
    # The store of this test hands out the whole object as one piece; all else is a batch.
    assert python < len(store.objects[path_of("run-1")]) + (10 << 20)
