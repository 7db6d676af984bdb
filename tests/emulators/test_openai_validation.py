"""What makes a batch fail in validation, and the quota of enqueued tokens, through the openai SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from openai import BadRequestError
from servers.emulators import Emulator
from support.openai_desk import Desk, azure_desk, chat_body, dated_desk, jsonl, line, openai_desk

from lowtide.emulators.openai.quota import limit_of
from lowtide.emulators.openai.rules import AZURE
from lowtide.emulators.openai.settings import Settings
from lowtide.emulators.openai.state import Account


@pytest.fixture(params=[openai_desk, azure_desk, dated_desk])
def desk(request: pytest.FixtureRequest, emulator: Emulator) -> Desk:
    return request.param(emulator)


@pytest.fixture
def openai(emulator: Emulator) -> Desk:
    return openai_desk(emulator)


@pytest.fixture
def azure(emulator: Emulator) -> Desk:
    return azure_desk(emulator)


def changed(lines: list[dict[str, Any]], number: int, **changes: object) -> list[dict[str, Any]]:
    """The lines with one of them changed; None leaves a key out."""
    one = {**lines[number], **changes}
    lines[number] = {name: value for name, value in one.items() if value is not None}
    return lines


def test_a_batch_is_validating_before_it_fails(desk: Desk) -> None:
    desk.setting(validating_seconds=100)
    batch_id = desk.create(b"no json\n")
    assert desk.get(batch_id).status == "validating"
    desk.emulator.clock(advance=101)
    batch = desk.wait(batch_id)
    assert (batch.status, bool(batch.failed_at), batch.in_progress_at) == ("failed", True, None)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert desk.emulator.bill()["records"] == 0


@pytest.mark.parametrize("bad", [b"{", b"[]", b"", b'"text"', b'{"custom_id": "\xff"}', b"\xef\xbb\xbf{}"])
def test_a_line_that_is_no_json_object_is_named(desk: Desk, bad: bytes) -> None:
    data = jsonl(desk.rows(2)) + bad + b"\n" + jsonl([line("z", chat_body("Z.", desk.model))])
    batch = desk.run(data)
    assert (batch.status, desk.codes(batch)) == ("failed", [("invalid_json_line", 3)])


def test_every_bad_line_is_named(desk: Desk) -> None:
    batch = desk.run(b"{\n" * 3)
    assert desk.codes(batch) == [("invalid_json_line", number) for number in (1, 2, 3)]


def test_the_last_line_needs_no_line_end(desk: Desk) -> None:
    assert len(desk.answers(desk.run(jsonl(desk.rows(3)).rstrip(b"\n")))) == 3


def test_an_empty_file_is_no_batch(desk: Desk) -> None:
    assert desk.codes(desk.run(b"")) == [("empty_file", None)]


def test_a_byte_order_mark_is_invalid(openai: Desk, azure: Desk) -> None:
    for desk, code in ((openai, ("invalid_json_line", 1)), (azure, ("invalid_request", None))):
        batch = desk.run(b"\xef\xbb\xbf" + jsonl(desk.rows(2)))
        assert desk.codes(batch) == [code]
        assert batch.errors
        assert batch.errors.data
        assert desk is openai or "valid model deployment name couldn't be extracted" in str(batch.errors.data[0])


def test_a_custom_id_may_stand_once(desk: Desk) -> None:
    batch = desk.run(changed(desk.rows(4), 3, custom_id="r1"))
    assert desk.codes(batch) == [("duplicate_custom_id", 4)]


def test_a_custom_id_is_required(openai: Desk, azure: Desk) -> None:
    for desk, code in ((openai, "missing_required_parameter"), (azure, "invalid_request")):
        for custom_id in (None, "", 7):
            assert desk.codes(desk.run(changed(desk.rows(2), 1, custom_id=custom_id))) == [(code, 2)]


def test_the_method_is_post(openai: Desk, azure: Desk) -> None:
    for desk, code in ((openai, "invalid_method"), (azure, "invalid_request")):
        assert desk.codes(desk.run(changed(desk.rows(2), 1, method="GET"))) == [(code, 2)]


def test_a_body_is_an_object_with_a_model(desk: Desk) -> None:
    assert desk.codes(desk.run(changed(desk.rows(2), 1, body="text"))) == [("invalid_request", 2)]
    assert desk.codes(desk.run(changed(desk.rows(2), 1, body={"messages": []}))) == [("invalid_request", 2)]


def test_all_lines_name_the_endpoint_of_the_batch(openai: Desk) -> None:
    assert openai.codes(openai.run(changed(openai.rows(2), 1, url="/v1/responses"))) == [("url_mismatch", 2)]
    assert openai.codes(openai.run(openai.rows(1), endpoint="/v1/responses")) == [("url_mismatch", 1)]


def test_azure_reads_the_url_from_the_file_and_compares_lines_with_each_other(azure: Desk) -> None:
    assert azure.run(azure.rows(1), endpoint="/v1/responses").status == "completed"
    assert azure.codes(azure.run(changed(azure.rows(3), 2, url="/chat/completions"))) == [("url_mismatch", 3)]
    assert azure.codes(azure.run(changed(azure.rows(1), 0, url="/v1/lunch"))) == [("url_mismatch", 1)]


def test_the_model_must_exist(openai: Desk, azure: Desk) -> None:
    # Azure knows deployments, and the model's own name is one only if somebody called it so.
    for desk, name in ((openai, "gpt-99"), (openai, "gpt-4o-mini-batch"), (azure, "none")):
        batch = desk.run([line("a", chat_body("A.", name))])
        assert desk.codes(batch) == [("model_not_found", 1)]
        assert batch.errors
        assert batch.errors.data
        assert batch.errors.data[0].param == "body.model"


def test_a_deployment_for_synchronous_calls_takes_no_batch(azure: Desk) -> None:
    azure.setting(deployments={"mine": {"model": "gpt-4.1", "sku": "datazonebatch"}})
    assert azure.run([line("a", chat_body("A.", "mine"))]).status == "completed"
    assert azure.codes(azure.run([line("a", chat_body("A.", "gpt-4o-mini"))])) == [("invalid_request", 1)]


def test_all_lines_ask_the_same_model(openai: Desk, azure: Desk) -> None:
    for desk, other in ((openai, "gpt-4.1"), (azure, "gpt-4.1-batch"), (azure, "none")):
        batch = desk.run(changed(desk.rows(3), 2, body=chat_body("B.", other)))
        assert desk.codes(batch) == [("model_mismatch", 3)]


def test_openai_takes_fifty_thousand_requests_and_azure_twice_as_many(openai: Desk, azure: Desk) -> None:
    def lines(desk: Desk, count: int) -> bytes:
        body = orjson.dumps(chat_body("A.", desk.model))
        one = b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":%b}\n'
        return b"".join(one % (number, body) for number in range(count))

    for desk, most in ((openai, 50_000), (azure, 100_000)):
        # Valid ones would be answered: one bad line says that they have all been counted.
        assert desk.codes(desk.run(lines(desk, most - 1) + b"{\n")) == [("invalid_json_line", most)]
        assert desk.codes(desk.run(lines(desk, most) + b"{\n")) == [("too_many_tasks", None)]


@pytest.mark.parametrize(("count", "status"), [(3, "completed"), (4, "failed")])
def test_the_limit_of_requests_can_be_set(desk: Desk, count: int, status: str) -> None:
    desk.setting(max_requests=3)
    assert desk.run(desk.rows(count)).status == status


def tokens_of(desk: Desk, rows: list[dict[str, Any]]) -> int:
    """Prompt tokens of these rows, as the bill has them."""
    batch = desk.run(rows)
    return sum(charge["input_tokens"] for charge in desk.emulator.charges(batch.id))


def limited(desk: Desk, tokens: int) -> None:
    """Set the quota of what the desk's batches ask for."""
    if desk.is_azure:
        desk.setting(deployments={desk.model: {"model": "gpt-4o-mini", "enqueued_tokens": tokens}})
    else:
        desk.setting(enqueued_tokens={desk.model: tokens})


def test_a_batch_over_quota_is_made_and_then_fails(desk: Desk) -> None:
    rows = desk.rows(5)
    tokens = tokens_of(desk, rows)
    limited(desk, tokens)
    assert desk.run(rows).status == "completed"
    limited(desk, tokens - 1)
    batch = desk.run(rows)
    assert (batch.status, desk.codes(batch)) == ("failed", [("token_limit_exceeded", None)])
    assert batch.errors
    assert batch.errors.data
    assert "Enqueued token limit reached for" in (batch.errors.data[0].message or "")


def test_tokens_count_while_they_are_queued_or_running(desk: Desk) -> None:
    rows = desk.rows(5)
    limited(desk, tokens_of(desk, rows))
    desk.setting(processing_seconds=1_000, cancelling_seconds=0)
    first = desk.create(rows)
    desk.wait(first, "in_progress")
    assert desk.codes(desk.run(rows)) == [("token_limit_exceeded", None)]
    desk.client.batches.cancel(first)
    desk.wait(first)
    second = desk.create(rows)
    assert desk.wait(second, "in_progress", "failed").status == "in_progress"


def test_a_region_that_fails_fast_refuses_at_create(azure: Desk) -> None:
    rows = azure.rows(5)
    limited(azure, tokens_of(azure, rows))
    azure.setting(fail_fast=True, processing_seconds=1_000, validating_seconds=500)
    first = azure.create(rows)
    with pytest.raises(BadRequestError, match="Enqueued token limit") as caught:
        azure.create(rows)
    assert caught.value.code == "token_limit_exceeded"
    assert [batch.id for batch in azure.client.batches.list() if batch.status != "completed"] == [first]
    azure.emulator.clock(advance=501)
    azure.wait(first, "in_progress")
    azure.emulator.clock(advance=1_001)
    assert azure.wait(first).status == "completed"
    assert azure.create(rows)


def test_each_deployment_and_each_resource_has_a_quota_of_its_own(emulator: Emulator) -> None:
    west, east = azure_desk(emulator, "west"), azure_desk(emulator, "east")
    rows = west.rows(3)
    tokens = tokens_of(west, rows)
    mine = {"model": "gpt-4o-mini", "enqueued_tokens": tokens}
    west.setting(
        processing_seconds=1_000,
        resources={
            "west": {"deployments": {west.model: mine, "second": mine}, "fail_fast": True},
            "east": {"deployments": {west.model: mine}},
        },
    )
    west.create(rows)
    with pytest.raises(BadRequestError, match="Enqueued token limit"):
        west.create(rows)
    assert west.create([line(row["custom_id"], {**row["body"], "model": "second"}) for row in rows])
    assert east.wait(east.create(rows), "in_progress", "failed").status == "in_progress"
    # Only the first of the two resources fails fast.
    assert east.codes(east.run(rows)) == [("token_limit_exceeded", None)]


@pytest.mark.parametrize(
    ("model", "sku", "tokens"),
    [
        ("gpt-4.1", "globalbatch", 200_000_000),
        ("gpt-4o-mini", "globalbatch", 1_000_000_000),
        ("gpt-4.1", "datazonebatch", 30_000_000),
        ("gpt-4o-mini", "datazonebatch", 1_000_000_000),
    ],
)
def test_a_deployment_has_the_default_quota_of_its_kind(tmp_path: Path, model: str, sku: str, tokens: int) -> None:
    settings = Settings().changed({"deployments": {"mine": {"model": model, "sku": sku}}})
    account = Account("azure/default", "default", AZURE, tmp_path)
    assert limit_of(settings, account, "mine", model) == tokens
    assert limit_of(settings.changed({"enqueued_tokens": {model: 5}}), account, "mine", model) == 5


def test_unknown_settings_are_refused(emulator: Emulator) -> None:
    from urllib.error import HTTPError

    for settings in ({"lunch": 1}, {"fail_fast": "perhaps"}, {"deployments": {"a": {"model": "b", "sku": "c"}}}):
        with pytest.raises(HTTPError, match="400"):
            emulator.settings(openai=settings)
