"""Which format a file has."""

from __future__ import annotations

import pytest

from lowtide.connectors.formats.detect import FileKind, by_content, by_name
from lowtide.connectors.formats.limits import Unreadable


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.txt", FileKind("text")),
        ("README.MD", FileKind("markdown")),
        ("a.HTM", FileKind("html")),
        ("x.dist-info/METADATA", FileKind("eml")),
        ("x.egg-info/PKG-INFO", FileKind("eml")),
        ("rows.json", FileKind("jsonl")),
        ("rows.ndjson.gz", FileKind("jsonl", gzipped=True)),
        ("rows.tsv", FileKind("csv", tabs=True)),
        ("part-0.snappy.parquet", FileKind("parquet")),
        ("dir.pdf/README", FileKind("")),
        ("metadata", FileKind("")),
        ("..", FileKind("")),
    ],
)
def test_names_tell_the_format(path: str, expected: FileKind) -> None:
    assert by_name(path, "auto") == expected


def test_a_configured_format_goes_before_every_name() -> None:
    assert by_name("a.pdf", "text") == FileKind("text")
    assert by_name("a.txt.gz", "csv") == FileKind("csv", gzipped=True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"%PDF-1.7\n", "pdf"),
        (b"PAR1....", "parquet"),
        (b"PK\x03\x04....word/document.xml", "docx"),
        (b"  <!DOCTYPE html><p>", "html"),
        ("plain ü".encode(), "text"),
        ("a" * 4095 + "ü", "text"),
        ("plain".encode("utf-16"), "text"),
    ],
)
def test_content_tells_where_names_do_not(data: bytes | str, expected: str) -> None:
    assert by_content(FileKind(""), data.encode() if isinstance(data, str) else data).format == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x89PNG\r\n", "begins like a PNG image: supported are text, markdown"),
        (b"PK\x03\x04....mimetype", "begins like a zip archive"),
        (bytes(100), "unknown binary content"),
        (b"\xe9\xe8 latin", "unknown binary content"),
    ],
)
def test_unknown_content_says_what_was_found_and_what_is_supported(data: bytes, expected: str) -> None:
    with pytest.raises(Unreadable, match=expected):
        by_content(FileKind(""), data)
