"""CloudFormation stacks on stand-ins for AWS, and what the roles that they make may do."""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3
from servers.process import serving

AWS = Path(__file__).parents[2] / "infra" / "aws"
SECONDS = 90.0


@contextmanager
def whole_ministack() -> Iterator[str]:
    """MiniStack with all its services, unlike `servers.aws.ministack`."""

    def environ(port: int) -> dict[str, str]:
        return {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "WARNING"}

    command = [sys.executable, "-m", "ministack"]
    with serving(lambda port: command, ready="/_ministack/health", environ=environ) as url:
        yield url


@dataclass(frozen=True)
class Stack:
    """A stack that was created at `url`."""

    url: str
    name: str

    def client(self, service: str) -> Any:
        """A boto3 client of the server that the stack is on."""
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", **keys)  # type: ignore[call-overload]  # any service

    def outputs(self) -> dict[str, str]:
        """The stack's outputs."""
        [stack] = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def resources(self) -> dict[str, str]:
        """The physical name of each resource, by its logical one."""
        found = self.client("cloudformation").describe_stack_resources(StackName=self.name)["StackResources"]
        # moto has no names for what it does not make.
        return {
            one["LogicalResourceId"]: one.get("PhysicalResourceId", "") for one in found if "LogicalResourceId" in one
        }

    def allows(self, role: str, name: str = "") -> list[Mapping[str, Any]]:
        """The statements of all policies of a role, by its logical name, or by its `name` if it is of no stack."""
        iam, name = self.client("iam"), name or self.resources()[role]
        documents = [
            iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
        ]
        for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            arn = policy["PolicyArn"]
            version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            documents.append(iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"])
        return [statement for document in map(_read, documents) for statement in document["Statement"] if statement]


def _read(document: object) -> Mapping[str, Any]:
    """A policy. moto gives what a template has made as Python writes a dict."""
    found = ast.literal_eval(document) if isinstance(document, str) else document
    assert isinstance(found, dict)
    return found


def create(url: str, template: str, without: str = "", **parameters: str) -> Stack:
    """Create a stack of infra/aws/TEMPLATE, `without` a resource that is unknown there, and wait until it is done."""
    stack = Stack(url, template.removesuffix(".yaml"))
    client = stack.client("cloudformation")
    text = (AWS / template).read_text(encoding="utf-8")
    if without:
        text, times = re.subn(rf"^  {without}:\n(?:    .*\n|\n)+", "", text, flags=re.MULTILINE)
        assert times == 1, f"{template} has no {without}"
    client.create_stack(
        StackName=stack.name,
        TemplateBody=text,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        [found] = client.describe_stacks(StackName=stack.name)["Stacks"]
        if not found["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.2)
    said = [
        event.get("ResourceStatusReason") for event in client.describe_stack_events(StackName=stack.name)["StackEvents"]
    ]
    assert found["StackStatus"] == "CREATE_COMPLETE", said
    return stack


def listed(value: object) -> list[Any]:
    """What a policy may write as one or as several."""
    return list(value) if isinstance(value, list | tuple) else [value]


def allowed(statements: Iterable[Mapping[str, Any]], action: str, resource: str, **context: str) -> bool:
    """Whether the statements allow it; a condition on a key that the context does not have is not met.

    Knows what these policies use: Allow, wildcards, StringEquals and StringLike.
    """
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in listed(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
        and _met(statement.get("Condition", {}), context)
        for statement in statements
    )


def _met(conditions: Mapping[str, Mapping[str, object]], context: Mapping[str, str]) -> bool:
    for operator, keys in conditions.items():
        for key, values in keys.items():
            found = context.get(key.replace(":", "_"))
            if found is None:
                return False
            if operator == "StringLike":
                if not any(fnmatch.fnmatchcase(found, str(value)) for value in listed(values)):
                    return False
            elif operator == "StringEquals":
                if found not in listed(values):
                    return False
            else:
                raise AssertionError(f"{operator} is not known here")
    return True


@dataclass(frozen=True)
class Call:
    """What a request to S3 needs to be allowed."""

    action: str
    resource: str


def call(seen: str) -> Call:
    """The permission behind a request, from `METHOD /bucket/key?query`.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
    """
    method, _, target = seen.partition(" ")
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not key:
        if method == "POST" and "delete" in query:
            return Call("s3:DeleteObject", f"arn:aws:s3:::{bucket}/any")
        assert method in {"GET", "HEAD"}, seen
        return Call("s3:ListBucket", f"arn:aws:s3:::{bucket}")
    actions = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject"}
    actions["DELETE"] = "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
    return Call(actions[method], f"arn:aws:s3:::{bucket}/{key}")
