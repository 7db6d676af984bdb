"""Batches of OpenAI and Azure OpenAI from creation to their end, through the openai SDK."""

from __future__ import annotations

import time
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, RateLimitError
from servers.emulators import Emulator
from support.openai_desk import AZURE_EXPIRY, Desk, azure_desk, chat_body, dated_desk, line, openai_desk

DAY = 86_400


@pytest.fixture(params=[openai_desk, azure_desk, dated_desk])
def desk(request: pytest.FixtureRequest, emulator: Emulator) -> Desk:
    return request.param(emulator)


@pytest.fixture
def openai(emulator: Emulator) -> Desk:
    return openai_desk(emulator)


@pytest.fixture
def azure(emulator: Emulator) -> Desk:
    return azure_desk(emulator)


def bad_body(text: str) -> dict[str, Any]:
    return {**chat_body(text), "colour": "green"}


def test_every_request_is_answered_and_billed_once(desk: Desk) -> None:
    batch = desk.run(desk.rows(30))
    assert batch.status == "completed"
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {"total": 30, "completed": 30, "failed": 0}
    answers = desk.answers(batch)
    assert sorted(answer["custom_id"] for answer in answers) == sorted(f"r{number}" for number in range(30))
    assert {answer["response"]["status_code"] for answer in answers} == {200}
    charges = desk.emulator.charges(batch.id)
    assert sorted(charge["record_id"] for charge in charges) == sorted(answer["custom_id"] for answer in answers)
    assert {charge["tier"] for charge in charges} == {"batch"}
    for name, billed in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        told = {answer["custom_id"]: answer["response"]["body"]["usage"][name] for answer in answers}
        assert told == {charge["record_id"]: charge[billed] for charge in charges}


def test_answers_come_in_an_order_of_their_own(desk: Desk) -> None:
    ids = [answer["custom_id"] for answer in desk.answers(desk.run(desk.rows(40)))]
    assert ids != [f"r{number}" for number in range(40)]


def test_a_batch_goes_through_its_states_by_the_clock(openai: Desk) -> None:
    openai.setting(validating_seconds=100, processing_seconds=1_000, finalizing_seconds=100)
    batch_id = openai.create(openai.rows(10))
    batch = openai.get(batch_id)
    assert (batch.status, batch.in_progress_at, batch.request_counts and batch.request_counts.total) == (
        "validating",
        None,
        0,
    )
    openai.emulator.clock(advance=101)
    assert openai.wait(batch_id, "in_progress").request_counts
    openai.emulator.clock(advance=501)
    half = openai.until(batch_id, lambda batch: batch.request_counts is not None and batch.request_counts.completed > 3)
    assert half.status == "in_progress"
    assert half.request_counts
    assert half.request_counts.to_dict() == {"total": 10, "completed": 5, "failed": 0}
    assert half.output_file_id is None
    openai.emulator.clock(advance=500)
    assert openai.wait(batch_id, "finalizing").output_file_id is None
    openai.emulator.clock(advance=101)
    done = openai.wait(batch_id, "completed")
    assert done.in_progress_at
    assert done.finalizing_at
    assert done.completed_at
    assert done.created_at < done.in_progress_at < done.finalizing_at < done.completed_at
    assert done.expires_at == done.created_at + DAY


def test_usage_of_a_batch_is_its_bill(openai: Desk) -> None:
    rows = openai.rows(40, lambda text: chat_body(text, "gpt-5"))
    rows += [line("bad", bad_body("x") | {"model": "gpt-5"})]
    batch = openai.run(rows)
    charges = openai.emulator.charges(batch.id)
    assert batch.usage
    assert (batch.model, len(charges)) == ("gpt-5", 40)
    assert batch.usage.input_tokens == sum(charge["input_tokens"] for charge in charges)
    assert batch.usage.output_tokens == sum(charge["output_tokens"] for charge in charges)
    assert batch.usage.input_tokens_details.cached_tokens == sum(charge["cached_tokens"] for charge in charges) > 0
    reasoning = sum(charge["reasoning_tokens"] for charge in charges)
    assert batch.usage.output_tokens_details.reasoning_tokens == reasoning > 0
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens


def test_azure_tells_no_usage_unless_it_is_set(azure: Desk) -> None:
    assert azure.run(azure.rows(2)).usage is None
    azure.setting(azure_usage=True)
    batch = azure.run(azure.rows(2))
    assert batch.usage
    assert batch.usage.input_tokens == sum(charge["input_tokens"] for charge in azure.emulator.charges(batch.id))


def test_rejected_rows_stand_in_the_error_file_inside_their_response(desk: Desk) -> None:
    rows = desk.rows(3)
    rows[1]["body"]["colour"] = "green"
    batch = desk.run(rows)
    assert batch.status == "completed"
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    assert sorted(answer["custom_id"] for answer in desk.answers(batch)) == ["r0", "r2"]
    [error] = desk.errors(batch)
    assert (error["custom_id"], error["error"], error["response"]["status_code"]) == ("r1", None, 400)
    assert error["response"]["body"]["error"]["code"] == "unknown_parameter"
    assert len(desk.emulator.charges(batch.id)) == 2


def test_openai_lines_have_an_id_and_azure_lines_have_none(openai: Desk, azure: Desk) -> None:
    assert all(answer["id"].startswith("batch_req_") for answer in openai.answers(openai.run(openai.rows(2))))
    assert all("id" not in answer for answer in azure.answers(azure.run(azure.rows(2))))


def test_openai_makes_no_file_where_there_is_nothing_to_write(openai: Desk) -> None:
    batch = openai.run(openai.rows(2))
    assert batch.error_file_id is None
    batch = openai.run(openai.rows(2, bad_body))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(openai.errors(batch)) == 2


@pytest.mark.parametrize(("setting", "expected"), [("blank", ""), ("null", None)])
def test_azure_has_an_error_file_without_errors(azure: Desk, setting: str, expected: str | None) -> None:
    batch = azure.run(azure.rows(2))
    assert batch.error_file_id
    assert azure.content(batch.error_file_id) == b""
    azure.setting(empty_error_file=setting)
    assert azure.run(azure.rows(2)).error_file_id == expected


def test_every_create_makes_a_new_batch(desk: Desk) -> None:
    file_id = desk.upload(desk.rows(2))
    options = {"metadata": {"token": "same"}, "extra_headers": {"Idempotency-Key": "same"}}
    first, second = (desk.create(file_id, **options) for _ in range(2))
    assert first != second
    desk.wait(first)
    desk.wait(second)
    assert len(list(desk.client.batches.list())) == 2
    bill = desk.emulator.bill()
    assert (bill["records"], bill["requests"], bill["most_billed"]) == (4, 2, 2)


def test_the_same_question_asked_of_two_deployments_is_seen_on_the_bill(emulator: Emulator) -> None:
    west, east = azure_desk(emulator, "west"), azure_desk(emulator, "east")
    east.setting(resources={"east": {"deployments": {"other": {"model": "gpt-4o-mini"}}}})
    east.model = "other"
    for desk in (west, east):
        assert desk.run(desk.rows(3)).status == "completed"
    assert emulator.bill()["most_billed"] == 2
    assert {charge["account"] for charge in emulator.charges()} == {"azure/west", "azure/east"}


def test_only_a_window_of_24_hours_is_taken(desk: Desk) -> None:
    with pytest.raises(BadRequestError, match="24h"):
        desk.create(desk.rows(1), completion_window="1h")


def test_only_known_endpoints_are_taken(openai: Desk, azure: Desk) -> None:
    with pytest.raises(BadRequestError, match="Invalid value: '/v1/lunch'"):
        openai.create(openai.rows(1), endpoint="/v1/lunch")
    with pytest.raises(BadRequestError, match="Invalid value: '/chat/completions'"):
        openai.create(openai.rows(1), endpoint="/chat/completions")
    with pytest.raises(BadRequestError, match="Invalid value: '/v1/embeddings'"):
        azure.create(azure.rows(1), endpoint="/v1/embeddings")
    assert azure.run(azure.rows(1), endpoint="/chat/completions").status == "completed"


@pytest.mark.parametrize(
    "metadata", [{f"k{number}": "v" for number in range(17)}, {"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}]
)
def test_metadata_has_limits(desk: Desk, metadata: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="metadata"):
        desk.create(desk.rows(1), metadata=metadata)


def test_metadata_comes_back(desk: Desk) -> None:
    metadata = {f"{number:064}": "v" * 512 for number in range(16)}
    batch_id = desk.create(desk.rows(1), metadata=metadata)
    assert desk.get(batch_id).metadata == metadata
    assert [batch.metadata for batch in desk.client.batches.list()] == [metadata]


def test_what_does_not_exist_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFoundError):
        desk.create("file-none")
    with pytest.raises(NotFoundError):
        desk.get("batch_none")
    with pytest.raises(NotFoundError):
        desk.client.batches.cancel("batch_none")


def test_a_batch_needs_a_file_of_its_purpose(desk: Desk) -> None:
    other = desk.client.files.create(file=("in.jsonl", b"{}\n"), purpose="user_data")
    with pytest.raises(BadRequestError, match="purpose"):
        desk.create(other.id)
    with pytest.raises(BadRequestError, match="input_file_id"):
        desk.create("")


def test_batches_are_listed_page_by_page_the_newest_first(desk: Desk) -> None:
    file_id = desk.upload(desk.rows(1))
    ids = [desk.create(file_id) for _ in range(5)]
    page = desk.client.batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == (ids[:2:-1], True)
    assert [batch.id for batch in page] == ids[::-1]
    assert not list(desk.client.batches.list(after=ids[0]))
    for limit in (0, 101):
        with pytest.raises(BadRequestError, match="limit"):
            desk.client.batches.list(limit=limit)


def test_a_new_batch_may_be_missing_from_the_list_for_a_while(desk: Desk) -> None:
    desk.setting(visible_after=60)
    batch_id = desk.create(desk.rows(1))
    assert desk.get(batch_id).id == batch_id
    assert not list(desk.client.batches.list())
    desk.emulator.clock(advance=60)
    assert [batch.id for batch in desk.client.batches.list()] == [batch_id]


def test_a_cancelled_batch_keeps_and_bills_what_was_answered(desk: Desk) -> None:
    desk.setting(processing_seconds=1_000, cancelling_seconds=300)
    batch_id = desk.create(desk.rows(10))
    desk.wait(batch_id, "in_progress")
    desk.emulator.clock(advance=402)
    desk.until(batch_id, lambda batch: batch.request_counts is not None and batch.request_counts.completed == 4)
    cancelling = desk.client.batches.cancel(batch_id)
    assert (cancelling.status, cancelling.output_file_id) == ("cancelling", None)
    assert desk.client.batches.cancel(batch_id).status == "cancelling"
    desk.emulator.clock(advance=301)
    batch = desk.wait(batch_id)
    assert (batch.status, bool(batch.cancelling_at), bool(batch.cancelled_at)) == ("cancelled", True, True)
    answers = desk.answers(batch)
    assert len(answers) == 4
    assert len(desk.emulator.charges(batch_id)) == 4
    with pytest.raises(APIStatusError) as caught:
        desk.client.batches.cancel(batch_id)
    assert caught.value.status_code == 409


def test_a_batch_cancelled_before_it_began_costs_nothing(desk: Desk) -> None:
    desk.setting(validating_seconds=1_000)
    batch_id = desk.create(desk.rows(3))
    desk.client.batches.cancel(batch_id)
    assert desk.wait(batch_id).status == "cancelled"
    assert desk.emulator.bill()["records"] == 0


def test_openai_batches_expire_after_a_day_with_what_was_answered(openai: Desk) -> None:
    openai.setting(processing_seconds=2 * DAY)
    batch_id = openai.create(openai.rows(10))
    openai.wait(batch_id, "in_progress")
    openai.emulator.clock(advance=DAY + 10)
    batch = openai.wait(batch_id)
    assert (batch.status, bool(batch.expired_at), batch.completed_at) == ("expired", True, None)
    answered = {answer["custom_id"] for answer in openai.answers(batch)}
    errors = openai.errors(batch)
    assert 3 <= len(answered) <= 5
    assert answered | {error["custom_id"] for error in errors} == {f"r{number}" for number in range(10)}
    assert {(error["response"], error["error"]["code"]) for error in errors} == {(None, "batch_expired")}
    assert {charge["record_id"] for charge in openai.emulator.charges(batch_id)} == answered
    assert batch.request_counts
    assert batch.request_counts.completed + batch.request_counts.failed == batch.request_counts.total == 10


def test_azure_batches_run_on_after_a_day(azure: Desk) -> None:
    azure.setting(processing_seconds=2 * DAY)
    batch_id = azure.create(azure.rows(10))
    azure.wait(batch_id, "in_progress")
    azure.emulator.clock(advance=DAY + 10)
    time.sleep(0.3)
    assert azure.get(batch_id).status == "in_progress"
    azure.emulator.clock(advance=DAY + 10)
    batch = azure.wait(batch_id)
    assert (batch.status, len(azure.answers(batch))) == ("completed", 10)


def test_outputs_go_after_thirty_days_at_openai(openai: Desk) -> None:
    batch = openai.run(openai.rows(2))
    openai.emulator.clock(advance=30 * DAY + 1)
    with pytest.raises(NotFoundError):
        openai.content(batch.output_file_id)


def test_outputs_expire_when_the_batch_says_so_counted_from_their_own_creation(desk: Desk) -> None:
    policy = {"anchor": "created_at", "seconds": AZURE_EXPIRY}
    desk.setting(finalizing_seconds=1_000)
    batch_id = desk.create(desk.rows(2), extra_body={"output_expires_after": policy})
    desk.wait(batch_id, "finalizing")
    desk.emulator.clock(advance=1_001)
    batch = desk.wait(batch_id)
    file = desk.client.files.retrieve(batch.output_file_id or "")
    assert file.expires_at == file.created_at + AZURE_EXPIRY
    assert file.created_at >= batch.created_at + 1_000
    with pytest.raises(BadRequestError, match="output_expires_after"):
        desk.create(desk.rows(1), extra_body={"output_expires_after": {"anchor": "created_at", "seconds": 60}})


def test_an_input_deleted_in_mid_run_does_not_stop_the_batch(desk: Desk) -> None:
    desk.setting(validating_seconds=0.3)
    file_id = desk.upload(desk.rows(5))
    batch_id = desk.create(file_id)
    desk.client.files.delete(file_id)
    assert len(desk.answers(desk.wait(batch_id))) == 5


@pytest.mark.slow
def test_openai_takes_two_thousand_batches_an_hour(openai: Desk) -> None:
    openai.setting(validating_seconds=0)
    file_id = openai.upload(b"")
    for _ in range(2_000):
        openai.create(file_id)
    with pytest.raises(RateLimitError) as caught:
        openai.create(file_id)
    assert caught.value.response.headers["retry-after"] == "3600"
    openai.emulator.clock(advance=3_601)
    assert openai.create(file_id)


def test_responses_are_batched_as_well(openai: Desk, azure: Desk) -> None:
    for desk in (openai, azure):
        body = {"model": desk.model, "input": "What is Visual Basic? Say it.", "instructions": "Be brief."}
        batch = desk.run([line("a", body, "/v1/responses")], endpoint="/v1/responses")
        [answer] = desk.answers(batch)
        assert answer["response"]["body"]["output"][0]["content"][0]["text"] == "What is Visual Basic? Say it."
        usage = answer["response"]["body"]["usage"]
        [charge] = desk.emulator.charges(batch.id)
        assert (usage["input_tokens"], usage["output_tokens"]) == (charge["input_tokens"], charge["output_tokens"])


def test_azure_may_write_states_and_times_as_its_older_samples_do(azure: Desk) -> None:
    azure.setting(upper_case=True, iso_times=True, validating_seconds=100)
    batch_id = azure.create(azure.rows(1))
    batch = azure.get(batch_id)
    assert batch.status == "Validating"  # type: ignore[comparison-overlap]
    assert "T" in str(batch.created_at)
    assert batch.request_counts
    assert batch.request_counts.total is None
    azure.emulator.clock(advance=101)
    assert azure.wait(batch_id, "Completed").output_file_id


def test_a_reset_forgets_everything(desk: Desk) -> None:
    desk.setting(processing_seconds=1_000)
    batch_id = desk.create(desk.rows(3))
    desk.wait(batch_id, "in_progress")
    desk.emulator.reset()
    with pytest.raises(NotFoundError):
        desk.get(batch_id)
    assert desk.emulator.bill()["records"] == 0
    assert not list(desk.client.files.list())
