"""What `lowtide.protocols.Store` promises, on every store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.listings import check_order

from lowtide.connectors.stores import verify
from lowtide.errors import NotFound, StoreError

WRITING = Path(__file__).with_name("writing.py")
MIB = 1024 * 1024

ODD = [
    "a b.txt", "p%41q", "100%", "plus+plus", "hash#x", "q?x", "star*", "til~de", "é.txt", "e\u0301.txt", "emoji😀",
    "amp&<>\"'", "back\\slash", "br[1]", "=eq", "colon:x", " lead/ lead", "trail ", "\u2028",
    "%2E%2E/z", ".hid", "日本/本",
]  # fmt: skip


def start(place, *command):
    environ = {**os.environ, **place.environ}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(WRITING), *command], env=environ, text=True, **pipes)


def test_what_is_written_is_read_back(store):
    store.write("a/b.txt", b"one")
    assert store.read("a/b.txt") == b"one"
    store.write("a/b.txt", b"two")
    assert store.read("a/b.txt") == b"two"
    store.write("empty", b"")
    assert store.read("empty") == b""


def test_info_agrees_with_the_listing(store):
    store.write("a/b.txt", b"four")
    info = store.info("a/b.txt")
    assert info is not None
    assert (info.path, info.uri, info.size) == ("a/b.txt", store.uri_of("a/b.txt"), 4)
    assert info.modified.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=2)
    [listed] = store.list()
    assert (listed.path, listed.uri, listed.size, listed.etag) == (info.path, info.uri, info.size, info.etag)
    assert store.uri_of("a/b.txt") == f"{store.uri}/a/b.txt"


def test_the_etag_changes_with_the_content(store):
    etags = []
    for content in (b"aaaa", b"bbbb", b"cccc"):
        store.write("x", content)
        etags.append(store.info("x").etag)
    assert len(set(etags)) == 3


def test_what_is_not_there_is_not_found(store):
    assert store.info("nothing/here") is None
    assert list(store.list()) == []
    with pytest.raises(NotFound) as caught:
        store.read("nothing/here")
    assert caught.value.uri == store.uri_of("nothing/here")
    with pytest.raises(NotFound):
        store.open("nothing/here")
    store.write("folder/file", b"x")
    assert store.info("folder") is None
    with pytest.raises(NotFound):
        store.read("folder")


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(store):
    store.write("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert store.info("a/b") is None
    assert list(store.list()) == []


@pytest.mark.parametrize("path", ["", "/", "/abs", "a/", "a//b", ".", "..", "../x", "a/../b", "a/./b", "a\nb", "a\0b"])
def test_paths_that_could_lead_elsewhere_are_never_written(store, path, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for write in (
        lambda: store.write(path, b"x"),
        lambda: store.put_if_absent(path, b"x"),
        lambda: store.replace(path, source, expected=None),
        lambda: store.writer(path).__enter__(),
        lambda: store.delete(path),
    ):
        with pytest.raises(StoreError, match="cannot be a path"):
            write()
    assert list(store.list()) == []


def test_odd_names_are_listed_and_read_back(store):
    # Blob Storage reads a backslash as a slash: such a name cannot be written there.
    names = [name for name in ODD if "\\" not in name or not store.uri.startswith("abfs:")]
    for name in names:
        store.write(f"odd/{name}", name.encode())
    expected = sorted((f"odd/{name}" for name in names), key=lambda path: path.encode())
    listed = list(store.list())
    assert [info.path for info in listed] == expected
    assert [store.read(path) for path in expected] == [path[4:].encode() for path in expected]
    assert [content.data for content in store.read_many(listed, largest=100)] == [p[4:].encode() for p in expected]
    assert [store.info(path).uri for path in expected] == [info.uri for info in listed]


def test_listing_is_in_the_byte_order_of_whole_paths(store):
    check_order(store)


def test_a_long_listing_comes_in_pages_and_in_order(store):
    paths = [f"{n % 7}/{n:05d}" for n in range(2500)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: store.put_if_absent(path, b""), paths))
    expected = sorted(paths)
    assert [info.path for info in store.list()] == expected
    assert [info.path for info in store.list(after=expected[1700])] == expected[1701:]


def test_of_sixteen_threads_one_creates_the_object(store):
    with ThreadPoolExecutor(16) as pool:
        for number in range(10):
            contents = [f"{writer}-".encode() * 20_000 for writer in range(16)]
            won = list(pool.map(lambda data, n=number: store.put_if_absent(f"race/{n}", data), contents))
            assert won.count(True) == 1
            assert store.read(f"race/{number}") == contents[won.index(True)]


def test_of_sixteen_processes_one_creates_the_object(place, store):
    names = [f"writer-{n:02d}." for n in range(16)]
    processes = [start(place, "race", place.uri, name) for name in names]
    try:
        assert {process.stdout.readline() for process in processes} == {"ready\n"}
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        won = [
            [line.strip() == "1" for line in process.communicate(timeout=120)[0].splitlines()] for process in processes
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(process.returncode == 0 for process in processes)
    for number in range(len(won[0])):
        winners = [name for name, rounds in zip(names, won, strict=True) if rounds[number]]
        assert len(winners) == 1
        assert store.read(f"race/{number:03d}") == winners[0].encode() * 10_000


def test_a_writer_that_is_killed_leaves_nothing(place, store):
    store.write("kept", b"before")
    for name in ("new", "kept"):
        process = start(place, "stream", place.uri, name)
        for _ in range(20):
            assert process.stdout.readline() == "wrote\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert [(info.path, info.size) for info in store.list()] == [("kept", 6)]
    assert store.read("kept") == b"before"


def test_a_writer_that_raises_leaves_nothing(store):
    def fail(path):
        with store.writer(path) as out:
            out.write(b"x" * (20 * MIB))
            raise RuntimeError("the document could not be parsed")

    store.write("kept", b"before")
    for path in ("new", "kept"):
        with pytest.raises(RuntimeError, match="could not be parsed"):
            fail(path)
    assert [info.path for info in store.list()] == ["kept"]
    assert store.read("kept") == b"before"


def test_a_writer_shows_nothing_until_its_block_ends(store):
    with store.writer("w") as out:
        out.write(b"one ")
        out.write(memoryview(b"two"))
        out.flush()
        assert store.info("w") is None
        assert out.tell() == 7
    assert store.read("w") == b"one two"
    with store.writer("empty"):
        pass
    assert store.read("empty") == b""


def test_a_writer_that_its_user_has_closed_is_complete(store):
    with store.writer("w") as out:
        out.write(b"all of it")
        out.close()
    assert store.read("w") == b"all of it"


def test_large_objects_stream_both_ways_in_bounded_memory(store):
    pieces = [random.Random(n).randbytes(MIB // 2) for n in range(8)]
    store.write("warm", b"x" * MIB)
    tracemalloc.start()
    with store.writer("big") as out:
        for number in range(240):
            out.write(pieces[number % 8])
    with store.open("big") as stream:
        for number in range(240):
            assert stream.read(MIB // 2) == pieces[number % 8]
        assert stream.read() == b""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store.info("big").size == 120 * MIB
    assert peak < 60 * MIB


def test_open_can_seek(store):
    data = random.Random(1).randbytes(9 * MIB)
    store.write("x", data)
    with store.open("x") as stream:
        assert stream.seekable()
        assert stream.seek(-10, os.SEEK_END) == len(data) - 10
        assert stream.read() == data[-10:]
        assert stream.seek(5) == 5
        assert stream.read(6 * MIB) == data[5 : 5 + 6 * MIB]
        assert stream.seek(7, os.SEEK_CUR) == 12 + 6 * MIB
        assert stream.read(3) == data[12 + 6 * MIB :][:3]
    store.write("lines", b"one\ntwo\nthree")
    with store.open("lines") as stream:
        assert list(stream) == [b"one\n", b"two\n", b"three"]


def test_parquet_is_written_and_read_through_a_store(store):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"id": list(range(1000)), "text": ["a text"] * 1000})
    with store.writer("t.parquet") as out:
        pq.write_table(table, out)
    with store.open("t.parquet") as stream:
        assert pq.read_table(stream).equals(table)


@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_replace_holds_to_the_expected_etag(store, tmp_path, size):
    source = tmp_path / "source"

    def replace(content, expected):
        source.write_bytes(content * size)
        return store.replace("table/x", source, expected=expected)

    assert not replace(b"0", "no-such-etag")
    assert store.info("table/x") is None
    assert replace(b"1", None)
    first = store.info("table/x").etag
    assert not replace(b"2", None)
    assert not replace(b"2", "no-such-etag")
    assert store.read("table/x") == b"1" * size
    assert replace(b"3", first)
    assert not replace(b"4", first)
    assert store.read("table/x") == b"3" * size
    assert source.read_bytes() == b"4" * size
    assert [info.path for info in store.list()] == ["table/x"]


def test_of_many_replacements_of_one_version_one_succeeds(store, tmp_path):
    store.write("x", b"first")
    etag = store.info("x").etag
    sources = [tmp_path / str(n) for n in range(16)]
    for source in sources:
        source.write_bytes(source.name.encode() * 1000)
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda source: store.replace("x", source, expected=etag), sources))
    assert won.count(True) == 1
    assert store.read("x") == sources[won.index(True)].read_bytes()


def test_read_many_keeps_the_order_and_says_what_it_could_not_read(store):
    def content_of(path):
        number = int(path.removeprefix("m/"))
        return b"%d" % number * (number % 5)

    for number in range(300):
        store.write(f"m/{number:03d}", content_of(f"m/{number:03d}"))
    files = list(store.list("m/"))
    random.Random(3).shuffle(files)
    contents = list(store.read_many(iter(files), largest=1000))
    assert [content.info for content in contents] == files
    assert all(content.error is None for content in contents)
    assert all(
        content.data == b"%d" % int(content.info.path[2:]) * (int(content.info.path[2:]) % 5) for content in contents
    )

    store.delete("m/100")
    store.write("m/200", b"x" * 50)  # grew since it was listed
    store.write("m/201", b"x" * 5)
    found = {content.info.path: content for content in store.read_many(files, largest=8)}
    assert found["m/100"].data == b""
    assert "there is no object" in found["m/100"].error
    assert found["m/200"].data == b""
    assert "8" in found["m/200"].error
    assert found["m/201"].data == b"x" * 5
    assert "12 bytes" in found["m/104"].error
    assert found["m/104"].data == b""
    assert sum(content.error is None for content in found.values()) == sum(i.size <= 8 for i in files) - 2


def test_read_many_may_be_left_early(store):
    for number in range(50):
        store.write(f"m/{number:02d}", b"x")
    reading = store.read_many(store.list(), largest=10)
    assert next(reading).info.path == "m/00"
    reading.close()


def test_a_real_store_passes_the_start_up_check_and_is_left_clean(store):
    verify(store)
    assert list(store.list()) == []
