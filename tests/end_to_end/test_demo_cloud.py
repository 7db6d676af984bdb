"""`make demo-cloud` as a user runs it: three providers, each ledger equal to its bill, and nothing left running."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo_cloud.py"
RUNS = 4
SECONDS = 900


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_cloud", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_cloud"] = module
    spec.loader.exec_module(module)
    return module


def run(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.slow
def test_every_ledger_is_its_bill_and_nothing_stays_behind(tmp_path: Path) -> None:
    ended = run(tmp_path / "out")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # Azure OpenAI comes twice, since the tests have Azurite.
    assert ended.stdout.count(" out: equal\n") == RUNS
    assert len(re.findall(r"billed +[\d,]+ requests, each once\n", ended.stdout)) == RUNS
    assert len(re.findall(r"rows +[\d,]+ ok\n", ended.stdout)) == RUNS
    assert {page.stem for page in (tmp_path / "out").glob("*.html")} == {"bedrock", "openai", "azure", "blob"}
    assert max(len(line) for line in ended.stdout.splitlines() if tmp_path.name not in line) <= 80
    for port in re.findall(r"http://127\.0\.0\.1:(\d+)", ended.stdout):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))), f"port {port} is still listened on"


@pytest.mark.slow
def test_every_ledger_is_its_bill_when_providers_fail(tmp_path: Path) -> None:
    ended = run(tmp_path / "out", "--faults", str(ROOT / "examples" / "demo-cloud-faults.yaml"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" out: equal\n") == RUNS
    assert len(re.findall(r"billed +[\d,]+ requests, each once\n", ended.stdout)) == RUNS
    assert "of them wasted" in ended.stdout


@pytest.mark.parametrize(
    ("changed", "said"),
    [({}, ": equal"), ({"output": 1}, ": NOT EQUAL"), ({"cached_input": 1, "input": -1}, ": NOT EQUAL")],
)
def test_a_difference_of_one_token_is_said_and_fails(
    demo: ModuleType, changed: dict[str, int], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    used = Counter(input=1000, cached_input=20, output=300)
    charged = used + Counter(records=10, requests=10)
    charged.update(changed)
    assert demo.compare(used, charged) == (not changed)
    assert said in capsys.readouterr().out


def test_a_request_that_was_billed_twice_is_said_and_fails(
    demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    used = Counter(input=1000)
    assert not demo.compare(used, used + Counter(records=11, requests=10))
    assert "1 OF THEM TWICE" in capsys.readouterr().out


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ended = run(tmp_path)
    assert ended.returncode == 2
    assert "not empty" in ended.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
