"""The flows, on a Prefect server of their own: what they do, and what a person sees of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from support.command import Bench, write_documents

from lowtide.flows.advance import advance_job
from lowtide.flows.run import run_job


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    write_documents(tmp_path / "documents", 8)
    monkeypatch.setenv("LOWTIDE_LOCAL_DIR", str(made.batches))
    return made


@pytest.mark.usefixtures("server")
def test_the_flow_runs_a_job_and_shows_it_on_its_pages(bench: Bench) -> None:
    summary = run_job(str(bench.job))
    assert summary["state"] == "published"
    assert summary["counts"] == {"ok": 16}
    bench.assert_right(8)
    with get_client(sync_client=True) as client:
        [run] = client.read_flow_runs()
        assert run.name == "job, window all"
        names = {task.name for task in client.read_task_runs()}
        keys = ArtifactFilter(key=ArtifactFilterKey(like_="%-tides-all"))
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=keys)}
    assert {"list documents", "read documents, build shards", "publish the tables"} <= names
    assert len(names) < 100
    assert set(artifacts) == {"progress-tides-all", "counts-tides-all", "summary-tides-all"}
    assert artifacts["progress-tides-all"].data == 100.0
    assert "results.parquet" in str(artifacts["summary-tides-all"].data)


@pytest.mark.usefixtures("server")
def test_advance_goes_on_with_a_run_that_nobody_waits_for(bench: Bench) -> None:
    assert advance_job(str(bench.job)) is None
    begun = run_job(str(bench.job), wait=0.0)
    assert begun["state"] == "waiting for answers"
    for _ in range(200):
        summary = advance_job(str(bench.job))
        assert summary is not None
        if summary["state"] == "published":
            break
    bench.assert_right(8)


@pytest.mark.usefixtures("server")
def test_a_bad_job_file_fails_the_flow_with_its_own_words(bench: Bench) -> None:
    bench.job.write_text("version: 2\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"job\.yaml:1"):
        run_job(str(bench.job))
