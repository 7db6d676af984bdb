"""The rows of a job: how each family is asked and answers, what becomes of a bad body, and what is billed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from emulators.desk import HAIKU, Desk, converse_body

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-lite-v1:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-2407-v1:0"
TITAN = "amazon.titan-text-premier-v1:0"
OPEN = "openai.gpt-oss-20b-1:0"
TEXT = "The ship left Malta on Monday. It carries grain."
SCHEMA = {
    "type": "object",
    "properties": {"ship": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["ship", "days"],
    "additionalProperties": False,
}


def anthropic_body(text: str = TEXT, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    return {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": [message], **more}


def nova_body(text: str = TEXT, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": [{"text": text}]}
    return {"schemaVersion": "messages-v1", "messages": [message], "inferenceConfig": {"maxTokens": 64}, **more}


def llama_body(text: str = TEXT, **more: Any) -> dict[str, Any]:
    return {"prompt": text, "max_gen_len": 64, **more}


def mistral_body(text: str = TEXT, **more: Any) -> dict[str, Any]:
    return {"prompt": f"<s>[INST] {text} [/INST]", "max_tokens": 64, **more}


def mistral_chat_body(text: str = TEXT, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 64, **more}


def titan_body(text: str = TEXT, **more: Any) -> dict[str, Any]:
    return {"inputText": text, "textGenerationConfig": {"maxTokenCount": 64}, **more}


def schema_config(schema: Any = SCHEMA) -> dict[str, Any]:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": text, "name": "answer"}}}}


def asked(desk: Desk, body: dict[str, Any], model: str = HAIKU, kind: str = "Converse") -> dict[str, Any]:
    """The line that a record comes to, in a job of 100 whose others are good."""
    fill: dict[str, Callable[[str], dict[str, Any]]] = {
        HAIKU: anthropic_body,
        SONNET: anthropic_body,
        NOVA: nova_body,
        LLAMA: llama_body,
        MISTRAL: mistral_body,
        TITAN: titan_body,
        OPEN: mistral_chat_body,
    }
    good = desk.records(99, converse_body if kind == "Converse" else fill[model])
    arn = desk.run([*good, {"recordId": "odd", "modelInput": body}], modelId=model, modelInvocationType=kind)
    job = desk.get(arn)
    assert job["status"] == "Completed"
    (line,) = (line for line in desk.lines(arn) if line["recordId"] == "odd")
    failed = int("error" in line)
    assert (job["successRecordCount"], job["errorRecordCount"]) == (100 - failed, failed)
    assert desk.emulator.bill()["records"] == 100 - failed
    return line


def test_a_row_of_converse_spells_out_every_member_of_the_union(desk: Desk):
    line = asked(desk, converse_body(TEXT))
    assert set(line) == {"recordId", "modelInput", "modelOutput"}
    assert line["modelInput"] == converse_body(TEXT)
    output = line["modelOutput"]
    (block,) = output["output"]["message"]["content"]
    assert block.pop("text").startswith("The ship left Malta")
    assert {"image", "toolUse", "reasoningContent"} <= set(block)
    assert set(block.values()) == {None}
    assert output["stopReason"] == "end_turn"
    usage = output["usage"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"]


def test_the_members_that_are_null_can_be_left_out(desk: Desk):
    desk.emulator.settings(bedrock={"null_members": False})
    assert set(asked(desk, converse_body(TEXT))["modelOutput"]["output"]["message"]["content"][0]) == {"text"}


def anthropic_text(output: dict[str, Any]) -> tuple[str, int | None, int | None]:
    assert (output["type"], output["role"], output["stop_reason"]) == ("message", "assistant", "end_turn")
    return output["content"][0]["text"], output["usage"]["input_tokens"], output["usage"]["output_tokens"]


def nova_text(output: dict[str, Any]) -> tuple[str, int | None, int | None]:
    assert output["stopReason"] == "end_turn"
    usage = output["usage"]
    return output["output"]["message"]["content"][0]["text"], usage["inputTokens"], usage["outputTokens"]


def llama_text(output: dict[str, Any]) -> tuple[str, int | None, int | None]:
    assert output["stop_reason"] == "stop"
    return output["generation"], output["prompt_token_count"], output["generation_token_count"]


def mistral_text(output: dict[str, Any]) -> tuple[str, int | None, int | None]:
    assert "usage" not in output
    return output["outputs"][0]["text"], None, None


def mistral_chat_text(output: dict[str, Any]) -> tuple[str, int | None, int | None]:
    usage = output["usage"]
    return output["choices"][0]["message"]["content"], usage["prompt_tokens"], usage["completion_tokens"]


def titan_text(output: dict[str, Any]) -> tuple[str, int | None, int | None]:
    (result,) = output["results"]
    assert result["completionReason"] == "FINISH"
    return result["outputText"], output["inputTextTokenCount"], result["tokenCount"]


@pytest.mark.parametrize(
    ("model", "body", "read"),
    [
        (HAIKU, anthropic_body(), anthropic_text),
        (
            HAIKU,
            anthropic_body() | {"messages": [{"role": "user", "content": TEXT}], "system": "Be brief."},
            anthropic_text,
        ),
        (NOVA, nova_body(system=[{"text": "Be brief."}]), nova_text),
        (LLAMA, llama_body(), llama_text),
        (MISTRAL, mistral_body(), mistral_text),
        (MISTRAL, mistral_chat_body(), mistral_chat_text),
        (TITAN, titan_body(), titan_text),
        (OPEN, mistral_chat_body(), mistral_chat_text),
    ],
    ids=["anthropic", "anthropic text", "nova", "llama", "mistral", "mistral chat", "titan", "open"],
)
def test_each_family_answers_in_its_own_form_with_the_tokens_of_the_bill(
    desk: Desk, model: str, body: dict[str, Any], read: Callable[[dict[str, Any]], tuple[str, int | None, int | None]]
):
    line = asked(desk, body, model, "InvokeModel")
    text, tokens_in, tokens_out = read(line["modelOutput"])
    assert text.startswith("The ship left Malta")
    (charge,) = (charge for charge in desk.emulator.charges() if charge["record_id"] == "odd")
    if tokens_in is not None:
        assert (tokens_in, tokens_out) == (charge["input_tokens"], charge["output_tokens"])
    assert charge["output_tokens"] > 0


def test_invoke_model_is_the_default(desk: Desk):
    arn = desk.run(desk.records(100, anthropic_body), modelInvocationType=None)
    assert desk.get(arn)["modelInvocationType"] == "InvokeModel"
    assert desk.get(arn)["successRecordCount"] == 100


def test_a_llama_prompt_in_its_own_template_is_read_by_its_turns(desk: Desk):
    prompt = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{TEXT}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    line = asked(desk, llama_body(prompt), LLAMA, "InvokeModel")
    assert line["modelOutput"]["generation"].startswith("The ship left Malta")


def test_an_answer_that_is_longer_than_allowed_is_cut_off_and_says_so(desk: Desk):
    body = {**converse_body("word " * 500), "inferenceConfig": {"maxTokens": 5}}
    output = asked(desk, body)["modelOutput"]
    assert (output["stopReason"], output["usage"]["outputTokens"]) == ("max_tokens", 5)


MESSAGE = {"role": "user", "content": [{"text": "hi"}]}
CONVERSE_ERRORS = [
    ({}, "messages"),
    ({"messages": []}, "message"),
    ({"messages": [{"role": "assistant", "content": [{"text": "hi"}]}]}, "start with a user message"),
    ({"messages": [MESSAGE, MESSAGE]}, "alternate"),
    ({"messages": [{"role": "user", "content": []}]}, "empty"),
    ({"messages": [{"role": "user", "content": "hi"}]}, "empty"),
    ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "blank"),
    ({"messages": [{"role": "user", "content": [{"image": {}}]}]}, "text"),
    ({"messages": [MESSAGE], "max_tokens": 5}, "extraneous key [max_tokens]"),
    ({"messages": [MESSAGE], "inferenceConfig": {"max_tokens": 5}}, "extraneous key [max_tokens]"),
    ({"messages": [MESSAGE], "inferenceConfig": {"maxTokens": 0}}, "maxTokens"),
    ({"messages": [MESSAGE], "inferenceConfig": {"temperature": 1.5}}, "temperature"),
    ({"messages": [MESSAGE], "inferenceConfig": {"temperature": 0.5, "topP": 0.5}}, "cannot both"),
    (
        {
            "messages": [MESSAGE],
            "inferenceConfig": {"temperature": 0.5},
            "additionalModelRequestFields": {"top_p": 0.5},
        },
        "cannot both",
    ),
    ({"messages": [MESSAGE], "toolConfig": {"tools": [{"toolSpec": {}}]}}, "toolConfig"),
    ({"messages": [MESSAGE], "system": [{"text": "s"}, {"cachePoint": {"type": "default"}}]}, "cachePoint"),
    ({"messages": [MESSAGE], "outputConfig": schema_config()}, "structured output"),
]


@pytest.mark.parametrize(("body", "said"), CONVERSE_ERRORS, ids=[str(body)[:70] for body, _ in CONVERSE_ERRORS])
def test_a_bad_converse_body_is_a_row_error_of_a_completed_job(desk: Desk, body: dict[str, Any], said: str):
    line = asked(desk, body)
    assert set(line) == {"recordId", "modelInput", "error"}
    assert line["modelInput"] == body
    assert set(line["error"]) == {"errorCode", "errorMessage"}
    assert line["error"]["errorCode"] == 400
    assert said in line["error"]["errorMessage"]


INVOKE_ERRORS = [
    (HAIKU, anthropic_body() | {"anthropic_version": "2023-06-01"}, "anthropic_version"),
    (HAIKU, {"anthropic_version": "bedrock-2023-05-31", "messages": [MESSAGE]}, "max_tokens"),
    (HAIKU, anthropic_body(messages=[]), "messages"),
    (HAIKU, anthropic_body(messages=[MESSAGE]), "only text"),
    (HAIKU, anthropic_body(temperature=0.1, top_p=0.1), "cannot both"),
    (HAIKU, anthropic_body(inferenceConfig={}), "extraneous key [inferenceConfig]"),
    (HAIKU, converse_body(TEXT), "extraneous key"),
    (NOVA, nova_body(max_tokens=5), "extraneous key [max_tokens]"),
    (NOVA, nova_body(schemaVersion="v0"), "schemaVersion"),
    (LLAMA, llama_body(messages=[]), "extraneous key [messages]"),
    (LLAMA, {"max_gen_len": 5}, "prompt"),
    (LLAMA, llama_body(max_gen_len=0), "max_gen_len"),
    (MISTRAL, mistral_body(max_gen_len=5), "extraneous key [max_gen_len]"),
    (MISTRAL, mistral_chat_body(messages=[]), "messages"),
    (TITAN, {"inputText": ""}, "inputText"),
    (TITAN, titan_body(maxTokenCount=3), "extraneous key [maxTokenCount]"),
]


@pytest.mark.parametrize(("model", "body", "said"), INVOKE_ERRORS, ids=[f"{m[:9]} {s}" for m, _, s in INVOKE_ERRORS])
def test_a_bad_invoke_body_is_a_row_error_of_a_completed_job(desk: Desk, model: str, body: dict[str, Any], said: str):
    error = asked(desk, body, model, "InvokeModel")["error"]
    assert error["errorCode"] == 400
    assert said in error["errorMessage"]


def test_a_system_prompt_is_refused_where_the_model_has_none(desk: Desk):
    body = {**converse_body(TEXT), "system": [{"text": "Be brief."}]}
    assert "system" in asked(desk, body, TITAN)["error"]["errorMessage"]


def test_temperature_with_top_p_is_refused_by_claude_alone(desk: Desk):
    body = {**converse_body(TEXT), "inferenceConfig": {"temperature": 0.5, "topP": 0.5}}
    assert "modelOutput" in asked(desk, body, NOVA)


def test_a_job_of_bad_rows_alone_is_completed_and_free(desk: Desk):
    both = {"inferenceConfig": {"temperature": 0.5, "topP": 0.5}}
    arn = desk.run([{**record, "modelInput": {**record["modelInput"], **both}} for record in desk.records()])
    job = desk.get(arn)
    assert (job["status"], job["errorRecordCount"], job["successRecordCount"]) == ("Completed", 100, 0)
    assert desk.manifest(arn)["inputTokenCount"] == desk.emulator.bill()["records"] == 0


def test_tools_and_cache_points_pass_where_the_settings_let_them(desk: Desk):
    desk.emulator.settings(bedrock={"tools_in_batch": True, "cache_points_in_batch": True})
    body = {
        **converse_body(TEXT),
        "system": [{"text": "s"}, {"cachePoint": {"type": "default"}}],
        "toolConfig": {"tools": [{"toolSpec": {}}]},
    }
    assert "modelOutput" in asked(desk, body)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({**converse_body(TEXT), "outputConfig": schema_config()}, "Converse"),
        (anthropic_body(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}), "InvokeModel"),
    ],
    ids=["converse", "anthropic"],
)
def test_an_answer_follows_the_schema_that_is_given(desk: Desk, body: dict[str, Any], kind: str):
    output = asked(desk, body, SONNET, kind)["modelOutput"]
    content = output["output"]["message"]["content"] if kind == "Converse" else output["content"]
    answer = json.loads(content[0]["text"])
    assert isinstance(answer["ship"], str)
    assert isinstance(answer["days"], int)


def test_a_model_with_open_weights_follows_a_response_format(desk: Desk):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    output = asked(desk, mistral_chat_body(response_format=form), OPEN, "InvokeModel")["modelOutput"]
    assert set(json.loads(output["choices"][0]["message"]["content"])) == {"ship", "days"}


@pytest.mark.parametrize(
    "schema", ["no json", {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}]
)
def test_a_schema_that_is_none_or_open_is_a_row_error(desk: Desk, schema: Any):
    assert "error" in asked(desk, {**converse_body(TEXT), "outputConfig": schema_config(schema)}, SONNET)


def test_structured_output_in_batches_can_be_switched_off(desk: Desk):
    desk.emulator.settings(bedrock={"structured_in_batch": False})
    error = asked(desk, {**converse_body(TEXT), "outputConfig": schema_config()}, SONNET)["error"]
    assert "not supported for batch" in error["errorMessage"]


def test_rows_come_in_another_order_than_records_and_none_is_missing(desk: Desk):
    ids = [f"r{number}" for number in range(100)]
    shuffled = [line["recordId"] for line in desk.lines(desk.run())]
    assert shuffled != ids
    assert sorted(shuffled) == sorted(ids)
    desk.emulator.settings(bedrock={"shuffle": False})
    assert [line["recordId"] for line in desk.lines(desk.run())] == ids


def test_an_id_is_made_up_where_none_is_given(desk: Desk):
    arn = desk.run([{"modelInput": record["modelInput"]} for record in desk.records()])
    ids = [line["recordId"] for line in desk.lines(arn)]
    assert len(set(ids)) == 100
    assert all(isinstance(made_up, str) and made_up for made_up in ids)
    assert sorted(charge["record_id"] for charge in desk.emulator.charges()) == sorted(ids)


def test_ids_that_repeat_are_two_records(desk: Desk):
    arn = desk.run([{**record, "recordId": "same"} for record in desk.records()])
    assert len(desk.lines(arn)) == 100


def test_rows_manifest_counters_and_bill_agree(desk: Desk):
    bad = [{"recordId": f"bad{number}", "modelInput": {}} for number in range(7)]
    arn = desk.run([*desk.records(120), *bad])
    rows = [line["modelOutput"]["usage"] for line in desk.lines(arn) if "modelOutput" in line]
    manifest, bill, job = desk.manifest(arn), desk.emulator.bill(), desk.get(arn)
    tokens = {
        "inputTokenCount": sum(usage["inputTokens"] for usage in rows),
        "outputTokenCount": sum(usage["outputTokens"] for usage in rows),
    }
    counts = {f"{kind}RecordCount": job[f"{kind}RecordCount"] for kind in ("total", "processed", "success", "error")}
    assert manifest == tokens | counts
    assert list(counts.values()) == [127, 127, 120, 7]
    assert (bill["input_tokens"], bill["output_tokens"]) == tuple(tokens.values())
    assert (bill["records"], bill["tiers"]["batch"]) == (120, 120)
    assert bill["cached_tokens"] == 0


def test_the_same_question_gets_the_same_answer_in_every_job(desk: Desk):
    def answers(arn: str) -> dict[str, Any]:
        return {line["recordId"]: line["modelOutput"]["output"] for line in desk.lines(arn)}

    assert answers(desk.run()) == answers(desk.run())
