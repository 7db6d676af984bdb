"""Parquet, read by a worker."""

from __future__ import annotations

import datetime
import io
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowtide.connectors.formats.limits import MIB, ReadLimits

if TYPE_CHECKING:
    from tests.connectors.formats.conftest import Folder


def parquet(columns: dict[str, object], **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def test_rows_come_in_order_over_row_groups_with_keys_and_fields(folder: Folder) -> None:
    count = 5_000
    data = parquet(
        {
            "n": range(count),
            "body": [f"text {at}" for at in range(count)],
            "when": [datetime.datetime(2026, 11, 20, 8, tzinfo=datetime.UTC)] * count,
            "price": [Decimal("1.50")] * count,
            "flag": [True] * count,
            "ratio": [0.5] * count,
            "nested": [{"a": [1, 2]}] * count,
            "kind": pa.array(["x"] * count).dictionary_encode(),
            "day": [None] * count,
        },
        row_group_size=700,
    )
    folder.write("a.parquet", data)
    rows = folder.read(id="n", fields=("when", "price", "flag", "ratio", "nested", "kind", "day", "absent"))
    assert [(row.key, row.text) for row in rows] == [(str(at), f"text {at}") for at in range(count)]
    assert rows[-1].fields == {
        "when": "2026-11-20T08:00:00+00:00",
        "price": "1.50",
        "flag": "true",
        "ratio": "0.5",
        "nested": '{"a":[1,2]}',
        "kind": "x",
        "day": None,
        "absent": None,
    }


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_text_may_be_stored_in_any_type_of_string(folder: Folder, kind: pa.DataType) -> None:
    values = (
        pa.array(["ä", None, "b"]).cast(kind)
        if not pa.types.is_dictionary(kind)
        else pa.array(["ä", None, "b"]).dictionary_encode()
    )
    folder.write("a.parquet", parquet({"body": values}))
    rows = folder.read()
    assert [row.text for row in rows] == ["ä", "", "b"]
    assert rows[1].reason == "row 1: field 'body' is null: fill it, or leave the row out"


def test_bytes_that_are_no_utf8_skip_their_row_only(folder: Folder) -> None:
    folder.write("a.parquet", parquet({"body": pa.array([b"good", b"caf\xe9", b"also good"])}))
    rows = folder.read()
    assert [row.text for row in rows] == ["good", "", "also good"]
    assert rows[1].reason == "row 1: invalid UTF-8 at byte 3 of the text: write the column as UTF-8"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (parquet({"body": [1, 2]}), "column 'body' holds int64, not text"),
        (parquet({"text": ["x"], "lang": ["en"]}), "no column 'body'; the file has: text, lang"),
        (parquet({"body": ["x" * 100] * 500})[:-50], "not a Parquet file that can be opened"),
        (b"PAR1" + b"\0" * 100 + b"PAR1", "not a Parquet file that can be opened"),
        (b"hello", "not a Parquet file that can be opened"),
        (b"", "the file is empty"),
    ],
    ids=["ints", "missing column", "truncated", "zeros", "text", "empty"],
)
def test_a_file_that_cannot_be_read_is_one_skipped_document(folder: Folder, data: bytes, expected: str) -> None:
    folder.write("a.parquet", data)
    (document,) = folder.read()
    assert expected in (document.reason or "")
    assert document.key == ""


def test_a_file_without_rows_has_no_documents(folder: Folder) -> None:
    folder.write("a.parquet", parquet({"body": pa.array([], pa.string())}))
    assert folder.read() == []


def test_a_page_damaged_in_the_middle_gives_the_rows_before_it_and_one_reason(folder: Folder) -> None:
    texts = [f"{at:05} " + "lorem ipsum dolor " * 20 for at in range(4_000)]
    data = bytearray(parquet({"body": texts}, row_group_size=1_000, use_dictionary=False, compression="snappy"))
    middle = len(data) * 6 // 10
    data[middle : middle + 4_000] = b"\xff" * 4_000
    folder.write("a.parquet", bytes(data))
    folder.write("b.txt", "the next file")
    rows = folder.read()
    good = [row.text for row in rows if row.reason is None]
    assert good[:-1] == texts[: len(good) - 1]
    assert good[-1] == "the next file"
    assert len(good) > 1_000
    (bad,) = [row for row in rows if row.reason]
    assert "damaged from row" in (bad.reason or "")


def test_a_dictionary_bomb_does_not_pass_the_memory_limit(folder: Folder) -> None:
    """A small file that says the same 8 MB two thousand times."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["x" * (8 * MIB)]))
    data = parquet({"body": values})
    assert len(data) < 4 * MIB
    folder.write("a.parquet", data)
    folder.write("b.txt", "the next file")
    rows = folder.read(limits=ReadLimits(memory_bytes=768 * MIB, text_bytes=MIB, seconds=60))
    assert rows[-1].text == "the next file"
    assert all(row.reason for row in rows[:-1])


def test_parquet_inside_gzip_says_what_to_do(folder: Folder) -> None:
    folder.write("a.parquet.gz", b"anything")
    assert "inflate it first" in (folder.read()[0].reason or "")


def test_rows_of_other_windows_are_left_out_and_keep_no_number(folder: Folder) -> None:
    folder.write("a.parquet", parquet({"body": ["a", "b", "c"], "day": ["1", "2", "1"]}))
    rows = folder.read(row_filter=lambda value: value == "1", row_filter_field="day")
    assert [(row.key, row.text, row.fields) for row in rows] == [("0", "a", {}), ("2", "c", {})]
