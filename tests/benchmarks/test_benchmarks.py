"""Every benchmark runs at a tiny size: it checks its own results, prints its figures and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/run.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@dataclass(frozen=True)
class Outcome:
    """What one run of all benchmarks has printed, written and left behind."""

    printed: str
    figures: list[dict[str, object]]
    measurements: list[dict[str, object]]
    left: list[Path]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out") / "figures.json"
    done = run("--smoke", "--folder", str(folder), "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    return Outcome(done.stdout, found["figures"], found["measurements"], list(folder.iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lines", "shards", "estimates", "collect", "cache", "journal", "whole"])
def test_each_case_measures_ours_beside_others_and_prints_its_figures(case: str, everything: Outcome) -> None:
    figures = [figure for figure in everything.figures if figure["case"] == case]
    measured = [entry for entry in everything.measurements if entry["case"] == case]

    assert any(figure["verdict"] in {"pass", "miss"} for figure in figures)
    assert all(str(figure["label"]) in everything.printed for figure in figures)
    assert {entry["variant"] for entry in measured} > {"lowtide"}
    assert all(float(str(entry["cpu"])) > 0 and int(str(entry["rss"])) > 1_000_000 for entry in measured)


@pytest.mark.slow
def test_nothing_is_left_behind(everything: Outcome) -> None:
    assert everything.left == []


def test_an_unknown_case_is_refused_with_the_names_of_those_that_exist() -> None:
    done = run("--only", "nothing")

    assert done.returncode == 2
    assert "collect" in done.stderr


def test_a_variant_with_a_wrong_result_ends_the_run(tmp_path: Path) -> None:
    """One document is missing from what was prepared."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    variant = [sys.executable, "-m", "benchmarks.variant", "shards"]
    subprocess.run([*variant, "setup", str(data), str(out), "40"], cwd=ROOT, check=True, timeout=120)

    right, wrong = (
        subprocess.run(
            [*variant, "orjson", str(data), str(out), claimed], cwd=ROOT, capture_output=True, timeout=120, check=False
        )
        for claimed in ("40", "41")
    )

    assert right.returncode == 0
    assert wrong.returncode != 0
    assert b"40 lines for 41 documents" in wrong.stderr
