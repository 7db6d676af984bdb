"""What `lowtide doctor` is told: each missing permission by its name, and no job created."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote

import pytest
from bedrock_bench import HAIKU, HAIKU_45, Bench
from servers.faulty import Fault, faulty
from servers.threaded import answering

from lowtide.records import Finding

CALLER = "arn:aws:sts::123456789012:assumed-role/analyst/session"


@dataclass
class Account:
    """What an AWS account says of itself: models, and which actions its policies allow to whom."""

    url: str = ""
    models: tuple[str, ...] = (HAIKU,)
    profiles: tuple[str, ...] = (HAIKU_45,)
    denied: tuple[str, ...] = ()
    simulation: bool = True
    credentials: bool = True
    simulated: list[dict[str, list[str]]] = field(default_factory=list)


@contextmanager
def serving(account: Account) -> Iterator[Account]:
    """Answer GetFoundationModel, GetInferenceProfile, GetCallerIdentity and SimulatePrincipalPolicy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, name = unquote(self.path).lstrip("/").partition("/")
            if kind == "foundation-models" and name in account.models:
                self._say(
                    200, {"modelDetails": {"modelArn": "a", "modelId": name, "modelLifecycle": {"status": "ACTIVE"}}}
                )
            elif kind == "inference-profiles" and name in account.profiles:
                self._say(200, {"inferenceProfileId": name, "status": "ACTIVE", "models": []})
            elif kind in {"foundation-models", "inference-profiles"}:
                self._say(404, {"message": "no such model"}, "ResourceNotFoundException")
            elif kind.startswith("model-invocation-jobs"):
                self._say(200, {"invocationJobSummaries": []})
            else:
                self._say(404, {"message": "no such job"}, "ResourceNotFoundException")

        def do_POST(self) -> None:
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if asked["Action"] == ["GetCallerIdentity"]:
                if not account.credentials:
                    self._xml(403, "<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>")
                    return
                result = f"<GetCallerIdentityResult><Arn>{CALLER}</Arn></GetCallerIdentityResult>"
                self._xml(200, f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>")
                return
            account.simulated.append(asked)
            if not account.simulation:
                self._xml(
                    403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
                )
                return
            actions = [values[0] for key, values in sorted(asked.items()) if key.startswith("ActionNames.member.")]
            results = "".join(
                f"<member><EvalActionName>{action}</EvalActionName>"
                f"<EvalDecision>{'implicitDeny' if action in account.denied else 'allowed'}</EvalDecision></member>"
                for action in actions
            )
            self._xml(
                200,
                "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><EvaluationResults>"
                f"{results}</EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>",
            )

        def _say(self, status: int, body: object, error: str = "") -> None:
            self._send(status, json.dumps(body).encode(), {"x-amzn-ErrorType": error} if error else {})

        def _xml(self, status: int, body: str) -> None:
            self._send(status, body.encode(), {"Content-Type": "text/xml"})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with answering(Handler) as account.url:
        yield account


@pytest.fixture
def account(bench: Bench) -> Iterator[Account]:
    with serving(Account()) as account:
        for service in ("BEDROCK", "STS", "IAM"):
            bench.environ[f"AWS_ENDPOINT_URL_{service}"] = account.url
        yield account


def examined(bench: Bench, **changes: object) -> dict[str, Finding]:
    return {finding.name: finding for finding in bench.open(**changes).examine()}


def test_all_is_well(bench: Bench, account: Account) -> None:
    found = examined(bench)
    assert list(found) == [
        "AWS credentials", "model", "list jobs", "look at jobs", "staging", "service role", "iam:PassRole", "jobs",
        "quotas",
    ]  # fmt: skip
    assert all(finding.ok for finding in found.values()), found
    assert found["AWS credentials"].found == CALLER
    assert "only creating a job would tell" in found["model"].found
    assert "100 to 50000 records" in found["quotas"].found
    assert bench.paths() == []
    assert bench.emulator.calls()["created"] == []


def test_the_role_behind_a_session_is_asked_about_with_what_it_passes_to_whom(bench: Bench, account: Account) -> None:
    examined(bench)
    passing = account.simulated[0]
    assert passing["PolicySourceArn"] == ["arn:aws:iam::123456789012:role/analyst"]
    assert passing["ResourceArns.member.1"] == ["arn:aws:iam::123456789012:role/lowtide-bedrock"]
    assert passing["ContextEntries.member.1.ContextKeyName"] == ["iam:PassedToService"]
    assert passing["ContextEntries.member.1.ContextKeyValues.member.1"] == ["bedrock.amazonaws.com"]


def test_a_profile_is_looked_up_as_one(bench: Bench, account: Account) -> None:
    assert "is an inference profile" in examined(bench, model=HAIKU_45)["model"].found


def test_a_model_that_is_not_there(bench: Bench, account: Account) -> None:
    for model in ("anthropic.claude-9-v1:0", "us.anthropic.claude-9-v1:0"):
        finding = examined(bench, model=model)["model"]
        assert not finding.ok
        assert "ResourceNotFoundException" in finding.found


def test_missing_permissions_are_named(bench: Bench, account: Account) -> None:
    account.denied = ("iam:PassRole", "bedrock:StopModelInvocationJob")
    found = examined(bench)
    assert not found["iam:PassRole"].ok
    assert "iam:PassRole on arn:aws:iam::123456789012:role/lowtide-bedrock is missing" in found["iam:PassRole"].found
    assert not found["jobs"].ok
    assert "bedrock:StopModelInvocationJob" in found["jobs"].found
    assert "bedrock:CreateModelInvocationJob" not in found["jobs"].found


def test_what_may_not_be_asked_is_said_with_the_permission_that_is_needed(bench: Bench, account: Account) -> None:
    account.simulation = False
    finding = examined(bench)["iam:PassRole"]
    assert finding.ok
    assert finding.found == (
        "could not be checked (AccessDenied at iam:SimulatePrincipalPolicy); this identity needs iam:PassRole on "
        "arn:aws:iam::123456789012:role/lowtide-bedrock"
    )


def test_without_credentials_nothing_else_is_tried(bench: Bench, account: Account) -> None:
    account.credentials = False
    found = examined(bench)
    assert list(found) == ["AWS credentials"]
    assert not found["AWS credentials"].ok
    assert "check the keys" in found["AWS credentials"].found


def test_a_role_of_another_account(bench: Bench, account: Account) -> None:
    finding = examined(bench, role_arn="arn:aws:iam::999999999999:role/x")["service role"]
    assert not finding.ok
    assert "another account" in finding.found


def test_denied_jobs_and_quotas(bench: Bench) -> None:
    denied = ["bedrock:ListModelInvocationJobs", "bedrock:GetModelInvocationJob", "servicequotas:ListServiceQuotas"]
    bench.emulator.settings(bedrock={"denied": denied})
    found = examined(bench)
    assert not found["list jobs"].ok
    assert "allow bedrock:ListModelInvocationJobs" in found["list jobs"].found
    assert not found["look at jobs"].ok
    assert "allow bedrock:GetModelInvocationJob" in found["look at jobs"].found
    assert found["quotas"].ok
    assert "defaults: " in found["quotas"].found
    assert "servicequotas:ListServiceQuotas" in found["quotas"].found


@pytest.mark.parametrize(
    ("method", "permission"),
    [("PUT", "s3:PutObject"), ("GET", "s3:"), ("DELETE", "s3:DeleteObject")],
)
def test_a_bucket_that_denies_something(bench: Bench, account: Account, method: str, permission: str) -> None:
    with faulty(bench.environ["AWS_ENDPOINT_URL"]) as proxy:
        bench.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        proxy.faults.append(Fault(method, 403, "AccessDenied", where=bench.bucket, times=100))
        finding = examined(bench, staging=f"s3://{bench.bucket}/staging")["staging"]
    assert not finding.ok
    assert f"allow {permission}" in finding.found
