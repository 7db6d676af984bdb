"""The documentation against the program: commands, options, columns and job files that it shows have to exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lowtide import schemas
from lowtide.cli import main
from lowtide.job import load_job

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page that are in one of the languages."""
    for fence in re.finditer(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if fence[1] in languages:
            yield fence[2]


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Every use of our command: after a prompt, and in running text."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"(?:^\$ |`)(lowtide(?: [^`\n|>#]+)?)", text, re.MULTILINE):
        yield shlex.split(found[1])[1:]


def jobs() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, block in enumerate(blocks(page, "yaml"), start=1):
            if block.startswith("version:"):
                yield f"{page.stem}-{number}", block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    context = click.Context(main)
    for words in shown_commands(page):
        names = [word for word in words if not word.startswith("-")]
        options = [word.split("=")[0] for word in words if word.startswith("-")]
        command: click.Command = main
        while names and isinstance(command, click.Group):
            found = command.get_command(context, names[0])
            if found is None and command.invoke_without_command:
                break
            assert found is not None, f"{page.name}: lowtide {names[0]} is not a command"
            command, names = found, names[1:]
        flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert set(options) <= flags | {"--help", "-h"}, f"{page.name}: lowtide {' '.join(words)}"


@pytest.mark.parametrize("block", [job for _, job in jobs()], ids=[name for name, _ in jobs()])
def test_every_job_file_that_is_shown_is_one(block: str, tmp_path: Path) -> None:
    for schema in re.findall(r"schema: (\w+\.json)", block):
        (tmp_path / schema).write_text('{"type": "object", "properties": {}}', encoding="utf-8")
    path = tmp_path / "lowtide.yaml"
    path.write_text(block, encoding="utf-8")

    assert load_job(path).version == 1


@pytest.mark.parametrize(
    ("table", "columns"),
    [("results", schemas.RESULT_COLUMNS), ("ledger", schemas.LEDGER.names), ("runs", schemas.RUNS.names)],
)
def test_the_tables_page_names_the_columns_that_are_written_and_no_others(table: str, columns: list[str]) -> None:
    page = (ROOT / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", page, flags=re.MULTILINE)[["results", "ledger", "runs"].index(table) + 1]
    lines = section.split("| column |")[1].split("\n\n")[0].splitlines()
    named = {name for line in lines for name in re.findall(r"`(\w+)`", line.split("|")[1]) if name != "fields"}

    assert named == set(columns)


def test_the_page_of_commands_is_what_help_says() -> None:
    command = [sys.executable, str(ROOT / "infra" / "dev" / "cli_docs.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert checked.returncode == 0, checked.stdout


def test_a_link_into_nowhere_stops_the_site(tmp_path: Path) -> None:
    # With the very options that make uses: --quiet, for one, makes --strict blind.
    options = set(re.findall(r"mkdocs build(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert len(options) == 1
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](nowhere.md)\n")

    command = [sys.executable, "-m", "mkdocs", "build", *shlex.split(options.pop())]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert built.returncode != 0
    assert "nowhere.md" in built.stderr
