"""Estimate against actual: over three real collections, as the benchmark prints it, and through whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lowtide.emulators.serve import serving

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    out, folder = tmp_path_factory.mktemp("out") / "figures.json", tmp_path_factory.mktemp("data")
    command = [sys.executable, "benchmarks/run.py", "--smoke", "--only", "estimates"]
    done = subprocess.run(
        [*command, "--folder", str(folder), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(out.read_text())["figures"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["READMEs", "standard library", "16 languages"])
@pytest.mark.parametrize(("run", "most"), [("first run", 15.0), ("second run", 5.0)])
@pytest.mark.parametrize("tokenizer", ["", ", no tokenizer"])
def test_estimates_are_as_near_as_they_are_said_to_be(
    corpus: str, run: str, most: float, tokenizer: str, figures: list[dict[str, object]]
) -> None:
    (figure,) = (each for each in figures if str(each["label"]).startswith(f"{corpus}, {run}{tokenizer} ("))
    assert float(str(figure["value"])) <= most, figure
    assert "in its range" in str(figure["label"])


JOB = """
version: 1
name: readmes
source: {{uri: {source}}}
operations:
  - summarize: {{words: 60}}
  - classify: {{labels: {{manual: explains how, report: says what happened}}}}
backends:
  - openai-batch: {{model: gpt-4o-mini}}
limits: {{poll: 1s, grace: 2s}}
output: {{root: {root}}}
"""


def bill(url: str) -> int:
    with urllib.request.urlopen(f"{url}/_emulator/bill", timeout=60) as answer:  # noqa: S310 - loopback
        billed = json.load(answer)
    return int(billed["input_tokens"]) + int(billed["output_tokens"])


@pytest.mark.slow
def test_what_a_run_has_planned_is_near_the_bill_and_nearer_the_second_time(tmp_path: Path) -> None:
    # Found on disk: what importlib.metadata once failed to list in a process, it never lists there again.
    found = sorted(Path(pq.__file__).parents[2].glob("*.dist-info/METADATA"))
    texts = [path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[2] for path in found]
    texts = [text for text in sorted(texts) if text.strip()]
    assert len(texts) > 50
    errors = []
    with serving(tokens="o200k") as server:
        environment = {**os.environ, "OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "any"}
        for number, window in enumerate(("2026-11-02", "2026-11-03")):
            source, job = tmp_path / window, tmp_path / f"{window}.yaml"
            source.mkdir()
            for place, text in enumerate(texts[number::2]):
                path = source / f"{place}.md"
                path.write_text(text, encoding="utf-8", errors="replace")
                os.utime(path, (1_793_577_600 + 86_400 * number + 3_600,) * 2)
            assert len(list(source.iterdir())) > 25
            job.write_text(JOB.format(source=source, root=tmp_path / "out"))
            before = bill(server.url)
            command = [sys.executable, "-m", "lowtide", "run", str(job), "--window", window, "--direct"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
            # 4: summaries that quote long addresses may be cut off, and are paid for all the same.
            assert done.returncode in {0, 4}, done.stderr
            (row,) = (tmp_path / "out/tables/runs/job=readmes" / f"window={window}").glob("*.parquet")
            planned = pq.read_table(row, columns=["planned_input_tokens", "planned_output_tokens"]).to_pylist()[0]
            errors.append(abs(sum(planned.values()) / (bill(server.url) - before) - 1))
    assert errors[0] < 0.15
    assert errors[1] < 0.05
