"""Azure OpenAI batches whose input and output lie in Blob storage of the user's own; the storage is Azurite."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ContainerClient
from openai import BadRequestError
from openai.types import Batch
from servers.azurite import azurite, connection_string
from servers.emulators import Emulator, emulators
from support.openai_desk import Desk, azure_desk, jsonl, openai_desk

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def storage() -> Iterator[BlobServiceClient]:
    with azurite() as url:
        yield BlobServiceClient.from_connection_string(connection_string(url))


@pytest.fixture(scope="module")
def _with_blobs(storage: BlobServiceClient) -> Iterator[Emulator]:
    url = str(storage.url).rstrip("/").removesuffix("/devstoreaccount1")
    with emulators(blob=connection_string(url)) as running:
        yield running


@dataclass
class BlobDesk:
    """A desk, and a container for its input and output."""

    desk: Desk
    container: ContainerClient

    def put(self, lines: list[dict[str, Any]], name: str = "in/test.jsonl") -> str:
        """An input blob; its URL."""
        self.container.upload_blob(name, jsonl(lines), overwrite=True)
        return f"{self.container.url}/{name}"

    def create(self, blob: str, folder: str = "out", **options: Any) -> str:
        """A batch over a blob; its id."""
        client = self.desk.client
        batch = client.batches.create(
            input_file_id=None,  # type: ignore[arg-type]
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"input_blob": blob, "output_folder": {"url": f"{self.container.url}/{folder}"}},
            **options,
        )
        assert (batch.input_file_id, batch.input_blob) == (None, blob)  # type: ignore[attr-defined]
        return batch.id

    def lines(self, url: str) -> list[dict[str, Any]]:
        """The lines of an output blob."""
        name = url.removeprefix(f"{self.container.url}/")
        return [orjson.loads(one) for one in self.container.download_blob(name).readall().splitlines()]

    def names(self, folder: str = "out/") -> list[str]:
        """Names of the blobs below a folder."""
        return [blob.name for blob in self.container.list_blobs(name_starts_with=folder)]


@pytest.fixture
def blobs(_with_blobs: Emulator, storage: BlobServiceClient) -> BlobDesk:
    _with_blobs.reset()
    return BlobDesk(azure_desk(_with_blobs), storage.create_container(f"batch-{next(_numbers)}"))


def url_of(batch: Batch, kind: str) -> str:
    return str(getattr(batch, f"{kind}_blob"))


def test_results_are_written_below_the_folder_under_an_id_of_their_own(blobs: BlobDesk) -> None:
    rows = blobs.desk.rows(12)
    rows[3]["body"]["colour"] = "green"
    batch_id = blobs.create(blobs.put(rows))
    first = blobs.desk.get(batch_id)
    assert (url_of(first, "output"), url_of(first, "error")) == ("", "")
    batch = blobs.desk.wait(batch_id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    guid = batch_id.removeprefix("batch_")
    assert url_of(batch, "output") == f"{blobs.container.url}/out/{guid}/results.jsonl"
    assert url_of(batch, "error") == f"{blobs.container.url}/out/{guid}/errors.jsonl"
    assert len(blobs.lines(url_of(batch, "output"))) == 11
    assert [one["custom_id"] for one in blobs.lines(url_of(batch, "error"))] == ["r3"]
    assert len(blobs.desk.emulator.charges(batch_id)) == 11


def test_urls_are_told_even_where_there_is_no_blob(blobs: BlobDesk) -> None:
    batch = blobs.desk.wait(blobs.create(blobs.put(blobs.desk.rows(2))))
    assert url_of(batch, "error").endswith("/errors.jsonl")
    with pytest.raises(ResourceNotFoundError):
        blobs.lines(url_of(batch, "error"))
    assert len(blobs.names()) == 1


def test_metadata_is_not_supported_with_blobs(blobs: BlobDesk) -> None:
    with pytest.raises(BadRequestError, match="metadata"):
        blobs.create(blobs.put(blobs.desk.rows(1)), metadata={"a": "b"})


def test_an_input_blob_needs_an_output_folder(blobs: BlobDesk) -> None:
    with pytest.raises(BadRequestError, match="output_folder"):
        blobs.desk.client.post(
            "/batches",
            body={
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "input_blob": blobs.put(blobs.desk.rows(1)),
            },
            cast_to=object,
        )


def test_openai_knows_no_blobs(blobs: BlobDesk) -> None:
    blob = blobs.put(blobs.desk.rows(1))
    blobs.desk = openai_desk(blobs.desk.emulator)
    with pytest.raises(BadRequestError, match="input_file_id"):
        blobs.create(blob)


def test_an_input_edited_in_mid_run_fails_the_batch(blobs: BlobDesk) -> None:
    blobs.desk.setting(processing_seconds=1_000)
    blob = blobs.put(blobs.desk.rows(3))
    batch_id = blobs.create(blob)
    blobs.desk.wait(batch_id, "in_progress")
    blobs.put(blobs.desk.rows(4))
    blobs.desk.emulator.clock(advance=1_001)
    batch = blobs.desk.wait(batch_id)
    assert (batch.status, blobs.desk.codes(batch)) == ("failed", [("input_modified", None)])
    assert not blobs.names()


def test_a_blob_that_cannot_be_read_fails_the_batch(blobs: BlobDesk) -> None:
    for blob in (f"{blobs.container.url}/none.jsonl", f"{blobs.container.url[:-1]}x/in.jsonl"):
        batch = blobs.desk.wait(blobs.create(blob))
        assert (batch.status, blobs.desk.codes(batch)) == ("failed", [("input_no_permissions", None)])


def test_an_emulator_without_storage_may_read_no_blob(emulator: Emulator, blobs: BlobDesk) -> None:
    blob = blobs.put(blobs.desk.rows(1))
    blobs.desk = azure_desk(emulator)
    batch = blobs.desk.wait(blobs.create(blob))
    assert blobs.desk.codes(batch) == [("input_no_permissions", None)]


def test_bad_lines_in_a_blob_are_named_as_those_of_a_file(blobs: BlobDesk) -> None:
    rows = blobs.desk.rows(3)
    rows[2]["custom_id"] = "r0"
    batch = blobs.desk.wait(blobs.create(blobs.put(rows)))
    assert blobs.desk.codes(batch) == [("duplicate_custom_id", 3)]


def test_a_cancelled_batch_leaves_its_part_in_the_folder(blobs: BlobDesk) -> None:
    blobs.desk.setting(processing_seconds=1_000)
    batch_id = blobs.create(blobs.put(blobs.desk.rows(10)))
    blobs.desk.wait(batch_id, "in_progress")
    blobs.desk.emulator.clock(advance=302)
    blobs.desk.until(batch_id, lambda batch: batch.request_counts is not None and batch.request_counts.completed == 3)
    blobs.desk.client.batches.cancel(batch_id)
    batch = blobs.desk.wait(batch_id)
    assert batch.status == "cancelled"
    assert len(blobs.lines(url_of(batch, "output"))) == 3


def test_late_lines_come_to_the_blob_as_well(blobs: BlobDesk) -> None:
    blobs.desk.emulator.faults([{"on": "row", "do": "late", "seconds": 100}])
    batch = blobs.desk.wait(blobs.create(blobs.put(blobs.desk.rows(3))))
    assert len(blobs.lines(url_of(batch, "output"))) == 2
    blobs.desk.emulator.clock(advance=101)
    blobs.desk.until(batch.id, lambda batch: len(blobs.lines(url_of(batch, "output"))) == 3)


def test_spaces_and_other_letters_in_names_are_kept(blobs: BlobDesk) -> None:
    name = "in dir/größe 1.jsonl"
    blob = blobs.put(blobs.desk.rows(2), name)
    batch = blobs.desk.wait(blobs.create(blob))
    assert batch.status == "completed"
