from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from support.spot_support import FLEET, Bench

from lowtide.connectors.backends.spot.watching import Crews, Written, shards_of, store_time
from lowtide.connectors.stores.local import LocalStore
from lowtide_worker.layout import End


def test_a_beat_that_a_killed_worker_has_left_half_written_is_no_beat(tmp_path: Path) -> None:
    """So obstore writes on a disk: into a file beside it, which takes its place in the end."""
    root = LocalStore(tmp_path, sync="none")
    Bench(root).worker("w1").beat()
    root.write(f"spot/{FLEET}/workers/w1.json#1", b'{"worker":"w1","sta')
    assert list(Crews(root).of(FLEET, 45.0).workers) == ["w1"]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (Written(3, 5.0), False),
        (Written(4, 5.0), True),
        (Written(3, 6.0), True),
        (Written(1, 6.0), True),
        (Written(1, 5.0), False),
        (Written(1, 2.0), False),
    ],
)
def test_deleting_is_no_progress_and_writing_is(now: Written, expected: bool) -> None:
    assert now.is_more_than(Written(3, 5.0)) is expected


def put(root: LocalStore, name: str, at: float, data: bytes = b"") -> None:
    path = f"spot/f/shards/{name}"
    root.write(path, data)
    os.utime(root.uri_of(path).removeprefix("file://"), (at, at))


def end(root: LocalStore, shard: str, at: float, answered: int, errors: int) -> None:
    data = msgspec.json.encode(End(outcome="partial", answered=answered, errors=errors, at=at))
    put(root, f"{shard}/end.json", at, data)


def test_a_fleets_files_tell_how_far_it_is(tmp_path: Path) -> None:
    root = LocalStore(tmp_path, sync="none")
    assert shards_of(root, "f") == shards_of(root, "g")
    for name in ("s1/task.json", "s1/claims/000001", "s1/parts/000001.jsonl", "s2/task.json"):
        put(root, name, 5.0)
    end(root, "s1", 7.0, 2, 1)
    root.write("spot/f/workers/w.json", b"")
    found = shards_of(root, "f")
    assert (found.open, found.unfinished, found.written) == ({"s2"}, 1, Written(1, 7.0))
    assert store_time(root, "f") >= found.written.newest


@pytest.mark.parametrize(("answered", "errors", "expected"), [(0, 0, 6.0), (3, 3, 6.0), (3, 2, 8.0)])
def test_an_end_is_progress_only_with_answers(tmp_path: Path, answered: int, errors: int, expected: float) -> None:
    """A worker whose engine never answers ends a shard whose time is used up, and so does the orchestrator."""
    root = LocalStore(tmp_path, sync="none")
    put(root, "s1/parts/000001.jsonl", 5.0)
    end(root, "s1", 6.0, 9, 0)
    end(root, "s2", 8.0, answered, errors)
    put(root, "s3/end.json", 9.0, b"torn")
    assert shards_of(root, "f").written.newest == expected
