"""A run is what it reads and what it asks: the same again is the same run, and any change is another."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from support.standins import (
    ListedDocuments,
    MemoryStore,
    Provider,
    StandInBackend,
    echo_operation,
    work_on,
)

from lowtide.errors import ConfigError
from lowtide.inputs import Inputs, list_inputs, read_inputs
from lowtide.operations import Operation, Template
from lowtide.plan import RunPlan, Work, make_plan, run_id_of
from lowtide.prices import Price
from lowtide.records import FileInfo
from lowtide.windows import Window, parse_window

MODIFIED = datetime(2026, 11, 2, tzinfo=UTC)


@dataclass
class Files:
    """A source that only lists."""

    found: list[FileInfo]

    def files(self) -> Iterator[FileInfo]:
        return iter(self.found)

    def read(self, files: object) -> Iterator[object]:
        raise AssertionError("planning reads no document")


def info(uri: str = "s3://b/a", size: int = 5, etag: str = "e1") -> FileInfo:
    return FileInfo(uri, uri, size, etag, MODIFIED)


def a_work(documents: object = None, **changes: object) -> Work:
    texts = ListedDocuments({"a": "one", "b": "two"}, fields={"customer": {"a": "x"}})
    work = work_on(MemoryStore(), StandInBackend(Provider()), texts)
    return replace(work, documents=documents or texts, **changes)  # type: ignore[arg-type]


def planned(work: Work, folder: Path) -> RunPlan:
    return make_plan(work, list_inputs(work.documents, folder / "inputs.parquet"), 1000.0)


class Renamed(StandInBackend):
    name = "another"


class OtherModel(StandInBackend):
    model = "echo-2"


class Warmer(StandInBackend):
    parameters = {"temperature": 0.5}  # noqa: RUF012


def test_the_same_inputs_and_questions_are_the_same_run(tmp_path: Path) -> None:
    first, second = planned(a_work(), tmp_path), planned(a_work(), tmp_path)
    assert first.run_id == second.run_id
    assert first.nonce != second.nonce


def test_when_it_is_planned_and_what_it_may_cost_do_not_make_another_run(tmp_path: Path) -> None:
    changed = a_work(
        run_usd=Decimal(1),
        price=Price("other", "list", {}),
        attempts=9,
        shard_records=77,
        deadline=timedelta(hours=1),
        poll=timedelta(seconds=1),
        tags={"team": "a"},
    )
    assert planned(a_work(), tmp_path).run_id == planned(changed, tmp_path).run_id


def _asks(**changes: object) -> tuple[Operation, ...]:
    return (replace(echo_operation(), **changes),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        lambda: a_work(job="other"),
        lambda: a_work(window=Window("2026-W47", MODIFIED, MODIFIED + timedelta(days=7))),
        lambda: a_work(reading={"uri": "memory", "format": "text"}),
        lambda: a_work(fields=()),
        lambda: a_work(operations=_asks(name="other")),
        lambda: a_work(operations=_asks(system="Say it twice.")),
        lambda: a_work(operations=_asks(user=Template.parse("{{ text }}"))),
        lambda: a_work(operations=_asks(schema={"type": "object"})),
        lambda: a_work(operations=_asks(parameters={"words": 3})),
        lambda: a_work(operations=_asks(max_output_tokens=7)),
        lambda: a_work(operations=_asks(kind="summarize")),
        lambda: a_work(operations=(echo_operation(), echo_operation("again"))),
        lambda: a_work(backend=Renamed(Provider())),
        lambda: a_work(backend=OtherModel(Provider())),
        lambda: a_work(backend=Warmer(Provider())),
    ],
    ids=[
        "job",
        "window",
        "reading",
        "fields",
        "operation's name",
        "system",
        "prompt",
        "schema",
        "parameters",
        "length",
        "kind",
        "one more operation",
        "backend",
        "model",
        "backend's parameters",
    ],
)
def test_whatever_is_asked_otherwise_is_another_run(changed: Callable[[], Work], tmp_path: Path) -> None:
    assert planned(a_work(), tmp_path).run_id != planned(changed(), tmp_path).run_id


def test_a_window_of_the_same_name_in_another_zone_is_another_run(tmp_path: Path) -> None:
    here, paris = (a_work(window=parse_window("2026-W47", zone)) for zone in (UTC, ZoneInfo("Europe/Paris")))
    by_another_name = a_work(window=parse_window("2026-W47", ZoneInfo("Etc/UTC")))
    assert planned(here, tmp_path).run_id != planned(paris, tmp_path).run_id
    assert planned(here, tmp_path).run_id == planned(by_another_name, tmp_path).run_id


@pytest.mark.parametrize(
    ("window", "run_id"),
    [
        ("all", "259127774ebe3c5d"),
        ("2026-W47", "cf68391a2fbaf52d"),
        ("2026-11-20T05", "deb3ef88e8eb0d3f"),
        ("2026-11-01..2026-11-15", "8359863ea543e720"),
    ],
)
def test_runs_over_windows_of_utc_keep_the_ids_that_they_had_before_there_were_zones(window: str, run_id: str) -> None:
    assert run_id_of(a_work(window=parse_window(window)), "0" * 64) == run_id


@pytest.mark.parametrize(
    "found",
    [
        [],
        [info(etag="e2"), info("s3://b/b")],
        [info(size=6), info("s3://b/b")],
        [info("s3://b/c"), info("s3://b/b")],
        [info("s3://b/b"), info()],
        [info()],
        [info(), info("s3://b/b"), info("s3://b/c")],
    ],
    ids=["none", "etag", "size", "address", "order", "one less", "one more"],
)
def test_whatever_is_read_otherwise_is_another_run(found: list[FileInfo], tmp_path: Path) -> None:
    before = planned(a_work(Files([info(), info("s3://b/b")])), tmp_path)
    assert before.run_id != planned(a_work(Files(found)), tmp_path).run_id


def test_neighbouring_names_and_etags_cannot_be_mistaken_for_each_other(tmp_path: Path) -> None:
    digests = {
        list_inputs(Files([info(uri, etag=etag)]), tmp_path / "inputs.parquet").sha256  # type: ignore[arg-type]
        for uri, etag in (("ab", "c"), ("a", "bc"), ("abc", ""))
    }
    assert len(digests) == 3


def test_operations_that_the_backend_cannot_do_are_refused_all_at_once(tmp_path: Path) -> None:
    operations = (*_asks(kind="translate", name="to French"), *_asks(kind="translate", name="to Dutch"))
    with pytest.raises(ConfigError, match=r"'to French'.*does not translate\n.*'to Dutch'"):
        planned(a_work(operations=operations), tmp_path)


def test_the_files_are_read_again_from_any_one_on(tmp_path: Path) -> None:
    found = [info(f"f{number:05d}", size=number) for number in range(20_500)]
    store = MemoryStore()
    path = tmp_path / "inputs.parquet"
    inputs = list_inputs(Files(found), path)  # type: ignore[arg-type]
    assert (inputs.files, inputs.bytes) == (20_500, sum(range(20_500)))
    store.write("inputs.parquet", path.read_bytes())
    for skip in (0, 1, 9_999, 10_000, 10_001, 20_499, 20_500, 30_000):
        assert list(read_inputs(store, "inputs.parquet", skip=skip)) == found[skip:]


def test_a_file_name_that_is_not_utf8_does_not_stop_the_listing(tmp_path: Path) -> None:
    """Stores show such names escaped; a source of another kind may not."""
    inputs = list_inputs(Files([info("file:///a\\xff.txt")]), tmp_path / "inputs.parquet")  # type: ignore[arg-type]
    assert inputs.files == 1


def test_memory_for_the_listing_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    def listed(count: int) -> int:
        class Many:
            def files(self) -> Iterator[FileInfo]:
                return (info(f"s3://bucket/a/rather/long/folder/{number:09d}.txt", number) for number in range(count))

        tracemalloc.start()
        list_inputs(Many(), tmp_path / "inputs.parquet")  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    listed(1000)
    assert listed(80_000) < 1.3 * listed(20_000)


def test_a_plan_survives_being_written_down(tmp_path: Path) -> None:
    plan = planned(a_work(run_usd=Decimal("0.1"), tags={"team": "ü"}), tmp_path)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=RunPlan) == plan


def test_a_run_lies_under_a_path_that_every_store_and_provider_takes(tmp_path: Path) -> None:
    prefix = planned(a_work(), tmp_path).prefix
    assert prefix.startswith("runs/test/all/")
    assert "=" not in prefix


def test_inputs_say_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "inputs.parquet"
    assert list_inputs(Files([]), path) == Inputs(path, 0, 0, list_inputs(Files([]), path).sha256)  # type: ignore[arg-type]
