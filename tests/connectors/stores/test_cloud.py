"""What every cloud's store has to cope with: lost answers, denied requests, places that are not there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from servers import azurite as blob_service
from servers.faulty import Fault, Faulty, faulty

from lowtide.connectors.stores import open_store, verify
from lowtide.errors import NotFound, StoreError, Transient, UnsafeStore

MIB = 1024 * 1024


@dataclass(frozen=True)
class Words:
    """How a service speaks: its error codes, what our advice names, and how requests look."""

    denied: str
    bad_credentials: str
    may_read: str
    may_list: str
    may_write: str
    nowhere: str
    commit: tuple[str, str]
    put_large: str
    a_listing: str


S3 = Words(
    "AccessDenied", "InvalidAccessKeyId", "s3:GetObject", "s3:ListBucket", "s3:PutObject", "no such bucket",
    ("POST", "uploadId="), "", "list-type=2",
)  # fmt: skip
BLOB = Words(
    "InsufficientRights", "AuthenticationFailed", "with r,", "with l,", "with c and w", "no such container",
    ("PUT", "comp=blocklist"), "comp=blocklist", "comp=list",
)  # fmt: skip


@dataclass(frozen=True)
class Cloud:
    """A fresh bucket behind a proxy."""

    uri: str
    environ: dict[str, str]
    proxy: Faulty
    words: Words

    def environ_at(self, url: str) -> dict[str, str]:
        if self.words is BLOB:
            return blob_service.environ(url)
        return {**self.environ, "AWS_ENDPOINT_URL": url}


@pytest.fixture(params=["moto", "ministack", "azurite"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    if request.param == "azurite":
        url, place, words = request.getfixturevalue("azurite"), request.getfixturevalue("container"), BLOB
    else:
        url = request.getfixturevalue(f"{request.param}_url")
        place, words = request.getfixturevalue("bucket")(url), S3
    with faulty(url) as proxy:
        yield Cloud(place.open().uri, place.environ, proxy, words)


@pytest.fixture
def store(cloud):
    return open_store(cloud.uri, environ=cloud.environ_at(cloud.proxy.url))


@pytest.fixture
def proxy(cloud):
    return cloud.proxy


@pytest.fixture
def words(cloud):
    return cloud.words


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_create_whose_answer_was_lost_is_known_to_have_won(store, proxy, status):
    proxy.faults = [Fault("PUT", status, "InternalError", forward=True)]
    assert store.put_if_absent("journal/1", b"mine")
    assert not store.put_if_absent("journal/1", b"theirs")
    assert store.read("journal/1") == b"mine"


def test_a_create_that_stays_without_an_answer_is_still_known_to_have_won(store, proxy):
    proxy.faults = [Fault("PUT", 500, "InternalError", forward=True), Fault("PUT", 500, "InternalError", times=7)]
    assert store.put_if_absent("journal/1", b"mine")
    assert store.read("journal/1") == b"mine"


def test_a_create_whose_answer_was_lost_is_not_taken_for_that_of_another(store, proxy, cloud):
    other = open_store(cloud.uri, environ=cloud.environ)
    other.put_if_absent("journal/1", b"theirs")
    proxy.faults = [Fault("PUT", 500, "InternalError", times=4)]
    assert not store.put_if_absent("journal/1", b"mine")
    assert store.read("journal/1") == b"theirs"


@pytest.mark.parametrize("size", [10, 9 * MIB])
@pytest.mark.parametrize("status", [500, 0])
def test_a_replacement_whose_answer_was_lost_is_known_to_have_won(store, proxy, words, tmp_path, size, status):
    store.write("x", b"old")
    (tmp_path / "new").write_bytes(b"n" * size)
    etag = store.info("x").etag
    where = words.put_large if size > MIB else ""
    proxy.faults = [Fault("PUT", status, "InternalError", where=where, forward=True)]
    assert store.replace("x", tmp_path / "new", expected=etag)
    assert proxy.faults[0].times == 0
    assert store.read("x") == b"n" * size


def test_an_upload_whose_last_answer_was_lost_is_complete(store, proxy, words):
    method, where = words.commit
    proxy.faults = [Fault(method, 500, "InternalError", where=where, forward=True)]
    with store.writer("x") as out:
        out.write(b"x" * (20 * MIB))
    assert proxy.faults[0].times == 0
    assert store.read("x") == b"x" * (20 * MIB)


def test_a_stream_over_an_object_that_was_replaced_ends_in_an_error(store):
    store.write("x", b"a" * (10 * MIB))
    with store.open("x") as stream:
        assert stream.read(3) == b"aaa"
        store.write("x", b"b" * (10 * MIB))
        with pytest.raises(StoreError, match="changed meanwhile"):
            stream.read()


def test_one_denied_object_does_not_end_a_bulk_read_but_bad_credentials_do(store, proxy, words):
    for number in range(5):
        store.write(f"m/{number}", b"x")
    files = list(store.list())
    proxy.faults = [Fault("GET", 403, words.denied, where="m/2")]
    contents = list(store.read_many(files, largest=10))
    assert [content.data for content in contents] == [b"x", b"x", b"", b"x", b"x"]
    assert words.may_read in contents[2].error
    proxy.faults = [Fault("GET", 403, words.bad_credentials, where="m/2")]
    with pytest.raises(StoreError, match="credentials"):
        list(store.read_many(files, largest=10))
    proxy.faults = [Fault("GET", 503, "ServiceUnavailable", where="m/2", times=1000)]
    with pytest.raises(Transient):
        list(store.read_many(files, largest=10))


def test_errors_of_a_listing_say_what_is_wrong_and_what_to_do(store, proxy, words, cloud):
    for status, code, error, told in (
        (403, words.denied, StoreError, words.may_list),
        (503, "ServiceUnavailable", Transient, "ServiceUnavailable"),
    ):
        proxy.faults = [Fault("GET", status, code, where=words.a_listing, times=1000)]
        with pytest.raises(error, match=told) as caught:
            list(store.list())
        assert cloud.uri in str(caught.value)


def test_errors_of_a_write_do_too(store, proxy, words):
    proxy.faults = [Fault("PUT", 403, words.denied, times=1000)]
    for write in (store.write, store.put_if_absent):
        with pytest.raises(StoreError, match=words.may_write):
            write("x", b"1")


def test_an_upload_that_fails_leaves_nothing(store, proxy, words):
    def upload():
        with store.writer("x") as out:
            out.write(b"x" * (20 * MIB))

    method, where = words.commit
    proxy.faults = [Fault(method, 403, words.denied, where=where)]
    with pytest.raises(StoreError, match=words.may_write):
        upload()
    assert store.info("x") is None
    assert list(store.list()) == []
    assert store.put_if_absent("x", b"another")


def test_a_bucket_that_is_not_there_is_said_quickly(cloud, words):
    name = cloud.uri.partition("://")[2].partition("/")[0].partition("@")[0]
    store = open_store(cloud.uri.replace(name, f"no-such-{uuid.uuid4().hex}"), environ=cloud.environ)
    started = time.monotonic()
    for use in (
        lambda: list(store.list()),
        lambda: store.read("x"),
        lambda: store.write("x", b""),
        lambda: verify(store),
    ):
        with pytest.raises(StoreError, match=words.nowhere) as caught:
            use()
        assert not isinstance(caught.value, NotFound | UnsafeStore)
    assert time.monotonic() - started < 10


def test_an_endpoint_where_nobody_listens_is_transient_and_said_quickly(cloud):
    store = open_store(cloud.uri, environ=cloud.environ_at("http://127.0.0.1:9"))
    for use in (lambda: store.read("x"), lambda: list(store.list())):
        started = time.monotonic()
        with pytest.raises(Transient, match=r"Connect|ServiceRequest"):
            use()
        assert time.monotonic() - started < 30


def test_the_whole_bucket_can_be_a_store(cloud):
    bucket = cloud.uri.removesuffix("/some/prefix")
    store = open_store(bucket, environ=cloud.environ)
    store.write("a/b", b"x")
    assert store.uri_of("a/b") == f"{bucket}/a/b"
    assert [info.uri for info in store.list()] == [f"{bucket}/a/b"]
    nested = open_store(f"{bucket}/a/", environ=cloud.environ)
    assert [info.path for info in nested.list()] == ["b"]
