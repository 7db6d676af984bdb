from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import lowtide.emulators
from lowtide.emulators import faults
from lowtide.emulators.bedrock.settings import Latency, Quotas, Settings

README = Path(lowtide.emulators.__file__).parent / "README.md"
POINTS_AND_FAULTS = faults.POINTS | faults.CALL_FAULTS | faults.ROW_FAULTS | faults.BATCH_FAULTS | faults.FORM_FAULTS
SETTINGS = {field.name for kind in (Settings, Latency, Quotas) for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", sorted(POINTS_AND_FAULTS | SETTINGS))
def test_the_readme_names_it(name):
    assert f"`{name}`" in README.read_text(encoding="utf-8")
