"""`forget`, `status --all` and `metrics` as a user types them, over a real root on disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.command import Bench, text_of, write_documents
from support.remains import objects_in, remains

from lowtide import ids


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, shard_records=6)
    write_documents(tmp_path / "documents", 6)
    done = bench.run()
    assert done.returncode == 0, done.stderr
    return bench


def test_a_person_is_forgotten_and_all_is_said_that_should_be(bench: Bench) -> None:
    root = Path(bench.root)
    uri = (bench.folder / "documents/doc-0003.txt").as_uri()
    words = [uri, "doc-0003", ids.document_id(uri, ""), text_of(3)[:30]]
    before = objects_in(root)
    assert remains(before, words)
    dry = bench.lowtide("forget", "--document", uri, "--root", bench.root, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "results            2 to be removed, in 1 file" in dry.stdout
    declined = bench.lowtide("forget", str(bench.job), "--document", uri)
    assert declined.returncode == 3
    assert "nothing was removed" in declined.stderr
    assert {path: data for path, data in objects_in(root).items() if "forgotten" not in path} == before
    leftover = root / "runs/.lowtide-0123456789abcdef.tmp"
    leftover.write_text(text_of(3))
    os.utime(leftover, (time.time() - 200_000, time.time() - 200_000))
    done = bench.lowtide("forget", str(bench.job), "--document", uri, "--yes")
    assert done.returncode == 0, done.stderr
    assert "still at its source" in done.stderr
    assert remains(objects_in(root), words) == []
    assert len(bench.results()) == 10
    [record] = root.glob("forgotten/*.done.json")
    assert orjson.loads(record.read_bytes())["touched"]["results"] == {"files": 1, "entries": 2}
    again = bench.lowtide("forget", str(bench.job), "--document", uri, "--yes")
    assert again.returncode == 3
    assert "forgotten already" in again.stderr
    Path(bench.folder / "documents/doc-0003.txt").unlink()
    assert bench.run().returncode == 0
    assert len(bench.results()) == 10
    assert remains(objects_in(root), words) == []
    assert bench.billed()["records"] == 12


def test_status_of_a_root_and_its_metrics(bench: Bench) -> None:
    shown = bench.lowtide("status", str(bench.job), "--all")
    assert shown.returncode == 0, shown.stderr
    assert "tides" in shown.stdout
    assert "done" in shown.stdout
    told = bench.lowtide("status", "--root", bench.root, "--json")
    [run] = orjson.loads(told.stdout)["runs"]
    assert (run["job"], run["window"], run["state"], run["open"], run["documents"]) == (
        "tides",
        "all",
        "done",
        False,
        6,
    )
    one = bench.lowtide("status", str(bench.job), "--json")
    assert orjson.loads(one.stdout)["run_id"] == run["run_id"]
    metrics = bench.lowtide("metrics", "--root", bench.root, "--write")
    assert metrics.returncode == 0, metrics.stderr
    names = {family.name for family in text_string_to_metric_families(metrics.stdout)}
    assert "lowtide_last_publish_timestamp_seconds" in names
    assert (Path(bench.root) / "metrics/lowtide.prom").read_text().startswith("# HELP lowtide_open_runs")


def test_an_empty_root_has_no_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    empty = bench.lowtide("status", "--root", str(tmp_path / "nothing"))
    assert empty.returncode == 3
    assert "no run has been begun" in empty.stderr


def test_a_mistyped_root_is_not_taken_for_one_in_which_nothing_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for root in (tmp_path / "nothing", tmp_path):
        refused = bench.lowtide("forget", "--root", str(root), "--document", "file:///a.txt", "--yes")
        assert refused.returncode == 2
        assert f"--root: {root.as_uri()} is no root of Lowtide" in refused.stderr
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "out/runs/tides/all").mkdir(parents=True)
    (tmp_path / "out/runs/tides/all/latest").write_text("0123456789abcdef")
    assert bench.lowtide("forget", "--root", bench.root, "--document", "file:///a.txt").returncode == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--document", ""), "--document: it is empty"),
        (("--document", "9f86d081884c7d659a2feaa0c55ad015", "--key", "4711"), "which is a document_id"),
    ],
)
def test_what_names_no_document_is_bad_input(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    refused = Bench(tmp_path).lowtide("forget", "job.yaml", *options)
    assert refused.returncode == 2
    assert said in refused.stderr
