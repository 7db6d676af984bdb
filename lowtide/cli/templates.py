"""The deployment files that come with Lowtide, and what each asks for: read from the files themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

import yaml

from lowtide.errors import ConfigError

KINDS: Mapping[str, str] = {
    "aws": "CloudFormation: buckets, roles, events, a budget, a worker on Fargate, and a queue of spot workers",
    "azure": "Bicep: storage and secrets, Azure OpenAI, and a worker as a container app",
    "compose": "Docker Compose: a whole stack on one machine, with emulated providers",
    "prefect": "base job templates for process, docker, ecs and kubernetes work pools",
    "worker": "the spot worker's image, and spot workers on Azure Batch, Kubernetes and SkyPilot",
}
_TASKS = "Azure Batch: four workers, as the tasks of a job on that pool"
_SUFFIXES = (".yaml", ".bicep", ".json", ".toml", ".example", "Dockerfile")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a file asks for; `default` is None where a value has to be given, and "" where it may stay empty."""

    name: str
    default: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Template:
    """One file: `kind` is a key of KINDS, `about` says in a line what it is for."""

    kind: str
    name: str
    text: str

    @property
    def about(self) -> str:
        """Its own first words."""
        if self.kind == "worker" and self.name.endswith(".json"):
            # A list of tasks has no room for words of its own.
            found = json.loads(self.text)
            return str(found["metadata"]["description"]) if isinstance(found, dict) else _TASKS
        if self.name.endswith(".json"):
            return f"base job template of {self.name.removesuffix('.json')} work pools"
        if self.kind == "aws":
            return str(_Loader(self.text).get_single_data()["Description"])
        return self.text.split("\n", 1)[0].lstrip("#/ ")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it asks for, in its order."""
        return tuple(_READERS[self.kind](self.name, self.text))


def templates(kind: str) -> tuple[Template, ...]:
    """All files of a kind, by name."""
    found = [path for path in files(f"lowtide.infra_{kind}").iterdir() if path.name.endswith(_SUFFIXES)]
    return tuple(
        Template(kind, path.name, path.read_text(encoding="utf-8"))
        for path in sorted(found, key=lambda path: path.name)
    )


def template(kind: str, name: str) -> Template:
    """One file. Raises ConfigError that names those there are."""
    there = templates(kind)
    for one in there:
        if one.name == name:
            return one
    raise ConfigError(f"--file: found {name!r}; {kind} has {', '.join(one.name for one in there)}")


class _Loader(yaml.SafeLoader):
    """CloudFormation's own tags (!Ref, !Sub) stand in values that are of no interest here."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def _of_aws(name: str, text: str) -> Iterator[Parameter]:
    for key, found in _Loader(text).get_single_data().get("Parameters", {}).items():
        default = found.get("Default")
        yield Parameter(key, None if default is None else str(default), found["Description"])


_BICEP = re.compile(
    r"@description\('((?:[^'\\]|\\.)*)'\)\n(?:@.*\n)*?param (\w+) \w+(?: = (.+))?$",
    re.MULTILINE,
)


def _of_azure(name: str, text: str) -> Iterator[Parameter]:
    for description, key, default in _BICEP.findall(text):
        yield Parameter(key, default.strip("'") if default else None, re.sub(r"\\(.)", r"\1", description))


_SETTING = re.compile(r"((?:^# .+\n)+)^(?:ARG )?([A-Z0-9_]+)=(.*)$", re.MULTILINE)


def _of_compose(name: str, text: str) -> Iterator[Parameter]:
    """Settings stand with their comments in .env.example and in the Dockerfile; compose.yaml has none of its own."""
    for comment, key, default in _SETTING.findall(text):
        words = " ".join(line.removeprefix("# ") for line in comment.strip().splitlines())
        yield Parameter(key, default.strip('"'), words)


def _of_prefect(name: str, text: str) -> Iterator[Parameter]:
    variables = json.loads(text)["variables"]
    for key, found in variables["properties"].items():
        default = found.get("default")
        required = key in variables.get("required", ())
        written = "" if default is None else default if isinstance(default, str) else json.dumps(default)
        yield Parameter(key, None if required else written, found.get("description", found.get("title", "")))


def _of_worker(name: str, text: str) -> Iterator[Parameter]:
    """Settings of the image, and what the deployment template of Azure Batch asks for."""
    if name == "Dockerfile":
        yield from _of_compose(name, text)
    template = json.loads(text) if name.endswith(".json") else {}
    for key, found in template.get("parameters", {}).items() if isinstance(template, dict) else ():
        default = found.get("defaultValue")
        yield Parameter(key, None if default is None else str(default), found["metadata"]["description"])


_READERS: Mapping[str, Callable[[str, str], Iterator[Parameter]]] = {
    "aws": _of_aws,
    "azure": _of_azure,
    "compose": _of_compose,
    "prefect": _of_prefect,
    "worker": _of_worker,
}
