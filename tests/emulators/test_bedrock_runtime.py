"""Converse and InvokeModel on demand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulators.desk import HAIKU, Desk, client, converse_body


@pytest.fixture
def runtime(desk: Desk) -> Any:
    return client("bedrock-runtime", desk.emulator.url)


def code_of(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**given)
    return str(refused.value.response["Error"]["Code"])


def invoke_body(text: str) -> bytes:
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64}
    return json.dumps(body | {"messages": [{"role": "user", "content": text}]}).encode()


def test_converse_answers_at_once_and_is_billed_on_demand(desk: Desk, runtime: Any):
    answer = runtime.converse(modelId=HAIKU, system=[{"text": "Be brief."}], **converse_body("The ship left."))
    (block,) = answer["output"]["message"]["content"]
    assert block == {"text": "The ship left."}
    assert answer["stopReason"] == "end_turn"
    assert isinstance(answer["metrics"]["latencyMs"], int)
    (charge,) = desk.emulator.charges()
    assert (charge["tier"], charge["batch_id"], charge["model"]) == ("on_demand", "", HAIKU)
    usage = answer["usage"]
    assert (usage["inputTokens"], usage["outputTokens"]) == (charge["input_tokens"], charge["output_tokens"])
    assert desk.emulator.bill()["tiers"] == {"batch": 0, "on_demand": 1}


def test_invoke_model_answers_in_the_familys_form(desk: Desk, runtime: Any):
    answer = runtime.invoke_model(modelId=f"us.{HAIKU}", body=invoke_body("The ship left."))
    body = json.loads(answer["body"].read())
    assert body["content"] == [{"type": "text", "text": "The ship left."}]
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    (charge,) = desk.emulator.charges()
    assert int(headers["x-amzn-bedrock-input-token-count"]) == charge["input_tokens"] == body["usage"]["input_tokens"]
    assert charge["model"] == f"us.{HAIKU}"


def test_a_question_is_answered_alike_and_seen_again_on_the_bill_in_both_tiers(desk: Desk, runtime: Any):
    arn = desk.run()
    asked = converse_body("Say 5.")
    answer = runtime.converse(modelId=HAIKU, **asked)["output"]["message"]["content"][0]["text"]
    (line,) = (line for line in desk.lines(arn) if line["recordId"] == "r5")
    assert line["modelOutput"]["output"]["message"]["content"][0]["text"] == answer
    assert list(desk.emulator.bill()["billed_again"].values()) == [2]


def test_a_bad_body_is_refused_and_free(desk: Desk, runtime: Any):
    both = {"messages": converse_body("x")["messages"], "inferenceConfig": {"temperature": 0.1, "topP": 0.1}}
    assert code_of(runtime.converse, modelId=HAIKU, **both) == "ValidationException"
    assert code_of(runtime.converse, modelId="nobody.knows", **converse_body("x")) == "ValidationException"
    assert code_of(runtime.invoke_model, modelId=HAIKU, body=b"no json") == "ValidationException"
    assert code_of(runtime.invoke_model, modelId=HAIKU, body=b"{}") == "ValidationException"
    assert desk.emulator.bill()["records"] == 0


def test_what_is_refused_in_a_batch_passes_here(desk: Desk, runtime: Any):
    tools = {"tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": {}}}}]}
    system = [{"text": "s"}, {"cachePoint": {"type": "default"}}]
    assert runtime.converse(modelId=HAIKU, toolConfig=tools, system=system, **converse_body("x"))["stopReason"]
    assert runtime.converse(modelId="anthropic.claude-instant-v1", **converse_body("x"))["stopReason"]


def test_calls_of_a_model_are_limited_by_the_minute(desk: Desk, runtime: Any):
    desk.emulator.settings(bedrock={"on_demand_per_minute": 3})
    for _ in range(3):
        runtime.converse(modelId=HAIKU, **converse_body("x"))
    with pytest.raises(runtime.exceptions.ThrottlingException) as refused:
        runtime.converse(modelId=HAIKU, **converse_body("x"))
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    runtime.converse(modelId="amazon.nova-micro-v1:0", **converse_body("x"))
    desk.emulator.clock(advance=61)
    runtime.converse(modelId=HAIKU, **converse_body("x"))
    assert desk.emulator.bill()["records"] == 5


def test_a_missing_permission_is_refused(desk: Desk, runtime: Any):
    desk.emulator.settings(bedrock={"denied": ["bedrock:InvokeModel"]})
    assert code_of(runtime.converse, modelId=HAIKU, **converse_body("x")) == "AccessDeniedException"


@pytest.mark.parametrize(
    ("do", "code", "billed"),
    [
        ("throttle", "ThrottlingException", 0),
        ("error_before", "InternalServerException", 0),
        ("error_after", "InternalServerException", 1),
        ("not_found", "ResourceNotFoundException", 0),
        ("poison", "ValidationException", 0),
    ],
)
def test_faults_of_calls_are_billed_only_where_the_work_was_done(
    desk: Desk, runtime: Any, do: str, code: str, billed: int
):
    desk.emulator.faults([{"on": "converse", "do": do}])
    assert code_of(runtime.converse, modelId=HAIKU, **converse_body("x")) == code
    assert desk.emulator.bill()["records"] == billed
    runtime.converse(modelId=HAIKU, **converse_body("x"))


def test_an_answer_can_be_filtered_or_of_another_form(desk: Desk, runtime: Any):
    asked = {"modelId": HAIKU, "system": [{"text": 'The form is {"summary": "..."}.'}], **converse_body("A ship left.")}
    desk.emulator.faults([{"on": "converse", "do": "refuse"}, {"on": "converse", "do": "invalid"}])
    refused, unfit, good = (runtime.converse(**asked) for _ in range(3))
    assert refused["stopReason"] == "content_filtered"
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(unfit["output"]["message"]["content"][0]["text"])
    assert json.loads(good["output"]["message"]["content"][0]["text"]) == {"summary": "A ship left."}
    assert desk.emulator.bill()["records"] == 3
