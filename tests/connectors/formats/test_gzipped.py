"""Files that are compressed as a whole."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING

import pytest

from lowtide.connectors.formats.gzipped import GzipReader, inflate
from lowtide.connectors.formats.limits import MIB, ReadLimits, Unreadable

if TYPE_CHECKING:
    from tests.connectors.formats.conftest import Folder


def test_rows_and_texts_are_read_through_gzip(folder: Folder) -> None:
    folder.write("a.jsonl.gz", gzip.compress(b'{"body": "one"}\n') + gzip.compress(b'{"body": "two"}\n'))
    folder.write("b.csv.gz", gzip.compress(b"body\nthree\n"))
    folder.write("c.txt.gz", gzip.compress(b"four"))
    assert [document.text for document in folder.read()] == ["one", "two", "three", "four"]


def test_a_truncated_stream_gives_the_rows_before_its_end_and_a_reason(folder: Folder) -> None:
    import random

    letters = random.Random(1).choices("abcdefghij", k=3_000_000)
    lines = "".join(f'{{"body": "{"".join(letters[at : at + 100])}"}}\n' for at in range(0, 3_000_000, 100)).encode()
    folder.write("a.jsonl.gz", gzip.compress(lines, 1)[:-100_000])
    documents = folder.read()
    assert len(documents) > 10_000
    assert all(document.reason is None for document in documents[:-1])
    assert "damaged or truncated gzip" in (documents[-1].reason or "")


def test_what_is_not_gzip_says_so(folder: Folder) -> None:
    folder.write("a.txt.gz", b"plain text")
    assert "damaged or truncated gzip" in (folder.read()[0].reason or "")


def test_a_bomb_is_stopped_at_the_ratio() -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    reader = GzipReader(io.BytesIO(bomb), ReadLimits(expansion_floor=8 * MIB))
    assert all(len(reader.read(MIB)) == MIB for _ in range(8))
    with pytest.raises(Unreadable, match="inflates more than 100 times"):
        reader.read(MIB)


def test_a_whole_file_may_not_inflate_past_its_limit() -> None:
    with pytest.raises(Unreadable, match="inflates to more than 1 MB"):
        inflate(gzip.compress(bytes(2 * MIB)), ReadLimits(file_bytes=MIB))
