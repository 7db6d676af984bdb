"""Text and Markdown."""

from __future__ import annotations

import pytest

from lowtide.connectors.formats.limits import Unreadable
from lowtide.connectors.formats.plain import clean, decode_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_in_any_marked_unicode_encoding_is_read_without_its_mark(encoding: str) -> None:
    assert decode_text("Grüße, 日本\u2028next".encode(encoding)) == "Grüße, 日本\u2028next"


def test_big_endian_marks_are_known() -> None:
    assert decode_text(b"\xfe\xff" + "né".encode("utf-16-be")) == "né"
    assert decode_text(b"\0\0\xfe\xff" + "né".encode("utf-32-be")) == "né"


def test_invalid_utf8_names_its_offset_and_what_to_do() -> None:
    with pytest.raises(Unreadable, match=r"invalid UTF-8 at byte 4 \(0xe9\): convert the file to UTF-8"):
        decode_text(b"caf " + "é".encode("latin-1"))


def test_the_offset_counts_a_byte_order_mark() -> None:
    with pytest.raises(Unreadable, match="at byte 5 "):
        decode_text(b"\xef\xbb\xbfab\xff")


def test_binary_under_a_text_name_is_called_what_it_is() -> None:
    with pytest.raises(Unreadable, match="begins like a PNG image"):
        decode_text(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


def test_a_few_nuls_are_removed_and_many_are_refused() -> None:
    assert clean("a" * 30 + "\0b") == "a" * 30 + "b"
    with pytest.raises(Unreadable, match="UTF-16 without a byte order mark"):
        clean("h\0e\0l\0l\0o\0")
