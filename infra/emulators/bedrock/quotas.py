"""Service Quotas, as far as batch inference goes: ListServiceQuotas, ListAWSDefaultServiceQuotas, GetServiceQuota."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from lowtide.emulators.bedrock.models import Model
from lowtide.emulators.bedrock.settings import Quotas, Settings
from lowtide.emulators.bedrock.wire import ACCOUNT

_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota of one model."""

    name: str
    value: float
    adjustable: bool

    @property
    def code(self) -> str:
        """Of the form of AWS's codes, but not theirs: `L-` and eight hexadecimal digits, from the name."""
        return "L-" + blake2b(self.name.encode(), digest_size=4).hexdigest().upper()

    def shown(self, region: str) -> Mapping[str, object]:
        """As ServiceQuotas answers it."""
        return {
            "ServiceCode": "bedrock",
            "ServiceName": "Amazon Bedrock",
            "QuotaArn": f"arn:aws:servicequotas:{region}:{ACCOUNT}:bedrock/{self.code}",
            "QuotaCode": self.code,
            "QuotaName": self.name,
            "Value": self.value,
            "Unit": "None",
            "Adjustable": self.adjustable,
            "GlobalQuota": False,
        }


def quotas(settings: Settings, applied: Quotas) -> list[Quota]:
    """Every quota of batch inference, by name. `applied` are those of the account, or the defaults."""
    return sorted(
        (quota for model in settings.models.values() if model.batch for quota in _of(model, applied)),
        key=lambda quota: quota.name,
    )


def _of(model: Model, applied: Quotas) -> list[Quota]:
    title = model.title
    least = model.minimum if applied.minimum_records is None else applied.minimum_records
    job_gb = model.job_gb if applied.job_bytes is None else applied.job_bytes / _GB
    return [
        Quota(f"Minimum number of records per batch inference job for {title}", least, False),
        Quota(f"Records per batch inference job for {title}", applied.records_per_job, True),
        Quota(f"Records per input file per batch inference job for {title}", applied.records_per_file, True),
        Quota(f"Batch inference input file size (in GB) for {title}", applied.file_bytes / _GB, False),
        Quota(f"Batch inference job size (in GB) for {title}", job_gb, False),
        Quota(
            f"Sum of in-progress and submitted batch inference jobs using a base model for {title}", applied.jobs, True
        ),
        Quota(
            f"Sum of in-progress and submitted batch inference jobs using a custom model for {title}",
            applied.custom_jobs,
            True,
        ),
    ]
