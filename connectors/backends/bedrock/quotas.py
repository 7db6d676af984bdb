"""How much one job may hold: Bedrock's defaults as data, and the account's own numbers where Service Quotas tells them.

Defaults: the quota table of the AWS General Reference (docs.aws.amazon.com/general/latest/gr/bedrock.html), read in a
copy of June 2025. Names of quotas: as Service Quotas lists them, "Records per batch inference job for Claude 3 Haiku".
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec

from lowtide.connectors.backends.aws.failures import FAILURES, reported
from lowtide.connectors.backends.bedrock.connection import Aws
from lowtide.connectors.backends.bedrock.models import Model, name_key, quota_key
from lowtide.errors import LowtideError
from lowtide.records import Limits

PATIENCE = 10.0
"""Seconds that the account's quotas may take: some ten pages."""

_GB = 1000**3
_PAGE = 100
# More than any tokenizer takes for one token of running text, so that nothing is refused that could fit.
_BYTES_PER_TOKEN = 8
# The SDK's bound for the body of one request on demand.
_LARGEST_REQUEST = 25_000_000
_LEAST_REQUEST = 1 << 16
_NAMES = {
    "records": re.compile(r"records per (?:input file per )?batch inference job for (.+)"),
    "file": re.compile(r"batch inference input file size (?:\(in gb\) )?for (.+?)(?: \(in gb\))?"),
    "job": re.compile(r"batch inference job size (?:\(in gb\) )?for (.+?)(?: \(in gb\))?"),
    "minimum": re.compile(r"minimum number of records per batch inference job for (.+)"),
    "live": re.compile(r"sum of in-progress and submitted batch inference jobs using a base model for (.+)"),
}


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one job of a model may hold; sizes in bytes. `live` bounds the jobs that are submitted or in progress."""

    records: int = 50_000
    file: int = _GB
    job: int = 5 * _GB
    minimum: int = 100
    live: int = 20

    def limits(self, model: Model, timeout_hours: int = 24) -> Limits:
        """The limits of a batch, which is one file. Bedrock gives a job up after so many hours."""
        size = min(self.file, self.job)
        request = min(max(model.context * _BYTES_PER_TOKEN, _LEAST_REQUEST), _LARGEST_REQUEST, size)
        return Limits(
            records=self.records,
            bytes=size,
            request_bytes=request,
            live_batches=self.live,
            minimum_records=min(self.minimum, self.records),
            turnaround_seconds=timeout_hours * 3600.0,
        )


class _Quota(msgspec.Struct, rename="pascal"):
    quota_name: str = ""
    value: float = 0.0


class _Page(msgspec.Struct, rename="pascal"):
    quotas: list[_Quota] = []
    next_token: str | None = None


def read_quotas(aws: Aws, model_id: str, model: Model, patience: float = PATIENCE) -> tuple[Quotas, str]:
    """The model's quotas, and "" or the reason why they are the defaults. Raises nothing."""
    defaults = Quotas(minimum=model.minimum)
    key = quota_key(model_id)
    if aws.emulated:
        return defaults, "AWS_ENDPOINT_URL_SERVICE_QUOTAS is not set, and Bedrock is not AWS's own"
    if not key:
        return defaults, "the model's name cannot be told from its ARN"
    try:
        found = _matching(_listed(aws, patience), key)
    except LowtideError as error:
        return defaults, str(error)
    if not found:
        return defaults, f"Service Quotas lists no batch quotas for {model_id!r}"
    return replace(defaults, **found), ""


def _matching(quotas: Iterable[_Quota], key: tuple[str, ...]) -> Mapping[str, int]:
    """What is listed for the model, the smaller where a quota stands there twice."""
    found: dict[str, int] = {}
    for quota in quotas:
        for field, pattern in _NAMES.items():
            match = pattern.fullmatch(quota.quota_name.lower())
            if match and name_key(match[1]) == key and quota.value >= 1:
                value = int(quota.value * (_GB if field in {"file", "job"} else 1))
                found[field] = min(value, found.get(field, value))
    return found


def _listed(aws: Aws, patience: float) -> Iterator[_Quota]:
    end = time.monotonic() + patience
    following: dict[str, str] = {}
    while True:
        try:
            answer = aws.quotas.list_service_quotas(ServiceCode="bedrock", MaxResults=_PAGE, **following)
            page = msgspec.convert(answer, _Page)
        except FAILURES as error:
            raise reported(error, "read the account's quotas", "servicequotas:ListServiceQuotas") from error
        except msgspec.ValidationError as error:
            raise LowtideError(f"Service Quotas answered, and its list cannot be read: {error}") from error
        yield from page.quotas
        if not page.next_token:
            return
        if time.monotonic() > end:
            raise LowtideError(f"Service Quotas took more than {patience:.0f} s")
        following = {"NextToken": page.next_token}
