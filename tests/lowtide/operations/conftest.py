"""Operations for tests, built from the options that a job file would hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lowtide.job import load_job
from lowtide.operations import Operation, build_operations

Build = Callable[..., Operation]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`build("classify", labels=[...])`, through a job file on the disk."""
    folder = tmp_path_factory.mktemp("operations")

    def build(kind: str, *, at: Path | None = None, **options: Any) -> Operation:
        job = {
            "version": 1,
            "name": "test",
            "source": {"uri": "./*.txt", "fields": ["customer", "lang"]},
            "operations": [{kind: options}],
            "backends": [{"local": {}}],
            "output": {"root": "./out"},
        }
        file = (at or folder) / "job.yaml"
        file.write_text(yaml.safe_dump(job, sort_keys=False, allow_unicode=True))
        [operation] = build_operations(load_job(file, environ={}))
        return operation

    return build
