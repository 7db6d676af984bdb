"""What is special about S3: lost answers, conflicts, keys that obstore cannot name, and clear errors."""

from __future__ import annotations

import dataclasses
import time
import uuid

import boto3
import pytest
from servers.faulty import Fault, faulty

from lowtide.connectors.stores import open_store, verify
from lowtide.connectors.stores.s3 import S3Store
from lowtide.connectors.stores.s3_connection import connect
from lowtide.errors import ConfigError, NotFound, StoreError, Transient, UnsafeStore

MIB = 1024 * 1024


@pytest.fixture
def home(bucket, s3_url):
    return bucket(s3_url)


@pytest.fixture
def proxy(home):
    with faulty(home.environ["AWS_ENDPOINT_URL"]) as proxy:
        yield proxy


@pytest.fixture
def store(home, proxy):
    return open_store(home.uri, environ={**home.environ, "AWS_ENDPOINT_URL": proxy.url})


@pytest.fixture
def client(home):
    environ = home.environ
    return boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )


def name_of(home):
    return home.uri.split("/")[2]


def test_a_conflict_with_a_write_in_flight_is_tried_again(store, proxy):
    proxy.faults = [Fault("PUT", 409, "ConditionalRequestConflict", times=2)]
    assert store.put_if_absent("journal/1", b"mine")
    assert store.read("journal/1") == b"mine"
    proxy.faults = [Fault("PUT", 409, "ConditionalRequestConflict")]
    assert not store.put_if_absent("journal/1", b"theirs")


def test_a_conflict_that_does_not_end_is_transient_and_writes_nothing(store, proxy):
    proxy.faults = [Fault("PUT", 409, "ConditionalRequestConflict", times=1000)]
    with pytest.raises(Transient):
        store.put_if_absent("journal/1", b"mine")
    assert store.info("journal/1") is None


@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_a_replacement_in_conflict_is_tried_again(store, proxy, tmp_path, size):
    store.write("x", b"old")
    (tmp_path / "new").write_bytes(b"n" * size)
    proxy.faults = [Fault("PUT", 409, "ConditionalRequestConflict", times=4)]
    assert store.replace("x", tmp_path / "new", expected=store.info("x").etag)
    assert store.read("x") == b"n" * size


def test_a_file_over_the_limit_of_one_put_is_created_in_parts_by_one_writer(home, tmp_path):
    store = S3Store(connect(name_of(home), home.environ), "p", single_put=9 * MIB)
    (tmp_path / "new").write_bytes(b"n" * (20 * MIB))
    assert store.replace("big", tmp_path / "new", expected=None)
    assert not store.replace("big", tmp_path / "new", expected=None)
    assert store.read("big") == b"n" * (20 * MIB)


def test_a_file_over_the_limit_of_one_put_is_replaced_only_at_its_etag(bucket, ministack_url, tmp_path):
    home = bucket(ministack_url)  # moto ignores If-Match at the end of a multipart upload
    store = S3Store(connect(name_of(home), home.environ), "p", single_put=9 * MIB)
    (tmp_path / "new").write_bytes(b"n" * (20 * MIB))
    store.write("big", b"old")
    assert not store.replace("big", tmp_path / "new", expected='"stale"')
    assert not store.replace("absent", tmp_path / "new", expected='"stale"')
    assert store.read("big") == b"old"
    assert store.replace("big", tmp_path / "new", expected=store.info("big").etag)
    assert store.read("big") == b"n" * (20 * MIB)


def test_an_upload_that_fails_is_aborted(store, proxy, client, home):
    def upload():
        with store.writer("x") as out:
            out.write(b"x" * (20 * MIB))

    proxy.faults = [Fault("PUT", 403, "AccessDenied", where="partNumber=2")]
    with pytest.raises(StoreError, match="s3:PutObject"):
        upload()
    assert store.info("x") is None
    assert client.list_multipart_uploads(Bucket=name_of(home)).get("Uploads", []) == []


def test_a_store_that_refuses_conditions_is_unsafe(store, proxy, home):
    real = proxy.take
    seen = []

    def take(method, target):
        # The two ways in which a store without conditions answers: it says so, whatever else is tried.
        if method == "PUT" and len(seen) < 5:
            seen.append(target)
            return Fault("PUT", 501, "NotImplemented")
        return real(method, target)

    proxy.take = take
    with pytest.raises(UnsafeStore, match="NotImplemented") as caught:
        verify(store)
    assert home.uri in str(caught.value)
    proxy.take = real
    assert list(store.list()) == []


@pytest.mark.parametrize(
    "answer",
    [
        (403, "AccessDenied", StoreError, "s3:GetObject"),
        (403, "SignatureDoesNotMatch", StoreError, "credentials"),
        (400, "ExpiredToken", StoreError, "credentials"),
        (404, "NoSuchBucket", StoreError, "no such bucket"),
        (404, "NoSuchKey", NotFound, "no object"),
        (301, "PermanentRedirect", StoreError, "AWS_REGION"),
        (503, "SlowDown", Transient, "SlowDown"),
        (500, "InternalError", Transient, "InternalError"),
        (429, "TooManyRequests", Transient, "TooMany"),
        (0, "", Transient, "now"),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(store, proxy, home, answer):
    status, code, error, words = answer
    proxy.faults = [Fault("GET", status, code, times=1000)]
    started = time.monotonic()
    with pytest.raises(error) as caught:
        store.read("folder/x")
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert f"{home.uri}/folder/x" in str(caught.value)
    assert "testing" not in str(caught.value)
    assert time.monotonic() - started < 30


ODD = ["/lead", "a//b", "../up", "x/../y", "x/./y", "tab\tx", "ctl\x01x", "back/..", "end//"]


def test_keys_that_obstore_cannot_name_are_listed_and_read(store, client, home):
    keys = [*ODD[:-1], *(f"plain/{number:04d}" for number in range(30)), "zz"]
    for key in keys:
        client.put_object(Bucket=name_of(home), Key=f"some/prefix/{key}", Body=key.encode())
    expected = sorted(keys, key=str.encode)
    listed = list(store.list())
    assert [info.path for info in listed] == expected
    assert [content.data for content in store.read_many(listed, largest=100)] == [key.encode() for key in expected]
    for at, info in enumerate(listed):
        assert store.info(info.path) == dataclasses.replace(info, modified=store.info(info.path).modified)
        assert store.read(info.path) == store.open(info.path).read() == info.path.encode()
        if info.path != "ctl\x01x":  # moto repeats StartAfter in XML 1.0, which has no place for this character
            assert [found.path for found in store.list(after=info.path)] == expected[at + 1 :]
    assert [found.path for found in store.list("x/")] == ["x/../y", "x/./y"]
    assert [found.path for found in store.list("a//")] == ["a//b"]


def test_a_page_of_odd_keys_does_not_lose_what_comes_behind_it(bucket, ministack_url):
    home = bucket(ministack_url)
    store = home.open()
    client = store._client
    keys = [f"{number:04d}" for number in range(1200)]
    keys[100], keys[1150] = "0100//odd", "1150/../odd"
    for key in keys:
        client.put_object(Bucket=name_of(home), Key=f"some/prefix/{key}", Body=b"x")
    assert [info.path for info in store.list()] == sorted(keys)


def test_folder_markers_are_not_objects_and_empty_objects_are(store, client, home):
    for key in ("a/", "a/x", "b", "b/", "b-c", "c/", "d"):
        client.put_object(Bucket=name_of(home), Key=f"some/prefix/{key}", Body=b"")
    client.put_object(Bucket=name_of(home), Key="some/prefix/", Body=b"")
    assert [info.path for info in store.list()] == ["a/x", "b", "b-c", "d"]
    client.put_object(Bucket=name_of(home), Key="some/prefix/0//odd", Body=b"")
    assert [info.path for info in store.list()] == ["0//odd", "a/x", "b", "b-c", "d"]


@pytest.fixture
def no_aws(monkeypatch, tmp_path):
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def test_no_credentials_are_a_config_error_that_says_what_to_set(no_aws):
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/x")


def test_a_profile_that_is_not_there_is_a_config_error(no_aws):
    with pytest.raises(ConfigError, match="nobody"):
        open_store("s3://bucket/x", environ={"AWS_PROFILE": "nobody"})


def test_a_profile_gives_keys_region_and_endpoint(no_aws, home):
    url = home.environ["AWS_ENDPOINT_URL"]
    (no_aws / "credentials").write_text("[work]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
    (no_aws / "config").write_text(f"[profile work]\nregion = eu-west-3\nendpoint_url = {url}\n")
    connection = connect(name_of(home), {"AWS_PROFILE": "work"})
    assert (connection.client.meta.region_name, connection.client.meta.endpoint_url) == ("eu-west-3", url)
    bucket = f"test-{uuid.uuid4().hex}"
    connection.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    store = open_store(f"s3://{bucket}/p", environ={"AWS_PROFILE": "work"})
    assert store.put_if_absent("x", b"1")
    assert store.read("x") == b"1"


def test_a_service_endpoint_goes_before_the_general_one_and_aws_region_before_the_default(no_aws):
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    both = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2"}
    regions = {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "us-west-2"}
    connection = connect("bucket", {**keys, **both, **regions})
    assert connection.client.meta.endpoint_url == "http://127.0.0.1:2"
    assert connection.bucket.config["endpoint"] == "http://127.0.0.1:2"
    assert connection.bucket.config["region"] == "eu-north-1"
    assert connect("bucket", keys).bucket.config["region"] == "us-east-1"
    assert connect("bucket", {**keys, "AWS_DEFAULT_REGION": "us-west-2"}).client.meta.region_name == "us-west-2"
    assert "us-west-2" in connect("bucket", {**keys, "AWS_DEFAULT_REGION": "us-west-2"}).client.meta.endpoint_url
