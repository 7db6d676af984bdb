"""Files of OpenAI and Azure OpenAI, through the openai SDK."""

from __future__ import annotations

import hashlib
import io
import time

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from servers.emulators import Emulator
from support.openai_desk import AZURE_EXPIRY, Desk, azure_desk, dated_desk, openai_desk

DAY = 86_400


@pytest.fixture(params=[openai_desk, azure_desk, dated_desk])
def desk(request: pytest.FixtureRequest, emulator: Emulator) -> Desk:
    return request.param(emulator)


def test_a_file_comes_back_as_it_went_up(desk: Desk) -> None:
    # Boundaries, line ends and text that looks like a form are data.
    data = b'--boundary\r\n\r\nContent-Disposition: form-data; name="purpose"\r\n' + bytes(range(256)) * 20_000
    file = desk.client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(data), "in.jsonl", "batch", "processed")
    assert hashlib.sha256(desk.content(file.id)).digest() == hashlib.sha256(data).digest()


def test_a_deleted_file_is_gone(desk: Desk) -> None:
    file_id = desk.upload(b"{}\n")
    assert desk.client.files.delete(file_id).deleted
    for call in (desk.client.files.retrieve, desk.client.files.content, desk.client.files.delete):
        with pytest.raises(NotFoundError):
            call(file_id)
    assert [file.id for file in desk.client.files.list()] == []


def test_files_are_listed_page_by_page_the_newest_first(desk: Desk) -> None:
    ids = [desk.upload(b"{}\n") for _ in range(5)]
    assert [file.id for file in desk.client.files.list(limit=2)] == ids[::-1]
    assert [file.id for file in desk.client.files.list(limit=2, order="asc")] == ids
    assert not list(desk.client.files.list(purpose="batch_output"))


def test_an_upload_needs_a_known_purpose_and_a_file(desk: Desk) -> None:
    with pytest.raises(BadRequestError, match="lunch"):
        desk.client.files.create(file=("a", b"{}"), purpose="lunch")  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match="multipart"):
        desk.client.post("/files", body={"purpose": "batch"}, cast_to=object)


def test_a_file_larger_than_the_limit_is_refused(desk: Desk) -> None:
    desk.setting(max_file_bytes=1_000)
    desk.upload(b"x" * 1_000)
    with pytest.raises(BadRequestError, match="too large"):
        desk.upload(b"x" * 1_001)


@pytest.mark.parametrize("seconds", [3_599, 2_592_001])
def test_openai_keeps_files_for_an_hour_to_thirty_days(emulator: Emulator, seconds: int) -> None:
    desk = openai_desk(emulator)
    with pytest.raises(BadRequestError, match=r"from 3600 to 2592000"):
        desk.upload(b"{}\n", expires_after={"anchor": "created_at", "seconds": seconds})


@pytest.mark.parametrize("seconds", [3_600, AZURE_EXPIRY - 1, 2_592_001])
def test_azure_keeps_files_for_two_weeks_to_thirty_days(emulator: Emulator, seconds: int) -> None:
    desk = azure_desk(emulator)
    with pytest.raises(BadRequestError, match=r"from 1209600 to 2592000"):
        desk.upload(b"{}\n", expires_after={"anchor": "created_at", "seconds": seconds})


def test_expiry_counts_from_the_creation_of_the_file_and_from_nothing_else(desk: Desk) -> None:
    with pytest.raises(BadRequestError, match="created_at"):
        desk.upload(b"{}\n", expires_after={"anchor": "last_used_at", "seconds": AZURE_EXPIRY})
    file = desk.client.files.create(
        file=("a.jsonl", b"{}\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": AZURE_EXPIRY}
    )
    assert file.expires_at == file.created_at + AZURE_EXPIRY


def test_a_file_whose_time_is_over_is_gone(desk: Desk) -> None:
    file_id = desk.upload(b"{}\n", expires_after={"anchor": "created_at", "seconds": AZURE_EXPIRY})
    desk.emulator.clock(advance=AZURE_EXPIRY - 60)
    assert desk.content(file_id) == b"{}\n"
    desk.emulator.clock(advance=61)
    with pytest.raises(NotFoundError):
        desk.client.files.retrieve(file_id)
    assert not list(desk.client.files.list())


def test_openai_keeps_a_batch_input_for_thirty_days_unasked(emulator: Emulator) -> None:
    desk = openai_desk(emulator)
    file = desk.client.files.retrieve(desk.upload(b"{}\n"))
    assert file.expires_at == file.created_at + 30 * DAY
    other = desk.client.files.create(file=("a.txt", b"x"), purpose="user_data")
    assert other.expires_at is None


def test_an_azure_resource_holds_500_input_files_and_more_only_with_an_expiry(emulator: Emulator) -> None:
    desk = azure_desk(emulator)
    for _ in range(500):
        desk.upload(b"{}\n")
    with pytest.raises(BadRequestError, match="limit of 500"):
        desk.upload(b"{}\n")
    last = desk.upload(b"{}\n", expires_after={"anchor": "created_at", "seconds": AZURE_EXPIRY})
    desk.client.files.delete(last)
    desk.client.files.delete(next(iter(desk.client.files.list(limit=1))).id)
    desk.upload(b"{}\n")


def test_a_file_may_have_to_be_processed_before_it_is_used(emulator: Emulator) -> None:
    desk = azure_desk(emulator)
    desk.setting(file_seconds=60)
    file_id = desk.upload(desk.rows(1))
    assert desk.client.files.retrieve(file_id).status == "pending"  # type: ignore[comparison-overlap]
    with pytest.raises(BadRequestError, match="not been processed"):
        desk.create(file_id)
    desk.emulator.clock(advance=61)
    assert desk.client.files.retrieve(file_id).status == "processed"
    assert desk.run(file_id).status == "completed"


def test_accounts_do_not_see_each_other(emulator: Emulator) -> None:
    desks = [openai_desk(emulator), azure_desk(emulator), azure_desk(emulator, "west"), azure_desk(emulator, "east")]
    ids = [desk.upload(b"{}\n") for desk in desks]
    for desk, file_id in zip(desks, ids, strict=True):
        assert [file.id for file in desk.client.files.list()] == [file_id]
    assert [file.id for file in dated_desk(emulator).client.files.list()] == [ids[1]]


@pytest.mark.parametrize(("key", "status"), [("", 401), ("invalid", 401), ("denied", 403)])
def test_a_missing_wrong_or_powerless_key_is_told_apart(emulator: Emulator, key: str, status: int) -> None:
    for path in ("/v1", "/openai/v1"):
        client = OpenAI(base_url=emulator.url + path, api_key=key or "none", max_retries=0)
        headers = {} if key else {"Authorization": ""}
        with pytest.raises(APIStatusError) as caught:
            client.files.list(extra_headers=headers)
        assert caught.value.status_code == status


def test_azure_takes_a_token_or_a_key(emulator: Emulator) -> None:
    tokens = iter(["first", "second"])
    client = OpenAI(base_url=f"{emulator.url}/openai/v1", api_key=lambda: next(tokens), max_retries=0)
    assert list(client.files.list()) == []
    assert list(dated_desk(emulator).client.files.list()) == []
    with pytest.raises(APIStatusError) as caught:
        list(dated_desk(emulator, key="denied").client.files.list())
    assert caught.value.status_code == 403


def test_a_dated_path_without_its_api_version_is_not_found(emulator: Emulator) -> None:
    client = OpenAI(base_url=f"{emulator.url}/openai", api_key="key", max_retries=0)
    with pytest.raises(NotFoundError, match="Resource not found"):
        client.files.list()


def test_two_hundred_megabytes_stay_on_disk_and_one_byte_more_is_refused(emulator: Emulator) -> None:
    import psutil

    desk = openai_desk(emulator)
    desk.upload(b"x" * 1_000)
    port = int(emulator.url.rsplit(":", 1)[1])
    process = next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp4")
        if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid
    )
    before = process.memory_info().rss
    size = 200_000_000
    began = time.monotonic()
    file = desk.client.files.create(file=("in.jsonl", _Zeros(size)), purpose="batch")
    assert file.bytes == size
    assert time.monotonic() - began < 120
    with desk.client.files.with_streaming_response.content(file.id) as answer:
        assert sum(len(part) for part in answer.iter_bytes(1 << 20)) == size
    with pytest.raises(BadRequestError, match="too large"):
        desk.client.files.create(file=("in.jsonl", _Zeros(size + 1)), purpose="batch")
    assert process.memory_info().rss - before < 40_000_000


class _Zeros(io.RawIOBase):
    """A file of that many zeros, which is nowhere."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = {0: 0, 1: self._at, 2: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._at
        taken = left if size < 0 else min(size, left)
        self._at += taken
        return bytes(taken)
