"""The spot worker's image, and the files that start it on Azure Batch, Kubernetes and SkyPilot."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lowtide.connectors.backends.spot.batch_jobs import RETRY_STRATEGY
from lowtide_worker import layout

FOLDER = Path(__file__).parents[2] / "infra" / "worker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
LEAVES_WITHIN = 20
"""Seconds that a worker needs at most once it was told to go."""


def loaded(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of that name, continued lines joined."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def test_what_the_image_copies_is_a_worker_that_starts(tmp_path: Path) -> None:
    # The image cannot be built here, so its COPY and pip lines are done by hand.
    for words in instructions("COPY"):
        source, target = words.split()
        place = tmp_path / "image" / target.removeprefix("/opt/lowtide-worker/")
        if source.endswith("/"):
            shutil.copytree(FOLDER / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(FOLDER / source, place)
    [install] = [words for words in instructions("RUN") if "pip install" in words]
    assert "pip install --no-cache-dir /opt/lowtide-worker ${ENGINE}" in install
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", installed, tmp_path / "image"], check=True, timeout=300)
    package = {path.name for path in (FOLDER / "lowtide_worker").glob("*.py")}
    assert {path.name for path in (installed / "lowtide_worker").glob("*.py")} == package
    [started] = [json.loads(words) for words in instructions("ENTRYPOINT")]
    assert (installed / "bin" / started[0]).exists()
    said = subprocess.run(
        [sys.executable, "-P", installed / "bin" / started[0], "--help"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "LOWTIDE_FLEET" in said


def test_the_image_is_made_from_a_named_version_and_holds_no_weights() -> None:
    [base] = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.search(r":v?\d", base)
    assert instructions("FROM") == ["${BASE}"]
    for words in instructions("RUN"):
        assert not re.search(r"\b(?:curl|wget|git|hf|huggingface-cli|aws|azcopy)\b|://", words), words
    assert {words.split()[0] for words in instructions("COPY")} == {"pyproject.toml", "lowtide_worker/"}


def test_the_worker_is_nobody_in_the_image() -> None:
    assert instructions("USER") == ["worker"]
    [user] = re.findall(r"useradd --create-home --uid (\d+) worker", DOCKERFILE)
    context = loaded("kubernetes.yaml")["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"]) == (True, int(user))


def test_all_files_mean_the_same_vllm() -> None:
    [base] = re.findall(r"^ARG BASE=vllm/vllm-openai:v(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"vllm\[runai\]==([\d.]+\d)", DOCKERFILE) == [base]
    assert re.findall(r"vllm\[runai\]==([\d.]+)", loaded("skypilot.yaml")["setup"]) == [base]


def test_every_place_starts_a_worker_again_that_was_told_to_go_and_no_other() -> None:
    rules = loaded("kubernetes.yaml")["spec"]["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes["Ignore"] == [layout.RETRY]
    assert layout.RETRY not in codes["FailJob"]
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} in rules
    recovery = loaded("skypilot.yaml")["resources"]["job_recovery"]
    assert (recovery["recover_on_exit_codes"], recovery["max_restarts_on_errors"]) == ([layout.RETRY], 0)
    conditions = RETRY_STRATEGY["evaluateOnExit"]
    assert {"onExitCode": str(layout.RETRY), "action": "RETRY"} in conditions
    assert conditions[-1] == {"onReason": "*", "action": "EXIT"}


def test_every_place_gives_a_worker_the_time_that_it_needs_to_leave() -> None:
    assert loaded("kubernetes.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > LEAVES_WITHIN
    for task in loaded("azure-batch-tasks.json"):
        [seconds] = re.findall(r"--stop-timeout (\d+)", task["containerSettings"]["containerRunOptions"])
        assert int(seconds) > LEAVES_WITHIN


def test_every_place_tells_the_worker_its_fleet() -> None:
    [container] = loaded("kubernetes.yaml")["spec"]["template"]["spec"]["containers"]
    environments = [{one["name"]: one["value"] for one in container["env"]}]
    environments += [
        {one["name"]: one["value"] for one in task["environmentSettings"]} for task in loaded("azure-batch-tasks.json")
    ]
    for environment in environments:
        assert "/spot/" in environment["LOWTIDE_FLEET"]
    # Without a value, SkyPilot does not launch.
    assert loaded("skypilot.yaml")["envs"]["LOWTIDE_FLEET"] is None


def test_a_pod_has_a_gpu_and_mounts_what_is_there() -> None:
    pod = loaded("kubernetes.yaml")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert [one["readOnly"] for one in container["volumeMounts"] if one["mountPath"] == "/models"] == [True]


def test_the_pool_on_azure_is_of_spot_nodes_only_and_empty_without_work() -> None:
    [pool] = loaded("azure-batch-pool.json")["resources"]
    formula = pool["properties"]["scaleSettings"]["autoScale"]["formula"]
    assert "$TargetDedicatedNodes = 0;" in formula
    assert "$TargetLowPriorityNodes = min(" in formula
    assert "fixedScale" not in pool["properties"]["scaleSettings"]


def test_every_parameter_of_the_pool_is_used_and_the_other_way_round() -> None:
    template = loaded("azure-batch-pool.json")
    used = set(re.findall(r"parameters\('(\w+)'\)", json.dumps(template["resources"])))
    assert used == set(template["parameters"])


def test_tasks_on_azure_are_alike_but_for_their_names() -> None:
    tasks = loaded("azure-batch-tasks.json")
    assert [task.pop("id") for task in tasks] == [f"worker-{number}" for number in range(1, len(tasks) + 1)]
    assert all(task == tasks[0] for task in tasks)


@pytest.mark.parametrize(
    "name", ["kubernetes.yaml", "skypilot.yaml", "azure-batch-pool.json", "azure-batch-tasks.json"]
)
def test_no_file_holds_a_secret(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.search(r"(?i)(?:secret|password|account_?key|access_?key)[\"']?\s*[:=]", text)


def test_the_worker_needs_what_its_own_package_says() -> None:
    with (FOLDER / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert project["scripts"] == {"lowtide-worker": "lowtide_worker.main:main"}
    imported = {
        name.partition(".")[0]
        for path in (FOLDER / "lowtide_worker").glob("*.py")
        for name in re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    told = [*project["dependencies"], *project["optional-dependencies"]["aws-profile"]]
    needed = {re.split(r"[<>=\[ ]", one)[0] for one in told}
    outside = imported - set(sys.stdlib_module_names) - {"lowtide_worker", "__future__"}
    # boto3 brings botocore.
    assert outside - {"botocore"} == needed
    assert not any("boto3" in one for one in project["dependencies"])
