"""Job files for tests: one good file, and what a changed one says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lowtide.errors import ConfigError
from lowtide.job import Job, load_job

_GOOD = """\
version: 1
name: tickets
source:
  uri: ./tickets/*.txt
  fields: [customer, lang]
operations:
  - summarize: {words: 60}
  - classify: {name: topic, labels: {billing: money, bug: broken}}
backends:
  - local: {}
deadline: 24h
budget: {run_usd: 25}
limits: {attempts: 3}
output:
  root: ./out
"""


@pytest.fixture
def good() -> str:
    """A job file that loads; its lines are counted on."""
    return _GOOD


Load = Callable[..., Job]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a text, or bytes, as `job.yaml`."""

    def load(text: str | bytes, environ: Mapping[str, str] | None = None) -> Job:
        file = tmp_path / "job.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_job(file, environ=environ or {})

    return load


@pytest.fixture
def refused(load: Load, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines of the error for a text, each without the folder in front."""

    def refused(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            load(text, environ)
        return str(raised.value).replace(f"{tmp_path}/", "").split("\n")

    return refused
