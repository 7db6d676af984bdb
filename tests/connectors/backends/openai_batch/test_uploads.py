"""The model's name is exchanged in every line, and nothing else changes, whatever the documents hold."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.openai_support import prompt, raw_shard, request_of

from lowtide.connectors.backends.openai_batch.requests import RequestEncoder
from lowtide.connectors.backends.openai_batch.uploads import opened
from lowtide.errors import Terminal

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.sampled_from(['"body":{"model":"first"', '\\"body":{"model":"', '{"custom_id":"r1"}\n', "\u2028"]),
)


def shard_for(name, texts):
    encoder = RequestEncoder(call="chat", url="/v1/chat", name=name, model="m", parameters={}, native=False)
    return raw_shard([encoder.encode(request_of(at, text, prompt())) for at, text in enumerate(texts)])


@settings(max_examples=150, deadline=None)
@given(NAMES, NAMES, st.lists(TEXTS, min_size=1, max_size=8), st.integers(1, 5000))
def test_lines_under_another_name_are_those_that_would_have_been_written_for_it(first, second, texts, piece):
    shard, expected = shard_for(first, texts), shard_for(second, texts)
    with opened(shard, second) as source:
        assert source.seek(0, io.SEEK_END) == expected.size
        source.seek(0)
        pieces = iter(lambda: source.read(piece), b"")
        with expected.open() as wanted:
            assert b"".join(pieces) == wanted.read()


def test_a_renamed_file_can_be_read_again_from_its_start():
    shard = shard_for("first", ["a" * 400_000, "b" * 400_000, "c"])
    with opened(shard, "second") as source:
        once = source.read()
        source.seek(0)
        assert source.read() == once == shard_for("second", ["a" * 400_000, "b" * 400_000, "c"]).open().read()


def test_the_same_name_leaves_the_file_as_it_is():
    shard = shard_for("first", ["text"])
    with opened(shard, "first") as source:
        assert isinstance(source, io.BytesIO)
        assert source.tell() == 0


def test_what_is_no_request_line_is_never_sent():
    with pytest.raises(Terminal, match="does not begin with a request line"):
        opened(raw_shard([b'{"recordId":"r1"}']), "x")
    mixed = raw_shard([*shard_for("first", ["a"]).open().read().splitlines(), b'{"recordId":"r1"}'])
    with opened(mixed, "second") as source, pytest.raises(Terminal, match="line 2"):
        source.read()
