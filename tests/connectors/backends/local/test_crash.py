"""Workers that die: every record is answered once, and the bill says what was answered."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import orjson
import pytest

SLOW = "word " * 3_000_000
TEXT = " ".join(f"Sentence {n} tells of the harbour, of ship number {n % 7}, and of its cargo." for n in range(400))
LARGE = TEXT * 10
"""Ends the group of records that are read together, so that the next record is begun when this one is answered."""


def assert_answered_once(one, batch_id, expected):
    answers = one.answers(batch_id)
    assert [answer.record_id for answer in answers] == expected
    billed = [(line["id"], line["input_tokens"], line["output_tokens"]) for line in one.bill(batch_id)]
    assert billed == [(answer.record_id, answer.input_tokens, answer.output_tokens) for answer in answers]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_worker_killed_in_mid_batch_is_replaced_and_each_record_answered_once(bench, make_request, wait_until, seed):
    chance = random.Random(seed)
    one = bench()
    expected = [f"r{n}" for n in range(120)]
    batch_id = one.backend.submit(one.shard([make_request(record, f"{record}. {TEXT}") for record in expected]), "t")
    for _ in range(3):
        goal = one.lines(batch_id) + chance.randint(1, 30)
        wait_until(lambda goal=goal: one.lines(batch_id) >= goal, "some answers")
        one.kill(batch_id)
        before = one.lines(batch_id)
        assert one.backend.poll(batch_id).provider_state == "starting"
        assert before < 120
    status = one.finish(batch_id)
    assert (status.outcome, status.answered) == ("completed", 120)
    assert_answered_once(one, batch_id, expected)
    assert all(answer.status == "ok" for answer in one.answers(batch_id))


def test_cpu_seconds_are_counted_over_all_workers(bench, make_request, wait_until):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request(f"r{n}", f"{n}. {TEXT}") for n in range(60)]), "t")
    wait_until(lambda: one.lines(batch_id) >= 20, "some answers")
    one.kill(batch_id)
    killed = sum(line["cpu_seconds"] for line in one.bill(batch_id))
    one.finish(batch_id)
    total = orjson.loads((one.folder(batch_id).path / "status.json").read_bytes())["cpu_seconds"]
    second = sum(line["cpu_seconds"] for line in one.bill(batch_id)) - killed
    assert killed > 0
    assert second > 0
    assert total >= killed + second


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data + b'{"record_id":"r5","status":"ok","te',
        lambda data: data[:-7],
        lambda data: data + b"\0" * 4096 + b"\n",
        lambda data: data + data.splitlines(keepends=True)[0],
        lambda data: b"",
    ],
    ids=["torn line", "cut short", "zeros after a power cut", "a line of another record", "lost"],
)
def test_what_a_dead_worker_left_torn_is_mended(bench, make_request, wait_until, damage):
    one = bench()
    expected = [f"r{n}" for n in range(5)] + ["slow", "last"]
    texts = {"slow": SLOW, "r4": LARGE}
    requests = [make_request(record, texts.get(record, TEXT)) for record in expected]
    batch_id = one.backend.submit(one.shard(requests), "t")
    wait_until(lambda: one.lines(batch_id) == 5, "the slow record")
    one.kill(batch_id)
    path = one.folder(batch_id).answers
    path.write_bytes(damage(path.read_bytes()))
    one.finish(batch_id)
    assert [answer.record_id for answer in one.answers(batch_id)] == expected
    # What was processed again is on the bill again; what was not, is not.
    ids = [line["id"] for line in one.bill(batch_id)]
    assert sorted(set(ids)) == sorted(expected)
    assert ids.count("last") == 1


def test_a_bill_that_lags_behind_its_answers_is_completed(bench, make_request, wait_until):
    one = bench()
    expected = ["a", "b", "slow", "last"]
    texts = {"slow": SLOW, "b": LARGE}
    requests = [make_request(record, texts.get(record, TEXT)) for record in expected]
    batch_id = one.backend.submit(one.shard(requests), "t")
    wait_until(lambda: one.lines(batch_id) == 2, "the slow record")
    one.kill(batch_id)
    bill = one.folder(batch_id).bill
    bill.write_bytes(bill.read_bytes().splitlines(keepends=True)[0] + b'{"id":"b","inp')
    one.finish(batch_id)
    assert_answered_once(one, batch_id, expected)


def test_a_batch_whose_worker_never_started_is_started_by_a_poll(bench, make_request):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("slow", SLOW)]), "t")
    for process in one.workers(batch_id):
        process.kill()
    one.finish(batch_id)
    assert_answered_once(one, batch_id, ["slow"])


def test_submitting_again_revives_a_batch_that_lost_its_worker(bench, make_request, wait_until):
    one = bench()
    shard = one.shard([make_request("slow", SLOW), make_request("r", TEXT)])
    batch_id = one.backend.submit(shard, "t")
    wait_until(lambda: len(one.starts(batch_id)) == 1, "the worker to begin")
    one.kill(batch_id)
    assert one.backend.submit(shard, "t") == batch_id
    assert one.folder(batch_id).has_worker()
    one.finish(batch_id)
    assert_answered_once(one, batch_id, ["slow", "r"])


def test_a_record_that_kills_every_worker_gets_an_error_and_the_rest_go_on(bench, make_request, wait_until):
    one = bench()
    expected = ["a", "b", "poison", "c", "d"]
    requests = [make_request(record, SLOW if record == "poison" else TEXT) for record in expected]
    batch_id = one.backend.submit(one.shard(requests), "t")
    # The first worker reads several records ahead, so its death says nothing about which of them is to blame.
    wait_until(lambda: len(one.starts(batch_id)) == 1, "the first worker to begin")
    one.kill(batch_id)
    assert one.starts(batch_id) == [{"record": 0, "records": 3}]
    assert one.lines(batch_id) == 0
    for death in range(3):
        one.backend.poll(batch_id)
        alone = {"record": 2, "records": 1}
        wait_until(
            lambda death=death, alone=alone: one.starts(batch_id).count(alone) == death + 1, "a worker at the poison"
        )
        one.kill(batch_id)
        assert one.lines(batch_id) == 2
    status = one.finish(batch_id)
    answers = one.answers(batch_id)
    assert (status.outcome, status.answered) == ("completed", 5)
    assert [answer.record_id for answer in answers] == expected
    assert [answer.status for answer in answers] == ["ok", "ok", "error", "ok", "ok"]
    assert answers[2].error == "the worker died 3 times at this record"
    assert not answers[2].retryable


POLLER = """
import sys, time
from pathlib import Path
from lowtide.connectors.backends.local import LocalBackend
backend = LocalBackend(Path(sys.argv[1]), model="tfidf")
time.sleep(max(0, float(sys.argv[3]) - time.time()))
print(backend.poll(sys.argv[2]).provider_state)
"""


def test_many_pollers_start_one_worker(bench, make_request, wait_until):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("slow", SLOW * 2), make_request("r", TEXT)]), "t")
    wait_until(lambda: len(one.starts(batch_id)) == 1, "the worker to begin")
    one.kill(batch_id)
    arguments = [sys.executable, "-c", POLLER, str(one.backend.directory), batch_id, str(time.time() + 3)]
    pollers = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    states = sorted(poller.communicate(timeout=60)[0].strip() for poller in pollers)
    assert states == ["starting", "working", "working", "working"]
    assert len(one.workers(batch_id)) == 1
    one.finish(batch_id)
    assert [start["record"] for start in one.starts(batch_id)] == [0, 0, 1]
    assert_answered_once(one, batch_id, ["slow", "r"])


SUBMITTER = """
import io, sys, time
from pathlib import Path
from lowtide.connectors.backends.local import LocalBackend
from lowtide.records import Shard
backend = LocalBackend(Path(sys.argv[1]), model="tfidf")
data = b'{"id":"r","kind":"summarize","parameters":{},"text":"The harbour is closed until the spring."}\\n' * 1
shard = Shard("run", 1, 1, 1, len(data), "x", lambda: io.BytesIO(data))
time.sleep(max(0, float(sys.argv[2]) - time.time()))
print(backend.submit(shard, "token"))
"""


def test_one_token_submitted_by_many_processes_at_once_is_one_batch(bench):
    one = bench()
    arguments = [sys.executable, "-c", SUBMITTER, str(one.backend.directory), str(time.time() + 3)]
    submitters = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ids = {submitter.communicate(timeout=60)[0].strip() for submitter in submitters}
    assert ids == set(one.backend.find("token"))
    (batch_id,) = ids
    one.finish(batch_id)
    assert_answered_once(one, batch_id, ["r"])
    assert [path.name for path in one.backend.directory.glob("local-*")] == [batch_id]


def test_a_second_worker_started_by_hand_leaves_at_once(bench, make_request, wait_until):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("slow", SLOW * 2)]), "t")
    wait_until(lambda: len(one.starts(batch_id)) == 1, "the worker to begin")
    worker = [sys.executable, "-m", "lowtide.connectors.backends.local.worker", str(one.folder(batch_id).path)]
    assert subprocess.run(worker, timeout=60, check=False).returncode == 0
    assert len(one.starts(batch_id)) == 1
    one.finish(batch_id)
    assert_answered_once(one, batch_id, ["slow"])


def test_the_worker_outlives_the_process_that_submitted(bench, tmp_path):
    one = bench()
    subprocess.run(
        [sys.executable, "-c", SUBMITTER, str(one.backend.directory), "0"], timeout=60, check=True, capture_output=True
    )
    [batch_id] = one.backend.find("token")
    end = time.monotonic() + 60
    while one.folder(batch_id).status() is None:  # nobody polls
        assert time.monotonic() < end
        time.sleep(0.02)
    assert_answered_once(one, batch_id, ["r"])


def test_a_batch_is_not_answered_by_another_model_than_it_was_submitted_for(bench, make_request, wait_until):
    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("slow", SLOW)]), "t")
    wait_until(lambda: len(one.starts(batch_id)) == 1, "the worker to begin")
    one.kill(batch_id)
    path = one.folder(batch_id).path / "batch.json"
    path.write_bytes(path.read_bytes().replace(b"tfidf-1", b"tfidf-0"))
    status = one.finish(batch_id)
    assert status.outcome == "failed"
    assert status.reason == "submitted for the model 'tfidf-0', and 'tfidf-1' is installed now"
    assert one.answers(batch_id) == []


def test_a_poll_that_cannot_look_raises_transient(bench, make_request, monkeypatch):
    from lowtide.errors import Transient

    one = bench()
    batch_id = one.backend.submit(one.shard([make_request("r", TEXT)]), "t")
    one.finish(batch_id)
    folder = one.folder(batch_id)
    (folder.path / "status.json").unlink()
    (folder.path / "worker.lock").unlink()
    (folder.path / "worker.lock").mkdir()
    with pytest.raises(Transient, match=os.path.basename(folder.path)):  # noqa: PTH119
        one.backend.poll(batch_id)
