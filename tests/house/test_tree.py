"""The checks of `make lint` that are ours: each is shown something wrong, and has to say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def check_imports(sources: Path) -> subprocess.CompletedProcess[str]:
    """What `make lint` does with import-linter."""
    linked = run(sys.executable, sources / "infra" / "dev" / "link_types.py", ".types", cwd=sources)
    assert linked.returncode == 0, linked.stderr
    linter = Path(sys.executable).with_name("lint-imports")
    return run(linter, "--config", "../pyproject.toml", "--no-cache", "--no-logo", cwd=sources / ".types")


def test_imports_run_one_way(sources: Path) -> None:
    checked = check_imports(sources)

    assert checked.returncode == 0, checked.stdout
    assert "4 kept, 0 broken" in checked.stdout


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("lowtide/records.py", "import lowtide.connectors.stores", "lowtide.records -> lowtide.connectors.stores"),
        ("connectors/stores/__init__.py", "import lowtide.tasks", "lowtide.connectors.stores -> lowtide.tasks"),
        ("tasks/__init__.py", "import lowtide.flows", "lowtide.tasks -> lowtide.flows"),
        ("flows/__init__.py", "import lowtide.cli", "lowtide.flows -> lowtide.cli"),
        ("lowtide/records.py", "import boto3.session", "lowtide.records -> boto3"),
        ("lowtide/unlisted.py", "", "lowtide.unlisted"),
    ],
)
def test_an_import_against_the_stream_is_noticed(sources: Path, module: str, line: str, complaint: str) -> None:
    with (sources / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")

    checked = check_imports(sources)

    assert checked.returncode == 1
    assert complaint in checked.stdout


def test_the_layout_for_tools_follows_the_folders(sources: Path) -> None:
    link: list[str | Path] = [sys.executable, sources / "infra" / "dev" / "link_types.py", ".types"]
    run(*link, cwd=sources)
    (sources / "lowtide" / "windows.py").unlink()
    (sources / "lowtide" / "added.py").write_text("", encoding="utf-8")

    run(*link, cwd=sources)

    layout = sources / ".types" / "lowtide"
    assert not (layout / "windows.py").is_symlink()
    assert (layout / "added.py").resolve() == sources / "lowtide" / "added.py"
    assert (layout / "connectors" / "stores").resolve() == sources / "connectors" / "stores"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("index = 'https://py" + "pi.org/simple'", "a package host"),
        ("pip install --index" + "-url https://mirror.example/simple lowtide", "a package index"),
        ("data = '/ro" + "ot/data/documents'", "somebody's machine"),
        ("in s3://bucket/ro" + "ot/data", "somebody's machine"),
        ("cd /Us" + "ers/ann/lowtide", "somebody's machine"),
        ("<" * 7 + " ours", "unfinished merge"),
        ("x" * (512 * 1024 + 1), "is the most"),
    ],
)
def test_what_works_in_one_place_only_is_noticed(checkout: Path, tmp_path: Path, text: str, complaint: str) -> None:
    run("git", "init", "--quiet", cwd=tmp_path)
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")

    checked = run(sys.executable, checkout / "infra" / "dev" / "check_tree.py", tmp_path, cwd=tmp_path)

    assert checked.returncode == 1
    assert complaint in checked.stdout
    assert checked.stdout.startswith("notes.txt")


def test_a_python_that_is_too_old_or_missing_is_named(sources: Path) -> None:
    environment = {**os.environ, "PYTHON": "no-such-python"}

    command = ["bash", "infra/dev/venv.sh", "runtime"]
    ended = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "Python 3.11 or newer is needed" in ended.stderr
    assert "no-such-python" in ended.stderr
    assert not (sources / ".venv").exists()


def test_an_ordinary_file_is_no_reason_to_complain(checkout: Path, tmp_path: Path) -> None:
    run("git", "init", "--quiet", cwd=tmp_path)
    # Joined here, so that this file does not hold what looks like the path of a machine.
    addresses = (
        ("s3://bucket", "rooted", "data"),
        ("lowtide", "working", "x"),
        ("https://example.com", "home", "a", "b"),
    )
    (tmp_path / "notes.txt").write_text(", ".join(map("/".join, addresses)), encoding="utf-8")

    checked = run(sys.executable, checkout / "infra" / "dev" / "check_tree.py", tmp_path, cwd=tmp_path)

    assert (checked.returncode, checked.stdout) == (0, "")
