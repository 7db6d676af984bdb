"""`lowtide infra`: the files as they are, what they ask for, and where they are written to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from lowtide.cli import main
from lowtide.cli.templates import KINDS, templates

INFRA = Path(__file__).parents[3] / "infra"


def infra(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["infra", *arguments])


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_kind_is_listed_and_shown_as_it_is(kind: str) -> None:
    there = {path.name for path in (INFRA / kind).iterdir() if path.is_file() and path.suffix != ".py"}
    assert {one.name for one in templates(kind)} == there
    said = infra("list").output
    for name in there:
        assert f"    {name}\n" in said
        shown = infra("show", kind, "--file", name)
        assert (shown.exit_code, shown.output) == (0, (INFRA / kind / name).read_text(encoding="utf-8"))


def test_the_list_says_what_each_file_is_for() -> None:
    found = json.loads(infra("list", "--json").output)
    assert set(found) == set(KINDS)
    assert all(len(about) > 20 for names in found.values() for about in names.values())
    assert "worker on ECS Fargate" in found["aws"]["worker.yaml"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_files_are_told_apart(kind: str) -> None:
    said = infra("show", kind).output
    assert [f"==> {one.name} <==" in said for one in templates(kind)] == [True] * len(templates(kind))


def parameters(kind: str) -> dict[str, dict[str, dict[str, str | None]]]:
    said = json.loads(infra("show", kind, "--params", "--json").output)
    return {file: {one["name"]: one for one in found} for file, found in said.items()}


def test_parameters_of_aws_are_those_of_the_templates() -> None:
    found = parameters("aws")
    for name, asked in found.items():
        text = (INFRA / "aws" / name).read_text(encoding="utf-8")
        section = re.split(r"^\w+:", text.partition("\nParameters:")[2], flags=re.MULTILINE)[0]
        assert list(asked) == re.findall(r"^  (\w+):$", section, re.MULTILINE)
    assert found["events.yaml"]["Email"]["default"] is None
    assert found["storage.yaml"]["TransientDays"]["default"] == "90"
    assert found["storage.yaml"]["SourceBucketName"]["default"] == ""


def test_parameters_of_azure_are_those_of_the_templates() -> None:
    found = parameters("azure")
    for name, asked in found.items():
        text = (INFRA / "azure" / name).read_text(encoding="utf-8")
        assert list(asked) == re.findall(r"^param (\w+)", text, re.MULTILINE)
    assert found["worker.bicep"]["image"]["default"] is None
    assert found["worker.bicep"]["registryName"]["default"] == ""
    assert found["storage.bicep"]["oldVersionDays"]["default"] == "30"
    described = found["openai.bicep"]["capacity"]["description"]
    assert described == "Quota of the deployment in thousands of enqueued tokens, out of the subscription's own."


def test_parameters_of_the_stack_are_its_settings() -> None:
    found = parameters("compose")
    set_there = (INFRA / "compose" / ".env.example").read_text(encoding="utf-8")
    assert list(found[".env.example"]) == re.findall(r"^(\w+)=", set_there, re.MULTILINE)
    assert list(found["Dockerfile"]) == ["EXTRA_PACKAGES"]
    assert found["compose.yaml"] == {}


def test_parameters_of_work_pools_are_their_variables() -> None:
    found = parameters("prefect")
    assert found["ecs.json"]["launch_type"]["default"] == "FARGATE"
    assert found["kubernetes.json"]["namespace"]["default"] == "lowtide"


def test_parameters_of_the_spot_worker_are_those_of_its_image_and_of_azures_template() -> None:
    found = parameters("worker")
    text = (INFRA / "worker" / "Dockerfile").read_text(encoding="utf-8")
    assert list(found["Dockerfile"]) == re.findall(r"^ARG (\w+)=", text, re.MULTILINE)
    pool = json.loads((INFRA / "worker" / "azure-batch-pool.json").read_text(encoding="utf-8"))
    assert list(found["azure-batch-pool.json"]) == list(pool["parameters"])
    assert found["azure-batch-pool.json"]["image"]["default"] is None
    assert found["azure-batch-pool.json"]["maxNodes"]["default"] == "4"
    assert found["azure-batch-tasks.json"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_described(kind: str) -> None:
    for file, asked in parameters(kind).items():
        for name, found in asked.items():
            assert len(found["description"] or "") > 10, f"{file}: {name}"


def test_a_person_sees_which_parameters_are_needed() -> None:
    said = infra("show", "aws", "--params", "--file", "worker.yaml").output
    assert "    VpcId  (needed)\n" in said
    assert "    WorkPool  (default lowtide)\n" in said
    assert "    SecretKeyArn  (may stay empty)\n" in said


def test_files_are_written_and_never_over_others(tmp_path: Path) -> None:
    out = tmp_path / "stack"
    assert infra("show", "compose", "--out", str(out)).exit_code == 0
    assert {path.name for path in out.iterdir()} == {"compose.yaml", "Dockerfile", ".env.example"}
    assert yaml.safe_load((out / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (out / "compose.yaml").write_text("mine", encoding="utf-8")
    again = infra("show", "compose", "--out", str(out))
    assert again.exit_code == 2
    assert "compose.yaml" in again.output
    assert (out / "compose.yaml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "aws", "--file", "other.yaml"), "events.yaml, spot.yaml, storage.yaml, worker.yaml"),
        (("show", "aws", "--json"), "--params"),
        (("show", "aws", "--out", "x", "--params"), "--out"),
        (("show", "gcp"), "'aws', 'azure', 'compose', 'prefect', 'worker'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], said: str) -> None:
    ended = infra(*arguments)
    assert ended.exit_code == 2
    assert said in ended.output
