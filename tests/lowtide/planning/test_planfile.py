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

from lowtide.engine import plan_run
from lowtide.errors import ConfigError, StalePlan
from lowtide.inputs import list_inputs
from lowtide.plan import Candidate, Work, make_plan
from lowtide.planning.planfile import (
    PlanFile,
    Prints,
    check_place,
    compare_prints,
    prints_of,
    read_plan,
    sealed,
    write_plan,
)
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
            data = msgspec.json.encode(broken)
            path.write_bytes(data if name == "sha256" else sealed(data))
            with pytest.raises(ConfigError, match=name) as refused:
                read_plan(path)
            assert str(path) in str(refused.value)
            assert "write it again" in str(refused.value)


def edited(folder: Path, *place: str | int, to: object, seal: bool = False) -> Path:
    """The plan file with one value changed; with `seal`, its digest is changed to fit."""
    path = folder / "plan.json"
    content = msgspec.json.decode(path.read_bytes())
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    assert inner[place[-1]] != to
    inner[place[-1]] = to
    data = msgspec.json.encode(content)
    path.write_bytes(sealed(data) if seal else data)
    return path


FREE = {"price_id": "p", "source": "made up", "per_unit": {"input": "0", "output": "0"}, "on_demand": None}
EDITS: list[tuple[tuple[str | int, ...], object]] = [
    (("plan", "price"), FREE),
    (("plan", "price"), None),
    (("plan", "price", "per_unit", "input"), "0"),
    (("plan", "price", "per_unit", "input"), "NaN"),
    (("plan", "price", "per_unit", "input"), "sNaN"),
    (("plan", "price", "per_unit", "input"), "1e999999999"),
    (("plan", "cost_usd"), "NaN"),
    (("plan", "cost_usd"), "-Infinity"),
    (("plan", "cost_usd"), "1e-999999999"),
    (("plan", "cost_usd"), "0.01"),
    (("plan", "backend"), "other"),
    (("plan", "model"), "other"),
    (("plan", "region"), "other"),
    (("plan", "parameters"), {"temperature": 1.5}),
    (("plan", "price_id"), "other"),
    (("plan", "attempts"), 0),
    (("plan", "shard_records"), 0),
    (("plan", "fields"), ["x"]),
    (("plan", "run_usd"), "1000"),
    (("plan", "approve_above_usd"), "1000"),
    (("plan", "tags"), {"team": "other"}),
    (("plan", "window"), "2026-W47"),
]
UNTOLD: list[tuple[tuple[str | int, ...], object]] = [
    (("plan", "documents"), None),
    (("plan", "options"), []),
    (("plan", "options", 0, "cost_high_usd"), "0"),
    (("plan", "deadline"), 5.0),
    (("plan", "run_id"), "0123456789abcdef"),
    (("candidates", 0, "price"), FREE),
    (("settings", "run_usd"), "1000"),
    (("use_cache",), False),
    (("lowtide",), "9.9.9"),
    (("sha256",), "0" * 64),
    (("sha256",), ""),
]


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """The folder of a plan with prices that is read back."""
    work = a_work(run_usd=Decimal("1.50"))
    kept: list[Prints] = []
    plan = plan_run(work, keep=lambda inputs: kept.append(prints_of(inputs)))
    assert plan.documents is not None
    assert plan.options
    write_plan(tmp_path / "plan.json", plan, work, tmp_path / "job.yaml", kept[0])
    assert read_plan(tmp_path / "plan.json").plan == plan
    return tmp_path


@pytest.mark.parametrize(("place", "to"), [*EDITS, *UNTOLD], ids=str)
def test_a_plan_that_was_changed_after_it_was_written_is_refused(
    place: tuple[str | int, ...], to: object, planned: Path
) -> None:
    path = edited(planned, *place, to=to)
    again = "" if place == ("use_cache",) else f"lowtide plan {planned}/job.yaml --out {path}"
    with pytest.raises(ConfigError, match="was changed after it was written: make a new plan with: lowtide") as refused:
        read_plan(path)
    assert again in str(refused.value)


@pytest.mark.parametrize(("place", "to"), EDITS, ids=str)
def test_a_plan_that_does_not_fit_together_is_refused_whatever_its_digest(
    place: tuple[str | int, ...], to: object, planned: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^/.*plan\.json: plan\.[a-z_.]+: .*write it again$"):
        read_plan(edited(planned, *place, to=to, seal=True))


def test_a_plan_of_another_version_is_stale(planned: Path) -> None:
    path = edited(planned, "lowtide", to="9.9.9", seal=True)
    with pytest.raises(StalePlan, match=r"version 9\.9\.9 of lowtide.*: make a new plan with: lowtide plan /.*--out /"):
        read_plan(path)


def test_a_plan_may_be_formatted_anew(planned: Path) -> None:
    path = planned / "plan.json"
    before = read_plan(path)
    content = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(dict(reversed(content.items()))))
    assert read_plan(path) == before


def test_amounts_are_written_as_plain_digits_and_read_back_exactly(tmp_path: Path) -> None:
    small = Price(
        "p", "made up", {"input": Decimal("0.000000075"), "output": Decimal("7.5E-8"), "other": Decimal("1E+3")}
    )
    found = written(tmp_path, a_work(price=small))
    assert found.plan.price is not None
    assert found.plan.price.per_unit == small.per_unit
    text = (tmp_path / "plan.json").read_text()
    assert text.count('"0.000000075"') == 4
    assert '"1000"' in text
    assert "E-" not in text


def test_a_place_where_no_plan_can_be_written_is_refused(tmp_path: Path) -> None:
    for place, said in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "plan.json", f"there is no folder {tmp_path}/no"),
    ):
        with pytest.raises(ConfigError, match="the plan cannot be written") as refused:
            check_place(place)
        assert said in str(refused.value)
    check_place(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("an older one")
    check_place(tmp_path / "plan.json")
