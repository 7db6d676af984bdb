"""Synchronous calls, and what a request is rejected for, through the openai SDK."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from openai import AzureOpenAI, BadRequestError, NotFoundError, OpenAI, RateLimitError
from servers.emulators import Emulator
from support.openai_desk import chat_body

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "size": {"type": "integer", "minimum": 3, "maximum": 9},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "inner": {
            "type": "object",
            "properties": {"maybe": {"type": ["number", "null"]}},
            "required": ["maybe"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "size", "tags", "inner"],
    "additionalProperties": False,
}


@pytest.fixture
def openai(emulator: Emulator) -> OpenAI:
    return OpenAI(base_url=f"{emulator.url}/v1", api_key="key", max_retries=0)


@pytest.fixture
def azure(emulator: Emulator) -> OpenAI:
    return OpenAI(base_url=f"{emulator.url}/openai/v1", api_key="key", max_retries=0)


@pytest.fixture
def dated(emulator: Emulator) -> OpenAI:
    return AzureOpenAI(azure_endpoint=emulator.url, api_key="key", api_version="2025-04-01-preview", max_retries=0)


def test_a_completion_is_answered_and_billed_on_demand(
    emulator: Emulator, openai: OpenAI, azure: OpenAI, dated: OpenAI
) -> None:
    texts = set()
    for client in (openai, azure, dated):
        answer = client.chat.completions.create(**chat_body("When was it? It was in 1975."))
        texts.add(answer.choices[0].message.content)
        assert (answer.model, answer.choices[0].finish_reason) == ("gpt-4o-mini", "stop")
        assert answer.usage
        charge = emulator.charges()[-1]
        assert (charge["tier"], charge["batch_id"]) == ("on_demand", "")
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
            charge["input_tokens"],
            charge["output_tokens"],
        )
        assert answer.usage.prompt_tokens_details
        assert answer.usage.prompt_tokens_details.cached_tokens == charge["cached_tokens"]
    assert texts == {"When was it? It was in 1975."}
    assert emulator.bill()["most_billed"] == 3


def test_a_response_is_answered_and_billed_on_demand(
    emulator: Emulator, openai: OpenAI, azure: OpenAI, dated: OpenAI
) -> None:
    for client in (openai, azure, dated):
        answer = client.responses.create(model="gpt-5", input="Hello there. It is late.", instructions="Be brief.")
        charge = emulator.charges()[-1]
        assert (answer.output_text, answer.status) == ("Hello there. It is late.", "completed")
        assert answer.usage
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
            charge["input_tokens"],
            charge["output_tokens"],
        )
        assert answer.usage.output_tokens_details.reasoning_tokens == charge["reasoning_tokens"]


def test_reasoning_models_spend_reasoning_tokens_now_and_then(openai: OpenAI) -> None:
    spent = []
    for number in range(12):
        body = chat_body(f"Question {number}.", "gpt-5")
        usage = openai.chat.completions.create(**body).usage
        assert usage
        assert usage.completion_tokens_details
        thought = usage.completion_tokens_details.reasoning_tokens or 0
        assert usage.completion_tokens > thought
        spent.append(thought)
    assert 0 in spent
    assert any(spent)
    usage = openai.chat.completions.create(**chat_body("Question 0.")).usage
    assert usage
    assert usage.completion_tokens_details
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_a_schema_is_followed(openai: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    chat = openai.chat.completions.create(**chat_body("A thing of tin.", response_format=form))
    text = {"format": {"type": "json_schema", "name": "thing", "schema": SCHEMA, "strict": True}}
    response = openai.responses.create(model="gpt-4o", input="A thing of tin.", text=text)  # type: ignore[arg-type]
    for answer in (chat.choices[0].message.content, response.output_text):
        jsonschema_rs.validate(SCHEMA, json.loads(answer or ""))


def test_an_answer_ends_where_its_bound_is(openai: OpenAI) -> None:
    long = "word " * 50
    chat = openai.chat.completions.create(**chat_body(long, max_completion_tokens=5))
    assert chat.choices[0].finish_reason == "length"
    assert chat.usage
    assert chat.usage.completion_tokens == 5
    response = openai.responses.create(model="gpt-4o", input=long, max_output_tokens=5)
    assert response.incomplete_details
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


LOOSE = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"colour": "green"}, "unknown_parameter", "colour"),
        ({"messages": []}, "empty_array", "messages"),
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "invalid_type", "messages[0].content"),
        ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
        ({"max_tokens": 16_385}, "invalid_value", "max_tokens"),
        ({"max_tokens": "5"}, "invalid_type", "max_tokens"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"stream": True}, "unsupported_value", "stream"),
        ({"model": "gpt-5", "max_tokens": 5}, "unsupported_parameter", "max_tokens"),
        ({"model": "gpt-5", "temperature": 0}, "unsupported_value", "temperature"),
        ({"messages": [{"role": "user", "content": "x" * 600_000}]}, "context_length_exceeded", "messages"),
        ({"response_format": {"type": "yaml"}}, "invalid_value", "response_format"),
        ({"response_format": {"type": "json_object"}}, None, "messages"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": SCHEMA}}},
            "invalid_value",
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "array"}}}},
            None,
            "response_format",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": LOOSE, "strict": True}}},
            None,
            "response_format",
        ),
    ],
)
def test_what_a_request_is_rejected_for(
    emulator: Emulator, openai: OpenAI, azure: OpenAI, changes: dict[str, Any], code: str | None, param: str
) -> None:
    body = {**chat_body("Say it."), **changes}
    for client in (openai, azure):
        with pytest.raises(BadRequestError) as caught:
            client.post("/chat/completions", body=body, cast_to=object)
        assert (caught.value.code, caught.value.param) == (code, param)
    assert emulator.bill()["records"] == 0


def test_a_loose_schema_is_followed_where_it_is_not_strict(openai: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": LOOSE}}
    answer = openai.chat.completions.create(**chat_body("A thing.", response_format=form))
    jsonschema_rs.validate(LOOSE, json.loads(answer.choices[0].message.content or ""))


def test_unknown_models_and_deployments_are_not_found(openai: OpenAI, azure: OpenAI, dated: OpenAI) -> None:
    for client, code in ((openai, "model_not_found"), (azure, "DeploymentNotFound"), (dated, "DeploymentNotFound")):
        with pytest.raises(NotFoundError) as caught:
            client.chat.completions.create(**chat_body("A.", "none"))
        assert caught.value.code == code


def test_a_batch_deployment_answers_no_synchronous_call(azure: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        azure.chat.completions.create(**chat_body("A.", "gpt-4o-mini-batch"))
    assert caught.value.code == "OperationNotSupported"


def test_a_throttled_call_says_how_long_to_wait(emulator: Emulator, openai: OpenAI, azure: OpenAI) -> None:
    for client, code in ((openai, "rate_limit_exceeded"), (azure, "429")):
        emulator.faults([{"on": "chat", "do": "throttle", "seconds": 2.5}])
        with pytest.raises(RateLimitError) as caught:
            client.chat.completions.create(**chat_body("A."))
        headers = caught.value.response.headers
        assert (caught.value.code, headers["retry-after-ms"], headers["retry-after"]) == (code, "2500", "2")
    assert emulator.bill()["records"] == 0
    emulator.faults([{"on": "chat", "do": "throttle", "seconds": 0.05}])
    patient = openai.with_options(max_retries=1)
    assert patient.chat.completions.create(**chat_body("A.")).choices


@pytest.mark.parametrize("do", ["error_after", "reset_after"])
def test_a_call_that_fails_after_it_was_done_is_billed(emulator: Emulator, openai: OpenAI, do: str) -> None:
    emulator.faults([{"on": "chat", "do": do}])
    with pytest.raises(Exception, match=r"500|Connection"):
        openai.chat.completions.create(**chat_body("A."))
    assert emulator.bill()["records"] == 1


def test_a_filtered_prompt_is_rejected_and_a_refusal_is_answered(
    emulator: Emulator, openai: OpenAI, azure: OpenAI
) -> None:
    for client in (openai, azure):
        emulator.faults([{"on": "chat", "do": "refuse"}])
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(**chat_body("A."))
        assert caught.value.code == "content_filter"
        emulator.faults([{"on": "chat", "do": "refuse", "code": "refusal"}])
        message = client.chat.completions.create(**chat_body("A.")).choices[0].message
        assert (message.content, bool(message.refusal)) == (None, True)
        emulator.faults([{"on": "chat", "do": "refuse", "code": "finish_reason"}])
        assert client.chat.completions.create(**chat_body("A.")).choices[0].finish_reason == "content_filter"


def test_models_are_listed(openai: OpenAI, azure: OpenAI) -> None:
    for client in (openai, azure):
        assert "gpt-4o-mini" in {model.id for model in client.models.list()}
        assert client.models.retrieve("gpt-4o-mini").id == "gpt-4o-mini"
        with pytest.raises(NotFoundError):
            client.models.retrieve("none")


def test_a_deployment_beyond_its_pace_says_when_it_has_room_again(emulator: Emulator, azure: OpenAI) -> None:
    emulator.clock(speed=0)
    limited = {"model": "gpt-4o", "sku": "provisioned", "tokens_per_minute": 60}
    emulator.settings(openai={"deployments": {"mine": limited}})
    try:
        answer = azure.chat.completions.create(**chat_body("A question. " * 20, "mine"))
        assert answer.usage
        over = answer.usage.total_tokens - 60
        with pytest.raises(RateLimitError) as caught:
            azure.chat.completions.create(**chat_body("A.", "mine"))
        wait = int(caught.value.response.headers["retry-after-ms"]) / 1_000
        assert over <= wait <= over + 0.1
        emulator.clock(advance=wait - 0.5)
        with pytest.raises(RateLimitError):
            azure.chat.completions.create(**chat_body("A.", "mine"))
        emulator.clock(advance=0.51)
        assert azure.chat.completions.create(**chat_body("A.", "mine")).choices
        assert len(emulator.charges()) == 2
    finally:
        emulator.clock(speed=1)


@pytest.mark.parametrize("fault", ["throttle", "error_before"])
def test_a_call_spills_over_to_another_deployment(emulator: Emulator, azure: OpenAI, fault: str) -> None:
    rule = {"on": "chat", "do": fault, "match": {"deployment": "mine"}, "times": "forever"}
    emulator.faults([rule])
    mine = {"model": "gpt-4o", "sku": "provisioned"}
    emulator.settings(openai={"deployments": {"mine": mine, "own": {"model": "gpt-4.1", "sku": "standard"}}})
    create = azure.chat.completions.with_raw_response.create
    answer = create(**chat_body("A.", "mine"), extra_headers={"x-ms-spillover-deployment": "gpt-4o-mini"})
    assert answer.parse().model == "gpt-4o-mini"
    assert answer.headers["x-ms-spillover-from-deployment"] == "mine"
    assert answer.headers["x-ms-deployment-name"] == "gpt-4o-mini"
    emulator.settings(openai={"deployments": {"mine": {**mine, "spillover": "own"}}})
    # The deployment's own property goes before what the request says.
    answer = create(**chat_body("A.", "mine"), extra_headers={"x-ms-spillover-deployment": "gpt-4o-mini"})
    assert answer.parse().model == "gpt-4.1"
    assert [charge["model"] for charge in emulator.charges()] == ["gpt-4o-mini", "gpt-4.1"]


def test_a_prompt_that_is_too_long_spills_over_and_a_bad_request_does_not(emulator: Emulator, azure: OpenAI) -> None:
    mine = {"model": "gpt-4o", "sku": "provisioned", "spillover": "gpt-4.1"}
    emulator.settings(openai={"deployments": {"mine": mine}})
    answer = azure.chat.completions.create(**chat_body("x" * 600_000, "mine"))
    assert answer.model == "gpt-4.1"
    with pytest.raises(BadRequestError, match="Unknown parameter"):
        azure.chat.completions.create(**chat_body("A.", "mine"), extra_body={"colour": "green"})
