"""What earlier runs teach: read from tables as runs write them, in bounded work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.connectors.stores.local import LocalStore
from lowtide.estimating import NO_HISTORY, Corpus, Estimate, History, estimate, read_history
from lowtide.job.model import Classify, Summarize
from lowtide.operations import Operation, build_operation
from lowtide.schemas import RUNS, results_schema

MODEL = "amazon.nova-lite-v1:0"
TEXT = "The ferry left the harbour at seven, although the fog had not lifted. "
SUMMARIZE = build_operation(Summarize(words=50), Path())
CLASSIFY = build_operation(Classify(labels={"news": "", "sport": ""}), Path())


def write(path: Path, rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    full = [{name: row.get(name) for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(full, schema=schema), path)


def past_run(
    root: Path,
    window: str = "2026-W46",
    *,
    documents: int = 100,
    operations: Sequence[Operation] = (SUMMARIZE,),
    each: int = 1_000,
    answers: int = 40,
    text_bytes: int = 4_000,
    attempts: int = 1,
    **changed: object,
) -> None:
    """A run whose every document had so many bytes, and every request so many tokens at each attempt."""
    requests = documents * len(operations)
    run = {
        "run_id": f"run-{window}",
        "model": MODEL,
        "requests": requests,
        "asked_requests": requests,
        "input_tokens": requests * each * attempts,
        "output_tokens": requests * answers,
        "text_bytes": requests * text_bytes,
        "cancelled": False,
        "finished": datetime(2026, 11, 1, tzinfo=UTC),
        **changed,
    }
    rows = [
        {
            "run_id": run["run_id"],
            "operation_version": operation.version,
            "model": run["model"],
            "status": "ok",
            "input_tokens": each * attempts,
            "output_tokens": answers * attempts,
            "cached": False,
            "attempts": attempts,
        }
        for _ in range(documents)
        for operation in operations
    ]
    # What was bought by an earlier run, and what was never asked, says nothing of this one.
    rows += [{**rows[0], "cached": True, "output_tokens": 9_999} for _ in range(50)]
    rows += [{"run_id": run["run_id"], "status": "skipped", "model": run["model"]} for _ in range(50)]
    write(root / f"tables/runs/job=weekly/window={window}/{run['run_id']}.parquet", [run], RUNS)
    write(root / f"tables/results/job=weekly/window={window}/results.parquet", rows, results_schema(("author",)))


def history_of(root: Path) -> History:
    return read_history(LocalStore(root), "weekly")


def estimated(history: History, *, asked: Sequence[Operation] = (SUMMARIZE,), model: str = MODEL) -> Estimate:
    corpus = Corpus()
    corpus.add("txt", [TEXT * 57] * 200)
    return estimate(
        corpus, provider="aws", model=model, operations=asked, requests=[200] * len(asked), whole=True, history=history
    )


def test_a_root_without_tables_has_no_history(tmp_path: Path) -> None:
    assert history_of(tmp_path) == NO_HISTORY


def test_what_earlier_runs_used_goes_into_the_next_estimate(tmp_path: Path) -> None:
    past_run(tmp_path, each=1_400, answers=47)
    found, blind = estimated(history_of(tmp_path)), estimated(NO_HISTORY)
    # Documents are as long as those of the earlier run, within 2 %.
    assert abs(found.input.expected / (200 * 1_400) - 1) < 0.06
    assert abs(found.input.expected / (200 * 1_400) - 1) < abs(blind.input.expected / (200 * 1_400) - 1) / 3
    assert abs(found.output.expected - 200 * 47) <= 1
    assert found.basis.startswith("1 earlier run of this job, ")
    assert found.input.high - found.input.low < blind.input.high - blind.input.low


def test_two_operations_are_told_apart(tmp_path: Path) -> None:
    past_run(tmp_path, operations=(SUMMARIZE, CLASSIFY), each=1_400, answers=30)
    found = estimated(history_of(tmp_path), asked=(SUMMARIZE, CLASSIFY))
    assert abs(found.input.expected / (400 * 1_400) - 1) < 0.06
    assert estimated(history_of(tmp_path), asked=(CLASSIFY,)).output.expected == 200 * 30


def test_several_runs_are_surer_than_one(tmp_path: Path) -> None:
    past_run(tmp_path, "2026-W45", each=1_600)
    one = estimated(history_of(tmp_path))
    for window in ("2026-W43", "2026-W44", "2026-W46"):
        past_run(tmp_path, window, each=1_600)
    several = estimated(history_of(tmp_path))
    assert several.basis.startswith("4 earlier runs of this job")
    assert several.input.high - several.input.low < one.input.high - one.input.low


def test_retries_widen_the_upper_end_alone(tmp_path: Path) -> None:
    past_run(tmp_path / "smooth", each=1_500)
    past_run(tmp_path / "rough", each=1_500, attempts=2)
    smooth, rough = estimated(history_of(tmp_path / "smooth")), estimated(history_of(tmp_path / "rough"))
    assert rough.input.expected == smooth.input.expected
    assert rough.output.expected == smooth.output.expected
    assert rough.input.low == smooth.input.low
    assert rough.input.high > 1.8 * smooth.input.high


def test_another_model_or_prompt_says_nothing_of_this_one(tmp_path: Path) -> None:
    past_run(tmp_path, each=5_000, answers=400)
    history = history_of(tmp_path)
    assert estimated(history, model="amazon.nova-pro-v1:0") == estimated(NO_HISTORY, model="amazon.nova-pro-v1:0")
    other = build_operation(Summarize(words=50, instructions="In verse."), Path())
    assert estimated(history, asked=(other,)).input == estimated(NO_HISTORY, asked=(other,)).input


def test_a_run_that_stopped_at_its_cap_counts_by_what_it_has_asked(tmp_path: Path) -> None:
    past_run(tmp_path / "whole", each=1_400)
    past_run(tmp_path / "stopped", each=1_400, requests=5_000)
    assert estimated(history_of(tmp_path / "stopped")) == estimated(history_of(tmp_path / "whole"))


def test_a_run_that_does_not_say_what_it_has_asked_is_passed_over(tmp_path: Path) -> None:
    past_run(tmp_path, "2026-W44", asked_requests=None)
    past_run(tmp_path, "2026-W45")
    older = tmp_path / "tables/runs/job=weekly/window=2026-W45/run-2026-W45.parquet"
    pq.write_table(pq.read_table(older).drop_columns(["asked_requests"]), older)
    assert history_of(tmp_path) == NO_HISTORY


def test_cancelled_runs_and_tables_without_the_columns_are_passed_over(tmp_path: Path) -> None:
    past_run(tmp_path, "2026-W41", cancelled=True)
    past_run(tmp_path, "2026-W42", text_bytes=0)
    past_run(tmp_path, "2026-W43")
    older = tmp_path / "tables/runs/job=weekly/window=2026-W43/run-2026-W43.parquet"
    pq.write_table(pq.read_table(older).drop_columns(["text_bytes"]), older)
    past_run(tmp_path, "2026-W44")
    (tmp_path / "tables/results/job=weekly/window=2026-W44/results.parquet").write_bytes(b"PAR1 no table")
    past_run(tmp_path, "2026-W45")
    (tmp_path / "tables/results/job=weekly/window=2026-W45/results.parquet").unlink()
    past_run(tmp_path, "2026-W46", run_id="replaced since")
    results = tmp_path / "tables/results/job=weekly/window=2026-W46/results.parquet"
    write(results, [{"run_id": "another"}], results_schema(()))
    assert history_of(tmp_path) == NO_HISTORY


def test_few_answers_are_not_trusted(tmp_path: Path) -> None:
    past_run(tmp_path, documents=5, answers=900)
    assert estimated(history_of(tmp_path)).output == estimated(NO_HISTORY).output


class _Counting(LocalStore):
    """A store that counts what is opened."""

    opened = 0

    def open(self, path: str) -> BinaryIO:
        self.opened += 1
        return super().open(path)


def test_only_the_newest_windows_are_read(tmp_path: Path) -> None:
    for week in range(10, 40):
        past_run(tmp_path, f"2026-W{week}", documents=30)
    store = _Counting(tmp_path)
    history = read_history(store, "weekly")
    assert len(history.runs) == 4
    assert store.opened <= 8
    assert read_history(store, "daily") == NO_HISTORY


def test_other_jobs_are_not_read(tmp_path: Path) -> None:
    past_run(tmp_path)
    assert read_history(LocalStore(tmp_path), "week") == NO_HISTORY
