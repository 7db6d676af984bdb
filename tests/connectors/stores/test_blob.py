"""What is special about Blob Storage: blocks without an owner, folders, other orders, accounts and credentials."""

from __future__ import annotations

import datetime
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas
from servers import azurite as blob_service
from servers.faulty import Fault, faulty
from support.listings import check_order

from lowtide.connectors.stores import blob_connection, open_store, verify
from lowtide.connectors.stores.addresses import blob_address
from lowtide.connectors.stores.blob import BlobStore
from lowtide.connectors.stores.blob_connection import connect
from lowtide.errors import ConfigError, MissingExtra, NotFound, StoreError, Transient
from lowtide.records import FileInfo

MIB = 1024 * 1024
WRITING = Path(__file__).with_name("writing.py")
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "azure-storage.md"
SMALL = 64 * 1024


@pytest.fixture
def home(container):
    return container


@pytest.fixture
def proxy(azurite):
    with faulty(azurite) as proxy:
        yield proxy


@pytest.fixture
def store(home, proxy):
    return open_store(home.uri, environ=blob_service.environ(proxy.url))


@pytest.fixture
def client(azurite, home):
    service = BlobServiceClient.from_connection_string(blob_service.connection_string(azurite))
    return service.get_container_client(name_of(home))


@pytest.fixture
def no_azure(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)


def name_of(home):
    return blob_address(home.uri).container


def in_blocks(home):
    """A store that sends everything above 64 KiB in blocks."""
    return BlobStore(connect(blob_address(home.uri), home.environ), "p", small=SMALL)


def unfinished(client, name):
    client.get_blob_client(name).stage_block("z" * 38, b"left behind")


# Writing


@pytest.mark.parametrize("code", ["ServerBusy", "OperationTimedOut"])
@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_a_busy_service_is_asked_again(store, proxy, tmp_path, size, code):
    store.write("x", b"old")
    (tmp_path / "new").write_bytes(b"n" * size)
    proxy.faults = [Fault("PUT", 503, code, times=4)]
    assert store.replace("x", tmp_path / "new", expected=store.info("x").etag)
    assert store.read("x") == b"n" * size


def test_a_service_that_stays_busy_is_transient_and_nothing_is_written(store, proxy):
    proxy.faults = [Fault("PUT", 503, "ServerBusy", times=1000)]
    with pytest.raises(Transient):
        store.put_if_absent("journal/1", b"mine")
    assert store.info("journal/1") is None


def test_blocks_of_many_writers_never_mix(home, client):
    store = in_blocks(home)

    def write(writer):
        with store.writer("x") as out:
            for _ in range(12):
                out.write(bytes([writer]) * SMALL)

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        data = store.read("x")
        assert len(data) == 12 * SMALL
        assert len(set(data)) == 1


def test_of_many_replacements_in_blocks_one_succeeds(home, tmp_path):
    store = in_blocks(home)
    sources = [tmp_path / str(n) for n in range(8)]
    for source in sources:
        source.write_bytes(source.name.encode() * (3 * SMALL))
    for expected in (None, "now"):
        etag = expected and store.info("x").etag
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda source, etag=etag: store.replace("x", source, expected=etag), sources))
        assert won.count(True) == 1
        assert store.read("x") == sources[won.index(True)].read_bytes()


def test_a_replacement_whose_blocks_another_writer_has_dropped_looks_who_has_won(store, proxy, home, tmp_path):
    store.write("x", b"old")
    (tmp_path / "new").write_bytes(b"n" * (9 * MIB))
    etag = store.info("x").etag
    proxy.faults = [Fault("PUT", 400, "InvalidBlockList", where="comp=blocklist")]
    assert store.replace("x", tmp_path / "new", expected=etag)
    assert store.read("x") == b"n" * (9 * MIB)
    etag = store.info("x").etag
    home.open().write("x", b"theirs")
    proxy.faults = [Fault("PUT", 400, "InvalidBlockList", where="comp=blocklist")]
    assert not store.replace("x", tmp_path / "new", expected=etag)
    assert store.read("x") == b"theirs"


def test_a_writer_whose_blocks_another_has_dropped_counts_as_the_one_before(store, proxy, home):
    """Blob Storage drops all uncommitted blocks when anybody commits; Azurite keeps them."""
    proxy.faults = [Fault("PUT", 400, "InvalidBlockList", where="comp=blocklist")]
    with store.writer("x") as out:
        out.write(b"m" * (9 * MIB))
        home.open().write("x", b"theirs, which came last")
    assert store.read("x") == b"theirs, which came last"


@pytest.mark.parametrize("before", [b"old", None])
def test_a_writer_whose_blocks_are_gone_without_another_has_failed(store, proxy, before):
    if before:
        store.write("x", before)

    def write():
        with store.writer("x") as out:
            out.write(b"m" * (9 * MIB))

    proxy.faults = [Fault("PUT", 400, "InvalidBlockList", where="comp=blocklist")]
    with pytest.raises(StoreError, match="InvalidBlockList"):
        write()
    assert (store.read("x") if before else store.info("x")) == before


def test_what_a_killed_writer_left_is_in_nobodys_way(home, tmp_path):
    store = home.open()
    for name in ("a", "b", "c", "d"):
        process = subprocess.Popen(
            [sys.executable, str(WRITING), "stream", home.uri, name],
            env={**os.environ, **home.environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(20):
            assert process.stdout.readline() == "wrote\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert list(store.list()) == []
    (tmp_path / "new").write_bytes(b"new")
    assert store.put_if_absent("a", b"new")
    assert store.replace("b", tmp_path / "new", expected=None)
    store.write("c", b"new")
    with store.writer("d") as out:
        out.write(b"n" * (9 * MIB))
    assert not store.put_if_absent("a", b"newer")
    assert [(info.path, info.size) for info in store.list()] == [("a", 3), ("b", 3), ("c", 3), ("d", 9 * MIB)]


def test_an_empty_object_is_created_over_what_a_killed_writer_left(store, client):
    unfinished(client, "some/prefix/x")
    assert store.put_if_absent("x", b"")
    assert not store.put_if_absent("x", b"")
    assert store.read("x") == b""


def test_of_many_creators_over_what_a_killed_writer_left_one_wins(home, client):
    store = home.open()
    for number in range(5):
        unfinished(client, f"some/prefix/{number}")
        contents = [f"writer {writer}".encode() for writer in range(8)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda data, n=number: store.put_if_absent(str(n), data), contents))
        assert won.count(True) == 1
        assert store.read(str(number)) == contents[won.index(True)]


@pytest.mark.parametrize("path", ["back\\slash", "dot.", "a./b", "..."])
def test_names_that_the_service_changes_are_never_written(store, path):
    with pytest.raises(StoreError, match="cannot be a path"):
        store.write(path, b"x")
    assert list(store.list()) == []


def test_an_object_with_snapshots_can_be_deleted(store, client):
    store.write("x", b"1")
    client.get_blob_client("some/prefix/x").create_snapshot()
    store.delete("x")
    assert store.info("x") is None


# Listing


def unsure(proxy):
    """Who asks what kind of account it is, is refused: it may have a hierarchical namespace."""
    proxy.faults.append(Fault("GET", 403, "AuthorizationFailure", where="restype=account", times=1000))


@pytest.mark.parametrize("known", [True, False])
def test_folders_are_not_objects_and_empty_objects_are(store, client, proxy, known):
    if not known:
        unsure(proxy)
    for name in ("a/x", "b", "b-c", "d"):
        client.upload_blob(f"some/prefix/{name}", b"")
    for name in ("a", "a/sub", "c", "Upper"):
        key = "Hdi_isfolder" if name == "Upper" else "hdi_isfolder"
        client.upload_blob(f"some/prefix/{name}", b"", metadata={key: "true"})
    for name in ("b/", "e/", ""):
        client.upload_blob(f"some/prefix/{name}", b"")
    assert [info.path for info in store.list()] == ["a/x", "b", "b-c", "d"]
    assert store.info("a") is None
    with pytest.raises(NotFound):
        store.read("a")
    with pytest.raises(NotFound):
        store.open("c")


def test_where_the_order_is_not_known_each_folder_is_sorted(store, proxy):
    unsure(proxy)
    check_order(store)
    listed = next(store.list("b/"))
    assert listed == store.info("b/c")


def test_a_long_folder_comes_in_pages_and_in_order(store, proxy):
    unsure(proxy)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put_if_absent(f"f/{number:05d}", b""), range(5200)))
    assert [info.path for info in store.list()] == [f"f/{number:05d}" for number in range(5200)]


def test_a_known_account_is_listed_with_few_requests(store, proxy):
    for number in range(30):
        store.write(f"{number}/x", b"x")
    proxy.seen.clear()
    assert len(list(store.list())) == 30
    assert len(proxy.seen) == 2


def test_names_that_obstore_cannot_name_are_listed_and_read(store, client):
    names = ["/lead", "a//b", "tab\tx", *(f"plain/{number:04d}" for number in range(30)), "zz"]
    for name in names:
        client.upload_blob(f"some/prefix/{name}", name.encode())
    expected = sorted(names, key=str.encode)
    listed = list(store.list())
    assert [info.path for info in listed] == expected
    assert [content.data for content in store.read_many(listed, largest=100)] == [name.encode() for name in expected]
    for at, info in enumerate(listed):
        assert store.info(info.path) == info
        assert store.read(info.path) == store.open(info.path).read() == info.path.encode()
        assert [found.path for found in store.list(after=info.path)] == expected[at + 1 :]
    assert store.info("not//there") is None


def test_a_stream_over_an_odd_name_that_was_replaced_ends_in_an_error(store, client):
    client.upload_blob("some/prefix/a//b", b"a" * (10 * MIB))
    with store.open("a//b") as stream:
        assert stream.read(3) == b"aaa"
        client.upload_blob("some/prefix/a//b", b"b" * (10 * MIB), overwrite=True)
        with pytest.raises(StoreError, match="changed meanwhile"):
            stream.read()


# Errors


@pytest.mark.parametrize(
    "answer",
    [
        (403, "AuthorizationPermissionMismatch", StoreError, "Storage Blob Data Reader"),
        (403, "AuthenticationFailed", StoreError, "credentials"),
        (403, "AuthorizationFailure", StoreError, "network rules"),
        (403, "KeyBasedAuthenticationNotPermitted", StoreError, "takes no keys"),
        (404, "ContainerNotFound", StoreError, "no such container"),
        (404, "BlobNotFound", NotFound, "no object"),
        (409, "BlobArchived", StoreError, "rehydrate"),
        (503, "ServerBusy", Transient, "ServerBusy"),
        (500, "InternalError", Transient, "InternalError"),
        (429, "TooManyRequests", Transient, "TooMany"),
        (0, "", Transient, "now"),
    ],
)
@pytest.mark.parametrize("path", ["folder/x", "odd//x"])
def test_errors_say_what_is_wrong_and_what_to_do(store, proxy, answer, path):
    status, code, error, words = answer
    proxy.faults = [Fault("GET", status, code, times=1000)]
    started = time.monotonic()
    with pytest.raises(error) as caught:
        store.read(path)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert f"{store.uri}/{path}" in str(caught.value)
    assert blob_service.KEY not in str(caught.value)
    assert time.monotonic() - started < 40


# Addresses, accounts and credentials


@pytest.mark.parametrize(
    "uri",
    ["abfs://{c}/some", "abfss://{c}/some/", "az://{c}/some", "abfs://{c}@devstoreaccount1.dfs.core.windows.net/some",
     "abfss://{c}@devstoreaccount1.blob.core.windows.net/some"],
)  # fmt: skip
def test_every_way_to_write_an_address_names_the_same_store(home, uri):
    home.open().write("x", b"1")
    store = open_store(uri.format(c=name_of(home)), environ=home.environ)
    assert store.uri == f"abfs://{name_of(home)}@devstoreaccount1.dfs.core.windows.net/some"
    assert [info.uri for info in store.list()] == [f"{store.uri}/prefix/x"]


@pytest.mark.parametrize(
    "uri",
    ["abfs://", "abfs:///x", "abfs://Upper/x", "abfs://ab/x", "abfs://a--b/x", "abfs://c@account/x",
     "abfs://con@account.dfs.example.com/x", "az://con:hunter2hunter2@account.dfs.core.windows.net/x",
     "abfs://con*/x"],
)  # fmt: skip
def test_an_address_that_cannot_be_is_a_config_error_without_secrets(uri):
    with pytest.raises(ConfigError, match=r"account\.dfs\.core\.windows\.net") as caught:
        open_store(uri, environ={"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"})
    assert "hunter2" not in str(caught.value)


KEY = {"AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}


class Somebody:
    """What azure-identity gives, whose tokens are good `times` times."""

    def __init__(self, times=10):
        self._times = times

    def get_token(self, *scopes, **options):
        self._times -= 1
        if self._times < 0:
            raise ClientAuthenticationError("no token was to be had\nand so on")
        # Over at once, so that it is asked for anew.
        return AccessToken("token", int(time.time()))


@pytest.mark.parametrize("variable", ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"])
def test_the_account_of_a_short_address_is_that_of_the_environment(no_azure, variable):
    connection = connect(blob_address("abfs://con/x"), {**KEY, variable: "mine"})
    assert connection.root == "abfs://con@mine.dfs.core.windows.net/"
    assert connection.container.url == "https://mine.blob.core.windows.net/con"
    assert connection.bucket.config["endpoint"] == "https://mine.blob.core.windows.net"


def test_other_clouds_and_zones_have_other_endpoints(no_azure):
    for host in ("mine.dfs.core.chinacloudapi.cn", "mine.z12.dfs.storage.azure.net"):
        connection = connect(blob_address(f"abfss://con@{host}/x"), KEY)
        assert connection.root == f"abfs://con@{host}/"
        assert connection.container.url == f"https://{host.replace('.dfs.', '.blob.')}/con"


def test_no_account_is_a_config_error_that_says_what_to_set(no_azure):
    with pytest.raises(ConfigError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("abfs://con/x", environ=KEY)


def test_no_credentials_are_a_config_error_that_says_what_to_set(no_azure, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    blob_connection._identity.cache_clear()
    with pytest.raises(ConfigError, match="AZURE_STORAGE_CONNECTION_STRING") as caught:
        open_store("abfs://con@mine.dfs.core.windows.net/x")
    assert "az login" in str(caught.value)
    blob_connection._identity.cache_clear()


@pytest.mark.parametrize(
    "environ",
    [
        {"AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=theirs;AccountKey=a2V5"},
        {"AZURE_STORAGE_ACCOUNT_NAME": "theirs", **KEY},
        {"AZURE_STORAGE_ACCOUNT": "theirs", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=abc"},
    ],
)
def test_a_key_is_never_sent_to_another_account(no_azure, monkeypatch, environ):
    monkeypatch.setattr(blob_connection, "_identity", Somebody)
    connection = connect(blob_address("abfs://con@mine.dfs.core.windows.net/x"), environ)
    assert isinstance(connection.container.credential, Somebody)
    assert connection.bucket.credential_provider()["token"] == "token"


def test_credentials_that_end_are_no_fault_of_the_documents(no_azure, monkeypatch):
    somebody = Somebody(times=1)
    monkeypatch.setattr(blob_connection, "_identity", lambda: somebody)
    store = open_store("abfs://con@mine.dfs.core.windows.net/x")
    info = FileInfo("a", store.uri_of("a"), 1, '"e"', datetime.datetime.now(datetime.UTC))
    for use in (lambda: list(store.read_many([info], largest=10)), lambda: list(store.list()), lambda: store.read("a")):
        with pytest.raises(StoreError, match="credentials were not accepted"):
            use()


@pytest.mark.parametrize(
    "settings",
    [
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=a2V5"},
        {"AZURE_STORAGE_CONNECTION_STRING": "nonsense"},
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=mine;AccountKey=hunter2"},
        {"AZURE_STORAGE_ACCOUNT_NAME": "mine", "AZURE_STORAGE_ACCOUNT_KEY": "hunter2"},
    ],
)
def test_settings_that_cannot_work_are_a_config_error_without_secrets(no_azure, settings):
    with pytest.raises(ConfigError, match="Access keys") as caught:
        open_store("abfs://con/x", environ=settings)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def signature():
    return generate_account_sas(
        blob_service.ACCOUNT,
        blob_service.KEY,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, write=True, delete=True, list=True, create=True),
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )


def signed(url, signature):
    return {
        "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={url}/{blob_service.ACCOUNT};AccountName="
        f"{blob_service.ACCOUNT};SharedAccessSignature={signature}"
    }


def test_a_shared_access_signature_is_enough(home, azurite, signature, no_azure, tmp_path):
    store = open_store(home.uri, environ=signed(azurite, signature))
    verify(store)
    (tmp_path / "new").write_bytes(b"n" * (9 * MIB))
    assert store.replace("a/b", tmp_path / "new", expected=None)
    with store.writer("w") as out:
        out.write(b"w" * (9 * MIB))
    assert [(info.path, info.size) for info in store.list()] == [("a/b", 9 * MIB), ("w", 9 * MIB)]
    with store.open("w") as stream:
        assert stream.read(10) == b"w" * 10


@pytest.mark.parametrize("path", ["x", "odd//x"])
@pytest.mark.parametrize("status", [403, 503, 0])
def test_a_signature_is_in_no_traceback(home, proxy, signature, no_azure, path, status):
    store = open_store(home.uri, environ=signed(proxy.url, signature))
    proxy.faults = [Fault("GET", status, "AuthenticationFailed", times=1000)]
    for use in (lambda: store.read(path), lambda: list(store.list())):
        with pytest.raises((StoreError, Transient)) as caught:
            use()
        told = "".join(traceback.format_exception(caught.value))
        assert "sig=" not in told
        assert signature[-20:] not in told
    assert any("sig=" in seen for seen in proxy.seen)


def test_without_the_extra_the_pip_command_is_told(home):
    program = (
        "import sys; sys.modules['azure.storage'] = None\n"
        "from lowtide.connectors.stores import open_store\n"
        f"open_store({home.uri!r})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert f"{MissingExtra.__name__}: Azure storage needs" in ended.stderr
    assert "pip install 'lowtide[azure]'" in ended.stderr


# Reading the tables with pandas


@pytest.fixture
def table(azurite):
    """A table where the guide says that one is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    service = BlobServiceClient.from_connection_string(blob_service.connection_string(azurite))
    service.create_container("my-results")
    with open_store("abfs://my-results/lowtide", environ=blob_service.environ(azurite)).writer(
        "tables/results/job=tides/window=all/results.parquet"
    ) as out:
        pq.write_table(pa.table({"document": ["a", "b"]}), out)
    yield
    service.delete_container("my-results")


@pytest.mark.parametrize("whole", [True, False])
def test_pandas_reads_what_a_store_has_written_as_the_guide_says(table, azurite, no_azure, monkeypatch, whole):
    [snippet] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    if whole:
        snippet = snippet.replace("my-results/", f"my-results@{blob_service.ACCOUNT}.dfs.core.windows.net/")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", blob_service.connection_string(azurite))
    names = {}
    exec(snippet, names)  # noqa: S102 - our own guide
    assert list(names["results"]["document"]) == ["a", "b"]
    assert set(names["results"]["job"].astype(str)) == {"tides"}
