"""Looks whether workers can be started on AWS Batch, with calls that change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from lowtide.connectors.backends.aws.examine import tried
from lowtide.connectors.backends.spot.aws import FIELD, Aws, read
from lowtide.connectors.backends.spot.spot_prices import SpotPrices
from lowtide.errors import ConfigError, LowtideError
from lowtide.records import Finding

_QUEUES = "batch:DescribeJobQueues to this identity"
_DEFINITIONS = "batch:DescribeJobDefinitions to this identity"
_PRICES = "ec2:DescribeSpotPriceHistory to this identity"
_NONE = "there is no "
_STACK = "`lowtide infra show aws --file spot.yaml` shows the template of a stack that has one"
# Whose members AWS chooses: https://docs.aws.amazon.com/batch/latest/APIReference/API_ComputeResource.html
_GROUPS = ("optimal", "default_")


class _Order(msgspec.Struct, rename="camel", frozen=True):
    compute_environment: str


class _Queue(msgspec.Struct, rename="camel", frozen=True):
    state: str
    status: str = ""
    status_reason: str = ""
    compute_environment_order: list[_Order] = []


class _Queues(msgspec.Struct, rename="camel", frozen=True):
    job_queues: list[_Queue] = []


class _Resources(msgspec.Struct, rename="camel", frozen=True):
    type: str = ""
    minv_cpus: int = msgspec.field(name="minvCpus", default=0)
    maxv_cpus: int = msgspec.field(name="maxvCpus", default=0)
    instance_types: list[str] = []


class _Environment(msgspec.Struct, rename="camel", frozen=True):
    compute_environment_name: str
    state: str = ""
    status: str = ""
    status_reason: str = ""
    compute_resources: _Resources | None = None


class _Environments(msgspec.Struct, rename="camel", frozen=True):
    compute_environments: list[_Environment] = []


class _Definition(msgspec.Struct, rename="camel", frozen=True):
    job_definition_name: str
    revision: int
    status: str = ""


class _Definitions(msgspec.Struct, rename="camel", frozen=True):
    job_definitions: list[_Definition] = []


class _Identity(msgspec.Struct, rename="pascal", frozen=True):
    arn: str = ""


def findings(
    aws: Aws,
    queue: str,
    definition: str,
    instances: Sequence[str],
    prices: SpotPrices,
    max_usd_per_hour: Decimal | None = None,
) -> Iterator[Finding]:
    """What was looked at, one after the other; without credentials, the rest is not tried."""
    identity = tried("AWS credentials", "sts:GetCallerIdentity", lambda: _identity(aws))
    yield identity
    if not identity.ok:
        return
    # The names of the queue's environments, known once it has been looked at, and what they start.
    environments: list[str] = []
    started: list[str] = []
    yield tried("job queue", _QUEUES, lambda: _queue(aws, queue, environments))
    for name in environments:
        yield tried(
            "compute environment",
            "batch:DescribeComputeEnvironments to this identity",
            lambda name=name: _environment(aws, name, started),  # type: ignore[misc]  # bound now
        )
    if started and instances:
        yield tried("instances", "", lambda: _alike(instances, started))
    yield tried("job definition", _DEFINITIONS, lambda: _definition(aws, definition))
    for instance in instances:
        yield tried(
            "Spot price",
            _PRICES,
            lambda instance=instance: _price(aws, prices, instance),  # type: ignore[misc]  # bound now
        )
    if max_usd_per_hour is not None and instances:
        yield tried("max_usd_per_hour", _PRICES, lambda: _allowed(prices, instances, max_usd_per_hour))


def expect(aws: Aws, queue: str, definition: str) -> None:
    """After a job was refused: raise ConfigError where queue or job definition are not there or take no jobs.

    What cannot be looked at now is passed over.
    """
    for key, found in (
        ("queue", tried("", _QUEUES, lambda: _queue(aws, queue, []))),
        ("job_definition", tried("", _DEFINITIONS, lambda: _definition(aws, definition))),
    ):
        if found.found.startswith(_NONE):
            raise ConfigError(f"{FIELD}.{key}: {found.found}")


class _Wrong(LowtideError):
    """What was found would keep a worker from starting."""


def _identity(aws: Aws) -> str:
    # sts:GetCallerIdentity needs no permission, and cannot be denied.
    return read(aws.client("sts").get_caller_identity(), _Identity, "who this identity is").arn


def _queue(aws: Aws, queue: str, environments: list[str]) -> str:
    answer = aws.client("batch").describe_job_queues(jobQueues=[queue])
    found = read(answer, _Queues, "its description of the queue").job_queues
    if not found:
        raise _Wrong(f"{_NONE}job queue {queue!r} in {aws.region}: mend the name, or create it; {_STACK}")
    environments += [one.compute_environment for one in found[0].compute_environment_order]
    _usable(f"the job queue {queue!r}", found[0].state, found[0].status, found[0].status_reason)
    return f"{queue!r} takes jobs; that this identity may submit to it (batch:SubmitJob), only submitting would tell"


def _environment(aws: Aws, name: str, started: list[str]) -> str:
    answer = aws.client("batch").describe_compute_environments(computeEnvironments=[name])
    found = read(answer, _Environments, "its description of the compute environment").compute_environments
    if not found:
        raise _Wrong(f"{_NONE}compute environment {name!r} in {aws.region}; {_STACK}")
    one = found[0]
    started += one.compute_resources.instance_types if one.compute_resources is not None else []
    _usable(f"the compute environment {one.compute_environment_name!r}", one.state, one.status, one.status_reason)
    resources = one.compute_resources or _Resources()
    idle = f"; it keeps {resources.minv_cpus} vCPUs when nothing runs, and they are paid" if resources.minv_cpus else ""
    return (
        f"{one.compute_environment_name!r} is of type {resources.type}, at most {resources.maxv_cpus} vCPUs of "
        f"{', '.join(resources.instance_types)}{idle}"
    )


def _definition(aws: Aws, definition: str) -> str:
    # With a name, every revision is described; with an ARN, or NAME:REVISION, that one.
    named = {"jobDefinitions": [definition]} if ":" in definition else {"jobDefinitionName": definition}
    answer = aws.client("batch").describe_job_definitions(**named, status="ACTIVE")
    found = read(answer, _Definitions, "its description of the job definition").job_definitions
    if not found:
        raise _Wrong(
            f"{_NONE}active job definition {definition!r} in {aws.region}: mend the name, or create it; {_STACK}"
        )
    latest = max(found, key=lambda one: one.revision)
    return f"{latest.job_definition_name}:{latest.revision}"


def _price(aws: Aws, prices: SpotPrices, instance: str) -> str:
    found = prices.dearest_now(instance)
    if found is None:
        raise _Wrong(f"AWS knows no Spot price of {instance!r} in {aws.region}: it is not sold there")
    return f"{instance} costs {found} USD an hour in the dearest zone of {aws.region}"


def _alike(instances: Sequence[str], started: Sequence[str]) -> str:
    """Whether `instances` are the types that the queue's environments start: a type, a family, or a group of them."""
    if not any(one.startswith(_GROUPS) for one in started):
        families = {one.partition(".")[0] for one in instances}
        missing = [one for one in instances if one not in started and one.partition(".")[0] not in started]
        more = [one for one in started if one not in instances and one not in families]
        wrong = [f"no compute environment of the queue starts {', '.join(missing)}"] if missing else []
        wrong += [f"they start {', '.join(more)} as well, with which no plan and no cap reckons"] if more else []
        if wrong:
            raise _Wrong(f"{'; '.join(wrong)}: let instances and the compute environments name the same types")
    return f"{', '.join(instances)}: so do the compute environments"


def _allowed(prices: SpotPrices, instances: Sequence[str], most: Decimal) -> str:
    """How many workers a cap allows, by the dearest instance type."""
    found = {instance: prices.dearest_now(instance) or Decimal(0) for instance in instances}
    dearest = max(found, key=lambda instance: found[instance])
    hourly = found[dearest]
    if most < hourly:
        raise _Wrong(
            f"{most} is less than one worker costs now: {dearest} costs {hourly} USD an hour; no worker is started "
            "until prices fall, or you allow more"
        )
    return f"{most} USD an hour: {int(most / hourly) if hourly else 'any number of'} workers at the price of {dearest}"


def _usable(what: str, state: str, status: str, reason: str) -> None:
    if state != "ENABLED" or status not in {"", "VALID", "UPDATING", "CREATING"}:
        raise _Wrong(f"{what} is {state} and {status or 'without a status'}: {reason or 'AWS gives no reason'}")
