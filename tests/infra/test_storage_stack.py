"""storage.yaml as created on MiniStack: what its buckets are, what its roles may do, and a job that runs in it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from faults.scene import environment
from servers.emulators import emulators
from servers.faulty import faulty
from support.command import Bench
from support.stacks import AWS, Stack, allowed, call, listed

ACCOUNT = "000000000000"
REGION = {"aws_RequestedRegion": "us-east-1"}
MODEL = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"
JOBS = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:model-invocation-job"
ROLES = ("BedrockRole", "SubmitRole", "CollectRole", "ReadRole", "TaggerRole")

WIDE = {
    "bedrock:ListModelInvocationJobs": "Bedrock knows no resource for it",
    "servicequotas:ListServiceQuotas": "Service Quotas knows no resource for it",
}
"""Actions that may be allowed on every resource, each with its reason."""

TAG = {"Key": "lowtide-retention", "Value": "transient"}
DOCUMENTS = 120
SECONDS = 120.0

JOB = """
version: 1
name: {name}
source: {{uri: "{uri}", text: text, id: id}}
operations: [summarize: {{words: 20}}]
backends:
  - bedrock:
      model: amazon.nova-lite-v1:0
      region: us-east-1
      role_arn: {role}
      price: {{input: 0.03, output: 0.12}}
      on_demand_price: {{input: 0.06, output: 0.24}}
limits: {{poll: 1s, grace: 5s}}
output: {{root: "{root}"}}
"""


class _Intrinsics(yaml.SafeLoader):
    """Reads `!Ref X` as {"Ref": "X"}, and so on."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


_Intrinsics.add_multi_constructor("!", _intrinsic)


def rules() -> list[dict[str, Any]]:
    """The lifecycle rules of the results bucket, with parameters at their defaults."""
    template = _Intrinsics((AWS / "storage.yaml").read_text(encoding="utf-8")).get_single_data()
    defaults = {name: found.get("Default") for name, found in template["Parameters"].items()}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"Ref"}:
                return defaults[value["Ref"]]
            if set(value) == {"Sub"}:
                return value["Sub"].replace("${RootPrefix}", defaults["RootPrefix"])
            return {key: filled(inner) for key, inner in value.items()}
        return [filled(inner) for inner in value] if isinstance(value, list) else value

    found = filled(template["Resources"]["ResultsBucket"]["Properties"]["LifecycleConfiguration"]["Rules"])
    return list(found)


def as_s3_has_them(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """CloudFormation's spelling of lifecycle rules in that of S3's API."""
    made = []
    for rule in found:
        tags = rule.get("TagFilters", [])
        said: dict[str, Any] = {"ID": rule["Id"], "Status": rule["Status"]}
        said["Filter"] = {"Tag": tags[0]} if tags else {"Prefix": rule.get("Prefix", "")}
        expiration: dict[str, Any] = {}
        if "ExpirationInDays" in rule:
            expiration["Days"] = rule["ExpirationInDays"]
        if "ExpiredObjectDeleteMarker" in rule:
            expiration["ExpiredObjectDeleteMarker"] = rule["ExpiredObjectDeleteMarker"]
        if expiration:
            said["Expiration"] = expiration
        if "Transitions" in rule:
            said["Transitions"] = [
                {"StorageClass": step["StorageClass"], "Days": step["TransitionInDays"]} for step in rule["Transitions"]
            ]
        for name in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
            if name in rule:
                said[name] = rule[name]
        made.append(said)
    return made


@pytest.mark.parametrize("bucket", ["ResultsBucket", "SourceBucket"])
def test_a_bucket_is_versioned_and_closed_to_the_public(storage: Stack, bucket: str) -> None:
    s3, name = storage.client("s3"), storage.resources()[bucket]
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert set(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {True}
    [owner] = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"]
    assert owner["ObjectOwnership"] == "BucketOwnerEnforced"


@pytest.mark.parametrize("bucket", ["ResultsBucket", "SourceBucket"])
def test_a_bucket_refuses_what_is_not_tls(storage: Stack, bucket: str) -> None:
    name = storage.resources()[bucket]
    statements = json.loads(storage.client("s3").get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Deny"}
    conditions = [statement["Condition"] for statement in statements]
    assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
    assert {"NumericLessThan": {"s3:TlsVersion": "1.2"}} in conditions
    for statement in statements:
        assert statement["Principal"] == "*"
        assert set(statement["Resource"]) == {f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"}


def test_the_key_is_made_anew_each_year(storage: Stack) -> None:
    arn = storage.outputs()["KeyArn"]
    assert storage.client("kms").get_key_rotation_status(KeyId=arn)["KeyRotationEnabled"] is True


def test_s3_takes_the_lifecycle_rules(storage: Stack, moto_url: str) -> None:
    # MiniStack leaves lifecycle out of its stacks, so the same rules go in by S3's own call, at two servers.
    for url in (storage.url, moto_url):
        s3 = Stack(url, "").client("s3")
        s3.create_bucket(Bucket="lifecycle")
        wanted = as_s3_has_them(rules())
        s3.put_bucket_lifecycle_configuration(Bucket="lifecycle", LifecycleConfiguration={"Rules": wanted})
        found = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket="lifecycle")["Rules"]}
        assert found["transient"]["Expiration"]["Days"] == 90
        assert found["transient"]["Filter"]["Tag"] == TAG
        assert found["staging"]["Filter"]["Prefix"] == "lowtide/bedrock/"
        assert found["versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30


def test_nothing_deletes_what_keeps_a_run_from_being_bought_again() -> None:
    for rule in rules():
        prefix, tags = rule.get("Prefix", ""), rule.get("TagFilters", [])
        if "ExpirationInDays" in rule:
            assert tags or prefix == "lowtide/bedrock/", rule["Id"]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_may_do_everything_or_reach_everything(storage: Stack, role: str) -> None:
    statements = storage.allows(role)
    assert statements
    for statement in statements:
        assert statement["Effect"] == "Allow"
        for action in listed(statement["Action"]):
            assert "*" not in action, f"{role}: {action}"
            if "*" in listed(statement["Resource"]):
                assert action in WIDE, f"{role}: {action} on *"
                assert statement["Condition"]["StringEquals"]["aws:RequestedRegion"] == "us-east-1"


def test_bedrock_takes_its_role_for_jobs_of_this_account_only(storage: Stack) -> None:
    role = storage.client("iam").get_role(RoleName=storage.resources()["BedrockRole"])["Role"]
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "bedrock.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnEquals": {"aws:SourceArn": f"{JOBS}/*"},
    }


@pytest.mark.parametrize(
    ("role", "may"),
    [("SubmitRole", True), ("CollectRole", False), ("ReadRole", False), ("BedrockRole", False), ("TaggerRole", False)],
)
def test_only_who_submits_can_spend(storage: Stack, role: str, may: bool) -> None:
    statements, bedrock = storage.allows(role), storage.client("iam")
    passed = bedrock.get_role(RoleName=storage.resources()["BedrockRole"])["Role"]["Arn"]
    assert allowed(statements, "bedrock:CreateModelInvocationJob", f"{JOBS}/abc") is may
    assert allowed(statements, "iam:PassRole", passed, iam_PassedToService="bedrock.amazonaws.com") is may
    assert not allowed(statements, "iam:PassRole", passed, iam_PassedToService="ec2.amazonaws.com")
    assert not allowed(statements, "iam:PassRole", "arn:aws:iam::000000000000:role/other")


@pytest.mark.parametrize("role", ["SubmitRole", "CollectRole"])
def test_who_submits_and_who_collects_can_look_and_stop(storage: Stack, role: str) -> None:
    statements = storage.allows(role)
    for action in ("bedrock:GetModelInvocationJob", "bedrock:StopModelInvocationJob"):
        assert allowed(statements, action, f"{JOBS}/abc")
    for action in WIDE:
        assert allowed(statements, action, "*", **REGION)


def test_who_reads_sees_the_tables_and_nothing_else(storage: Stack) -> None:
    statements, bucket = storage.allows("ReadRole"), f"arn:aws:s3:::{storage.resources()['ResultsBucket']}"
    assert allowed(statements, "s3:GetObject", f"{bucket}/lowtide/tables/results/job=a/window=all/results.parquet")
    assert allowed(statements, "s3:ListBucket", bucket, s3_prefix="lowtide/tables/results/")
    assert not allowed(statements, "s3:ListBucket", bucket, s3_prefix="lowtide/runs/")
    assert not allowed(statements, "s3:ListBucket", bucket)
    assert not allowed(statements, "s3:GetObject", f"{bucket}/lowtide/runs/a/all/r/raw/x")
    assert not allowed(statements, "s3:PutObject", f"{bucket}/lowtide/tables/results/x")


def bench(storage: Stack, folder: Path, s3: str, emulator: str) -> Bench:
    outputs = storage.outputs()
    made = Bench(folder, environ=environment("bedrock", emulator, s3))
    made.job.write_text(
        JOB.format(
            name="tides",
            uri=f"{outputs['Source']}/reports.jsonl",
            role=outputs["BedrockRoleArn"],
            root=outputs["Root"],
        ),
        encoding="utf-8",
    )
    rows = ({"id": n, "text": f"Report {n}. The tide rose by {n * 7} millimetres. " * 3} for n in range(DOCUMENTS))
    storage.client("s3").put_object(
        Bucket=storage.resources()["SourceBucket"],
        Key="reports.jsonl",
        Body=b"".join(orjson.dumps(row) + b"\n" for row in rows),
    )
    return made


def tags(storage: Stack, keys: list[str]) -> dict[str, bool]:
    s3, bucket = storage.client("s3"), storage.resources()["ResultsBucket"]
    return {key: TAG in s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] for key in keys}


def transient(key: str) -> bool:
    # lowtide, runs, job, window, run, kind, file
    parts = key.split("/")
    return parts[1] == "runs" and len(parts) > 6 and parts[5] in {"raw", "requests"}


@pytest.mark.slow
def test_the_flow_runs_in_the_stack_and_does_nothing_that_its_roles_do_not_allow(
    storage: Stack, tmp_path: Path
) -> None:
    with (
        faulty(storage.url) as ours,
        faulty(storage.url) as bedrocks,
        emulators(s3_url=bedrocks.url, speed=2000.0) as emulator,
    ):
        made = bench(storage, tmp_path, ours.url, emulator.url)
        # As a Prefect flow.
        ended = made.lowtide("run", str(made.job))
        assert ended.returncode == 0, ended.stderr
        created = emulator.calls()["created"]
        counts = emulator.calls()["counts"]
    assert len(created) == 1

    submit, service = storage.allows("SubmitRole"), storage.allows("BedrockRole")
    assert ours.seen
    assert bedrocks.seen
    for seen in ours.seen:
        needed = call(seen)
        assert allowed(submit, needed.action, needed.resource), seen
    for seen in bedrocks.seen:
        needed = call(seen)
        assert allowed(service, needed.action, needed.resource, aws_ResourceAccount=ACCOUNT), seen
    assert set(counts) == {"bedrock", "servicequotas"}
    for operation in counts["bedrock"]:
        resource = "*" if operation.startswith("List") else f"{JOBS}/abc"
        assert allowed(submit, f"bedrock:{operation}", resource, **REGION), operation

    s3, bucket = storage.client("s3"), storage.resources()["ResultsBucket"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    assert "lowtide/tables/results/job=tides/window=all/results.parquet" in keys
    wanted = {key: transient(key) for key in keys}
    assert set(wanted.values()) == {True, False}
    until = time.monotonic() + SECONDS
    while (found := tags(storage, keys)) != wanted and time.monotonic() < until:
        time.sleep(0.5)
    assert found == wanted
