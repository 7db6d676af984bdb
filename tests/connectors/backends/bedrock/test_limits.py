"""Whatever the job file, the shard and its name: what is sent keeps every rule of the SDK's service model."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pydantic
import pytest
from bedrock_bench import HAIKU, ROLE, request_for, shard_of, spec
from botocore.exceptions import EndpointConnectionError
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lowtide.connectors.backends.aws.failures import reported
from lowtide.connectors.backends.bedrock.backend import Backend
from lowtide.connectors.backends.bedrock.connection import connect
from lowtide.connectors.backends.bedrock.failures import not_created
from lowtide.connectors.backends.bedrock.staging import Staging
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, Terminal
from lowtide.protocols import Store
from lowtide.records import Shard

# Nobody answers there, and nobody is to be asked.
ENVIRON = {
    "AWS_ACCESS_KEY_ID": "t",
    "AWS_SECRET_ACCESS_KEY": "t",
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT_URL_BEDROCK": "http://127.0.0.1:9",
}
ARN = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/abcdefghijkl"
MODEL = botocore.session.Session().get_service_model("bedrock")
CREATE = MODEL.operation_model("CreateModelInvocationJob").input_shape
ODD = st.text(st.sampled_from("abz09-_./:=% !+@'()*é\n"), max_size=70)


class Recorder:
    """Takes create calls, and answers each with the same ARN."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def create_model_invocation_job(self, **body: Any) -> Mapping[str, object]:
        self.bodies.append(body)
        return {"jobArn": ARN}


class Renamed:
    """A folder that says that it is a bucket."""

    def __init__(self, store: Store, uri: str) -> None:
        self._store = store
        self.uri = uri

    def uri_of(self, path: str) -> str:
        return f"{self.uri}/{path}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def broken(shape: Any, value: Any, where: str = "") -> list[str]:
    """Every rule of the service model that the value breaks."""
    rules, found = shape.metadata, []
    size = value if isinstance(value, int) else len(value)
    if not rules.get("min", 0) <= size <= rules.get("max", 10**12):
        found.append(f"{where}: {size} is out of bounds")
    # The name's and the token's own patterns are tried in exponential time.
    simple = {"jobName": r"[a-zA-Z0-9][a-zA-Z0-9+\-.]*", "clientRequestToken": r"[a-zA-Z0-9](-*[a-zA-Z0-9])*"}
    pattern = simple.get(where.rpartition(".")[2], rules.get("pattern"))
    if shape.type_name == "string" and pattern and not re.fullmatch(pattern, value):
        found.append(f"{where}: {value!r} does not match")
    if getattr(shape, "enum", None) and value not in shape.enum:
        found.append(f"{where}: {value!r} is none of {shape.enum}")
    if shape.type_name == "structure":
        found += [f"{where}.{name} is missing" for name in shape.required_members if name not in value]
        for name, inner in value.items():
            found += broken(shape.members[name], inner, f"{where}.{name}")
    if shape.type_name == "list":
        for inner in value:
            found += broken(shape.member, inner, where)
    return found


def opened(folder: str, staging: str, **changes: object) -> tuple[Backend, Recorder]:
    root = open_store(folder)
    aws, recorder = connect("us-east-1", ENVIRON), Recorder()
    aws.__dict__["create"] = recorder
    store: Any = Renamed(root, staging)
    return Backend(spec(**changes), root, aws, Staging(store, ENVIRON)), recorder


def mostly(good: str, odd: st.SearchStrategy[str] = ODD) -> st.SearchStrategy[str]:
    """What Bedrock takes, and once in ten times anything."""
    return st.integers(0, 9).flatmap(lambda number: odd if number == 5 else st.just(good))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "role_arn": mostly(ROLE, ODD.map(lambda text: f"arn:aws:iam::123456789012:role/{text}")),
            "model": mostly(HAIKU),
            "kms_key": mostly("alias/key"),
            "tags": st.dictionaries(mostly("team"), mostly("a b=c"), max_size=3),
            "timeout_hours": st.integers(23, 169),
            "vpc": st.fixed_dictionaries(
                {
                    "subnet_ids": st.lists(mostly("subnet-1"), min_size=1, max_size=17),
                    "security_group_ids": st.lists(mostly("sg-1"), min_size=1, max_size=6),
                }
            ),
            "invocation": st.sampled_from(["converse", "invoke"]),
        },
    ),
    staging=mostly("s3://bucket/a", ODD.map(lambda text: f"s3://bucket/{text}")),
    uri=mostly("s3://bucket/runs/s1.jsonl", ODD.map(lambda text: f"s3://bucket/{text}.jsonl") | st.just("/tmp/x")),
    name=mostly("lt-0123456789abcdef-01234567-s00001-a1"),
    records=st.integers(98, 140),
)
def test_no_create_call_breaks_a_rule(changes: dict[str, Any], staging: str, uri: str, name: str, records: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            backend, recorder = opened(folder, staging, **changes)
        except (ConfigError, pydantic.ValidationError):
            return
        shard = shard_of([backend.encode(request_for(number)) for number in range(records)], uri=uri)
        try:
            assert backend.submit(shard, name) == ARN
        except Terminal:
            assert recorder.bodies == []
            return
        [body] = recorder.bodies
        event("sent")
        assert broken(CREATE, body) == []
        assert body["jobName"] == body["clientRequestToken"] == name
        assert backend.limits.minimum_records <= records
        given_uri = body["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        assert given_uri.endswith(".jsonl")
        assert not set("=% ") & set(given_uri)
        copied = Path(folder, "bedrock", name, "requests.jsonl")
        assert (given_uri == uri) != copied.exists()
        assert not copied.exists() or copied.read_bytes() == shard.open().read()


@settings(max_examples=100, deadline=None)
@given(records=st.integers(0, 60_000), size=st.integers(0, 2 * 10**9))
def test_no_shard_goes_up_that_no_job_can_hold(records: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend, recorder = opened(folder, "s3://bucket/a")
        shard = Shard("run", 1, 1, records, size, "s3://bucket/runs/s1.jsonl", io.BytesIO)
        # Nobody says here how much the account's jobs hold.
        fits = records >= 100
        try:
            backend.submit(shard, "lt-1")
        except Terminal:
            assert not fits
        else:
            assert fits
        assert len(recorder.bodies) == fits


class Unreachable:
    def list_service_quotas(self, **_: object) -> Mapping[str, object]:
        raise EndpointConnectionError(endpoint_url="https://servicequotas.us-east-1.amazonaws.com")


def test_a_shard_that_was_built_under_a_raised_quota_goes_up_when_the_quotas_cannot_be_read(tmp_path: Path) -> None:
    backend, recorder = opened(str(tmp_path), "s3://bucket/a")
    backend._aws.account.environ["AWS_ENDPOINT_URL_SERVICE_QUOTAS"] = "http://127.0.0.1:9"  # type: ignore[index]
    backend._aws.__dict__["quotas"] = Unreachable()
    large = Shard("run", 1, 1, 60_000, 2 * 10**9, "s3://bucket/runs/s1.jsonl", io.BytesIO)

    assert backend.submit(large, "lt-1") == ARN

    assert len(recorder.bodies) == 1
    few = Shard("run", 1, 1, 99, 1000, "s3://bucket/runs/s1.jsonl", io.BytesIO)
    with pytest.raises(Terminal, match="holds 99 records"):
        backend.submit(few, "lt-2")


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("", "bedrock:us-east-1"),
        ("http://user:hunter2@Gateway.internal:8080/x", "bedrock:us-east-1@gateway.internal:8080"),
    ],
)
def test_a_place_is_the_region_and_the_host_where_that_is_not_aws_s(tmp_path: Path, endpoint: str, place: str) -> None:
    root = open_store(str(tmp_path))
    aws = connect("us-east-1", {**ENVIRON, "AWS_ENDPOINT_URL_BEDROCK": endpoint})
    backend = Backend(spec(), root, aws, Staging(Renamed(root, "s3://bucket/a"), ENVIRON))  # type: ignore[arg-type]
    assert backend.places == (place,)


def test_no_error_names_the_password_of_an_endpoint() -> None:
    error = EndpointConnectionError(endpoint_url="http://user:hun@ter2@host:1/model")
    for made in (not_created(error, "x", "m"), reported(error, "look", "x")):
        assert "ter2" not in str(made)
        assert "user" not in str(made)
    assert "host:1" in str(not_created(error, "x", "m"))
