"""CSV and TSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.connectors.formats.limits import ReadLimits
from lowtide.connectors.formats.rows import Asked
from lowtide.connectors.formats.table import read_csv

if TYPE_CHECKING:
    from tests.connectors.formats.conftest import Folder


def test_rows_are_read_under_their_header(folder: Folder) -> None:
    folder.write("a.csv", 'id,body,lang\n1,"two\nlines, ""quoted""",en\r\n2,=cmd|x!A0,\n')
    rows = folder.read(id="id", fields=("lang", "absent"))
    assert [(row.key, row.text) for row in rows] == [("1", 'two\nlines, "quoted"'), ("2", "=cmd|x!A0")]
    assert [row.fields for row in rows] == [{"lang": "en", "absent": None}, {"lang": "", "absent": None}]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tsv", b"id\tbody\n1\ta,b;c\n"),
        (
            "a.csv",
            b"\xef\xbb\xbfid;body\r\n1;a,b;c\r\n".replace(b";c", b'";c"')[:0] + b"\xef\xbb\xbfid;body\r\n1;a,b\r\n",
        ),
        ("a.csv", b"id|body\n1|a,b\n"),
        ("a.csv", b"\n\nid,body\n1,a;b\n"),
    ],
)
def test_the_delimiter_is_what_makes_the_text_column_appear(folder: Folder, name: str, data: bytes) -> None:
    folder.write(name, data)
    (row,) = folder.read(id="id")
    assert row.reason is None
    assert row.key == "1"


def test_one_column_is_enough(folder: Folder) -> None:
    folder.write("a.csv", "body\nfirst\n\nsecond\n")
    assert [row.text for row in folder.read()] == ["first", "second"]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (b"2,too,many,fields", "line 3: 4 fields where the header has 2"),
        (b"2", "line 3: 1 fields where the header has 2"),
        (b"2,caf\xe9", "line 3: invalid UTF-8"),
        (b'2,"open', "line 3: a quote is opened and never properly closed"),
        (b'2,"x" y', "line 3: a quote stands inside a field"),
    ],
)
def test_a_bad_row_is_skipped_and_those_behind_it_are_read(folder: Folder, bad: bytes, expected: str) -> None:
    folder.write("a.csv", b"id,body\n1,one\n" + bad + b"\n3,three\n4,four\n")
    rows = folder.read()
    assert [row.text for row in rows] == ["one", "", "three", "four"]
    assert expected in (rows[1].reason or "")
    assert [row.key for row in rows] == ["0", "1", "2", "3"]


def test_bytes_that_were_invalid_stay_invalid_when_lines_are_read_again(folder: Folder) -> None:
    folder.write("a.csv", b'body\n"open\ncaf\xe9\nlast\n')
    rows = folder.read()
    assert [row.text for row in rows] == ["", "", "last"]
    assert "invalid UTF-8" in (rows[1].reason or "")


def test_a_huge_field_is_skipped_and_the_next_row_is_read(folder: Folder) -> None:
    limits = ReadLimits(row_bytes=100_000)
    folder.write("a.csv", "id,body\n1," + "x" * 300_000 + "\n2," + "y" * 200 + "\n")
    rows = folder.read(limits=limits)
    assert [row.text for row in rows] == ["", "y" * 200]
    assert "line 2: longer than 0.1 MB" in (rows[0].reason or "")


def test_a_quoted_field_of_many_lines_is_bounded(folder: Folder) -> None:
    limits = ReadLimits(row_bytes=10_000)
    folder.write("a.csv", 'body\n"' + ("z" * 99 + "\n") * 200 + "good\n")
    rows = folder.read(limits=limits)
    assert "longer than" in (rows[0].reason or "")
    assert rows[-1].text == "good"
    assert len(rows) == 201


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty"),
        (b"id,text\n1,x\n", "no column 'body'; the header has: id, text"),
        (b"body,body\n1,x\n", "more than one column 'body'"),
        ("body\nx".encode("utf-16"), "UTF-16"),
        (b"bod\xff\nx\n", "invalid UTF-8 in the header"),
    ],
)
def test_a_header_that_cannot_be_used_is_one_skipped_document(folder: Folder, data: bytes, expected: str) -> None:
    folder.write("a.csv", data)
    (document,) = folder.read()
    assert expected in (document.reason or "")
    assert document.key == ""


@given(
    st.lists(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), max_size=30),
        min_size=1,
        max_size=20,
    )
)
@settings(deadline=None)
def test_what_the_standard_writer_writes_is_read_back(texts: list[str]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(["n", "body"])
    writer.writerows(enumerate(texts))
    source = io.BytesIO(stream.getvalue().encode())
    found = [
        text for piece in read_csv(source, Asked("body", None, []), ReadLimits(), tabs=False) for text in piece.texts
    ]
    assert found == texts
