"""Rows whose answers lie elsewhere: taken over as they are, at no cost, and never somebody else's."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.engine_support import finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on

from lowtide.collecting import elsewhere
from lowtide.collecting.elsewhere import GONE, UNMATCHED, reused_rows, twin_rows
from lowtide.collecting.rows import write_rows
from lowtide.engine import open_run
from lowtide.prices import Price
from lowtide.sharding.shard import BuiltShard, Position

REALTIME = Price("r", "test", {"input": Decimal("0.000002"), "output": Decimal("0.000004")})


def settled(texts: dict[str, str | None]) -> tuple[MemoryStore, str, str]:
    """A store with a finished run, its first shard's rows, and its first table of repeated requests."""
    store = MemoryStore()
    run = open_run(work_on(store, StandInBackend(Provider()), ListedDocuments(texts), shard_records=100))
    assert finish(run).done
    shard = run.state.shards[1]
    return store, run.context.path(shard.rows), run.context.path(shard.twin_rows)


def opener(store: MemoryStore, path: str) -> Callable[[], BinaryIO]:
    return lambda: store.open(path)


def shard_of(*reused: tuple[tuple[int, int, int], ...]) -> BuiltShard:
    shard = BuiltShard(1, Position(0, 0), Position(0, len(reused)))
    for at, picks in enumerate(reused):
        shard.document_id.append(f"{at:032x}")
        shard.uri.append(f"new{at}")
        shard.modified.append(None)
        shard.sha256.append("00" * 32)
        shard.first.append(-1)
        shard.asked.append(0)
        shard.reason.append(None)
        shard.reused.append(picks)
    return shard


def test_answers_are_taken_over_with_what_they_would_cost_in_real_time() -> None:
    store, rows, _ = settled({"a": "one", "b": "two"})
    shard = shard_of(((0, 0, 1),), (), ((0, 0, 0),))
    found = reused_rows(shard, shard.index(()), lambda source: store.open(rows), (), REALTIME)
    table = found.rows.to_pylist()
    assert [(row["document_uri"], row["output_text"]) for row in table] == [("new0", "two"), ("new2", "one")]
    assert {row["cost_usd"] for row in table} == {Decimal(0)}
    assert {row["cost_if_realtime_usd"] for row in table} == {Decimal("0.000028")}
    assert {(tally.token_type, tally.quantity) for tally in found.saved} == {("input", 20), ("output", 4)}


def test_an_answer_that_is_not_there_becomes_an_error_and_not_another_ones() -> None:
    store, rows, _ = settled({"a": "one"})
    shard = shard_of(((0, 0, 0),), ((0, 0, 7),))
    found = reused_rows(shard, shard.index(()), lambda source: store.open(rows), (), None)
    first, second = found.rows.to_pylist()
    assert (first["status"], first["output_text"]) == ("ok", "one")
    assert (second["status"], second["status_reason"], second["output_text"]) == ("error", GONE, None)
    assert {(tally.token_type, tally.quantity) for tally in found.saved} == {("input", 10), ("output", 2)}


@pytest.mark.parametrize("together", [1, 3, 100])
def test_repeated_requests_get_their_answers_part_by_part(
    together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "_TOGETHER", together)
    texts: dict[str, str | None] = {f"d{number:02d}": f"text {number % 4}" for number in range(20)}
    store, rows, twins = settled(texts)
    files = list(
        twin_rows(
            [opener(store, twins)],
            [opener(store, rows)],
            ["q"],
            tmp_path,
            total=16,
            field_names=(),
            on_demand=REALTIME,
        )
    )
    found = [row for path in files for row in pa.ipc.open_file(path).read_all().to_pylist()]
    assert {row["document_uri"]: row["output_text"] for row in found} == {
        uri: text for uri, text in texts.items() if int(uri[1:]) >= 4
    }
    assert len(found) == 16
    for path in files:
        identifiers = pa.ipc.open_file(path).read_all()["document_id"].to_pylist()
        assert identifiers == sorted(identifiers)


def test_a_repeated_request_whose_like_is_not_there_has_its_row_all_the_same(tmp_path: Path) -> None:
    store, rows, twins = settled({"a": "one", "b": "one", "c": "two"})
    other, others_rows, _ = settled({"x": "three"})
    table = pq.read_table(io.BytesIO(store.objects[twins]))
    assert len(table) == 1
    [path] = twin_rows(
        [opener(store, twins)],
        [opener(other, others_rows)],
        ["q"],
        tmp_path,
        total=1,
        field_names=(),
        on_demand=None,
    )
    [row] = pa.ipc.open_file(path).read_all().to_pylist()
    assert (row["document_uri"], row["status"], row["status_reason"]) == ("b", "error", UNMATCHED)
    assert rows


def test_operations_that_ask_the_same_share_their_answers() -> None:
    store, provider = MemoryStore(), Provider()
    operations = (echo_operation("x"), replace(echo_operation("x"), name="y"))
    run = open_run(
        work_on(store, StandInBackend(provider), ListedDocuments({"a": "one", "b": "two"}), operations=operations)
    )
    assert finish(run).done
    assert set(provider.processed.values()) == {1}
    assert run.state.published_counts == {"ok": 4}


def test_an_empty_file_of_rows_answers_nothing(tmp_path: Path) -> None:
    store, rows, twins = settled({"a": "one", "b": "one"})
    out = io.BytesIO()
    write_rows(pa.ipc.open_file(store.open(rows)).read_all().slice(0, 0), out)
    [path] = twin_rows(
        [opener(store, twins)],
        [lambda: io.BytesIO(out.getvalue())],
        ["q"],
        tmp_path,
        total=1,
        field_names=(),
        on_demand=None,
    )
    assert pa.ipc.open_file(path).read_all()["status"].to_pylist() == ["error"]
