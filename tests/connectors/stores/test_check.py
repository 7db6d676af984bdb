"""The start-up check, against stores that lie in all the ways that have been seen."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from lowtide.connectors.stores import verify
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import StoreError, Transient, UnsafeStore


class Liar:
    """A real store, but for what `lie` does in the place of put_if_absent."""

    def __init__(self, honest: LocalStore, lie: Callable[[LocalStore, str, bytes], bool]) -> None:
        self._honest = honest
        self._lie = lie

    def __getattr__(self, name: str) -> object:
        return getattr(self._honest, name)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self._lie(self._honest, path, data)


@pytest.fixture
def honest(tmp_path):
    return LocalStore(tmp_path)


def overwrite(store, path, data):
    """s3rver: the condition is ignored."""
    store.write(path, data)
    return True


def overwrite_and_deny(store, path, data):
    won = store.info(path) is None
    store.write(path, data)
    return won


def say_yes(store, path, data):
    store.put_if_absent(path, data)
    return True


def say_no(store, path, data):
    return False


def lose(store, path, data):
    won = store.put_if_absent(path, data)
    store.write(path, b"something else")
    return won


def refuse(store, path, data):
    """501 NotImplemented to every If-None-Match."""
    raise StoreError("cannot write: NotImplemented (this store does not know how)")


class Racing:
    """Swift's s3api: it looks, and then writes; those who look at the same time all win."""

    def __init__(self):
        self._together = collections.defaultdict(lambda: threading.Barrier(8, timeout=2))

    def __call__(self, store, path, data):
        if store.info(path) is not None:
            return False
        with suppress(threading.BrokenBarrierError):
            self._together[path].wait()
        store.write(path, data)
        return True


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (overwrite, "overwrote the object, and said that it had created"),
        (overwrite_and_deny, "overwrote the object, and said that it had not"),
        (say_yes, "created the same object twice"),
        (say_no, "exists already"),
        (lose, "not what was written"),
        (refuse, "NotImplemented"),
        (Racing(), "8 writers at once"),
    ],
)
def test_a_store_that_lies_is_refused_by_name_and_left_clean(honest, lie, words):
    with pytest.raises(UnsafeStore, match=words) as caught:
        verify(Liar(honest, lie))
    assert honest.uri in str(caught.value)
    assert caught.value.uri == honest.uri
    assert caught.value.exit_code == 2
    assert list(honest.list()) == []


def test_a_store_that_cannot_be_written_at_all_is_not_called_a_liar(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match="itself a file") as caught:
        verify(LocalStore(tmp_path / "file"))
    assert not isinstance(caught.value, UnsafeStore)


def test_a_store_that_is_away_for_a_moment_is_not_called_a_liar(honest):
    def away(store, path, data):
        raise Transient("cannot write now: SlowDown")

    with pytest.raises(Transient):
        verify(Liar(honest, away))


def test_a_check_that_was_killed_does_not_spoil_the_next(honest):
    honest.write(".lowtide-check-0123456789abcdef0123456789abcdef", b"left behind")
    verify(honest)
