"""Keys: equal exactly where the same is asked about the same content, and in the order of their bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.cache.keys import keys_of, question

VALUES = st.none() | st.text(st.characters(), max_size=4)
"""Half surrogate pairs included: fields are not checked as texts are."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_question_is_the_operation_the_model_and_the_parameters() -> None:
    asked = question("v1", "gpt", {"temperature": 0.0, "seed": 1})

    assert len(asked) == 16
    assert int(asked, 16) >= 0
    assert question("v1", "gpt", {"seed": 1, "temperature": 0.0}) == asked
    others = [
        question("v2", "gpt", {"temperature": 0.0, "seed": 1}),
        question("v1", "gpt-5", {"temperature": 0.0, "seed": 1}),
        question("v1", "gpt", {"temperature": 0.5, "seed": 1}),
        question("v1", "gpt", {}),
        question("v1g", "pt", {"temperature": 0.0, "seed": 1}),
    ]
    assert len({asked, *others}) == 6


def test_without_fields_a_key_is_the_first_half_of_the_contents_hash() -> None:
    digests = [sha256("a"), sha256("b")]

    keys = keys_of(digests)

    assert keys.dtype == np.uint64
    assert [f"{high:016x}{low:016x}" for high, low in keys.tolist()] == [digest[:32] for digest in digests]


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_keys_sort_as_their_bytes_do(digests: list[bytes]) -> None:
    keys = keys_of([digest.hex() for digest in digests])

    assert keys.shape == (len(digests), 2)
    assert sorted(map(tuple, keys.tolist())) == [
        (int.from_bytes(digest[:8]), int.from_bytes(digest[8:16])) for digest in sorted(digests)
    ]


@given(st.lists(st.tuples(st.sampled_from(["x", "y"]), VALUES, VALUES), min_size=1, max_size=30))
def test_with_fields_keys_are_equal_exactly_where_content_and_all_values_are(
    rows: list[tuple[str, str | None, str | None]],
) -> None:
    texts, first, second = zip(*rows, strict=True)

    keys = keys_of([sha256(text) for text in texts], [first, second])

    by_row = dict(zip(rows, map(tuple, keys.tolist()), strict=True))
    assert [by_row[row] for row in rows] == list(map(tuple, keys.tolist()))
    assert len(set(by_row.values())) == len(by_row)


@pytest.mark.parametrize(
    ("one", "other"),
    [((None, ""), ("", None)), (("ab", "c"), ("a", "bc")), (("", "1:a"), ("1:a", "")), (("-", None), (None, "-"))],
)
def test_values_are_not_taken_for_one_another(one: tuple[str | None, ...], other: tuple[str | None, ...]) -> None:
    keys = keys_of([sha256("x")] * 2, [[one[0], other[0]], [one[1], other[1]]])

    assert keys[0].tolist() != keys[1].tolist()


def test_a_prompt_that_uses_a_field_is_another_request_even_where_the_field_is_empty() -> None:
    assert keys_of([sha256("x")]).tolist() != keys_of([sha256("x")], [[None]]).tolist()


def test_no_documents_have_no_keys() -> None:
    assert keys_of([]).shape == keys_of([], [[]]).shape == (0, 2)


@pytest.mark.parametrize("digest", ["abcd", "zz" * 32, "ab" * 33])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(ValueError, match=r"SHA-256|hexadecimal"):
        keys_of([digest])


def test_a_field_without_a_value_for_each_document_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        keys_of([sha256("x"), sha256("y")], [["only one"]])
