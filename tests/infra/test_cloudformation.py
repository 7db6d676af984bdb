"""Every CloudFormation template: cfn-lint, and the stacks of events and worker as created on moto."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from servers import aws
from support.stacks import AWS, Stack, create, listed

TEMPLATES = sorted(path.name for path in AWS.glob("*.yaml"))
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prefect-AbCdEf"
KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-1111-1111-1111-111111111111"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}

WIDE = {
    "ecr:GetAuthorizationToken": "ECR knows no resource for it",
    "ecs:RegisterTaskDefinition": "ECS knows no resource for it",
    "ecs:DeregisterTaskDefinition": "ECS knows no resource for it",
    "ecs:DescribeTaskDefinition": "ECS knows no resource for it",
    "ec2:DescribeSubnets": "EC2 knows no resource for it",
    "ec2:DescribeVpcs": "EC2 knows no resource for it",
}
"""Actions that the worker's roles may be allowed on every resource, each with its reason."""


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("cfn-lint")
    return subprocess.run([program, "--", path], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_cfn_lint_has_nothing_to_say(name: str) -> None:
    linted = lint(AWS / name)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_cfn_lint_sees_a_misspelt_property(tmp_path: Path) -> None:
    text = (AWS / "storage.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("VersioningConfiguration:", "VersionConfiguration:", 1), encoding="utf-8")
    linted = lint(wrong)
    assert linted.returncode != 0
    assert "VersionConfiguration" in linted.stdout


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # A server of its own, since stacks leave much behind.
    with aws.moto() as served:
        yield served


@pytest.fixture(scope="module")
def worker(url: str) -> Stack:
    nowhere = Stack(url, "")
    ec2 = nowhere.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.1.{number}.0/24")["Subnet"]["SubnetId"] for number in range(2)
    ]
    nowhere.client("iam").create_role(RoleName="submit", AssumeRolePolicyDocument=json.dumps(TRUST))
    return create(
        url,
        "worker.yaml",
        VpcId=vpc,
        SubnetIds=",".join(subnets),
        Image="123456789012.dkr.ecr.us-east-1.amazonaws.com/team/lowtide:0.1.0",
        Repository="team/lowtide",
        TaskRoleName="submit",
        PrefectApiUrl="https://prefect.example.com/api",
        PrefectApiKeySecretArn=SECRET,
        PrefectAuthStringSecretArn=SECRET,
        OpenAiKeySecretArn=SECRET,
        SecretKeyArn=KEY,
        WorkerType="ecs",
    )


def container(worker: Stack) -> Mapping[str, Any]:
    ecs = worker.client("ecs")
    definition = ecs.describe_task_definition(taskDefinition="lowtide-worker")["taskDefinition"]
    [found] = definition["containerDefinitions"]
    return dict(found)


def test_the_worker_is_a_service_that_nobody_can_reach(worker: Stack) -> None:
    resources = worker.resources()
    [service] = worker.client("ecs").describe_services(
        cluster=resources["Cluster"], services=[resources["Service"]]
    )["services"]  # fmt: skip
    assert service["desiredCount"] == 1
    [group] = worker.client("ec2").describe_security_groups(GroupIds=[resources["Outward"]])["SecurityGroups"]
    assert group["IpPermissions"] == []
    assert container(worker).get("portMappings", []) == []


def test_the_worker_gets_its_secrets_by_reference(worker: Stack) -> None:
    found = container(worker)
    assert {secret["name"]: secret["valueFrom"] for secret in found["secrets"]} == {
        "PREFECT_API_KEY": SECRET,
        "PREFECT_API_AUTH_STRING": SECRET,
        "OPENAI_API_KEY": SECRET,
    }
    plain = {variable["name"] for variable in found["environment"]}
    assert not {name for name in plain if "KEY" in name or "AUTH" in name or "SECRET" in name}


@pytest.mark.parametrize("role", ["ExecutionRole", "TaskRole"])
def test_the_workers_roles_reach_nothing_beyond_what_is_named(worker: Stack, role: str) -> None:
    statements = worker.allows(role, "submit" if role == "TaskRole" else "")
    assert len(statements) > 3
    for statement in statements:
        for action in listed(statement["Action"]):
            assert "*" not in action
            assert "*" not in listed(statement["Resource"]) or action in WIDE, action
            if action == "iam:PassRole":
                assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


def test_the_worker_fetches_its_own_image_and_no_other(worker: Stack) -> None:
    fetched = {
        action: listed(statement["Resource"])
        for statement in worker.allows("ExecutionRole")
        for action in listed(statement["Action"])
        if action.startswith("ecr:")
    }
    repository = "arn:aws:ecr:us-east-1:123456789012:repository/team/lowtide"
    assert fetched == {
        "ecr:GetAuthorizationToken": ["*"],
        "ecr:BatchCheckLayerAvailability": [repository],
        "ecr:BatchGetImage": [repository],
        "ecr:GetDownloadUrlForLayer": [repository],
    }


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("lowtide", True),
        ("team/lowtide.worker-2", True),
        ("*", False),
        ("team/*", False),
        ("lowtide?", False),
        ("lowtide:0.1.0", False),
        ("", False),
    ],
)
def test_one_repository_is_named_and_not_a_pattern_of_them(name: str, taken: bool) -> None:
    [found] = re.findall(
        r"\n  Repository:\n(?:    .+\n)*?    AllowedPattern: \"(.+)\"\n",
        (AWS / "worker.yaml").read_text(encoding="utf-8"),
    )
    assert (re.fullmatch(found, name) is not None) is taken


@pytest.fixture(scope="module")
def events(storage: Stack) -> Stack:
    # On MiniStack, which knows no budgets.
    return create(storage.url, "events.yaml", without="Budget", Email="ops@example.com")


def test_a_batch_that_changes_its_state_goes_into_the_queue(events: Stack) -> None:
    client = events.client("events")
    rule = client.describe_rule(Name=events.resources()["Rule"].rpartition("/")[2])
    [target] = client.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"] == events.outputs()["QueueArn"]

    # Nobody but AWS may send events of aws.bedrock, so none is sent.
    def fits(**changes: str) -> bool:
        event = {
            "id": "1",
            "account": "123456789012",
            "source": "aws.bedrock",
            "time": "2026-11-20T00:00:00Z",
            "region": "us-east-1",
            "resources": [],
            "detail-type": "Batch Inference Job State Change",
            "detail": {"batchJobName": "lowtide-1", "status": "Completed"},
            **changes,
        }
        return bool(client.test_event_pattern(EventPattern=rule["EventPattern"], Event=json.dumps(event))["Result"])

    assert fits()
    assert not fits(source="aws.s3")
    assert not fits(**{"detail-type": "Model Customization Job State Change"})


def test_only_that_rule_may_send_and_only_over_tls(events: Stack) -> None:
    asked = {"QueueUrl": events.outputs()["QueueUrl"], "AttributeNames": ["All"]}
    attributes = events.client("sqs").get_queue_attributes(**asked)["Attributes"]
    statements = json.loads(attributes["Policy"])["Statement"]
    allow = [statement for statement in statements if statement["Effect"] == "Allow"]
    deny = [statement for statement in statements if statement["Effect"] == "Deny"]
    rule = events.client("events").describe_rule(Name=events.resources()["Rule"].rpartition("/")[2])
    assert [statement["Principal"] for statement in allow] == [{"Service": "events.amazonaws.com"}]
    assert allow[0]["Condition"] == {"ArnEquals": {"aws:SourceArn": rule["Arn"]}}
    assert [statement["Condition"] for statement in deny] == [{"Bool": {"aws:SecureTransport": "false"}}]
    assert int(json.loads(attributes["RedrivePolicy"])["maxReceiveCount"]) == 5


def test_messages_that_nobody_could_take_are_read_only_over_tls(events: Stack) -> None:
    sqs, queue = events.client("sqs"), events.resources()["DeadLetters"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy", "QueueArn"])["Attributes"]
    [statement] = json.loads(attributes["Policy"])["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
    assert statement["Resource"] == attributes["QueueArn"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_bill_is_watched() -> None:
    # No stand-in makes budgets of a template, so it is read here.
    [found] = re.findall(r"\n  Budget:\n(.+?)\n\n", (AWS / "events.yaml").read_text(encoding="utf-8"), re.DOTALL)
    assert re.findall(r"NotificationType: (\w+), .*Threshold: (\d+)", found) == [
        ("ACTUAL", "80"),
        ("ACTUAL", "100"),
        ("FORECASTED", "100"),
    ]
    assert found.count("Address: !Ref Email") == 3
    assert "Amount: !Ref MonthlyUsd" in found


def test_moto_takes_every_policy_of_the_storage_stack(url: str) -> None:
    # moto checks the grammar of policies, which MiniStack does not. It cannot leave an AWS::NoValue out of a list.
    made = create(
        url,
        "storage.yaml",
        SourceKeyArn=KEY,
        OperatorArns="arn:aws:iam::123456789012:user/ann",
        ReaderArns="arn:aws:iam::123456789012:role/bi",
    )
    rule = made.client("s3").get_bucket_encryption(Bucket=made.resources()["ResultsBucket"])
    [applied] = rule["ServerSideEncryptionConfiguration"]["Rules"]
    assert applied["ApplyServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": made.outputs()["KeyArn"],
    }
