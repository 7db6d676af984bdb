"""The stack of spot workers as created on moto, and jobs that the launcher submits to what was created."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from servers import aws
from servers.faulty import Fault, faulty
from support.stacks import AWS, Stack, allowed, create, listed

from lowtide.connectors.backends.spot.aws import Aws, connect
from lowtide.connectors.backends.spot.batch_launcher import BatchLauncher, Settings
from lowtide.connectors.backends.spot.spot_prices import SpotPrices
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, SubmitUnknown
from lowtide.protocols import Store

KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-1111-1111-1111-111111111111"
FLEET = "r1-abc"
URI = "s3://results/lowtide/spot/r1-abc"

RETRY = [
    {"onStatusReason": "Host EC2*", "action": "RETRY"},
    {"onExitCode": "75", "action": "RETRY"},
    {"onReason": "*", "action": "EXIT"},
]

WIDE = {
    "ecs:DiscoverPollEndpoint": "ECS knows no resource for it",
    "ec2:DescribeTags": "EC2 knows no resource for it",
    "ecr:GetAuthorizationToken": "ECR knows no resource for it",
    "batch:ListJobs": "Batch knows no resource for it",
    "batch:DescribeJobs": "Batch knows no resource for it",
    "batch:DescribeJobQueues": "Batch knows no resource for it",
    "batch:DescribeComputeEnvironments": "Batch knows no resource for it",
    "batch:DescribeJobDefinitions": "Batch knows no resource for it",
    "ec2:DescribeSpotPriceHistory": "EC2 knows no resource for it",
}
"""Actions that the stack's roles may be allowed on every resource, each with its reason."""


def trusting(service: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def post(url: str, path: str, body: Mapping[str, object]) -> None:
    request = urllib.request.Request(  # noqa: S310 - loopback
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).close()  # noqa: S310 - loopback


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with aws.moto() as served:
        yield served


@pytest.fixture(scope="module")
def stack(url: str) -> Stack:
    nowhere = Stack(url, "")
    iam = nowhere.client("iam")
    # moto knows no service-linked roles.
    service = iam.create_role(RoleName="batch", AssumeRolePolicyDocument=trusting("batch.amazonaws.com"))
    iam.create_role(RoleName="submit", AssumeRolePolicyDocument=trusting("ecs-tasks.amazonaws.com"))
    return create(
        url,
        "spot.yaml",
        RootBucketName="results",
        KeyArn=KEY,
        # moto takes a default of several for one.
        InstanceTypes="g6.xlarge,g5.xlarge",
        Image="123456789012.dkr.ecr.us-east-1.amazonaws.com/lowtide-worker:0.1.0",
        WeightsBucketName="weights",
        WeightsFileSystemId="fs-0a1b2c3d",
        SubmitRoleName="submit",
        ServiceRoleArn=service["Role"]["Arn"],
    )


@pytest.fixture
def ended(url: str) -> None:
    """Jobs have succeeded as soon as they are submitted."""
    post(url, "/moto-api/config", {"batch": {"use_docker": False}})


@pytest.fixture
def queued(url: str) -> Iterator[None]:
    """Jobs wait in the queue: with Docker, moto starts no job before it has left its first state."""
    post(url, "/moto-api/config", {"batch": {"use_docker": True}})
    waiting = {"model_name": "batch::job", "transition": {"progression": "time", "seconds": 3600}}
    post(url, "/moto-api/state-manager/set-transition", waiting)
    yield
    post(url, "/moto-api/config", {"batch": {"use_docker": False}})
    post(url, "/moto-api/state-manager/unset-transition", {"model_name": "batch::job"})


@pytest.fixture
def root(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path))
    for number in (1, 2, 3):
        store.write(f"spot/{FLEET}/shards/s{number:05d}-a1/task.json", b"{}")
    return store


def launcher(url: str, stack: Stack, root: Store, now: list[float] | None = None, **settings: Any) -> BatchLauncher:
    there: Aws = connect("us-east-1", aws.environ(url))
    outputs = stack.outputs()
    instances = tuple(outputs["InstanceTypes"].split(","))
    chosen = Settings(outputs["JobQueue"], outputs["JobDefinition"], instances, look_seconds=0, **settings)
    clock = now if now is not None else [1_800_000_000.0]
    return BatchLauncher(there, root, chosen, SpotPrices(there), clock=lambda: clock[0])


def jobs(stack: Stack, fleet: str = FLEET) -> list[dict[str, Any]]:
    """The fleet's jobs as moto has them, without the children of arrays."""
    batch = stack.client("batch")
    named = [{"name": "JOB_NAME", "values": [f"lt-{fleet}-*"]}]
    listed = batch.list_jobs(jobQueue=stack.outputs()["JobQueue"], filters=named)["jobSummaryList"]
    ids = [one["jobId"] for one in listed if ":" not in one["jobId"]]
    return list(batch.describe_jobs(jobs=ids)["jobs"]) if ids else []


def test_nothing_is_paid_while_there_is_no_work(stack: Stack) -> None:
    [environment] = stack.client("batch").describe_compute_environments()["computeEnvironments"]
    resources = environment["computeResources"]
    assert (resources["type"], resources["allocationStrategy"]) == ("SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED")
    assert (int(resources["minvCpus"]), int(resources.get("desiredvCpus", 0))) == (0, 0)
    assert stack.client("ec2").describe_nat_gateways()["NatGateways"] == []


def test_workers_are_started_in_three_zones_and_nobody_may_come_in(stack: Stack) -> None:
    [environment] = stack.client("batch").describe_compute_environments()["computeEnvironments"]
    ec2, resources = stack.client("ec2"), environment["computeResources"]
    subnets = ec2.describe_subnets(SubnetIds=resources["subnets"])["Subnets"]
    assert len({one["AvailabilityZone"] for one in subnets}) == 3
    [group] = ec2.describe_security_groups(GroupIds=resources["securityGroupIds"])["SecurityGroups"]
    assert group["IpPermissions"] == []


def test_a_worker_can_ask_its_instance_whether_it_is_taken_back(stack: Stack) -> None:
    [template] = stack.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=stack.resources()["Machine"], Versions=["$Latest"]
    )["LaunchTemplateVersions"]  # fmt: skip
    assert template["LaunchTemplateData"]["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}


def test_a_worker_has_a_gpu_its_log_and_the_weights(stack: Stack) -> None:
    [found] = stack.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    container = found["containerProperties"]
    needed = {one["type"]: str(one["value"]) for one in container["resourceRequirements"]}
    assert needed == {"VCPU": "4", "MEMORY": "14000", "GPU": "1"}
    assert container["logConfiguration"]["options"]["awslogs-group"] == stack.outputs()["LogGroup"]
    [group] = stack.client("logs").describe_log_groups(logGroupNamePrefix=stack.outputs()["LogGroup"])["logGroups"]
    assert group["retentionInDays"] == 30
    [mount] = container["mountPoints"]
    assert (mount["containerPath"], mount["readOnly"]) == ("/models", True)


def test_a_job_that_is_submitted_by_hand_is_retried_as_the_launchers_are(stack: Stack) -> None:
    [found] = stack.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    retry = found["retryStrategy"]
    assert int(retry["attempts"]) == 10
    # Actions know no case, and moto writes them small.
    assert retry["evaluateOnExit"] == [{**rule, "action": rule["action"].lower()} for rule in RETRY]


@pytest.mark.parametrize("role", ["JobRole", "InstanceRole", "submit"])
def test_the_roles_reach_nothing_beyond_what_is_named(stack: Stack, role: str) -> None:
    statements = stack.allows(role, role if role == "submit" else "")
    assert len(statements) >= 3
    for statement in statements:
        assert statement["Effect"] == "Allow"
        for action in listed(statement["Action"]):
            assert "*" not in action
            assert "*" not in listed(statement["Resource"]) or action in WIDE, action


@pytest.mark.parametrize(
    ("action", "key", "may"),
    [
        ("s3:GetObject", "lowtide/runs/news/2026-W47/r1/requests/s00001-a1.jsonl", True),
        ("s3:GetObject", "lowtide/spot/r1-abc/fleet.json", True),
        ("s3:PutObject", "lowtide/spot/r1-abc/shards/s00001-a1/parts/000001.jsonl", True),
        ("s3:PutObject", "lowtide/runs/news/2026-W47/r1/requests/s00001-a1.jsonl", False),
        ("s3:PutObject", "lowtide/runs/news/2026-W47/r1/journal/000001.json", False),
        ("s3:GetObject", "lowtide/runs/news/2026-W47/r1/journal/000001.json", False),
        ("s3:GetObject", "lowtide/tables/results/job=news/window=2026-W47/results.parquet", False),
        ("s3:GetObject", "other/spot/r1-abc/fleet.json", False),
        ("s3:DeleteObject", "lowtide/spot/r1-abc/fleet.json", False),
    ],
)
def test_a_worker_reads_requests_and_writes_below_spot_only(stack: Stack, action: str, key: str, may: bool) -> None:
    assert allowed(stack.allows("JobRole"), action, f"arn:aws:s3:::results/{key}") is may


def test_a_worker_reads_weights_and_cannot_change_them(stack: Stack) -> None:
    role, weights = stack.allows("JobRole"), "arn:aws:s3:::weights/models/llama/model.safetensors"
    assert allowed(role, "s3:GetObject", weights)
    assert allowed(role, "s3:ListBucket", "arn:aws:s3:::weights", s3_prefix="models/llama")
    assert not allowed(role, "s3:ListBucket", "arn:aws:s3:::weights", s3_prefix="other/")
    assert not allowed(role, "s3:PutObject", weights)
    assert not allowed(role, "s3:GetObject", "arn:aws:s3:::weights/other/model.safetensors")


def test_the_submit_role_may_do_what_the_launcher_does(stack: Stack) -> None:
    role, here = stack.allows("submit", "submit"), {"aws_RequestedRegion": "us-east-1"}
    definition = "arn:aws:batch:us-east-1:123456789012:job-definition/spot-worker"
    job = "arn:aws:batch:us-east-1:123456789012:job/11111111-1111-1111-1111-111111111111"
    assert allowed(role, "batch:SubmitJob", stack.resources()["Queue"])
    for name in (definition, f"{definition}:3"):
        assert allowed(role, "batch:SubmitJob", name)
    assert not allowed(role, "batch:SubmitJob", f"{definition}s:3")
    assert not allowed(role, "batch:SubmitJob", "arn:aws:batch:us-east-1:123456789012:job-queue/other")
    assert allowed(role, "batch:TerminateJob", job)
    assert allowed(role, "batch:CancelJob", job)
    for action in ("batch:ListJobs", "batch:DescribeJobs", "ec2:DescribeSpotPriceHistory"):
        assert allowed(role, action, "*", **here)
        assert not allowed(role, action, "*", aws_RequestedRegion="eu-west-1")


def test_the_image_is_fetched_from_one_repository_that_is_named(stack: Stack) -> None:
    fetched = {
        resource
        for statement in stack.allows("InstanceRole")
        for resource in listed(statement["Resource"])
        if "ecr:BatchGetImage" in listed(statement["Action"])
    }
    assert fetched == {"arn:aws:ecr:us-east-1:123456789012:repository/lowtide-worker"}
    [pattern] = re.findall(
        r"\n  Repository:\n(?:    .+\n)*?    AllowedPattern: \"(.+)\"\n", (AWS / "spot.yaml").read_text()
    )
    assert not re.fullmatch(pattern, "*")


@pytest.mark.usefixtures("queued")
def test_an_array_of_workers_is_submitted_with_its_retry_strategy_and_only_once(
    url: str, stack: Stack, root: Store
) -> None:
    found = launcher(url, stack, root)
    sent: list[dict[str, Any]] = []
    client = found.aws.client("batch", once=True)
    # moto does not tell of a job's retry strategy, so the request is looked at.
    client.meta.events.register(  # type: ignore[attr-defined]  # a boto3 client's own
        "before-call.batch.SubmitJob", lambda params, **_: sent.append(json.loads(params["body"]))
    )
    found.ensure(FLEET, URI, 3)
    found.ensure(FLEET, URI, 3)
    launcher(url, stack, root).ensure(FLEET, URI, 3)
    [request] = sent
    assert request["jobName"] == "lt-r1-abc-j1"
    assert request["arrayProperties"] == {"size": 3}
    assert request["retryStrategy"] == {"attempts": 10, "evaluateOnExit": RETRY}
    assert request["containerOverrides"]["environment"] == [{"name": "LOWTIDE_FLEET", "value": URI}]
    assert request["timeout"] == {"attemptDurationSeconds": 86_400}
    [job] = jobs(stack)
    assert job["arrayProperties"]["size"] == 3
    assert found.running(FLEET) == 3
    found.stop(FLEET)


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("how", [0, 503])
def test_a_job_whose_acknowledgement_was_lost_is_found_again(url: str, stack: Stack, root: Store, how: int) -> None:
    fleet, now = f"lost{how}", [1_800_000_000.0]
    root.write(f"spot/{fleet}/shards/s00001-a1/task.json", b"{}")
    with faulty(url) as proxy:
        proxy.faults.append(Fault("POST", how, where="/v1/submitjob", forward=True))
        first = launcher(proxy.url, stack, root, now)
        with pytest.raises(SubmitUnknown):
            first.ensure(fleet, URI, 2)
        assert sum("/v1/submitjob" in seen for seen in proxy.seen) == 1
        [job] = jobs(stack, fleet)
        assert root.info(f"spot/{fleet}/jobs/000001.json") is not None
        assert root.info(f"spot/{fleet}/jobs/000001.job") is None

        # Another process goes on with it.
        launcher(proxy.url, stack, root, now).ensure(fleet, URI, 2)
        assert sum("/v1/submitjob" in seen for seen in proxy.seen) == 1
        assert json.loads(root.read(f"spot/{fleet}/jobs/000001.job"))["job"] == job["jobId"]
        assert [one["jobId"] for one in jobs(stack, fleet)] == [job["jobId"]]
        first.stop(fleet)


@pytest.mark.usefixtures("queued")
def test_a_fleet_is_cancelled(url: str, stack: Stack, root: Store) -> None:
    found = launcher(url, stack, root)
    found.ensure(FLEET, URI, 1)
    running = [job for job in jobs(stack) if not job.get("statusReason")]
    assert len(running) == 1
    found.stop(FLEET)
    # moto keeps the job in its state, with the reason that was given.
    assert all("no more work" in job["statusReason"] for job in jobs(stack))


@pytest.mark.usefixtures("ended")
def test_a_job_that_has_ended_is_followed_by_another_while_a_shard_has_not(url: str, stack: Stack, root: Store) -> None:
    fleet = "next"
    root.write(f"spot/{fleet}/shards/s00001-a1/task.json", b"{}")
    found = launcher(url, stack, root)
    found.ensure(fleet, URI, 1)
    found.ensure(fleet, URI, 1)
    assert sorted(job["jobName"] for job in jobs(stack, fleet)) == ["lt-next-j1", "lt-next-j2"]
    root.write(f"spot/{fleet}/shards/s00001-a1/end.json", b"{}")
    found.ensure(fleet, URI, 1)
    assert len(jobs(stack, fleet)) == 2
    assert found.running(fleet) == 0


def test_the_examination_finds_everything_in_order_or_says_what_is_not(url: str, stack: Stack, root: Store) -> None:
    found = launcher(url, stack, root, max_usd_per_hour=Decimal(3))
    findings = list(found.examine())
    assert [one.name for one in findings if not one.ok] == []
    assert [one.name for one in findings] == [
        "AWS credentials", "job queue", "compute environment", "instances", "job definition", "Spot price",
        "Spot price", "max_usd_per_hour",
    ]  # fmt: skip
    found.settings = Settings("nowhere", "nothing", ("z9.xlarge",))
    wrong = {one.name: one.found for one in found.examine() if not one.ok}
    assert list(wrong) == ["job queue", "job definition", "Spot price"]
    assert all("lowtide infra show aws --file spot.yaml" in wrong[name] for name in ("job queue", "job definition"))


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        (("g6.xlarge", "g5.2xlarge"), "no compute environment of the queue starts g5.2xlarge"),
        (("g6.xlarge",), "they start g5.xlarge as well, with which no plan and no cap reckons"),
    ],
)
def test_instances_that_the_queue_does_not_start_are_found(
    url: str, stack: Stack, root: Store, instances: tuple[str, ...], expected: str
) -> None:
    found = launcher(url, stack, root)
    found.settings = replace(found.settings, instances=instances)
    [wrong] = [one.found for one in found.examine() if one.name == "instances" and not one.ok]
    assert wrong.startswith(expected)


def test_a_cap_below_the_price_of_one_worker_is_found(url: str, stack: Stack, root: Store) -> None:
    found = launcher(url, stack, root, max_usd_per_hour=Decimal("0.000001"))
    [wrong] = [one for one in found.examine() if not one.ok]
    assert wrong.name == "max_usd_per_hour"
    assert wrong.found.startswith("0.000001 is less than one worker costs now: g")


def test_a_job_definition_that_is_not_there_is_named(url: str, stack: Stack, root: Store) -> None:
    found = launcher(url, stack, root)
    found.settings = replace(found.settings, definition="lowtide-misspelt")
    with pytest.raises(
        ConfigError, match=r"spot\.job_definition: there is no active job definition 'lowtide-misspelt'"
    ):
        found.ensure(FLEET, URI, 1)


@pytest.mark.usefixtures("queued")
def test_what_is_queued_is_given_up_once_all_shards_have_ended(url: str, stack: Stack, root: Store) -> None:
    fleet = "released"
    root.write(f"spot/{fleet}/shards/s00001-a1/task.json", b"{}")
    found = launcher(url, stack, root)
    found.ensure(fleet, URI, 1)
    found.release(fleet)
    assert not any(job.get("statusReason") for job in jobs(stack, fleet))
    root.write(f"spot/{fleet}/shards/s00001-a1/end.json", b"{}")
    found.release(fleet)
    # moto keeps the job in its state, with the reason that was given.
    assert ["no more work" in job["statusReason"] for job in jobs(stack, fleet)] == [True]
