"""The checkout itself, and copies of it that a test may break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

MAPPED = ("lowtide", "connectors", "tasks", "flows", "schedules")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the project."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture
def sources(checkout: Path, tmp_path: Path) -> Path:
    """A copy of what the wheel and the import checks are made from."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, copy)
    for name in (*MAPPED, "infra"):
        shutil.copytree(checkout / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy
