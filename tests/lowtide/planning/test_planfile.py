"""A plan that is written down is read back as it was; and what has changed since is told in words."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on

from lowtide.errors import ConfigError
from lowtide.plan import Candidate, Work, list_inputs, make_plan
from lowtide.planning.planfile import PlanFile, compare_prints, prints_of, read_plan, write_plan
from lowtide.planning.staleness import changes_of_inputs, changes_of_work
from lowtide.prices import Price
from lowtide.records import FileInfo


class Listing:
    """A source that only lists: names, each with its etag."""

    def __init__(self, found: dict[str, str]) -> None:
        self.found = found

    def files(self) -> list[FileInfo]:
        at = datetime(2026, 11, 2, tzinfo=UTC)
        return iter([FileInfo(name, f"s3://b/{name}", 1, etag, at) for name, etag in sorted(self.found.items())])  # type: ignore[return-value]


def a_work(**changes: object) -> Work:
    work = work_on(MemoryStore(), StandInBackend(Provider()), ListedDocuments({"a": "one", "b": "two"}))
    return replace(work, **changes)  # type: ignore[arg-type]


def written(folder: Path, work: Work) -> PlanFile:
    inputs = list_inputs(work.documents, folder / "inputs.parquet")
    plan = make_plan(work, inputs, 1000.0)
    write_plan(folder / "plan.json", plan, work, folder / "job.yaml", prints_of(inputs))
    found = read_plan(folder / "plan.json")
    assert found.plan == plan
    assert found.prints.tolist() == prints_of(inputs).tolist()
    return found


def test_a_plan_is_read_back_and_nothing_has_changed(tmp_path: Path) -> None:
    work = a_work(run_usd=Decimal("1.50"), tags={"team": "ü"}, reading={"uri": "x", "fields": ["a", "b"]})
    found = written(tmp_path, work)
    same = replace(work, run_usd=Decimal("1.5"))
    assert list(changes_of_work(found, same)) == []
    assert list(changes_of_inputs(found, list_inputs(work.documents, tmp_path / "inputs.parquet"))) == []
    assert (found.job_file, found.window, found.use_cache) == (str(tmp_path / "job.yaml"), "all", True)


class Renamed(StandInBackend):
    model = "echo-2"


def _priced(usd: str) -> Price:
    return Price("p", "made up", {"input": Decimal(usd)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"job": "other"}, "job: the file describes 'other' now, and the plan is of 'test'"),
        ({"operations": (echo_operation("b"),)}, "operation 'b': new\noperation 'echo': no longer asked"),
        (
            {"operations": (replace(echo_operation(), max_output_tokens=7),)},
            "operation 'echo': its prompt, schema or parameters have changed",
        ),
        ({"backend": Renamed(Provider())}, "model of stand-in: echo-1 -> echo-2"),
        (
            {"price": _priced("0.000003")},
            "price of stand-in, echo-1: input 1 -> 3 USD a million\n"
            "price of stand-in, echo-1: output 2 -> none USD a million",
        ),
        (
            {
                "candidates": (
                    Candidate(StandInBackend(Provider()), a_work().price),
                    Candidate(type("Two", (StandInBackend,), {"name": "two"})(Provider()), _priced("1")),
                )
            },
            "backend two, model echo-1: new in the job file",
        ),
        ({"deadline": timedelta(hours=1)}, "deadline: 1 day, 0:00:00 -> 1:00:00"),
        ({"run_usd": Decimal(2)}, "budget.run_usd: none -> 2"),
        ({"tags": {"team": "a"}}, "output.tags: {} -> {'team': 'a'}"),
        ({"reading": {"uri": "other"}}, "source.uri: memory -> other"),
    ],
)
def test_each_change_is_told(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    found = written(tmp_path, a_work())
    assert "\n".join(changes_of_work(found, a_work(**changes))) == said


NAMES = st.dictionaries(st.sampled_from([f"f{at}" for at in range(30)]), st.sampled_from(["e1", "e2"]))


@given(NAMES, NAMES)
def test_files_are_counted_by_what_has_become_of_them(before: dict[str, str], now: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prints = [
            prints_of(list_inputs(Listing(found), Path(folder, "inputs.parquet")))  # type: ignore[arg-type]
            for found in (before, now)
        ]
    found = compare_prints(*prints)
    assert (found.more, found.less) == (len(now.keys() - before.keys()), len(before.keys() - now.keys()))
    assert found.changed == sum(before[name] != now[name] for name in before.keys() & now.keys())


def test_a_plan_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    work = a_work()
    inputs = list_inputs(work.documents, tmp_path / "inputs.parquet")
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        write_plan(tmp_path / "no" / "p", make_plan(work, inputs, 1.0), work, tmp_path, prints_of(inputs))


def test_every_field_that_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    written(tmp_path, a_work())
    path = tmp_path / "plan.json"
    content = msgspec.json.decode(path.read_bytes())
    for name in content:
        if name == "format":
            continue
        for broken in ({key: value for key, value in content.items() if key != name}, content | {name: 5.5}):
            path.write_bytes(msgspec.json.encode(broken))
            with pytest.raises(ConfigError, match=name) as refused:
                read_plan(path)
            assert str(path) in str(refused.value)
            assert "write it again" in str(refused.value)
