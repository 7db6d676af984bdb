"""What CreateModelInvocationJob requires of its request: botocore's service model 1.44.5, checked on our side too.

botocore itself checks minimums alone; patterns and maximums are the server's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

# The service model writes `(-*[a-zA-Z0-9\+\-\.]){0,63}`: the same names, found in exponential time.
JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+\-.]*")
TOKEN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
MODEL = re.compile(
    r"(arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:(([0-9]{12}:custom-model/[a-z0-9-]{1,63}[.]{1}[a-z0-9-:]{1,63}"
    r"/[a-z0-9]{12}$)|(:foundation-model/([a-z0-9-]{1,63}[.]{1}[a-z0-9-]{1,63}([.]?[a-z0-9-]{1,63})"
    r"([:][a-z0-9-]{1,63}){0,2})|(([0-9a-zA-Z][_-]?)+)$)|"
    r"([0-9]{12}:(inference-profile|application-inference-profile)/[a-zA-Z0-9-:.]+$)))|"
    r"([a-z0-9-]{1,63}[.]{1}[a-z0-9-]{1,63}([.]?[a-z0-9-]{1,63})([:][a-z0-9-]{1,63}){0,2})|(([0-9a-zA-Z][_-]?)+)"
)
S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)?/?")
KMS_KEY = re.compile(
    r"(arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:((key/[a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)))|"
    r"([a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)"
)
ACCOUNT_ID = re.compile(r"[0-9]{12}")
NETWORK_ID = re.compile(r"[-0-9a-zA-Z]+")
TAG = re.compile(r"[a-zA-Z0-9\s._:/=+@-]*")
JOB_ID = re.compile(r"(arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:model-invocation-job/)?[a-z0-9]{12}")
STATUSES = (
    "Submitted",
    "InProgress",
    "Completed",
    "Failed",
    "Stopping",
    "Stopped",
    "PartiallyCompleted",
    "Expired",
    "Validating",
    "Scheduled",
)

Check = Callable[[str, object], Iterator[str]]


class Invalid(ValueError):
    """A request that breaks a rule, in the words of a ValidationException."""


def check_create(body: object) -> Mapping[str, object]:
    """The body of CreateModelInvocationJob, which keeps every rule. Raises Invalid."""
    if not isinstance(body, Mapping):
        raise Invalid("the body of the request is no JSON object")
    broken = [problem for name, check in _CREATE.items() for problem in check(name, body.get(name))]
    if broken:
        some = "error" if len(broken) == 1 else "errors"
        raise Invalid(f"{len(broken)} validation {some} detected: {'; '.join(broken)}")
    return body


def _text(pattern: re.Pattern[str], shortest: int, longest: int, *, required: bool = False) -> Check:
    def check(where: str, value: object) -> Iterator[str]:
        if value is None:
            if required:
                yield _broken(where, value, "Member must not be null")
        elif not isinstance(value, str):
            yield _broken(where, value, "Member must be a string")
        elif len(value) < shortest:
            yield _broken(where, value, f"Member must have length greater than or equal to {shortest}")
        elif len(value) > longest:
            yield _broken(where, value, f"Member must have length less than or equal to {longest}")
        elif not pattern.fullmatch(value):
            yield _broken(where, value, f"Member must satisfy regular expression pattern: {pattern.pattern}")

    return check


def _one_of(*values: str) -> Check:
    def check(where: str, value: object) -> Iterator[str]:
        if value is not None and value not in values:
            yield _broken(where, value, f"Member must satisfy enum value set: [{', '.join(values)}]")

    return check


def _whole(least: int, most: int) -> Check:
    def check(where: str, value: object) -> Iterator[str]:
        if value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool):
            yield _broken(where, value, "Member must be an integer")
        elif value < least:
            yield _broken(where, value, f"Member must have value greater than or equal to {least}")
        elif value > most:
            yield _broken(where, value, f"Member must have value less than or equal to {most}")

    return check


def _structure(members: Mapping[str, Check], *, required: bool = False) -> Check:
    def check(where: str, value: object) -> Iterator[str]:
        if value is None:
            if required:
                yield _broken(where, value, "Member must not be null")
        elif not isinstance(value, Mapping):
            yield _broken(where, value, "Member must be a structure")
        else:
            for name, member in members.items():
                yield from member(f"{where}.{name}", value.get(name))

    return check


def _list(item: Check, shortest: int, longest: int, *, required: bool = False) -> Check:
    def check(where: str, value: object) -> Iterator[str]:
        if value is None:
            if required:
                yield _broken(where, value, "Member must not be null")
        elif not isinstance(value, list):
            yield _broken(where, value, "Member must be a list")
        elif len(value) < shortest:
            yield _broken(where, value, f"Member must have length greater than or equal to {shortest}")
        elif len(value) > longest:
            yield _broken(where, value, f"Member must have length less than or equal to {longest}")
        else:
            for number, member in enumerate(value, 1):
                yield from item(f"{where}.{number}.member", member)

    return check


def _broken(where: str, value: object, rule: str) -> str:
    shown = f" '{value}'" if isinstance(value, str | int) else ""
    return f"Value{shown} at '{where}' failed to satisfy constraint: {rule}"


_CREATE: Mapping[str, Check] = {
    "jobName": _text(JOB_NAME, 1, 63, required=True),
    "roleArn": _text(ROLE, 0, 2048, required=True),
    "clientRequestToken": _text(TOKEN, 1, 256),
    "modelId": _text(MODEL, 1, 2048, required=True),
    "modelInvocationType": _one_of("InvokeModel", "Converse"),
    "inputDataConfig": _structure(
        {
            "s3InputDataConfig": _structure(
                {
                    "s3InputFormat": _one_of("JSONL"),
                    "s3Uri": _text(S3_URI, 1, 1024, required=True),
                    "s3BucketOwner": _text(ACCOUNT_ID, 0, 12),
                },
                required=True,
            )
        },
        required=True,
    ),
    "outputDataConfig": _structure(
        {
            "s3OutputDataConfig": _structure(
                {
                    "s3Uri": _text(S3_URI, 1, 1024, required=True),
                    "s3EncryptionKeyId": _text(KMS_KEY, 1, 2048),
                    "s3BucketOwner": _text(ACCOUNT_ID, 0, 12),
                },
                required=True,
            )
        },
        required=True,
    ),
    "vpcConfig": _structure(
        {
            "subnetIds": _list(_text(NETWORK_ID, 0, 32, required=True), 1, 16, required=True),
            "securityGroupIds": _list(_text(NETWORK_ID, 0, 32, required=True), 1, 5, required=True),
        }
    ),
    "timeoutDurationInHours": _whole(24, 168),
    "tags": _list(
        _structure({"key": _text(TAG, 1, 128, required=True), "value": _text(TAG, 0, 256, required=True)}), 0, 200
    ),
}
