"""The base job templates: what a Prefect server takes, and what becomes of their variables and secrets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import prefect.server
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness
from prefect.workers.process import ProcessJobConfiguration

from lowtide import __version__

TEMPLATES = Path(__file__).parents[2] / "infra" / "prefect"
KINDS = ["docker", "ecs", "kubernetes", "process"]
KNOWN = Path(prefect.server.__file__).parent / "api" / "collections_data" / "views" / "aggregate-worker-metadata.json"


def read(kind: str) -> dict[str, Any]:
    return dict(json.loads((TEMPLATES / f"{kind}.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


def test_these_are_all() -> None:
    assert sorted(path.stem for path in TEMPLATES.glob("*.json")) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_variables_are_a_json_schema_that_their_defaults_fit(kind: str) -> None:
    variables = read(kind)["variables"]
    jsonschema_rs.meta.validate(variables)
    defaults = {name: found["default"] for name, found in variables["properties"].items() if "default" in found}
    jsonschema_rs.validator_for(variables).validate(defaults)
    for name, found in variables["properties"].items():
        assert found.get("description"), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_variable_that_is_used_is_declared_and_the_other_way_round(kind: str) -> None:
    template = read(kind)
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


def test_the_process_template_is_prefects_own_with_other_defaults() -> None:
    # Of the other kinds, Prefect carries along what an old release of their packages had.
    theirs = json.loads(KNOWN.read_text(encoding="utf-8"))["prefect"]["process"]["default_base_job_configuration"]
    assert read("process")["job_configuration"] == theirs["job_configuration"]
    assert set(read("process")["variables"]["properties"]) == set(theirs["variables"]["properties"])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "process"])
def test_flows_run_in_our_image(kind: str) -> None:
    properties = read(kind)["variables"]["properties"]
    assert properties["image"]["default"] == f"lowtide:{__version__}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_makes_a_work_pool_of_it(server: str, tmp_path: Path, kind: str) -> None:
    create = [sys.executable, "-m", "prefect", "--no-prompt", "work-pool", "create"]
    ended = subprocess.run(
        [*create, f"lowtide-{kind}", "--type", kind, "--base-job-template", str(TEMPLATES / f"{kind}.json")],
        env={**os.environ, "PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with get_client(sync_client=True) as client:
        made = client.read_work_pool(f"lowtide-{kind}")
    assert made.type == kind
    assert made.base_job_template == read(kind)


def configured(values: dict[str, Any]) -> ProcessJobConfiguration:
    async def make() -> ProcessJobConfiguration:
        async with get_client() as client:
            return await ProcessJobConfiguration.from_template_and_values(read("process"), values, client=client)

    return asyncio.run(make())


@pytest.mark.usefixtures("server")
def test_a_secret_block_becomes_an_environment_variable_when_a_flow_run_begins() -> None:
    Secret(value="sk-not-a-real-key").save("lowtide-openai-api-key", overwrite=True)
    reference = "{{ prefect.blocks.secret.lowtide-openai-api-key }}"
    made = configured({"env": {"OPENAI_API_KEY": reference}})
    assert made.env["OPENAI_API_KEY"] == "sk-not-a-real-key"
    # What the template sets stays beside it.
    assert made.env["PREFECT_LOGGING_EXTRA_LOGGERS"] == "lowtide"
    assert "sk-not-a-real-key" not in json.dumps(read("process"))


@pytest.mark.usefixtures("server")
def test_a_secret_that_is_not_there_stops_the_flow_run_before_it_begins() -> None:
    with pytest.raises(ObjectNotFound, match="lowtide-missing"):
        configured({"env": {"OPENAI_API_KEY": "{{ prefect.blocks.secret.lowtide-missing }}"}})


def test_a_cluster_without_secrets_runs_flows_nonetheless() -> None:
    [container] = read("kubernetes")["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "{{ secret_name }}", "optional": True}}]
    assert container["securityContext"]["runAsNonRoot"] is True


def test_what_worker_yaml_allows_is_what_the_ecs_template_starts() -> None:
    worker = (TEMPLATES.parent / "aws" / "worker.yaml").read_text(encoding="utf-8")
    family = read("ecs")["variables"]["properties"]["family"]["default"]
    assert f"task-definition/{family}*" in worker
    [container] = read("ecs")["job_configuration"]["task_definition"]["containerDefinitions"]
    assert container["secrets"] == "{{ secrets }}"
