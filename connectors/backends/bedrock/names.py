"""What Bedrock takes as a name, an address or an id. botocore checks only the least lengths, so all is checked here.

Patterns and lengths are those of the SDK's service model (boto3 1.43, `bedrock`, CreateModelInvocationJob), but the
token's, which the SDK spells so that it cannot be tried in bounded time. A test compares them with the SDK's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lowtide.errors import ConfigError
from lowtide.job.backends import BedrockBackend

FIELD = "backends[0].bedrock"
"""How the job file's errors name where a setting of this backend stands."""

S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)?/?")
ROLE_ARN = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
MODEL_ID = re.compile(
    r"(arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:(([0-9]{12}:custom-model/[a-z0-9-]{1,63}[.]{1}[a-z0-9-:]{1,63}"
    r"/[a-z0-9]{12}$)|(:foundation-model/([a-z0-9-]{1,63}[.]{1}[a-z0-9-]{1,63}([.]?[a-z0-9-]{1,63})"
    r"([:][a-z0-9-]{1,63}){0,2})|(([0-9a-zA-Z][_-]?)+)$)|([0-9]{12}:(inference-profile|application-inference-profile)"
    r"/[a-zA-Z0-9-:.]+$)))|([a-z0-9-]{1,63}[.]{1}[a-z0-9-]{1,63}([.]?[a-z0-9-]{1,63})([:][a-z0-9-]{1,63}){0,2})"
    r"|(([0-9a-zA-Z][_-]?)+)"
)
KMS_KEY = re.compile(
    r"(arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:((key/[a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)))"
    r"|([a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)"
)
NETWORK_ID = re.compile(r"[-0-9a-zA-Z]+")
TAG = re.compile(r"[a-zA-Z0-9\s._:/=+@-]*")
JOB_ARN = re.compile(r"(arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:model-invocation-job/[a-z0-9]{12})")

# A jobName is letters, digits, `+`, `-` and `.`, a clientRequestToken letters, digits and inner `-`: this is both.
TOKEN = re.compile(r"[a-zA-Z0-9]+(?:-+[a-zA-Z0-9]+)*")
LONGEST_TOKEN = 63
LONGEST_URI = 1024

_LONGEST = {"role_arn": 2048, "model": 2048, "kms_key": 2048, "id": 32, "tag name": 128, "tag": 256}
_LONGEST_BELOW_STAGING = len(f"/bedrock/{'x' * LONGEST_TOKEN}/requests.jsonl")


def is_token(token: str) -> bool:
    """Whether this can be a job's name and its clientRequestToken."""
    return len(token) <= LONGEST_TOKEN and TOKEN.fullmatch(token) is not None


def is_s3_uri(uri: str) -> bool:
    """Whether Bedrock reads and writes there: no `=`, no space, no `%`, at most 1,024 characters."""
    return len(uri) <= LONGEST_URI and S3_URI.fullmatch(uri) is not None


def is_batch_input(uri: str) -> bool:
    """Whether a job can read this one file where it lies."""
    return is_s3_uri(uri) and uri.endswith(".jsonl")


def job_id(arn: str) -> str:
    """The 12 characters that name a job's folder in its output."""
    return arn.rpartition("/")[2]


def check_spec(spec: BedrockBackend, staging: str) -> None:
    """Refuse what Bedrock would refuse, before anything is called. Raises ConfigError that names the key."""
    _check("role_arn", spec.role_arn, ROLE_ARN, "arn:aws:iam::ACCOUNT:role/NAME")
    _check("model", spec.model, MODEL_ID, "a model id, or the id or ARN of an inference profile")
    if spec.kms_key is not None:
        _check("kms_key", spec.kms_key, KMS_KEY, "the id, the alias or the ARN of a KMS key")
    if spec.vpc is not None:
        for key, ids in (("subnet_ids", spec.vpc.subnet_ids), ("security_group_ids", spec.vpc.security_group_ids)):
            for found in ids:
                _check(f"vpc.{key}", found, NETWORK_ID, "letters, digits and -, at most 32", longest=_LONGEST["id"])
    _check_tags(spec.tags)
    if not is_s3_uri(staging):
        raise ConfigError(
            f"{FIELD}.staging: found {staging!r}; expected an s3:// address with letters, digits, slashes and -!_*'(). "
            "only"
        )
    if len(staging) > LONGEST_URI - _LONGEST_BELOW_STAGING:
        raise ConfigError(
            f"{FIELD}.staging: found {len(staging)} characters; expected at most "
            f"{LONGEST_URI - _LONGEST_BELOW_STAGING}, so that there is room for what Bedrock is told to read below it"
        )


def _check_tags(tags: Mapping[str, str]) -> None:
    for name, value in tags.items():
        allowed = "letters, digits, spaces and . _ : / = + @ -"
        _check("tags", name, TAG, f"names of {allowed}, at most 128 characters", longest=_LONGEST["tag name"])
        _check("tags", value, TAG, f"values of {allowed}, at most 256 characters", longest=_LONGEST["tag"])


def _check(key: str, found: str, pattern: re.Pattern[str], wanted: str, longest: int | None = None) -> None:
    if len(found) > (longest or _LONGEST[key]) or not pattern.fullmatch(found):
        raise ConfigError(f"{FIELD}.{key}: found {found!r}; expected {wanted}")
