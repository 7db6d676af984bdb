"""`init`, `schema` and `doctor`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import orjson

from lowtide.errors import ConfigError, LowtideError
from lowtide.job import Job, job_schema, load_job
from lowtide.job.sample import SAMPLE


def init(path: str, *, force: bool) -> int:
    """Write the sample job file; never over a file that is there, unless told so."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w" if force else "x", encoding="utf-8") as out:
            out.write(SAMPLE)
    except FileExistsError as error:
        raise ConfigError(f"{path}: is there already; --force replaces it") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}; put documents where its source.uri looks, or change it; then: lowtide plan {path}")
    return 0


def schema() -> int:
    """Print the JSON Schema of job files."""
    click.echo(orjson.dumps(job_schema(), option=orjson.OPT_INDENT_2).decode())
    return 0


_UNCERTAIN = ("could not be checked", "cannot be seen")


class Check(NamedTuple):
    """One thing that a job needs: `ok`, and what was found, or what to do."""

    name: str
    ok: bool
    found: str


def doctor(job: str, *, as_json: bool) -> int:
    """Look at everything that the job needs; nothing is spent, and nothing stays written."""
    checks = list(_checks(job))
    if as_json:
        click.echo(orjson.dumps([check._asdict() for check in checks], option=orjson.OPT_INDENT_2).decode())
    else:
        longest = max(len(check.name) for check in checks)
        for check in checks:
            click.echo("\n".join(_lines(check, longest, shutil.get_terminal_size().columns)))
    return 0 if all(check.ok for check in checks) else ConfigError.exit_code


def _lines(check: Check, longest: int, width: int) -> Iterator[str]:
    """The check as lines of at most `width` columns, its name in a column as wide as the `longest`."""
    mark, colour = ("ok", "green") if check.ok else ("fail", "red")
    if check.ok and any(words in check.found for words in _UNCERTAIN):
        mark, colour = "?", "yellow"
    indent = len(f"{mark:<4}  {check.name:<{longest}}  ")
    # An address is copied whole, however long it is.
    said = [
        line
        for paragraph in check.found.splitlines() or [""]
        for line in textwrap.wrap(
            paragraph, max(width - indent, 20), break_long_words=False, break_on_hyphens=False
        ) or [""]
    ]  # fmt: skip
    head = f"{mark:<4}"
    if not os.environ.get("NO_COLOR"):
        head = click.style(head, fg=colour)
    yield f"{head}  {check.name:<{longest}}  {said[0]}".rstrip()
    yield from (f"{'':<{indent}}{line}".rstrip() for line in said[1:])


def _checks(path: str) -> Iterator[Check]:
    try:
        job = load_job(Path(path))
    except LowtideError as error:
        yield Check("job file", False, str(error))
        return
    yield Check(
        "job file", True, f"{path}: job {job.name!r}, {len(job.operations)} operation{'s' * (len(job.operations) > 1)}"
    )
    yield from _outside(job)
    extractor = importlib.util.find_spec("pypdfium2") is not None
    yield Check("formats", True, "all formats can be read" if extractor else
                "pdf needs: pip install 'lowtide[documents]'; the others can be read")  # fmt: skip


def _outside(job: Job) -> Iterator[Check]:
    from lowtide.connectors.assembly import assemble
    from lowtide.windows import parse_window

    try:
        work = assemble(job, parse_window("all"), try_root=False)
    except LowtideError as error:
        yield Check("backend", False, str(error))
        return
    yield Check("backend", True, f"{work.backend.name}: model {work.backend.model}")
    for finding in work.backend.examine():
        yield Check(finding.name, finding.ok, finding.found)
    try:
        assemble(job, parse_window("all"), try_root=True)
    except LowtideError as error:
        yield Check("root", False, str(error))
        return
    yield Check("root", True, f"{work.root.uri}: can be written, and keeps put-if-absent")
    try:
        first = next(iter(work.documents.files()), None)
    except LowtideError as error:
        yield Check("source", False, str(error))
    else:
        found = f"{job.source.uri}: " + ("documents are there" if first else "nothing matches")
        yield Check("source", first is not None, found)
