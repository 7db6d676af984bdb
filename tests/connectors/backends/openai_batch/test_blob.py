"""A storage account of one's own, against Azurite: requests go there, answers come from there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import azurite
from servers.emulators import Emulator, emulators
from support.openai_support import answers_of, azure_backend, ended, outputs_of, request_of, shard_of

from lowtide.connectors.backends.openai_batch.blob import BlobFolder, blob_folder
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, QuotaFull, SubmitUnknown, Terminal, Transient

CONTAINER = "batches"
FOLDER = "a folder/of jobs"


@pytest.fixture(scope="module")
def azurite_url() -> Iterator[str]:
    with azurite.azurite() as url:
        yield url


@pytest.fixture(scope="module")
def storage(azurite_url: str) -> dict[str, str]:
    from azure.storage.blob import BlobServiceClient

    environ = azurite.environ(azurite_url)
    BlobServiceClient.from_connection_string(azurite.connection_string(azurite_url)).create_container(CONTAINER)
    return environ


@pytest.fixture(scope="module")
def running(azurite_url: str, storage: dict[str, str]) -> Iterator[Emulator]:
    with emulators(speed=20, blob=azurite.connection_string(azurite_url)) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.reset()
    return running


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    return f"abfs://{CONTAINER}/{FOLDER}/{abs(hash(request.node.name))}"


@pytest.fixture
def backend(emulator, storage, folder):
    return azure_backend(emulator.url, storage, blob=folder)


def submitted(backend, name="t1", count=20):
    return backend.submit(
        shard_of(backend, [request_of(at, f"Document {at} tells of a bridge.") for at in range(count)]), name
    )


def paths(folder, storage):
    return sorted(info.path for info in open_store(folder, environ=storage).list())


def test_a_batch_goes_all_the_way_through_blobs_and_leaves_none(backend, emulator, storage, folder):
    batch_id = submitted(backend)
    assert backend.find("t1") == [batch_id]
    assert backend.find("t") == []
    status = ended(backend, batch_id)
    assert (status.outcome, status.charged) == ("completed", 20)
    # Azure names the blob of errors whether there is one or not.
    assert list(outputs_of(backend, batch_id)) == ["output.jsonl", "errors.jsonl"]
    assert len(answers_of(backend, batch_id)) == 20
    counts = emulator.calls()["counts"]["azure"]
    assert "upload" not in counts
    written = paths(folder, storage)
    assert "requests/t1.jsonl" in written
    assert any(path.startswith("answers/") and path.endswith("/results.jsonl") for path in written)
    backend.discard(batch_id)
    backend.discard(batch_id)
    assert paths(folder, storage) == []


def test_rows_that_were_rejected_are_in_a_blob_of_their_own(backend, emulator):
    emulator.faults([{"on": "row", "do": "row_error", "rate": 0.5, "times": "forever"}])
    batch_id = submitted(backend)
    ended(backend, batch_id)
    assert {answer.status for answer in answers_of(backend, batch_id).values()} == {"ok", "error"}


def test_answers_that_the_batch_counts_and_that_are_not_there_may_come_yet(backend, storage, folder):
    batch_id = submitted(backend)
    ended(backend, batch_id)
    store = open_store(folder, environ=storage)
    [path] = [path for path in paths(folder, storage) if path.endswith("results.jsonl")]
    store.delete(path)
    with pytest.raises(Transient, match="is not there"):
        outputs_of(backend, batch_id)


@pytest.mark.parametrize("do", ["error_after", "reset_after"])
def test_a_submission_that_is_lost_is_found_by_its_blob(backend, emulator, do):
    emulator.faults([{"on": "create", "do": do}])
    with pytest.raises(SubmitUnknown):
        submitted(backend, "lost")
    [batch_id] = backend.find("lost")
    ended(backend, batch_id)
    assert emulator.bill()["most_billed"] == 1


def test_requests_that_a_batch_may_be_reading_are_not_written_again(backend, emulator, storage, folder):
    emulator.settings(openai={"processing_seconds": 60.0})
    first = submitted(backend)
    store = open_store(folder, environ=storage)
    before = store.info("requests/t1.jsonl")
    second = submitted(backend)
    assert store.info("requests/t1.jsonl") == before
    assert backend.find("t1") == [first, second]
    emulator.clock(advance=120)
    assert ended(backend, first).outcome == "completed"


def test_requests_that_somebody_changed_fail_the_batch_and_may_be_asked_again(backend, emulator, storage, folder):
    emulator.settings(openai={"processing_seconds": 60.0})
    batch_id = submitted(backend)
    while backend.poll(batch_id).provider_state == "validating":
        pass
    open_store(folder, environ=storage).write("requests/t1.jsonl", b"{}\n")
    emulator.clock(advance=120)
    status = ended(backend, batch_id)
    assert (status.outcome, status.fault) == ("failed", "")
    assert "input_modified" in status.reason


def test_a_further_region_reads_a_blob_of_its_own(emulator, storage, folder):
    resources = {
        name: {
            "deployments": {f"in-{name}": {"model": "gpt-4.1-mini"}},
        }
        for name in ("east", "west")
    }
    emulator.settings(openai={"resources": resources})
    emulator.faults([{"on": "create", "do": "throttle", "match": {"account": "azure/east"}}])
    further = {"endpoint": f"{emulator.url}/azure/west", "deployment": "in-west", "region": "west"}
    backend = azure_backend(
        f"{emulator.url}/azure/east", storage, deployment="in-east", region="east", regions=[further], blob=folder
    )
    batch_id = submitted(backend)
    assert batch_id.startswith("west/")
    assert backend.find("t1") == [batch_id]
    assert ended(backend, batch_id).outcome == "completed"
    assert len(answers_of(backend, batch_id)) == 20
    # What the first region would have read is of no use any more.
    assert [path for path in paths(folder, storage) if path.startswith("requests/")] == ["requests/t1.west.jsonl"]


def test_a_refused_batch_leaves_its_requests_for_the_next_try(backend, emulator, storage, folder):
    emulator.faults([{"on": "create", "do": "throttle"}])
    with pytest.raises(QuotaFull):
        submitted(backend)
    assert paths(folder, storage) == ["requests/t1.jsonl"]


def test_the_users_own_blobs_are_never_deleted(backend, storage, folder):
    store = open_store(folder, environ=storage)
    store.write("theirs.jsonl", b"1")
    store.write("answers/theirs.txt", b"2")
    blob = backend._blob
    blob.remove(blob.url("theirs.jsonl"), "requests")
    blob.remove(f"{blob.web}-other/requests/x.jsonl", "requests")
    blob.remove("", "answers")
    assert paths(folder, storage) == ["answers/theirs.txt", "theirs.jsonl"]


def test_addresses_are_compared_as_addresses():
    folder = BlobFolder(None, "https://acc.blob.core.windows.net/c/a%20b")  # type: ignore[arg-type]
    assert folder.url("requests/t.jsonl") == "https://acc.blob.core.windows.net/c/a%20b/requests/t.jsonl"
    for same in (
        "https://acc.blob.core.windows.net/c/a%20b/requests/t.jsonl",
        "https://ACC.blob.core.windows.net/c/a b/requests/t.jsonl?sv=1&sig=x",
    ):
        assert folder.path_in(same) == "requests/t.jsonl"
    for other in ("", "https://acc.blob.core.windows.net/c/a%20bc/requests/t.jsonl", "https://other/c/a%20b/x"):
        assert folder.path_in(other) is None


def test_answers_outside_of_the_folder_are_not_read(backend):
    with pytest.raises(Terminal, match="outside of"):
        list(backend._blob.read("https://elsewhere/c/results.jsonl?sig=secret", needed=True))


def test_only_azure_storage_is_taken():
    with pytest.raises(ConfigError, match="abfs://"):
        blob_folder("s3://bucket/folder", None)


def test_a_folder_that_cannot_be_written_is_named(emulator, storage, folder):
    good = azure_backend(emulator.url, storage, blob=folder)
    assert [finding.ok for finding in good.examine() if finding.name == "blob"] == [True]
    missing = azure_backend(emulator.url, storage, blob="abfs://no-such-container/x")
    [found] = [finding for finding in missing.examine() if finding.name == "blob"]
    assert not found.ok
    assert "Storage Blob Data Contributor" in found.found
