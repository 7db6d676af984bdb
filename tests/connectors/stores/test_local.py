"""What is special about a folder as a store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lowtide.connectors.stores import open_store
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import ConfigError, NotFound, StoreError

WRITING = Path(__file__).with_name("writing.py")
SIZE = 1024 * 1024


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def store(root):
    return LocalStore(root)


def paths(store, *args, **kwargs):
    return [info.path for info in store.list(*args, **kwargs)]


@pytest.mark.parametrize("seed", range(8))
def test_a_process_killed_while_it_creates_objects_leaves_only_whole_ones(store, seed):
    command = [sys.executable, str(WRITING), "objects", store.uri, "o"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(random.Random(seed).uniform(0.0, 0.05))
    os.kill(process.pid, signal.SIGKILL)
    said = process.communicate()[0].split()
    found = list(store.list())
    assert [info.path for info in found] == [f"o/{n:06d}" for n in range(len(found))]
    assert len(found) > len(said)
    for number, info in enumerate(found):
        assert store.read(info.path) == bytes([number % 256]) * SIZE


def test_unfinished_files_are_never_listed_and_their_names_never_written(store, root):
    store.write("a", b"x")
    (root / ".lowtide-0123456789abcdef.tmp").write_bytes(b"half")
    assert paths(store) == ["a"]
    with pytest.raises(StoreError, match="unfinished"):
        store.write("folder/.lowtide-0123456789abcdef.tmp", b"x")


@pytest.mark.parametrize("sync", ["none", "data", "full"])
def test_every_kind_of_sync_keeps_the_contract(root, sync, tmp_path):
    store = LocalStore(root, sync=sync)
    assert store.put_if_absent("a/x", b"1")
    assert not store.put_if_absent("a/x", b"2")
    (tmp_path / "source").write_bytes(b"3")
    assert store.replace("a/x", tmp_path / "source", expected=store.info("a/x").etag)
    assert store.read("a/x") == b"3"
    with store.writer("a/x") as out:
        out.write(b"4")
    store.write("b", b"5")
    assert [store.read(path) for path in paths(store)] == [b"4", b"5"]
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["b", "x"]


def test_nothing_is_left_behind_where_a_write_does_not_win(store, root, tmp_path):
    (tmp_path / "source").write_bytes(b"new")
    store.write("x", b"old")
    assert not store.put_if_absent("x", b"new")
    assert not store.replace("x", tmp_path / "source", expected=None)
    assert not store.replace("x", tmp_path / "source", expected="stale")
    assert [path.name for path in root.iterdir()] == ["x"]


def test_a_loop_of_links_ends_and_files_behind_links_are_listed(store, root, tmp_path):
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_bytes(b"x")
    (root / "a/b/up").symlink_to(root / "a")
    (root / "a/self").symlink_to("self")
    (root / "a/nowhere").symlink_to("nothing")
    (root / "loop").symlink_to(root)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_bytes(b"y")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere/file")
    assert paths(store) == ["a/b/file", "link", "linked/file"]
    assert paths(store, "a/b/") == ["a/b/file"]
    assert store.read("linked/file") == store.read("link") == b"y"


def test_pipes_and_sockets_are_not_objects(store, root):
    root.mkdir()
    os.mkfifo(root / "pipe")
    assert paths(store) == []
    assert store.info("pipe") is None


def test_names_that_are_not_utf8_are_shown_and_read(store, root):
    root.mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")).write_bytes(b"latin")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff/x")).write_bytes(b"deep")
    (root / "real\\xe9").write_bytes(b"spelled so")
    assert paths(store) == ["\\xff/x", "caf\\xe9.txt", "real\\xe9"]
    assert [content.data for content in store.read_many(store.list(), largest=100)] == [
        b"deep",
        b"latin",
        b"spelled so",
    ]


def test_a_name_with_control_characters_is_read(store, root):
    root.mkdir()
    (root / "tab\tnewline\n").write_bytes(b"x")
    assert paths(store) == ["tab\tnewline\n"]
    assert store.read("tab\tnewline\n") == b"x"


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "."])
def test_nothing_outside_the_folder_is_read(store, root, path):
    (root / "a").mkdir(parents=True)
    (root.parent / "secret").write_bytes(b"secret")
    for read in (store.read, store.open, store.info, lambda path: list(store.list(path + "/"))):
        with pytest.raises(StoreError, match="cannot be a path"):
            read(path)


def test_a_very_deep_tree_is_listed(store, root):
    here = Path.cwd()
    root.mkdir()
    try:
        os.chdir(root)
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        Path("file").write_bytes(b"x")
        os.chdir(here)
        assert paths(store) == ["d/" * 1500 + "file"]
    finally:
        os.chdir(here)
        # Python's own rmtree, with which pytest clears its old folders, fails on trees as deep as this.
        subprocess.run(["rm", "-rf", "--", str(root)], check=True)


def test_a_folder_in_the_way_is_named(store):
    store.write("a/b", b"x")
    for write in (lambda: store.write("a", b"x"), lambda: store.put_if_absent("a", b"x")):
        with pytest.raises(StoreError, match=r"/a'.*folder"):
            write()
    with pytest.raises(StoreError, match="itself a file"):
        store.write("a/b/c", b"x")
    store.delete("a")
    assert store.read("a/b") == b"x"


def test_a_name_that_is_too_long_is_a_store_error(store):
    with pytest.raises(StoreError, match="255 bytes"):
        store.write("x" * 300, b"x")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who has fewer rights")
def test_a_folder_that_may_not_be_read_is_named():
    script = (
        "import os, sys\n"
        "from lowtide.connectors.stores.local import LocalStore, Path\n"
        "from lowtide.errors import StoreError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: list(LocalStore(Path(sys.argv[1])).list())\n"
        "except StoreError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        LocalStore(Path(root)).write("closed/x", b"x")
        Path(root, "closed").chmod(0)
        command = [sys.executable, "-c", script, root]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{root}/closed" in told
    assert "right to list it" in told


def test_a_disk_that_is_full_is_a_store_error(root):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    store = LocalStore(root)

    def fill():
        with store.writer("x") as out:
            # The descriptor of the unfinished file now leads to a device that is always full.
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, out.fileno())
            os.close(full)
            out.write(b"x" * (4 * SIZE))

    with pytest.raises(StoreError, match="No space left"):
        fill()
    assert paths(store) == []
    assert list(root.iterdir()) == []


def test_replace_waits_for_a_writer_in_another_process(store, root, tmp_path):
    store.write("x", b"old")
    etag = store.info("x").etag
    holder = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.readline()\n"
        "open(sys.argv[1] + '/y', 'w').close(); os.rename(sys.argv[1] + '/y', sys.argv[1] + '/x')\n"
    )
    command = [sys.executable, "-c", holder, str(root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"locked\n"
    (tmp_path / "source").write_bytes(b"new")
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert not store.replace("x", tmp_path / "source", expected=etag)
    process.communicate()
    assert store.read("x") == b""


def test_addresses_lead_back_to_the_same_folder(tmp_path, monkeypatch):
    folder = tmp_path / "my docs%41 é#?"
    store = open_store(str(folder))
    store.write("a b%41#?.txt", b"x")
    [info] = store.list()
    assert open_store(store.uri).read("a b%41#?.txt") == b"x"
    assert Path(folder / "a b%41#?.txt").as_uri() == info.uri
    monkeypatch.chdir(tmp_path)
    assert open_store(folder.name).uri == store.uri
    assert open_store(f"file://localhost{store.uri.removeprefix('file://')}").uri == store.uri
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store(f"~/{folder.name}").uri == store.uri


@pytest.mark.parametrize("uri", ["wasbs://c@a/x", "gs://b/x", "http://h/x", "", "file://host/x", "file://x", "s3://"])
def test_other_addresses_are_refused_with_what_is_supported(uri):
    with pytest.raises(ConfigError, match=r"file://|s3://|'\.'"):
        open_store(uri)


def test_opening_a_folder_makes_nothing_and_imports_no_cloud(root):
    open_store(str(root))
    assert not root.exists()
    with pytest.raises(NotFound):
        open_store(str(root)).read("x")
    script = (
        "import sys, lowtide.connectors.stores as s; s.open_store('.'); print({'boto3', 'obstore'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )
