"""What a run needs of an AWS account, looked at with calls that cost nothing and create no job."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from lowtide.connectors.backends.aws.examine import tried
from lowtide.connectors.backends.aws.failures import FAILURES, code_of
from lowtide.connectors.backends.bedrock import names
from lowtide.connectors.backends.bedrock.connection import Aws
from lowtide.connectors.backends.bedrock.models import known
from lowtide.connectors.backends.bedrock.quotas import read_quotas
from lowtide.connectors.backends.bedrock.staging import Staging
from lowtide.errors import StoreError
from lowtide.job.backends import BedrockBackend
from lowtide.records import Finding

_PROFILE = re.compile(r"arn:[^:]+:bedrock:[^:]*:[^:]*:(?:application-)?inference-profile/")
_SESSION = re.compile(r"(arn:[^:]+):sts::(\d{12}):assumed-role/([^/]+)/.+")
_JOB_ACTIONS = ["bedrock:CreateModelInvocationJob", "bedrock:GetModelInvocationJob", "bedrock:StopModelInvocationJob"]
_NOBODY = "000000000000"


def findings(aws: Aws, spec: BedrockBackend, staging: Staging) -> Iterator[Finding]:
    """What was looked at, one after the other; without credentials, the rest is not tried."""
    identity = _identity(aws)
    yield identity
    if not identity.ok:
        return
    yield _model(aws, spec)
    yield _jobs_can_be_listed(aws)
    yield _jobs_can_be_seen(aws)
    yield _bucket(staging)
    yield from _role(aws, spec, identity.found)
    yield _quotas(aws, spec)


def _identity(aws: Aws) -> Finding:
    # sts:GetCallerIdentity needs no permission, and cannot be denied.
    return tried(
        "AWS credentials", "sts:GetCallerIdentity", lambda: str(aws.other("sts").get_caller_identity().get("Arn", ""))
    )


def _model(aws: Aws, spec: BedrockBackend) -> Finding:
    """Whether the model is there. That it takes batches, only a create call would say, and none is made here."""
    profile = bool(_PROFILE.match(spec.model)) or spec.model.count(".") > 1

    def look() -> str:
        try:
            return described()
        except FAILURES as error:
            if code_of(error) not in {"404", "501", "NotImplemented"}:
                raise
        return "could not be checked: what answers in Bedrock's place does not know this call"

    def described() -> str:
        if profile:
            found: Mapping[str, Any] = aws.bedrock.get_inference_profile(inferenceProfileIdentifier=spec.model)
            state = found.get("status", "")
        else:
            answer: Mapping[str, Any] = aws.bedrock.get_foundation_model(modelIdentifier=spec.model)
            state = answer.get("modelDetails", {}).get("modelLifecycle", {}).get("status", "")
        where = "is an inference profile" if profile else "is a model"
        return (
            f"{spec.model!r} {where} of {aws.region} ({state or 'no state given'}); whether it takes batches is in the "
            "user guide's list of models for batch inference: only creating a job would tell"
        )

    action = "bedrock:GetInferenceProfile" if profile else "bedrock:GetFoundationModel"
    if ":custom-model/" in spec.model:
        return Finding("model", True, "a custom model; whether it is there, only creating a job would tell")
    return tried("model", f"{action} to this identity, for this check only", look)


def _jobs_can_be_listed(aws: Aws) -> Finding:
    def look() -> str:
        aws.bedrock.list_model_invocation_jobs(maxResults=1)
        return "jobs can be listed, so that one whose creation was not confirmed is found again"

    return tried("list jobs", "bedrock:ListModelInvocationJobs to this identity", look)


def _jobs_can_be_seen(aws: Aws) -> Finding:
    def look() -> str:
        try:
            aws.bedrock.get_model_invocation_job(jobIdentifier=_NOBODY)
        except FAILURES as error:
            if code_of(error) not in {"ResourceNotFoundException", "ValidationException"}:
                raise
        return "jobs can be looked at"

    return tried("look at jobs", "bedrock:GetModelInvocationJob to this identity", look)


def _bucket(staging: Staging) -> Finding:
    path = f"bedrock/probe-{secrets.token_hex(8)}.txt"

    def look() -> str:
        store = staging.store
        store.write(path, b"lowtide")
        try:
            if not any(info.path == path for info in store.list(path)):
                raise StoreError(f"{staging.uri!r} does not list what was written to it", uri=staging.uri)
            store.read(path)
        finally:
            store.delete(path)
        return f"{staging.uri} can be listed, read, written and deleted from, by this identity"

    return tried("staging", "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject", look)


def _role(aws: Aws, spec: BedrockBackend, caller: str) -> Iterator[Finding]:
    if not names.ROLE_ARN.fullmatch(spec.role_arn):
        yield Finding("service role", False, f"{spec.role_arn!r} is no ARN of a role: arn:aws:iam::ACCOUNT:role/NAME")
        return
    account = caller.split(":")[4] if caller.count(":") >= 5 else ""
    if account and spec.role_arn.split(":")[4] not in {"", account}:
        yield Finding(
            "service role",
            False,
            f"{spec.role_arn!r} is a role of another account than {account}: Bedrock takes roles of the job's account",
        )
        return
    yield Finding("service role", True, f"{spec.role_arn!r} has the form of a role's ARN")
    passing = [{"ContextKeyName": "iam:PassedToService", "ContextKeyType": "string"}]
    passing[0] |= {"ContextKeyValues": ["bedrock.amazonaws.com"]}  # type: ignore[dict-item]  # a list, among text
    yield _simulated(aws, caller, "iam:PassRole", ["iam:PassRole"], spec.role_arn, ContextEntries=passing)
    yield _simulated(aws, caller, "jobs", _JOB_ACTIONS, "*")


def _simulated(aws: Aws, caller: str, name: str, actions: list[str], resource: str, **more: object) -> Finding:
    """Whether this identity's policies allow the actions; where that may not be asked, what is needed."""
    session = _SESSION.fullmatch(caller)
    source = f"{session[1]}:iam::{session[2]}:role/{session[3]}" if session else caller
    needed = f"{' and '.join(actions)} on {resource}"
    try:
        answer: Mapping[str, Any] = aws.other("iam").simulate_principal_policy(
            PolicySourceArn=source, ActionNames=actions, ResourceArns=[resource], **more
        )
    except FAILURES as error:
        why = code_of(error) or type(error).__name__
        return Finding(
            name, True, f"could not be checked ({why} at iam:SimulatePrincipalPolicy); this identity needs {needed}"
        )
    results = answer.get("EvaluationResults", [])
    denied = [result["EvalActionName"] for result in results if result.get("EvalDecision") != "allowed"]
    if denied:
        return Finding(name, False, f"{' and '.join(denied)} on {resource} is missing: allow it to {source}")
    return Finding(name, True, f"allowed: {needed}")


def _quotas(aws: Aws, spec: BedrockBackend) -> Finding:
    quotas, why = read_quotas(aws, spec.model, known(spec.model))
    found = (
        f"a job may hold {quotas.minimum} to {quotas.records} records and {quotas.file / 1e9:g} GB; "
        f"{quotas.live} jobs of this model may be open at once"
    )
    return Finding("quotas", True, f"{found} (Bedrock's defaults: {why})" if why else found)
