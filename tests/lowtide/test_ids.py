"""Names never change, say nothing about the text, and are safe wherever they go."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import ids

SHA = "ab" * 32


def test_names_are_those_that_earlier_versions_gave() -> None:
    """Changing one of these orphans what is stored under it."""
    assert ids.document_id("s3://b/k.txt", "") == "0af6e5aeebd8640457f58afbb665949f"
    assert ids.run_id({"job": "a", "window": "all"}) == "ccb99e8456f64ef3"
    assert ids.token("f" * 16, "0" * 8, 12, 3) == "lt-ffffffffffffffff-00000000-s00012-a3"
    assert ids.record_id(12, SHA) == "r0000012xabababab"
    assert ids.marker(b"salt", SHA) == "68ca6f5131b19661"


@given(st.integers(0, 9_999_999))
def test_a_record_id_gives_its_ordinal_back(ordinal: int) -> None:
    record = ids.record_id(ordinal, SHA)
    assert len(record) == ids.RECORD_ID_LENGTH
    assert re.fullmatch(r"[A-Za-z0-9]+", record)
    assert ids.ordinal_of(record) == ordinal


@pytest.mark.parametrize(
    "record",
    [
        "",
        "r",
        "x0000012xabababab",
        "r0000012yabababab",
        "r00000x2xabababab",
        "r0000012xababababa",
        "r-000001x" + "a" * 8,
    ],
)
def test_what_is_no_record_id_of_ours_has_no_ordinal(record: str) -> None:
    assert ids.ordinal_of(record) == -1


@given(st.text(max_size=20))
def test_any_text_at_all_is_read_as_a_record_id_without_an_error(record: str) -> None:
    assert ids.ordinal_of(record) >= -1
    assert ids.ordinal_of("r" + record) >= -1


def test_the_row_key_is_part_of_the_document() -> None:
    names = {
        ids.document_id(uri, key) for uri, key in (("a", ""), ("a", "1"), ("a1", ""), ("a\0", "1"), ("a", "\x001"))
    }
    assert len(names) >= 4


def test_a_name_that_is_not_utf8_still_gives_an_id() -> None:
    assert len(ids.document_id("/data/\udcff.txt", "")) == 32


def test_tokens_tell_attempts_apart_and_fit_where_they_go() -> None:
    tokens = {ids.token("f" * 16, "0" * 8, shard, attempt) for shard in (1, 11, 99_999) for attempt in (1, 11)}
    assert len(tokens) == 6
    assert all(re.fullmatch(r"[a-z0-9-]{1,63}", token) for token in tokens)


def test_a_marker_cannot_be_told_without_the_salt() -> None:
    assert ids.marker(b"one", SHA) != ids.marker(b"two", SHA)
    assert ids.marker(b"one", SHA) == ids.marker(b"one", SHA)
