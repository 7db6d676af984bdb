"""What goes wrong at OpenAI and Azure OpenAI when the plan says so, and what is billed all the same."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import orjson
import pytest
from httpx2 import TransportError
from openai import APIConnectionError, BadRequestError, InternalServerError, NotFoundError, RateLimitError
from servers.emulators import Emulator
from support.openai_desk import Desk, azure_desk, chat_body, line, openai_desk


@pytest.fixture(params=[openai_desk, azure_desk])
def desk(request: pytest.FixtureRequest, emulator: Emulator) -> Desk:
    return request.param(emulator)


BEFORE = [("error_before", InternalServerError), ("reset_before", APIConnectionError), ("throttle", RateLimitError)]
AFTER = [("error_after", InternalServerError), ("reset_after", APIConnectionError)]


@pytest.mark.parametrize(("do", "error"), [*BEFORE, ("timeout_before", APIConnectionError)])
def test_a_create_that_fails_before_it_is_done_makes_no_batch(desk: Desk, do: str, error: type[Exception]) -> None:
    file_id = desk.upload(desk.rows(2))
    desk.emulator.faults([{"on": "create", "do": do, "seconds": 0.2}])
    with pytest.raises(error):
        desk.create(file_id)
    assert not list(desk.client.batches.list())
    assert desk.run(file_id).status == "completed"


@pytest.mark.parametrize(("do", "error"), [*AFTER, ("timeout_after", APIConnectionError)])
def test_a_create_that_fails_after_it_is_done_leaves_a_batch_that_runs(
    desk: Desk, do: str, error: type[Exception]
) -> None:
    file_id = desk.upload(desk.rows(2))
    desk.emulator.faults([{"on": "create", "do": do, "seconds": 0.2}])
    with pytest.raises(error):
        desk.create(file_id, metadata={"token": "t1"})
    [batch] = desk.client.batches.list()
    assert batch.metadata == {"token": "t1"}
    assert len(desk.answers(desk.wait(batch.id))) == 2


def test_the_sdk_pays_twice_for_a_create_that_fails_after_it_is_done(desk: Desk) -> None:
    file_id = desk.upload(desk.rows(2))
    desk.emulator.faults([{"on": "create", "do": "error_after"}])
    careless = desk.client.with_options(max_retries=2)
    careless.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    for batch in desk.client.batches.list():
        desk.wait(batch.id)
    assert (desk.emulator.bill()["records"], desk.emulator.bill()["most_billed"]) == (4, 2)


@pytest.mark.parametrize(("do", "error", "left"), [(*BEFORE[0], 0), (*BEFORE[1], 0), (*AFTER[0], 1), (*AFTER[1], 1)])
def test_an_upload_that_fails_leaves_a_file_only_where_it_was_done(
    desk: Desk, do: str, error: type[Exception], left: int
) -> None:
    desk.emulator.faults([{"on": "upload", "do": do}])
    with pytest.raises(error):
        desk.upload(b"{}\n")
    assert len(list(desk.client.files.list())) == left


def test_an_unknown_batch_once_is_there_the_next_time(desk: Desk) -> None:
    batch_id = desk.create(desk.rows(1))
    desk.emulator.faults([{"on": "get", "do": "not_found"}])
    with pytest.raises(NotFoundError):
        desk.get(batch_id)
    assert desk.get(batch_id).id == batch_id


def test_an_output_gone_once_is_there_the_next_time(desk: Desk) -> None:
    batch = desk.run(desk.rows(2))
    desk.emulator.faults([{"on": "download", "do": "not_found"}])
    with pytest.raises(NotFoundError):
        desk.content(batch.output_file_id)
    assert len(desk.answers(batch)) == 2


@pytest.mark.parametrize("do", ["reset_after", "timeout_after"])
def test_a_download_may_break_off_in_the_middle(desk: Desk, do: str) -> None:
    file_id = desk.upload(b"x" * 300_000)
    desk.emulator.faults([{"on": "download", "do": do, "seconds": 0.2}])
    got: list[int] = []

    def read() -> None:
        with desk.client.files.with_streaming_response.content(file_id) as answer:
            got.extend(len(part) for part in answer.iter_bytes(1_000))

    with pytest.raises(TransportError):
        read()
    assert 0 < sum(got) <= 150_000
    assert len(desk.content(file_id)) == 300_000


@pytest.mark.parametrize("point", ["get", "list", "cancel", "delete", "download"])
def test_every_call_can_fail(desk: Desk, point: str) -> None:
    desk.setting(processing_seconds=1_000)
    batch_id = desk.create(desk.rows(1))
    calls = {
        "get": lambda: desk.get(batch_id),
        "list": lambda: list(desk.client.batches.list()),
        "cancel": lambda: desk.client.batches.cancel(batch_id),
        "delete": lambda: desk.client.files.delete(desk.upload(b"{}\n")),
        "download": lambda: desk.content(desk.upload(b"{}\n")),
    }
    desk.emulator.faults([{"on": point, "do": "error_before", "times": 2}, {"on": point, "do": "throttle"}])
    for error in (InternalServerError, InternalServerError, RateLimitError):
        with pytest.raises(error):
            calls[point]()
    calls[point]()


def test_quota_may_be_said_to_be_full_for_a_while(desk: Desk) -> None:
    file_id = desk.upload(desk.rows(1))
    desk.emulator.faults([{"on": "create", "do": "quota", "times": 2}, {"on": "validate", "do": "quota"}])
    for _ in range(2):
        with pytest.raises(BadRequestError) as caught:
            desk.create(file_id)
        assert caught.value.code == "token_limit_exceeded"
    assert desk.codes(desk.run(file_id)) == [("token_limit_exceeded", None)]
    assert desk.run(file_id).status == "completed"


@pytest.mark.parametrize(("do", "status"), [("row_error", 400), ("row_server_error", 500), ("row_throttled", 429)])
def test_a_row_may_be_rejected_unbilled(desk: Desk, do: str, status: int) -> None:
    desk.emulator.faults([{"on": "row", "do": do, "times": 2}])
    batch = desk.run(desk.rows(5))
    assert [error["response"]["status_code"] for error in desk.errors(batch)] == [status] * 2
    assert len(desk.answers(batch)) == 3
    assert len(desk.emulator.charges(batch.id)) == 3


def test_a_row_may_expire_alone(desk: Desk) -> None:
    desk.emulator.faults([{"on": "row", "do": "row_expired"}])
    batch = desk.run(desk.rows(3))
    [error] = desk.errors(batch)
    assert (batch.status, error["response"], error["error"]["code"]) == ("completed", None, "batch_expired")
    assert len(desk.emulator.charges(batch.id)) == 2


def test_a_poisoned_text_fails_every_time(desk: Desk) -> None:
    desk.emulator.faults([{"on": "row", "do": "poison", "times": "forever", "match": {"text": "document 2."}}])
    for _ in range(2):
        [error] = desk.errors(desk.run(desk.rows(4)))
        assert (error["custom_id"], error["response"]["status_code"]) == ("r2", 500)


def test_lost_duplicate_truncated_and_malformed_lines_are_billed_once(desk: Desk) -> None:
    rules = [
        {"on": "row", "do": do, "match": {"text": f"document {number}."}}
        for number, do in enumerate(("lose", "duplicate", "truncate", "malform"), 1)
    ]
    desk.emulator.faults(rules)
    batch = desk.run(desk.rows(6))
    assert batch.request_counts
    assert batch.request_counts.completed == 6
    good, broken = Counter[str](), 0
    for one in desk.content(batch.output_file_id).splitlines():
        try:
            good[orjson.loads(one)["custom_id"]] += 1
        except ValueError:
            broken += 1
    assert (good, broken) == ({"r0": 1, "r2": 2, "r5": 1}, 2)
    assert Counter(charge["record_id"] for charge in desk.emulator.charges(batch.id)) == {
        f"r{number}": 1 for number in range(6)
    }


def test_late_lines_come_some_time_after_the_end(desk: Desk) -> None:
    desk.emulator.faults(
        [
            {"on": "row", "do": "late", "seconds": 500, "match": {"text": "document 1."}},
            {"on": "row", "do": "late", "seconds": 100, "match": {"text": "document 2."}},
        ]
    )
    batch = desk.run(desk.rows(3))
    file_id = batch.output_file_id or ""

    def seen(count: int) -> list[str]:
        deadline = time.monotonic() + 20
        while len(answers := desk.answers(batch)) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return [answer["custom_id"] for answer in answers]

    assert seen(1) == ["r0"]
    desk.emulator.clock(advance=101)
    assert seen(2) == ["r0", "r2"]
    desk.emulator.clock(advance=400)
    assert seen(3) == ["r0", "r2", "r1"]
    assert desk.client.files.retrieve(file_id).bytes == len(desk.content(file_id))
    assert len(desk.emulator.charges(batch.id)) == 3


def test_a_whole_output_may_be_late(desk: Desk) -> None:
    desk.emulator.faults([{"on": "output", "do": "late", "seconds": 100}])
    batch = desk.run(desk.rows(2))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    desk.emulator.clock(advance=101)
    assert len(desk.answers(desk.until(batch.id, lambda batch: bool(batch.output_file_id)))) == 2


def test_refusals_are_rejected_filtered_or_said_by_the_model(desk: Desk) -> None:
    desk.emulator.faults(
        [
            {"on": "row", "do": "refuse", "match": {"text": "document 0."}},
            {"on": "row", "do": "refuse", "code": "refusal", "match": {"text": "document 1."}},
            {"on": "row", "do": "refuse", "code": "finish_reason", "match": {"text": "document 2."}},
        ]
    )
    batch = desk.run(desk.rows(3))
    [error] = desk.errors(batch)
    assert (error["custom_id"], error["response"]["status_code"], error["error"]) == ("r0", 400, None)
    assert error["response"]["body"]["error"]["code"] == "content_filter"
    choices = {answer["custom_id"]: answer["response"]["body"]["choices"][0] for answer in desk.answers(batch)}
    assert choices["r1"]["message"]["refusal"]
    assert choices["r2"]["finish_reason"] == "content_filter"
    assert len(desk.emulator.charges(batch.id)) == 2


def test_an_answer_may_miss_the_form_that_was_asked_for(desk: Desk) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
    rows = [line(f"r{n}", chat_body(f"Document {n}.", desk.model, response_format=form)) for n in range(3)]
    desk.emulator.faults([{"on": "row", "do": "invalid", "match": {"text": "Document 1."}}])
    fits: dict[str, Any] = {}
    for answer in desk.answers(desk.run(rows)):
        try:
            fits[answer["custom_id"]] = orjson.loads(answer["response"]["body"]["choices"][0]["message"]["content"])
        except ValueError:
            fits[answer["custom_id"]] = None
    assert fits == {"r0": {}, "r1": None, "r2": {}}


def test_validation_may_fail_with_any_code(desk: Desk) -> None:
    desk.emulator.faults([{"on": "validate", "do": "fail_validation", "code": "model_mismatch"}])
    assert desk.codes(desk.run(desk.rows(2))) == [("model_mismatch", 1)]
    assert desk.emulator.bill()["records"] == 0


def test_a_batch_may_fail_before_anything_is_answered(desk: Desk) -> None:
    desk.emulator.faults([{"on": "process", "do": "fail"}])
    batch = desk.run(desk.rows(2))
    assert (batch.status, desk.codes(batch)) == ("failed", [("server_error", None)])
    assert desk.emulator.bill()["records"] == 0


def test_a_failed_batch_may_have_an_output_file(desk: Desk) -> None:
    desk.emulator.faults([{"on": "process", "do": "partial"}])
    batch = desk.run(desk.rows(10))
    assert batch.status == "failed"
    assert len(desk.answers(batch)) == 5
    assert len(desk.emulator.charges(batch.id)) == 5


def test_a_batch_may_expire_on_azure_as_well(desk: Desk) -> None:
    desk.emulator.faults([{"on": "process", "do": "expire"}])
    batch = desk.run(desk.rows(10))
    assert batch.status == "expired"
    assert {error["error"]["code"] for error in desk.errors(batch)} == {"batch_expired"}
    answered = {answer["custom_id"] for answer in desk.answers(batch)}
    assert len(answered) == len(desk.errors(batch)) == 5
    assert {charge["record_id"] for charge in desk.emulator.charges(batch.id)} == answered


@pytest.mark.parametrize("point", ["validate", "process", "output"])
def test_a_stage_may_be_slow(desk: Desk, point: str) -> None:
    desk.emulator.faults([{"on": point, "do": "slow", "seconds": 5_000}])
    batch_id = desk.create(desk.rows(2))
    stage = {"validate": "validating", "process": "in_progress", "output": "finalizing"}[point]
    desk.wait(batch_id, stage)
    desk.emulator.clock(advance=4_000)
    time.sleep(0.3)
    assert desk.get(batch_id).status == stage
    desk.emulator.clock(advance=1_010)
    assert desk.wait(batch_id).status == "completed"


def test_a_batch_may_stop_late(desk: Desk) -> None:
    desk.setting(processing_seconds=100_000)
    batch_id = desk.create(desk.rows(2))
    desk.wait(batch_id, "in_progress")
    desk.emulator.faults([{"on": "cancel", "do": "stop_late", "seconds": 500}])
    desk.client.batches.cancel(batch_id)
    desk.emulator.clock(advance=400)
    time.sleep(0.3)
    assert desk.get(batch_id).status == "cancelling"
    desk.emulator.clock(advance=110)
    assert desk.wait(batch_id).status == "cancelled"


def test_an_answer_about_a_batch_may_take_other_forms(desk: Desk) -> None:
    batch = desk.run(desk.rows(2))
    forms = [{"on": "get", "do": "upper_case"}, {"on": "get", "do": "iso_times"}]
    desk.emulator.faults([*forms, {"on": "get", "do": "skew", "seconds": -7_200}])
    assert desk.get(batch.id).status == "Completed"  # type: ignore[comparison-overlap]
    assert str(desk.get(batch.id).completed_at).endswith("+00:00")
    assert desk.get(batch.id).completed_at == (batch.completed_at or 0) - 7_200
    assert desk.get(batch.id) == batch
    desk.emulator.faults([{"on": ["get", "list"], "do": "empty_file_ids", "times": 2}])
    assert desk.get(batch.id).error_file_id == ""
    assert [one.error_file_id for one in desk.client.batches.list()] == [""]
    assert desk.get(batch.id).output_file_id == batch.output_file_id


def test_chance_depends_on_the_seed_and_the_record_alone(desk: Desk) -> None:
    def struck(seed: int) -> set[str]:
        desk.emulator.faults([{"on": "row", "do": "row_error", "rate": 0.3, "times": "forever"}], seed=seed)
        return {error["custom_id"] for error in desk.errors(desk.run(desk.rows(40)))}

    first = struck(1)
    assert 3 < len(first) < 25
    assert struck(1) == first
    assert struck(2) != first
