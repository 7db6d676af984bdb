"""Service Quotas through boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulators.desk import Desk, client


@pytest.fixture
def quotas(desk: Desk) -> Any:
    return client("service-quotas", desk.emulator.url)


def values(quotas: Any, operation: str = "list_service_quotas") -> dict[str, float]:
    pages = quotas.get_paginator(operation).paginate(ServiceCode="bedrock")
    found = [quota for page in pages for quota in page["Quotas"]]
    assert len({quota["QuotaCode"] for quota in found}) == len(found) > 100
    return {quota["QuotaName"]: quota["Value"] for quota in found}


def test_every_limit_of_a_batch_is_a_quota_of_each_model(quotas: Any):
    found = values(quotas)
    assert found["Minimum number of records per batch inference job for Claude 3 Haiku"] == 100
    assert found["Minimum number of records per batch inference job for Llama 4 Scout"] == 50
    assert found["Records per batch inference job for Claude 3 Haiku"] == 50_000
    assert found["Records per input file per batch inference job for Claude 3 Haiku"] == 50_000
    assert found["Batch inference input file size (in GB) for Nova Pro V1"] == 1
    assert found["Batch inference job size (in GB) for Nova Pro V1"] == 100
    assert found["Batch inference job size (in GB) for Claude 3 Haiku"] == 5
    jobs = "Sum of in-progress and submitted batch inference jobs using a {} model for Claude 3 Haiku"
    assert (found[jobs.format("base")], found[jobs.format("custom")]) == (20, 3)
    assert not any("Claude Instant" in name for name in found)


def test_the_settings_are_the_accounts_quotas_and_the_defaults_stay(desk: Desk, quotas: Any):
    desk.emulator.settings(bedrock={"quotas": {"jobs": 100, "records_per_job": 100_000, "minimum_records": 10}})
    name = "Records per batch inference job for Nova Micro V1"
    assert values(quotas)[name] == 100_000
    assert values(quotas, "list_aws_default_service_quotas")[name] == 50_000
    assert values(quotas)["Minimum number of records per batch inference job for Llama 4 Scout"] == 10


def test_one_quota_is_found_by_its_code(quotas: Any):
    first = quotas.list_service_quotas(ServiceCode="bedrock", MaxResults=1)
    assert "NextToken" in first
    (quota,) = first["Quotas"]
    assert quotas.get_service_quota(ServiceCode="bedrock", QuotaCode=quota["QuotaCode"])["Quota"] == quota


def test_what_is_not_there_and_who_may_not_ask_is_said(desk: Desk, quotas: Any):
    with pytest.raises(quotas.exceptions.NoSuchResourceException):
        quotas.get_service_quota(ServiceCode="bedrock", QuotaCode="L-00000000")
    with pytest.raises(quotas.exceptions.NoSuchResourceException):
        quotas.list_service_quotas(ServiceCode="other")
    desk.emulator.settings(bedrock={"denied": ["servicequotas:ListServiceQuotas"]})
    with pytest.raises(ClientError) as refused:
        quotas.list_service_quotas(ServiceCode="bedrock")
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    desk.emulator.faults([{"on": "list", "do": "throttle", "match": {"operation": "GetServiceQuota"}}])
    with pytest.raises(quotas.exceptions.TooManyRequestsException):
        quotas.get_service_quota(ServiceCode="bedrock", QuotaCode="L-00000000")
