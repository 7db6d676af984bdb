"""Lines of bounded length, and keys used once."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.connectors.formats import rows
from lowtide.connectors.formats.rows import Lines, SeenKeys


class Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._step if size is None or size < 0 else min(size, self._step))


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=12),
    step=st.integers(1, 40),
    ended=st.booleans(),
)
@settings(deadline=None)
def test_any_blocks_give_the_lines_and_mark_those_too_long(lines: list[bytes], step: int, ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    found = [line for block in Lines(Dripping(data, step), 6) for line in block]
    assert found == [line if len(line) <= 6 else None for line in expected]


def test_only_line_feeds_end_lines() -> None:
    data = "a\u2028b\x0bc\x85d\re\n".encode()
    assert list(Lines(io.BytesIO(data), 100)) == [[data[:-1]]]


def test_a_short_limit_holds_inside_one_block() -> None:
    long = b"x" * 200
    assert list(Lines(io.BytesIO(b"a\n" + long + b"\nb\n"), 100)) == [[b"a", None, b"b"]]


@given(st.lists(st.lists(st.integers(0, 60).map(str), max_size=20), max_size=12))
def test_a_repeated_key_is_found_wherever_it_came_before(calls: list[list[str]]) -> None:
    keys, seen = SeenKeys(), set[str]()
    for call in calls:
        expected = []
        for at, key in enumerate(call):
            if key in seen:
                expected.append(at)
            seen.add(key)
        assert keys.repeated(call) == expected


def test_the_block_is_larger_than_no_row_limit_that_skips_the_check() -> None:
    assert rows.PIECE_ROWS == 1_000
    assert list(Lines(io.BytesIO(b"a" * (3 << 20) + b"\nb\n"), (2 << 20) + 1))[-1][-1] == b"b"
