"""Folders on disk, in S3 and in Blob Storage: one behaviour, whatever is behind."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import boto3
import pytest
from azure.storage.blob import BlobServiceClient
from hypothesis import given
from hypothesis import strategies as st
from servers import aws
from servers import azurite as blob_service
from servers.faulty import Fault, faulty
from servers.threaded import answering

from lowtide_worker.addresses import store_of
from lowtide_worker.stores import Missing, Refused, Short, open_folder, open_parent


def bucket_at(url: str) -> str:
    environ = aws.environ(url)
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )
    name = f"b{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["file", "s3", "abfs"])
def folder(request, tmp_path):
    if request.param == "file":
        (tmp_path / "a b").mkdir()
        return open_folder((tmp_path / "a b").as_uri(), {})
    if request.param == "s3":
        url = request.getfixturevalue("moto_url")
        return open_folder(f"s3://{bucket_at(url)}/some/prefix", aws.environ(url))
    url = request.getfixturevalue("azurite")
    environ = blob_service.environ(url)
    name = f"c{uuid.uuid4().hex}"
    service = BlobServiceClient.from_connection_string(environ["AZURE_STORAGE_CONNECTION_STRING"])
    service.create_container(name)
    return open_folder(f"abfs://{name}@{blob_service.ACCOUNT}.dfs.core.windows.net/some/prefix/", environ)


def test_a_folder_keeps_what_is_put_and_makes_an_object_once(folder):
    async def story():
        assert await folder.below("parts") == []
        assert await folder.names("shards/") == ([], [])
        await folder.put("shards/s1/task.json", b"first")
        await folder.put("shards/s1/task.json", b"second")
        assert (await folder.get("shards/s1/task.json")).data == b"second"
        assert await folder.put_if_absent("shards/s1/claims/000001", b"mine")
        assert not await folder.put_if_absent("shards/s1/claims/000001", b"theirs")
        assert (await folder.get("shards/s1/claims/000001")).data == b"mine"
        assert await folder.names("shards/") == (["s1"], [])
        assert await folder.names("shards/s1/") == (["claims"], ["task.json"])
        (claim,) = await folder.below("shards/s1/claims")
        assert (claim.path, claim.size) == ("shards/s1/claims/000001", 4)
        assert claim.modified == (await folder.get(claim.path)).modified
        with pytest.raises(Missing, match=r"s2/end\.json"):
            await folder.get("shards/s2/end.json")

    asyncio.run(story())


def test_of_many_writers_at_once_one_makes_the_object(folder):
    async def story():
        made = await asyncio.gather(*(folder.put_if_absent("parts/000001", b"%d" % one) for one in range(12)))
        assert made.count(True) == 1
        assert (await folder.get("parts/000001")).data == b"%d" % made.index(True)

    asyncio.run(story())


def test_an_object_of_many_chunks_is_read_line_by_line(folder):
    lines = [b"x" * (number % 97) + b"%d" % number for number in range(3000)]
    data = b"\n".join(lines) + b"\n"

    async def story():
        await folder.put("requests.jsonl", data)
        found = [line async for some in folder.lines("requests.jsonl", len(data), chunk=7000) for line in some]
        assert found == lines
        parent, name = open_parent(f"{folder.uri}/requests.jsonl", os.environ)
        assert (parent.uri, name) == (folder.uri, "requests.jsonl")

    asyncio.run(story())


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    chunk=st.integers(1, 40),
    ended=st.booleans(),
)
def test_lines_are_the_same_whatever_the_chunks(tmp_path_factory, lines, chunk, ended):
    path = tmp_path_factory.mktemp("lines")
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    (path / "requests").write_bytes(data)
    folder = open_folder(path.as_uri(), {})

    async def read():
        return [line async for some in folder.lines("requests", len(data), chunk=chunk) for line in some]

    expected = data.split(b"\n")
    assert asyncio.run(read()) == (expected[:-1] if expected[-1] == b"" else expected)


def test_an_object_that_is_shorter_than_it_should_be_is_an_error(tmp_path):
    (tmp_path / "requests").write_bytes(b"one\ntwo\n")
    folder = open_folder(tmp_path.as_uri(), {})

    async def read():
        return [some async for some in folder.lines("requests", 100)]

    with pytest.raises(Short, match="ends at byte 8"):
        asyncio.run(read())


@pytest.mark.parametrize("size", [12, 20, 21, 41])
def test_an_object_that_ends_chunks_before_it_should_is_short_in_every_store(folder, size):
    async def read():
        await folder.put("requests", b"one\ntwo\n12")
        return [some async for some in folder.lines("requests", size, chunk=10)]

    with pytest.raises(Short, match="ends at byte 10, before the"):
        asyncio.run(read())


def test_a_conflict_or_a_lost_answer_does_not_hide_that_the_object_is_ours(moto_url):
    bucket = bucket_at(moto_url)

    async def story():
        with faulty(moto_url) as proxy:
            folder = open_folder(f"s3://{bucket}/fleet", aws.environ(proxy.url))
            proxy.faults = [Fault("PUT", 409, "ConditionalRequestConflict")]
            assert await folder.put_if_absent("parts/000001", b"mine")
            proxy.faults = [Fault("PUT", 500, "InternalError", forward=True)]
            assert await folder.put_if_absent("parts/000002", b"mine")
            assert not await folder.put_if_absent("parts/000002", b"theirs")

    asyncio.run(story())


def test_credentials_that_may_not_are_told_from_a_store_that_is_down(moto_url):
    bucket = bucket_at(moto_url)

    async def story():
        with faulty(moto_url) as proxy:
            folder = open_folder(f"s3://{bucket}/fleet", aws.environ(proxy.url))
            proxy.faults = [Fault("GET", 403, "AccessDenied", times=100)]
            with pytest.raises(Refused, match=r"fleet\.json"):
                await folder.get("fleet.json")

    asyncio.run(story())


class Service(BaseHTTPRequestHandler):
    """An instance's metadata service that gives a role's credentials, and an S3 that notes who asks."""

    asked: ClassVar[list[str]] = []

    def do_PUT(self):
        self.tell(b"token")

    def do_GET(self):
        if self.path.endswith("/security-credentials/"):
            return self.tell(b"worker-role")
        if self.path.endswith("/worker-role"):
            keys = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "secret", "Token": "session"}
            return self.tell(json.dumps({"Code": "Success", "Expiration": "2036-11-20T08:22:00Z", **keys}).encode())
        self.asked.append(self.headers["Authorization"])
        return self.tell(b"found")

    def tell(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Fri, 20 Nov 2026 08:22:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def test_a_machine_without_keys_uses_its_role(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    Service.asked.clear()
    with answering(Service) as url:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        assert asyncio.run(open_folder("s3://bucket/fleet").get("fleet.json")).data == b"found"
    (who,) = Service.asked
    assert "Credential=ASIAROLE/" in who
    assert "/eu-west-1/s3/" in who


def test_a_profile_is_used_where_one_is_named(moto_url, tmp_path, monkeypatch):
    bucket = bucket_at(moto_url)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    credentials = tmp_path / "credentials"
    credentials.write_text("[gpus]\naws_access_key_id = one\naws_secret_access_key = two\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "gpus")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)

    async def story():
        folder = open_folder(f"s3://{bucket}/fleet")
        assert await folder.put_if_absent("fleet.json", b"{}")
        assert (await folder.get("fleet.json")).data == b"{}"

    asyncio.run(story())
    monkeypatch.setenv("AWS_PROFILE", "misspelt")
    with pytest.raises(ValueError, match="misspelt"):
        open_folder(f"s3://{bucket}/fleet")


@pytest.mark.parametrize("uri", ["", "fleet", "/fleet", "http://host/fleet", "s3://", "abfs://Container/x"])
def test_an_address_that_is_none_is_named(uri):
    with pytest.raises(ValueError, match=r"s3://bucket/folder"):
        open_folder(uri, {})


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        open_folder((tmp_path / "typo").as_uri(), {})
    assert not (tmp_path / "typo").exists()


def test_keys_go_to_no_other_account_than_they_belong_to():
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "mine", "AZURE_STORAGE_ACCOUNT_KEY": blob_service.KEY}
    own = store_of("abfs://box@mine.dfs.core.windows.net/fleet", environ)
    other = store_of("abfs://box@theirs.dfs.core.windows.net/fleet", environ)
    assert own.config.get("account_key") == blob_service.KEY
    assert "account_key" not in other.config
    with pytest.raises(ValueError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        store_of("abfs://box/fleet", {})


def test_a_name_that_is_percent_encoded_in_its_address_is_found(tmp_path):
    (tmp_path / "täglich heute.jsonl").write_bytes(b"one\n")
    folder, name = open_parent((tmp_path / "täglich heute.jsonl").as_uri(), {})
    assert Path(name).name == "täglich heute.jsonl"
    assert asyncio.run(folder.get(name)).data == b"one\n"
