"""Request lines: what stands in them, for which model, and what may not."""

from __future__ import annotations

import orjson
import pytest
from support.openai_support import azure_backend, openai_backend, prompt, request_of, summarize

from lowtide.errors import ConfigError
from lowtide.operations import Operation
from lowtide.sharding.lines import line_template

NOWHERE = "http://127.0.0.1:9"


def body_of(backend, operation=None):
    return orjson.loads(backend.encode(request_of(1, operation=operation)))["body"]


def test_a_chat_line_has_the_id_first_and_asks_for_the_schema():
    line = openai_backend(NOWHERE).encode(request_of(1, "Hello \u2028 there"))
    assert line.startswith(b'{"custom_id":"r0000001x0123abcd","method":"POST","url":"/v1/chat/completions","body":')
    operation = summarize()
    assert orjson.loads(line)["body"] == {
        "model": "gpt-4.1-mini",
        "messages": [
            {"role": "system", "content": operation.system},
            {"role": "user", "content": "<m>Hello \u2028 there</m>"},
        ],
        "max_completion_tokens": 300,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "summarize", "strict": True, "schema": operation.schema},
        },
    }


def test_a_response_line_has_instructions_and_a_text_format():
    line = orjson.loads(openai_backend(NOWHERE, call="responses").encode(request_of(1, "Hello")))
    operation = summarize()
    assert line["url"] == "/v1/responses"
    assert line["body"] == {
        "model": "gpt-4.1-mini",
        "instructions": operation.system,
        "input": "<m>Hello</m>",
        "max_output_tokens": 300,
        "text": {"format": {"type": "json_schema", "name": "summarize", "strict": True, "schema": operation.schema}},
    }


def test_azure_lines_name_the_deployment_and_the_documented_url():
    line = orjson.loads(azure_backend(NOWHERE).encode(request_of(1)))
    assert (line["url"], line["body"]["model"]) == ("/v1/chat/completions", "gpt-4.1-mini-batch")


def test_an_operation_without_a_system_prompt_or_schema_asks_for_neither():
    body = body_of(openai_backend(NOWHERE), prompt())
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert "response_format" not in body


@pytest.mark.parametrize(
    ("model", "wanted", "limit_key", "native"),
    [
        ("gpt-4.1-mini", "auto", "max_completion_tokens", True),
        ("gpt-5-mini", "auto", "max_completion_tokens", True),
        ("ft:gpt-4o-mini:me::1", "auto", "max_completion_tokens", True),
        ("gpt-4o-2024-05-13", "auto", "max_completion_tokens", False),
        ("gpt-4o-2024-05-13", "native", "max_completion_tokens", True),
        ("gpt-4.1-mini", "prompt", "max_completion_tokens", False),
        ("gpt-4-turbo", "auto", "max_tokens", False),
        ("meta-llama/Llama-3.3-70B-Instruct", "auto", "max_tokens", False),
        ("somebody/new-model", "auto", "max_completion_tokens", False),
    ],
)
def test_a_model_is_asked_in_the_way_that_it_understands(model, wanted, limit_key, native):
    backend = openai_backend(NOWHERE, model=model, structured_output=wanted)
    body = body_of(backend)
    assert body[limit_key] == 300
    assert ("response_format" in body) is native
    assert backend.parameters["structured_output"] == ("native" if native else "prompt")


def test_parameters_are_merged_and_are_part_of_the_request_id():
    backend = openai_backend(NOWHERE, parameters={"temperature": 0.2, "seed": 7})
    body = body_of(backend)
    assert (body["temperature"], body["seed"]) == (0.2, 7)
    assert backend.parameters == {"temperature": 0.2, "seed": 7, "call": "chat", "structured_output": "native"}


def test_a_dotted_parameter_goes_into_an_object_beside_what_is_there():
    asked = {"reasoning.effort": "low", "text.verbosity": "low"}
    body = body_of(openai_backend(NOWHERE, call="responses", parameters=asked))
    assert body["reasoning"] == {"effort": "low"}
    assert body["text"]["verbosity"] == "low"
    assert body["text"]["format"]["name"] == "summarize"


@pytest.mark.parametrize(
    "parameters",
    [
        {"model": "x"}, {"messages": "x"}, {"max_tokens": 5}, {"stream": True}, {"n": 2}, {"text.format": "x"},
        {"response_format.type": "text"}, {"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}, {"a.": 1}, {"messages.a": 1},
        {"text": "x"}, {"text.format.type": "x"},
    ],
)  # fmt: skip
def test_a_parameter_that_clashes_is_refused_when_the_job_is_read(parameters):
    with pytest.raises(ConfigError, match=r"^backends\[0\]\.openai-batch\.parameters\.[a-z_.]+: found .*; expected "):
        openai_backend(NOWHERE, parameters=parameters)
    with pytest.raises(ConfigError, match=r"^backends\[0\]\.azure-batch\.parameters\."):
        azure_backend(NOWHERE, parameters=parameters)


@pytest.mark.parametrize("call", ["chat", "responses"])
@pytest.mark.parametrize("operation", [summarize(), prompt()])
@pytest.mark.parametrize("backend", [openai_backend, azure_backend])
def test_lines_can_be_spliced(call, operation, backend):
    template = line_template(backend(NOWHERE, call=call), operation)
    assert template.slots[0] == "record_id"


def test_a_schema_outside_of_strict_mode_is_asked_for_without_it():
    loose = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    operation = Operation("extract", "what is it?", "s", summarize().user, summarize().validate, schema=loose)
    form = body_of(openai_backend(NOWHERE), operation)["response_format"]["json_schema"]
    assert form == {"name": "what_is_it_", "strict": False, "schema": loose}
