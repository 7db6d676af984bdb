"""Whatever is in a job file, it loads or is refused with lines that name the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowtide.errors import ConfigError
from lowtide.job import Job, load_job

QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["${A}", "{{ text }}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def outcome(file: Path) -> Job | list[str]:
    try:
        return load_job(file, environ={"A": "x"})
    except ConfigError as error:
        return str(error).split("\n")


def check(found: Job | list[str]) -> None:
    if isinstance(found, list):
        assert found
        assert all(line.startswith("job.yaml:") for line in found)


@QUIET
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_bytes(content)
    assert isinstance(outcome(Path("job.yaml")), list)


@QUIET
@given(st.data())
def test_a_good_file_with_any_one_value_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: str, data: st.DataObject
) -> None:
    monkeypatch.chdir(tmp_path)
    job = yaml.safe_load(good)
    spot, key = data.draw(st.sampled_from(list(spots(job))))
    spot[key] = data.draw(VALUES)
    Path("job.yaml").write_text(json.dumps(job) if data.draw(st.booleans()) else yaml.safe_dump(job))
    check(outcome(Path("job.yaml")))


@QUIET
@given(st.data())
def test_a_good_file_with_any_line_cut_doubled_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: str, data: st.DataObject
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = good.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[number])))
    inserted = data.draw(
        st.text(max_size=4) | st.sampled_from(["\t", "\n", "- ", ": ", "{", "]", "'", "*a", "&a ", "<<: ", "#"])
    )
    changed = lines[number][:at] + inserted + lines[number][at + data.draw(st.integers(0, 3)) :]
    lines[number : number + 1] = data.draw(st.sampled_from([[], [lines[number]] * 2, [changed]]))
    Path("job.yaml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    check(outcome(Path("job.yaml")))


def spots(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from spots(value[key])
