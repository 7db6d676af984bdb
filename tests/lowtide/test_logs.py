"""Lines for programs and people: what they are about is in them, and what must not be logged is not."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide import logs
from lowtide.errors import ConfigError, Transient


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    logger = logging.getLogger("lowtide")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_says_when_how_loud_who_and_about_what() -> None:
    out = io.StringIO()
    logs.configure("json", stream=out)
    with logs.about(job="weekly", run="0123456789abcdef"), logs.about(shard=7):
        logging.getLogger("lowtide.engine").warning("asked again: %s", "two\nlines")
    logging.getLogger("lowtide.engine").info("later", extra={"run": "of its own"})
    first, second = lines_of(out)
    assert str(first.pop("time")).endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "lowtide.engine",
        "message": "asked again: two\nlines",
        "job": "weekly",
        "run": "0123456789abcdef",
        "shard": 7,
    }
    assert second["run"] == "of its own"
    assert "shard" not in second


def test_a_line_for_people_stays_one_line_and_names_the_run() -> None:
    out = io.StringIO()
    logs.configure("text", stream=out)
    with logs.about(run="abc", shard=3):
        logging.getLogger("lowtide.engine").warning("two\nlines")
    assert out.getvalue().endswith("warning lowtide.engine: two lines [run=abc shard=3]\n")


def test_the_environment_says_which_and_a_wrong_word_is_refused() -> None:
    out = io.StringIO()
    logs.configure(stream=out, environ={"LOWTIDE_LOG": "JSON"})
    logging.getLogger("lowtide").info("hello")
    assert lines_of(out)[0]["message"] == "hello"
    with pytest.raises(ConfigError, match="LOWTIDE_LOG"):
        logs.configure(environ={"LOWTIDE_LOG": "xml"})


def test_it_may_be_called_again_and_no_line_comes_twice() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("json", stream=first)
    logs.configure("json", stream=second)
    logging.getLogger("lowtide.engine").info("once")
    assert first.getvalue() == ""
    assert len(lines_of(second)) == 1


def test_of_an_error_that_is_not_ours_only_kind_and_place_are_told() -> None:
    out = io.StringIO()
    logs.configure("json", stream=out)
    logger = logging.getLogger("lowtide.engine")
    for error in (ValueError("the text of a document"), Transient("the network is away")):
        try:
            raise error
        except (ValueError, Transient):
            logger.exception("failed")
    strange, own = lines_of(out)
    assert "the text" not in out.getvalue()
    assert strange["error"]["kind"] == "ValueError"  # type: ignore[index]
    assert str(strange["error"]["at"]).startswith("test_logs.py:")  # type: ignore[index]
    assert own["error"]["message"] == "the network is away"  # type: ignore[index]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "message",
    [
        "GET https://account.blob.core.windows.net/c/b?sv=2026&sig=S3CR3T%2Bxyz&se=1 failed",
        "Authorization: Bearer S3CR3T.abc.def",
        "AccountKey=S3CR3T==;EndpointSuffix=core",
        "postgres://prefect:S3CR3T@db/prefect",
        "api_key='S3CR3T' x",
        '{"password": "S3CR3T"}',
    ],
)
def test_what_looks_like_a_secret_is_struck_out(message: str, form: logs.Format) -> None:
    out = io.StringIO()
    logs.configure(form, stream=out)
    logging.getLogger("lowtide").warning("%s", message)
    assert "S3CR3T" not in out.getvalue()
    assert "***" in out.getvalue()


def test_keys_that_stand_alone_are_struck_out_and_addresses_stay() -> None:
    out = io.StringIO()
    logs.configure("text", stream=out)
    secret = "sk-" + "a1B2" * 8
    logging.getLogger("lowtide").warning("with %s at %s", secret, "s3://bucket/runs/weekly/0001.json:12")
    assert secret not in out.getvalue()
    assert "s3://bucket/runs/weekly/0001.json:12" in out.getvalue()


def test_two_threads_do_not_take_each_other_for_their_run() -> None:
    out = io.StringIO()
    logs.configure("json", stream=out)
    gate = threading.Barrier(2)

    def work(run: str) -> None:
        with logs.about(run=run):
            gate.wait()
            logging.getLogger("lowtide").info("%s", run)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(line["run"], line["message"]) for line in lines_of(out)} == {("one", "one"), ("two", "two")}


def run_command(folder: Path, wanted: str) -> subprocess.CompletedProcess[str]:
    (folder / "documents").mkdir(exist_ok=True)
    (folder / "documents" / "a.txt").write_text("Ships leave the harbour with the tide.", encoding="utf-8")
    job = folder / "job.yaml"
    job.write_text(
        f"version: 1\nname: tides\nsource: {{uri: {folder}/documents/*}}\noperations: [{{summarize: {{words: 9}}}}]\n"
        f"backends: [{{local: {{model: tfidf}}}}]\noutput: {{root: {folder}/out}}\n",
        encoding="utf-8",
    )
    return subprocess.run(
        [sys.executable, "-m", "lowtide", "run", str(job), "--direct"],
        env={**os.environ, "LOWTIDE_LOG": wanted},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_logs_what_it_does_with_run_and_shard(tmp_path: Path) -> None:
    ended = run_command(tmp_path, "json")
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    [run] = {line["run"] for line in lines}
    assert (tmp_path / "out" / "runs" / "tides" / "all" / run).is_dir()
    done = [(line["message"], line.get("shard")) for line in lines if line["logger"] == "lowtide.engine"]
    assert [line for line in done if line[0] in ("build done", "submit done", "collect done", "publish done")] == [
        ("build done", None),
        ("submit done", 1),
        ("collect done", 1),
        ("publish done", None),
    ]
    assert "harbour" not in ended.stderr


def test_a_form_of_logs_that_there_is_not_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    ended = run_command(tmp_path, "xml")
    assert ended.returncode == 2
    assert "LOWTIDE_LOG: found 'xml'" in ended.stderr
    assert not (tmp_path / "out").exists()
