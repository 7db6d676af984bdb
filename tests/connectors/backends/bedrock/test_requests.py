"""Request lines: what they hold in each form, that they can be spliced, and that no limit can be passed."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import botocore.session
import orjson
import pytest
from bedrock_bench import HAIKU, HAIKU_45, request_for, spec, summarize
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.connectors.backends.bedrock import names, open_bedrock
from lowtide.connectors.backends.bedrock.backend import Backend
from lowtide.connectors.backends.bedrock.models import base_id, known, name_key, quota_key
from lowtide.connectors.backends.bedrock.quotas import Quotas
from lowtide.connectors.backends.bedrock.schemas import fits_native
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, Terminal
from lowtide.ids import token
from lowtide.operations import Operation, Template
from lowtide.operations.answers import PlainAnswer
from lowtide.records import Request
from lowtide.sharding.lines import line_template

CLOSED = {
    "type": "object",
    "properties": {"summary": {"type": "string"}},
    "required": ["summary"],
    "additionalProperties": False,
}
KEYS = {"AWS_ACCESS_KEY_ID": "t", "AWS_SECRET_ACCESS_KEY": "t"}
FAMILIES = {
    "anthropic": HAIKU,
    "nova": "us.amazon.nova-lite-v1:0",
    "llama": "meta.llama3-1-70b-instruct-v1:0",
    "llama4": "meta.llama4-scout-17b-instruct-v1:0",
    "mistral-text": "mistral.mistral-small-2402-v1:0",
    "mistral-chat": "mistral.mistral-large-2407-v1:0",
    "titan": "amazon.titan-text-premier-v1:0",
}


def offline(staging: str = "s3://bucket/root", **changes: object) -> Backend:
    """A backend that calls nobody."""
    root = open_store("s3://bucket/root", environ=KEYS)
    return open_bedrock(spec(staging=staging, **changes), root, environ=KEYS)


@cache
def invoking(model: str) -> Backend:
    return offline(model=model, invocation="invoke")


def body(backend: Backend, request: Request | None = None) -> dict[str, Any]:
    line = orjson.loads(backend.encode(request or request_for(1)))
    assert list(line) == ["recordId", "modelInput"]
    assert line["recordId"] == request_for(1).record_id
    return dict(line["modelInput"])


def test_converse_is_the_default() -> None:
    found = body(offline(parameters={"temperature": 0.1}))
    request = request_for(1)
    assert found == {
        "system": [{"text": request.system}],
        "messages": [{"role": "user", "content": [{"text": request.user}]}],
        "inferenceConfig": {"maxTokens": 256, "temperature": 0.1},
    }


def test_other_parameters_go_where_converse_takes_them() -> None:
    found = body(
        offline(parameters={"top_p": 0.9, "top_k": 5, "reasoning_effort": "low"}, model="openai.gpt-oss-20b-1:0")
    )
    assert found["inferenceConfig"] == {"maxTokens": 256, "topP": 0.9}
    assert found["additionalModelRequestFields"] == {"top_k": 5, "reasoning_effort": "low"}
    nova = body(offline(parameters={"topK": 5}, model="amazon.nova-pro-v1:0"))
    assert nova["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}


def test_a_model_without_system_prompts_gets_everything_from_the_user() -> None:
    found = body(offline(model="amazon.titan-text-premier-v1:0"))
    request = request_for(1)
    assert "system" not in found
    assert found["messages"][0]["content"][0]["text"] == f"{request.system}\n\n{request.user}"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "anthropic",
            lambda r: {
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": 256,
                "temperature": 0.5,
                "messages": [{"role": "user", "content": [{"type": "text", "text": r.user}]}],
                "system": r.system,
            },
        ),
        (
            "nova",
            lambda r: {
                "schemaVersion": "messages-v1",
                "system": [{"text": r.system}],
                "messages": [{"role": "user", "content": [{"text": r.user}]}],
                "inferenceConfig": {"maxTokens": 256, "temperature": 0.5},
            },
        ),
        (
            "llama",
            lambda r: {
                "prompt": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
                f"{r.system}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{r.user}<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n",
                "max_gen_len": 256,
                "temperature": 0.5,
            },
        ),
        (
            "llama4",
            lambda r: {
                "prompt": f"<|begin_of_text|><|header_start|>system<|header_end|>\n\n{r.system}<|eot|>"
                f"<|header_start|>user<|header_end|>\n\n{r.user}<|eot|><|header_start|>assistant<|header_end|>\n\n",
                "max_gen_len": 256,
                "temperature": 0.5,
            },
        ),
        (
            "mistral-text",
            lambda r: {"prompt": f"<s>[INST] {r.system}\n\n{r.user} [/INST]", "max_tokens": 256, "temperature": 0.5},
        ),
        (
            "mistral-chat",
            lambda r: {
                "messages": [{"role": "system", "content": r.system}, {"role": "user", "content": r.user}],
                "max_tokens": 256,
                "temperature": 0.5,
            },
        ),
        (
            "titan",
            lambda r: {
                "inputText": f"User: {r.system}\n\n{r.user}\nBot:",
                "textGenerationConfig": {"maxTokenCount": 256, "temperature": 0.5},
            },
        ),
    ],
)
def test_each_family_is_asked_in_its_own_form(family: str, expected: Any) -> None:
    backend = offline(model=FAMILIES[family], invocation="invoke", parameters={"temperature": 0.5})
    assert body(backend) == expected(request_for(1))


def test_a_schema_is_sent_only_where_model_and_form_can_hold_to_it() -> None:
    request = request_for(1, operation=summarize(CLOSED))
    native = body(offline(model=HAIKU_45), request)["outputConfig"]["textFormat"]
    assert native["type"] == "json_schema"
    assert orjson.loads(native["structure"]["jsonSchema"]["schema"]) == CLOSED
    invoked = body(offline(model=HAIKU_45, invocation="invoke"), request)
    assert invoked["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}}
    for backend in (offline(), offline(model=HAIKU_45, structured_output="prompt")):
        assert "outputConfig" not in body(backend, request)
        assert backend.parameters["structured_output"] == "prompt"
    assert offline(model=HAIKU_45).parameters["structured_output"] == "native"
    open_ended = request_for(1, operation=summarize({"type": "object"}))
    assert "outputConfig" not in body(offline(model=HAIKU_45), open_ended)


def test_a_schema_that_cannot_be_held_to_is_refused_if_that_was_asked_for() -> None:
    backend = offline(model=HAIKU_45, structured_output="native")
    assert backend.refusal(summarize(CLOSED)) is None
    assert backend.refusal(summarize()) is None
    assert "additionalProperties" in (backend.refusal(summarize({"type": "object"})) or "")
    assert offline(model=HAIKU_45).refusal(summarize({"type": "object"})) is None


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({}, True),
        ({"additionalProperties": True}, False),
        ({"properties": {"n": {"type": "integer", "minimum": 1}}}, False),
        ({"properties": {"n": {"$ref": "#/$defs/n"}}}, False),
        ({"properties": {"n": {"type": "object", "properties": {}}}}, False),
        ({"properties": {"n": {"type": "object", "properties": {}, "additionalProperties": False}}}, True),
        ({"properties": {"n": {"type": "array", "items": {"type": ["string", "null"]}}}}, True),
        ({"properties": {"n": {"type": "array", "items": {"type": "string", "pattern": "a"}}}}, False),
        ({"properties": {"n": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}, True),
        ({"properties": {f"n{i}": {"type": "string"} for i in range(12)}, "required": []}, False),
        ({"properties": {"n": True}}, False),
    ],
)
def test_which_schemas_can_be_held_to(changed: dict[str, Any], fits: bool) -> None:
    assert fits_native({**CLOSED, **changed}) is fits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"temperature": 0.1, "top_p": 0.5}}, "expected one of them"),
        ({"parameters": {"temperature": 0.1, "topP": 0.5}, "invocation": "invoke"}, "expected one of them"),
        ({"parameters": {"max_tokens": 5}}, r"parameters\.max_tokens"),
        ({"parameters": {"toolConfig": "x"}}, r"parameters\.toolConfig"),
        ({"parameters": {"temperature": 1.5}}, "from 0 to 1"),
        ({"parameters": {"temperature": True}}, "from 0 to 1"),
        ({"parameters": {"top_p": "high"}}, "from 0 to 1"),
        ({"parameters": {"top_p": 0.1, "topP": 0.1}, "model": "amazon.nova-lite-v1:0"}, "are the same"),
        ({"model": "cohere.command-r-v1:0", "invocation": "invoke"}, "none of them"),
        ({"structured_output": "native"}, "expected auto"),
        ({"role_arn": "lowtide-role"}, r"role_arn: found 'lowtide-role'"),
        ({"role_arn": "arn:aws:iam::123456789012:user/me"}, "role_arn"),
        ({"model": "no such/model"}, "model"),
        ({"kms_key": "not a key"}, "kms_key"),
        ({"vpc": {"subnet_ids": ["subnet 1"], "security_group_ids": ["sg-1"]}}, r"vpc\.subnet_ids"),
        ({"vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["s" * 33]}}, r"vpc\.security_group_ids"),
        ({"tags": {"team!": "x"}}, "tags"),
        ({"tags": {"team": "x" * 257}}, "tags"),
    ],
)
def test_what_bedrock_would_refuse_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        offline(**changes)


def test_a_staging_address_needs_room_for_what_comes_below_it() -> None:
    assert offline(staging="s3://bucket/" + "a" * 900)
    with pytest.raises(ConfigError, match="so that there is room"):
        offline(staging="s3://bucket/" + "a" * 1000)


def test_a_region_and_credentials_are_needed() -> None:
    root = open_store("s3://bucket/root", environ=KEYS)
    nothing = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"), "")
    with pytest.raises(ConfigError, match=re.escape("backends[0].bedrock.region: missing")):
        open_bedrock(spec(region=None), root, environ={**KEYS, **nothing, "AWS_CONFIG_FILE": "/dev/null"})


@pytest.mark.parametrize("model", FAMILIES.values())
@pytest.mark.parametrize("invocation", ["converse", "invoke"])
def test_lines_can_be_spliced(model: str, invocation: str) -> None:
    operation = Operation(
        kind="prompt",
        name="ask",
        system='Say "yes" or {no}.',
        user=Template.parse("{{ title }}\n<document-{{ marker }}>{{ text }}</document-{{ marker }}>"),
        validate=PlainAnswer(),
        schema=CLOSED,
    )
    template = line_template(offline(model=model, invocation=invocation), operation)
    assert template.slots[0] == "record_id"
    assert set(template.slots) == {"record_id", "title", "marker", "text"}


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])), family=st.sampled_from(sorted(FAMILIES)))
def test_whatever_the_document_its_text_stays_inside_one_json_string(text: str, family: str) -> None:
    backend = invoking(FAMILIES[family])
    request = request_for(7, text=text)
    line = backend.encode(request)
    assert b"\n" not in line
    found = orjson.loads(line)
    assert list(found) == ["recordId", "modelInput"]
    plain = orjson.loads(backend.encode(request_for(7, text="plain")))
    assert _shape(found) == _shape(plain)
    # A character takes at most 6 bytes in JSON.
    assert len(line) <= len(backend.encode(request_for(7, text="x"))) + 6 * len(text.encode())


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    return [_shape(inner) for inner in value] if isinstance(value, list) else type(value)


@settings(max_examples=300, deadline=None)
@given(
    run=st.text("0123456789abcdef", min_size=16, max_size=16),
    nonce=st.text("0123456789abcdef", min_size=8, max_size=8),
    shard=st.integers(0, 9_999_999),
    attempt=st.integers(1, 10_000),
)
def test_every_token_of_a_run_is_a_name_that_bedrock_takes(run: str, nonce: str, shard: int, attempt: int) -> None:
    name = token(run, nonce, shard, attempt)
    assert names.is_token(name)
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9+\-.]{0,62}", name)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", name)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=80))
def test_no_other_name_passes(name: str) -> None:
    if names.is_token(name):
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", name)
        assert len(name) <= 63


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("ab0/.-_=% !'()*ä\n"), max_size=60))
def test_no_address_passes_that_bedrock_refuses(path: str) -> None:
    uri = f"s3://bucket/{path}"
    documented = re.fullmatch(r"s3://bucket(/[-!_*'().a-z0-9A-Z]+)*/?", uri)
    assert names.is_s3_uri(uri) == bool(documented)
    assert names.is_batch_input(uri) == bool(documented and uri.endswith(".jsonl"))
    assert not names.is_s3_uri(f"s3://bucket/{'a' * 1024}")


@pytest.mark.parametrize(
    ("member", "pattern"),
    [
        ("S3Uri", names.S3_URI),
        ("RoleArn", names.ROLE_ARN),
        ("ModelId", names.MODEL_ID),
        ("KmsKeyId", names.KMS_KEY),
        ("SubnetId", names.NETWORK_ID),
        ("TagKey", names.TAG),
        ("ModelInvocationJobArn", names.JOB_ARN),
    ],
)
def test_patterns_are_the_sdk_s_own(member: str, pattern: re.Pattern[str]) -> None:
    model = botocore.session.Session().get_service_model("bedrock")
    assert model.shape_for(member).metadata["pattern"] == pattern.pattern


def test_lengths_are_the_sdk_s_own() -> None:
    model = botocore.session.Session().get_service_model("bedrock")
    assert model.shape_for("S3Uri").metadata["max"] == names.LONGEST_URI
    assert model.shape_for("ModelInvocationJobName").metadata["max"] == names.LONGEST_TOKEN
    body = model.operation_model("CreateModelInvocationJob").input_shape.members
    assert "modelInvocationType" in body


@settings(max_examples=200, deadline=None)
@given(
    records=st.integers(1, 200_000),
    file=st.integers(1, 10**12),
    job=st.integers(1, 10**12),
    minimum=st.integers(1, 500),
)
def test_limits_never_promise_more_than_the_account_has(records: int, file: int, job: int, minimum: int) -> None:
    limits = Quotas(records, file, job, minimum, 20).limits(known(HAIKU))
    assert limits.records == records
    assert limits.bytes == min(file, job)
    assert limits.request_bytes <= min(limits.bytes, 25_000_000)
    assert limits.minimum_records <= limits.records


@pytest.mark.parametrize(
    ("model", "base"),
    [
        (HAIKU, HAIKU),
        (HAIKU_45, HAIKU_45[3:]),
        ("global.anthropic.claude-sonnet-4-20250514-v1:0", "anthropic.claude-sonnet-4-20250514-v1:0"),
        ("us-gov.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{HAIKU}", HAIKU),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{HAIKU_45}", HAIKU_45[3:]),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123", ""),
        (
            "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-lite-v1:0:300k/abcdefabcdef",
            "amazon.nova-lite-v1:0:300k",
        ),
        ("ai21.jamba-1-5-mini-v1:0", "ai21.jamba-1-5-mini-v1:0"),
    ],
)
def test_the_model_behind_an_id(model: str, base: str) -> None:
    assert base_id(model) == base
    assert offline(model=model).model == model


@pytest.mark.parametrize(
    ("model", "title"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", "Claude 3 Haiku"),
        ("anthropic.claude-3-5-sonnet-20240620-v1:0", "Claude 3.5 Sonnet"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "Claude 3.5 Sonnet v2"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "Claude Haiku 4.5"),
        ("anthropic.claude-sonnet-4-20250514-v1:0", "Claude Sonnet 4"),
        ("anthropic.claude-sonnet-4-6", "Claude Sonnet 4.6"),
        ("anthropic.claude-opus-4-6-v1", "Claude Opus 4.6"),
        ("amazon.nova-lite-v1:0", "Nova Lite V1"),
        ("meta.llama3-1-70b-instruct-v1:0", "Llama 3.1 70B Instruct"),
        ("meta.llama4-scout-17b-instruct-v1:0", "Llama 4 Scout"),
        ("mistral.mistral-small-2402-v1:0", "Mistral Small"),
        ("openai.gpt-oss-120b-1:0", "OpenAI GPT OSS 120b"),
        ("qwen.qwen3-32b-v1:0", "Qwen3 32B"),
        ("deepseek.v3-v1:0", "DeepSeek v3"),
    ],
)
def test_a_model_finds_its_quotas_by_name(model: str, title: str) -> None:
    assert quota_key(model) == name_key(title) != ()


def test_a_model_never_takes_the_quotas_of_its_like() -> None:
    assert quota_key("anthropic.claude-3-5-sonnet-20240620-v1:0") != name_key("Claude 3.5 Sonnet v2")
    assert quota_key("anthropic.claude-sonnet-4-20250514-v1:0") != name_key("Claude Sonnet 4.5")
    assert quota_key("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc") == ()


def test_a_job_is_refused_before_any_call_if_it_cannot_be_named_or_read() -> None:
    jobs = offline()._jobs
    for uri in ("s3://bucket/a=b/c.jsonl", "s3://bucket/a b.jsonl", "s3://b/%20.jsonl", "https://x/y.jsonl"):
        with pytest.raises(Terminal, match="no address that Bedrock takes"):
            jobs.create("lt-1", uri, "s3://bucket/out/")
        with pytest.raises(Terminal, match="no address that Bedrock takes"):
            jobs.create("lt-1", "s3://bucket/in.jsonl", uri)
