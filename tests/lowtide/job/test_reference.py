"""The reference names every key with its default, what it shows loads, and names here agree with names elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lowtide import schemas
from lowtide.job import Job, job_schema
from lowtide.job.checks import RESULT_COLUMNS
from lowtide.operations import build_operations

Load = Callable[..., Job]
REFERENCE = (Path(__file__).parents[3] / "docs" / "reference" / "job-file.md").read_text()
SNIPPETS = re.findall(r"```yaml[^\n]*\n(.*?)```", REFERENCE, re.DOTALL)
ROWS = [line for line in REFERENCE.splitlines() if line.startswith("| `")]


def keys() -> list[tuple[str, object]]:
    schema = job_schema()
    return [
        (name, field.get("default"))
        for definition in (schema, *schema["$defs"].values())
        for name, field in definition["properties"].items()
    ]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_what_the_reference_shows_loads_and_can_be_built(snippet: str, load: Load, good: str, tmp_path: Path) -> None:
    for name in ("schema.json", "tone.json"):
        (tmp_path / name).write_text('{"type": "object"}')
    if "version: 1" not in snippet:
        head, _, rest = good.partition("operations:\n")
        snippet = head + snippet + rest[rest.index("backends:") :]
    assert build_operations(load(snippet))


def test_the_reference_shows_something() -> None:
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize(("name", "default"), keys())
def test_the_reference_has_a_row_for_every_key_with_its_default(name: str, default: object) -> None:
    rows = [row for row in ROWS if row.startswith(f"| `{name}` |")]
    assert rows
    if default is not None and name != "name":
        assert any(f"| `{default}` |" in row for row in rows), rows


def test_the_messages_in_the_reference_are_the_real_ones(refused: Callable[..., list[str]], good: str) -> None:
    text = good.replace("name: tickets", "name: Support Tickets").replace("words: 60", "word: 60")
    told = refused(text.replace("./out", "${OUT_ROOT}"))
    shown = re.search(r"```text\n(.*?)\n```", REFERENCE, re.DOTALL)
    assert shown is not None
    assert shown[1].split("\n") == told


def test_the_names_that_fields_may_not_have_are_the_columns_of_the_results() -> None:
    assert set(schemas.RESULT_COLUMNS) | {"job", "window"} == RESULT_COLUMNS
