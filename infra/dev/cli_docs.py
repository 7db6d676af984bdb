"""Write docs/reference/cli.md from the commands' own help: cli_docs.py [--check].

With --check nothing is written: the exit code is 1, and the difference is printed, where the page is out of date.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from lowtide.cli import main as lowtide

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
WIDTH = 90

INTRODUCTION = """\
# Commands

What `--help` says, for every command. `JOB` is the path of a job file, `lowtide.yaml` where it is left out.
What the exit codes mean is on a [page of its own](exit-codes.md).

<!-- Written by infra/dev/cli_docs.py; `make docs` writes it anew. -->
"""


def commands(command: click.Command, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command below this one, itself first, with its help text."""
    context = click.Context(command, info_name=" ".join(names), terminal_width=WIDTH, max_content_width=WIDTH)
    # A context without a parent formats its usage line with all of the names, as a shell shows it.
    context.help_option_names = ["-h", "--help"]
    yield names, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from commands(child, (*names, name))


def page() -> str:
    """The whole page, in Markdown."""
    sections = [
        f"\n## {' '.join(names)}\n\n```text\n$ {' '.join(names)} --help\n{help_text.rstrip()}\n```\n"
        for names, help_text in commands(lowtide, ("lowtide",))
    ]
    return INTRODUCTION + "".join(sections)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it: then 1 stands for a page that is out of date."""
    wanted = page()
    if "--check" not in arguments:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    present = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if present == wanted:
        return 0
    sys.stdout.writelines(difflib.unified_diff(present.splitlines(True), wanted.splitlines(True), "cli.md", "--help"))
    print("docs/reference/cli.md is out of date: make docs")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
