"""CreateModelInvocationJob: what it refuses, what it does once, and how many jobs there may be."""

from __future__ import annotations

import http.client
import time
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from botocore.exceptions import ClientError
from emulators.desk import HAIKU, Desk, client


def code_of(call: Any, *args: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(*args, **given)
    return str(refused.value.response["Error"]["Code"])


def raw(desk: Desk, body: dict[str, Any] | bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """POST what botocore would not send."""
    connection = http.client.HTTPConnection(urlsplit(desk.emulator.url).netloc, timeout=20)
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=k/20261121/us-east-1/bedrock/aws4_request, Signature=x"}
    connection.request("POST", "/model-invocation-job", data, headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), orjson.loads(answer.read())
    connection.close()
    return found


def test_a_valid_request_is_answered_with_an_arn_that_ends_in_twelve_characters(desk: Desk):
    arn = desk.create(desk.put(desk.records()))
    prefix, job_id = arn.rsplit("/", 1)
    assert prefix == "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job"
    assert len(job_id) == 12
    assert job_id.isalnum()
    assert job_id == job_id.lower()


def test_the_longest_and_strangest_values_that_are_allowed_pass(desk: Desk):
    arn = desk.create(
        desk.put(desk.records(), key="in/-!_*'().x/records.jsonl"),
        jobName="a" + "-+.b" * 15 + "-x",
        roleArn="arn:aws-us-gov:iam:::role/any",
        modelId="arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
        clientRequestToken="t" * 255 + "x",
        timeoutDurationInHours=168,
        tags=[{"key": f"k{number}", "value": ""} for number in range(200)],
        vpcConfig={"subnetIds": ["s"] * 16, "securityGroupIds": ["g"] * 5},
        outputDataConfig={
            "s3OutputDataConfig": {"s3Uri": f"s3://{desk.bucket}/out", "s3EncryptionKeyId": "alias/mine"}
        },
    )
    job = desk.wait(arn)
    assert job["status"] == "Completed"
    assert job["vpcConfig"]["securityGroupIds"] == ["g"] * 5
    assert (job["jobExpirationTime"] - job["submitTime"]).total_seconds() == 168 * 3600
    key = f"out/{arn.rsplit('/', 1)[1]}/records.jsonl.out"
    assert desk.s3.head_object(Bucket=desk.bucket, Key=key)["ServerSideEncryption"] == "aws:kms"


@pytest.mark.parametrize(
    "changes",
    [
        {"jobName": "under_score"},
        {"jobName": "-starts-with-a-dash"},
        {"jobName": "a" * 64},
        {"jobName": "with space"},
        {"clientRequestToken": "under_score"},
        {"clientRequestToken": "ends-"},
        {"clientRequestToken": "a" * 257},
        {"roleArn": "arn:aws:iam::123456789012:user/batch"},
        {"roleArn": "arn:aws:iam::123456789012:role/" + "r" * 2048},
        {"modelId": "no model at all"},
        {"modelId": "UPPER.case"},
        {"timeoutDurationInHours": 23},
        {"timeoutDurationInHours": 169},
        {"modelInvocationType": "Chat"},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/in", "s3InputFormat": "CSV"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/in", "s3BucketOwner": "12"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/day=1/in.jsonl"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/a b.jsonl"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/a%20b.jsonl"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket//in.jsonl"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "https://bucket/in.jsonl"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/" + "a" * 1024}}},
        {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/out=1"}}},
        {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/out", "s3EncryptionKeyId": "key"}}},
        {"vpcConfig": {"subnetIds": ["s"] * 17, "securityGroupIds": ["g"]}},
        {"vpcConfig": {"subnetIds": ["s"], "securityGroupIds": ["g"] * 6}},
        {"vpcConfig": {"subnetIds": ["s_1"], "securityGroupIds": ["g"]}},
        {"tags": [{"key": f"k{number}", "value": "v"} for number in range(201)]},
        {"tags": [{"key": "k!", "value": "v"}]},
        {"tags": [{"key": "k" * 129, "value": "v"}]},
        {"tags": [{"key": "k", "value": "v" * 257}]},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_value_that_breaks_its_pattern_or_length_is_refused(desk: Desk, changes: dict[str, Any]):
    status, headers, answer = raw(desk, desk.request("s3://bucket/in.jsonl", **changes))
    assert (status, headers["x-amzn-ErrorType"]) == (400, "ValidationException")
    assert "1 validation error detected" in answer["message"]
    (name,) = changes
    assert f"at '{name}" in answer["message"]


@pytest.mark.parametrize("name", ["jobName", "roleArn", "modelId", "inputDataConfig", "outputDataConfig"])
def test_what_is_required_is_required(desk: Desk, name: str):
    status, _, answer = raw(desk, desk.request("s3://bucket/in.jsonl", **{name: None}))
    assert status == 400
    assert f"at '{name}' failed to satisfy constraint: Member must not be null" in answer["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"inputDataConfig": {}},
        {"inputDataConfig": {"s3InputDataConfig": {}}},
        {"outputDataConfig": {"s3OutputDataConfig": {}}},
        {"vpcConfig": {"subnetIds": ["s"]}},
        {"tags": [{"key": "k"}]},
        {"jobName": 7},
        {"timeoutDurationInHours": "24"},
    ],
    ids=str,
)
def test_what_is_required_inside_and_what_has_another_type_is_refused(desk: Desk, changes: dict[str, Any]):
    status, headers, _ = raw(desk, desk.request("s3://bucket/in.jsonl", **changes))
    assert (status, headers["x-amzn-ErrorType"]) == (400, "ValidationException")


def test_every_broken_rule_is_named_at_once(desk: Desk):
    _, _, answer = raw(desk, desk.request("s3://bucket/a=b", jobName="_", timeoutDurationInHours=1))
    assert answer["message"].startswith("3 validation errors detected")


def test_what_is_no_json_is_refused(desk: Desk):
    assert raw(desk, b"{")[1]["x-amzn-ErrorType"] == "ValidationException"
    assert raw(desk, b"[]")[1]["x-amzn-ErrorType"] == "ValidationException"


def test_a_name_of_many_dashes_is_refused_at_once(desk: Desk):
    begun = time.monotonic()
    status, _, _ = raw(desk, desk.request("s3://bucket/in.jsonl", jobName="a" + "-" * 61 + "_"))
    assert status == 400
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "model",
    [
        "anthropic.claude-instant-v1",
        "nobody.knows-this-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc",
    ],
)
def test_a_model_without_batch_is_refused_in_aws_words(desk: Desk, model: str):
    with pytest.raises(desk.bedrock.exceptions.ValidationException) as refused:
        desk.create("s3://bucket/in.jsonl", modelId=model)
    message = refused.value.response["Error"]["Message"]
    assert message == "Batch inference is not supported for the requested model."


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "us.amazon.nova-lite-v1:0",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0",
        ),
        (HAIKU, HAIKU),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
        ),
    ],
)
def test_a_profile_stands_for_its_model_and_get_answers_its_arn(desk: Desk, given: str, shown: str):
    arn = desk.create(desk.put(desk.records()), modelId=given)
    assert desk.wait(arn)["status"] == "Completed"
    assert desk.get(arn)["modelId"] == shown
    assert desk.emulator.bill()["totals"][0]["model"] == given.rsplit("/", 1)[-1]


def test_an_application_inference_profile_stands_for_what_the_settings_say(desk: Desk):
    desk.emulator.settings(bedrock={"profiles": {"abc": HAIKU}})
    arn = desk.create(
        desk.put(desk.records()),
        modelId="arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc",
    )
    assert desk.wait(arn)["status"] == "Completed"


def test_the_same_token_gets_the_same_job_and_nothing_new_is_billed(desk: Desk):
    uri = desk.put(desk.records())
    first = desk.create(uri, clientRequestToken="run-1-a1")
    assert desk.create(uri, clientRequestToken="run-1-a1") == first
    desk.wait(first)
    assert desk.create(uri, clientRequestToken="run-1-a1", jobName="other") == first
    assert len(desk.bedrock.list_model_invocation_jobs()["invocationJobSummaries"]) == 1
    assert desk.emulator.bill()["most_billed"] == 1
    assert desk.get(first)["clientRequestToken"] == "run-1-a1"


def test_another_token_or_none_is_another_job_and_is_billed_again(desk: Desk):
    uri = desk.put(desk.records())
    arns = {desk.create(uri, clientRequestToken="a"), desk.create(uri, clientRequestToken="b"), desk.create(uri)}
    assert len(arns) == 3
    for arn in arns:
        desk.wait(arn)
    assert desk.emulator.bill()["most_billed"] == 3


def test_a_token_counts_in_its_region_alone(desk: Desk):
    uri = desk.put(desk.records())
    elsewhere = client("bedrock", desk.emulator.url, region="eu-west-1")
    here = desk.create(uri, clientRequestToken="a")
    there = elsewhere.create_model_invocation_job(**desk.request(uri, clientRequestToken="a"))["jobArn"]
    assert there.split(":")[3] == "eu-west-1"
    assert there != here
    assert code_of(elsewhere.get_model_invocation_job, jobIdentifier=here) == "ResourceNotFoundException"


def test_jobs_of_one_model_in_one_region_are_limited_until_one_ends(desk: Desk):
    desk.emulator.settings(bedrock={"quotas": {"jobs": 2}, "latency": {"in_progress": 3600}})
    uri = desk.put(desk.records())
    first = desk.create(uri, clientRequestToken="first")
    desk.create(uri)
    with pytest.raises(desk.bedrock.exceptions.ServiceQuotaExceededException) as refused:
        desk.create(uri)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    # Neither another model, nor another region, nor a replay needs room.
    desk.create(uri, modelId="amazon.nova-micro-v1:0")
    client("bedrock", desk.emulator.url, region="eu-west-1").create_model_invocation_job(**desk.request(uri))
    assert desk.create(uri, clientRequestToken="first") == first
    # A profile of the model is the same model.
    assert code_of(desk.create, uri, modelId=f"us.{HAIKU}") == "ServiceQuotaExceededException"
    desk.bedrock.stop_model_invocation_job(jobIdentifier=first)
    desk.wait(first, "Stopped")
    desk.create(uri)


def test_versions_of_ones_own_have_a_smaller_limit(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"submitted": 3600}})
    custom = "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-lite-v1:0:300k/abcdef123456"
    for _ in range(3):
        desk.create("s3://bucket/in.jsonl", modelId=custom)
    assert code_of(desk.create, "s3://bucket/in.jsonl", modelId=custom) == "ServiceQuotaExceededException"


def test_twenty_jobs_are_the_default(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"submitted": 3600}})
    for _ in range(20):
        desk.create("s3://bucket/in.jsonl")
    assert code_of(desk.create, "s3://bucket/in.jsonl") == "ServiceQuotaExceededException"


def test_without_credentials_nothing_is_done(desk: Desk):
    connection = http.client.HTTPConnection(urlsplit(desk.emulator.url).netloc, timeout=20)
    for method, path in [
        ("POST", "/model-invocation-job"),
        ("GET", "/model-invocation-jobs"),
        ("GET", "/model-invocation-job/abcdefabcdef"),
        ("POST", "/model-invocation-job/abcdefabcdef/stop"),
        ("POST", f"/model/{HAIKU}/converse"),
        ("POST", "/"),
    ]:
        connection.request(method, path, orjson.dumps(desk.request("s3://bucket/in.jsonl")))
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 403, path
        assert answer.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
    connection.close()
    assert desk.emulator.calls()["created"] == []


def test_the_key_id_denied_may_do_nothing(desk: Desk):
    denied = client("bedrock", desk.emulator.url, key="denied")
    assert code_of(denied.list_model_invocation_jobs) == "AccessDeniedException"
    assert code_of(denied.get_model_invocation_job, jobIdentifier="abcdefabcdef") == "AccessDeniedException"
    assert code_of(denied.stop_model_invocation_job, jobIdentifier="abcdefabcdef") == "AccessDeniedException"
    # The answer about permissions comes before any other.
    assert code_of(denied.create_model_invocation_job, **desk.request("s3://bucket/in=1")) == "AccessDeniedException"


@pytest.mark.parametrize("action", ["bedrock:CreateModelInvocationJob", "iam:PassRole"])
def test_a_missing_permission_is_named(desk: Desk, action: str):
    desk.emulator.settings(bedrock={"denied": [action]})
    with pytest.raises(desk.bedrock.exceptions.AccessDeniedException, match=action) as refused:
        desk.create("s3://bucket/in.jsonl")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert desk.bedrock.list_model_invocation_jobs()["invocationJobSummaries"] == []


def test_names_may_repeat_unless_the_settings_say_otherwise(desk: Desk):
    uri = desk.put(desk.records())
    desk.create(uri, jobName="twice")
    desk.create(uri, jobName="twice")
    desk.emulator.settings(bedrock={"unique_names": True})
    with pytest.raises(desk.bedrock.exceptions.ConflictException) as refused:
        desk.create(uri, jobName="twice")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
