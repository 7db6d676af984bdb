"""Batches on demand: each record is asked once, whoever asks, whoever dies, and whatever the network does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bedrock_bench import Bench, request_for, shard_of, token, until

from lowtide.connectors.backends.bedrock import Backend
from lowtide.connectors.backends.bedrock.answers import LOST
from lowtide.connectors.backends.bedrock.asking import Pace
from lowtide.connectors.backends.bedrock.connection import connect
from lowtide.connectors.backends.bedrock.ondemand import Lane
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, Terminal, Transient
from lowtide.protocols import Store
from lowtide.records import Shard, Usage

POLLING = Path(__file__).with_name("polling.py")


def small(bench: Bench, backend: Backend, count: int = 12) -> Shard:
    return bench.shard(backend, count, on_demand=True)


def calls(bench: Bench) -> int:
    counts = bench.emulator.calls()["counts"].get("bedrock", {})
    return int(counts.get("Converse", 0) + counts.get("InvokeModel", 0))


def start(bench: Bench, batch: str, seconds: float = 5.0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(POLLING), bench.root.uri, batch, str(seconds)],
        env={**os.environ, **bench.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_a_small_shard_is_asked_on_demand_and_no_job_is_created(bench: Bench) -> None:
    backend = bench.open()
    name = token()
    batch = backend.submit(small(bench, backend), name)

    assert batch == f"ondemand/{name}"
    assert backend.find(name) == [batch]
    assert calls(bench) == 0
    status = bench.finish(backend, batch)
    answers = bench.answers(backend, batch)

    assert (status.outcome, status.charged) == ("completed", 12)
    assert {answer.status for answer in answers} == {"ok"}
    assert len({answer.record_id for answer in answers}) == 12
    assert all(time.time() - 600 < answer.answered_at <= time.time() for answer in answers)
    bill = bench.emulator.bill()
    assert (bill["records"], bill["most_billed"]) == (12, 1)
    assert status.usage == Usage(
        input_tokens=sum(answer.input_tokens for answer in answers),
        output_tokens=sum(answer.output_tokens for answer in answers),
    )
    assert bench.emulator.calls()["created"] == []


def test_a_batch_on_demand_is_the_same_to_whoever_submits_and_polls_it_again(bench: Bench) -> None:
    backend, name = bench.open(), token()
    shard = small(bench, backend)
    batch = backend.submit(shard, name)
    assert backend.submit(shard, name) == batch
    first = bench.finish(backend, batch)
    assert bench.open().submit(shard, name) == batch
    assert bench.open().poll(batch) == first
    assert calls(bench) == 12


def test_a_batch_goes_on_with_the_model_that_it_was_made_for(bench: Bench) -> None:
    backend = bench.open(model="amazon.nova-lite-v1:0", invocation="invoke")
    batch = backend.submit(small(bench, backend), token())

    status = bench.finish(bench.open(), batch)

    assert status.charged == 12
    assert {charge["model"] for charge in bench.emulator.charges()} == {"amazon.nova-lite-v1:0"}


@pytest.mark.parametrize("invocation", ["converse", "invoke"])
def test_tokens_are_known_though_the_body_does_not_say_them(bench: Bench, invocation: str) -> None:
    backend = bench.open(model="mistral.mistral-small-2402-v1:0", invocation=invocation)
    batch = backend.submit(small(bench, backend), token())
    status = bench.finish(backend, batch)
    charges = bench.emulator.charges()
    assert status.usage is not None
    assert status.usage.input_tokens == sum(charge["input_tokens"] for charge in charges) > 0
    assert status.usage.output_tokens == sum(charge["output_tokens"] for charge in charges) > 0


def test_throttled_calls_are_sent_again_and_billed_once(bench: Bench) -> None:
    backend = bench.quick(slice_seconds=20.0)
    bench.emulator.faults([{"on": "converse", "do": "throttle", "times": 8}])
    batch = backend.submit(small(bench, backend), token())

    status = bench.finish(backend, batch)

    assert status.charged == 12
    assert calls(bench) == 20
    assert bench.emulator.bill()["most_billed"] == 1


def test_a_poll_ends_in_time_and_the_next_one_goes_on(bench: Bench) -> None:
    backend = bench.quick(slice_seconds=1.0)
    bench.emulator.faults([{"on": "converse", "do": "throttle", "times": "forever"}])
    batch = backend.submit(small(bench, backend), token())

    begun = time.monotonic()
    status = backend.poll(batch)

    assert (status.outcome, status.answered) == (None, 0)
    assert time.monotonic() - begun < 15
    assert not [path for path in bench.paths() if "/claims/" in path]
    bench.emulator.faults([])
    assert bench.finish(backend, batch).charged == 12
    assert bench.emulator.bill()["most_billed"] == 1


@pytest.mark.parametrize("fault", ["error_after", "reset_after", "timeout_after", "error_before", "reset_before"])
def test_a_call_whose_outcome_is_unknown_is_never_sent_again(bench: Bench, fault: str) -> None:
    backend = bench.open()
    bench.emulator.faults([{"on": "converse", "do": fault, "times": 3, "seconds": 1}])
    batch = backend.submit(small(bench, backend), token())

    status = bench.finish(backend, batch)
    answers = bench.answers(backend, batch)

    lost = [answer for answer in answers if answer.status == "error"]
    assert len(lost) == 3
    assert {(answer.error, answer.retryable) for answer in lost} == {(LOST, False)}
    assert (status.outcome, status.charged) == ("completed", 9)
    assert calls(bench) == 12
    assert bench.emulator.bill()["records"] == (9 if fault.endswith("before") else 12)


def test_a_record_that_the_model_refuses_is_an_error_of_its_own(bench: Bench) -> None:
    backend = bench.open()
    bench.emulator.faults(
        [
            {"on": "converse", "do": "poison", "times": "forever", "match": {"text": "number 3 "}},
            {"on": "converse", "do": "refuse", "times": "forever", "match": {"text": "number 4 "}},
        ]
    )
    batch = backend.submit(small(bench, backend), token())

    status = bench.finish(backend, batch)

    found = {answer.record_id: answer for answer in bench.answers(backend, batch)}
    poison, refused = found[request_for(3).record_id], found[request_for(4).record_id]
    assert (poison.status, poison.retryable) == ("error", False)
    assert poison.error.startswith("400: ValidationException")
    assert refused.status == "refused"
    assert status.charged == 11 == bench.emulator.bill()["records"]


def test_a_denial_stops_everything_and_leaves_nothing_claimed(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend), token())
    bench.emulator.settings(bedrock={"denied": ["bedrock:InvokeModel"]})

    with pytest.raises(Terminal, match=r"allow bedrock:InvokeModel on the model"):
        backend.poll(batch)

    assert not [path for path in bench.paths() if "/claims/" in path or "/answers/" in path]
    bench.emulator.settings(bedrock={"denied": []})
    assert bench.finish(backend, batch).charged == 12


def test_without_credentials_nothing_is_asked_or_lost(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend), token())
    reached = connect("us-east-1", bench.environ)
    reached.account.session._session._credentials = None
    lane = Lane(bench.root, reached, backend.model, "converse")

    with pytest.raises(ConfigError, match="no usable AWS credentials"):
        lane.poll(batch)

    assert bench.finish(backend, batch).charged == 12


def test_nobody_listening_loses_nothing(bench: Bench) -> None:
    bench.environ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = "http://127.0.0.1:9"
    backend = bench.quick(slice_seconds=1.0)
    batch = backend.submit(small(bench, backend), token())
    assert backend.poll(batch).outcome is None

    bench.environ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = bench.emulator.url
    assert bench.finish(bench.open(), batch).charged == 12


def test_a_process_that_is_killed_between_claim_and_answer_loses_those_answers_and_no_more(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend, 20), token())
    # Two calls are answered at once, and the next eight are billed and hang.
    bench.emulator.faults([{"on": "converse", "do": "timeout_after", "times": 8, "after": 2, "seconds": 60}])
    victim = start(bench, batch, 60.0)
    begin(victim)
    try:
        until(lambda: bench.emulator.bill()["records"] >= 8, "eight calls to be billed")
        until(lambda: sum("/claims/" in path for path in bench.paths()) >= 9, "claims to be written")
        time.sleep(1)
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    claimed = {path.rpartition("/")[2] for path in bench.paths() if "/claims/" in path}
    answered = {path.rpartition("/")[2] for path in bench.paths() if "/answers/" in path}
    bench.emulator.faults([])

    status = bench.finish(backend, batch)
    answers = bench.answers(backend, batch)

    lost = {answer.record_id for answer in answers if answer.error == LOST}
    assert lost == claimed - answered
    assert len(lost) >= 6
    assert {answer.status for answer in answers if answer.record_id not in lost} == {"ok"}
    assert len(answers) == 20
    assert status.charged == 20 - len(lost)
    assert bench.emulator.bill()["most_billed"] == 1


def test_processes_that_poll_at_once_ask_each_record_once(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend, 60), token())
    others = [start(bench, batch) for _ in range(3)]
    begin(*others)
    try:
        status = bench.finish(backend, batch)
        for other in others:
            assert other.wait(timeout=120) == 0
    finally:
        for other in others:
            other.kill()
    assert status.charged == 60
    assert calls(bench) == 60
    bill = bench.emulator.bill()
    assert (bill["records"], bill["most_billed"]) == (60, 1)


def test_somebody_else_s_claim_is_waited_for_until_its_time_is_over(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend), token())
    record = request_for(0).record_id
    claim = {"owner": "otherhost:12345678:1:42:77:abcdef", "expires": time.time() + 3600}
    bench.root.put_if_absent(f"{batch}/claims/{record}", msgspec.json.encode(claim))

    status = backend.poll(batch)
    assert (status.outcome, status.answered) == (None, 11)
    assert backend.poll(batch).outcome is None

    later = Lane(
        bench.root, connect("us-east-1", bench.environ), backend.model, "converse", clock=lambda: time.time() + 3599
    )
    assert later.poll(batch).outcome is None
    much_later = Lane(
        bench.root, connect("us-east-1", bench.environ), backend.model, "converse", clock=lambda: time.time() + 4000
    )
    assert much_later.poll(batch).outcome == "completed"
    assert [answer.error for answer in bench.answers(backend, batch) if answer.record_id == record] == [LOST]
    assert calls(bench) == 11


class LosingStore:
    """A store whose answers about claims are lost: what it was told is done, and nobody hears of it."""

    def __init__(self, store: Store, lose: int) -> None:
        self._store = store
        self._lose = lose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        done = self._store.put_if_absent(path, data)
        if "/claims/" in path and self._lose > 0:
            self._lose -= 1
            raise Transient("the answer was lost")
        return done


def test_a_claim_that_is_not_confirmed_is_withdrawn_and_made_anew(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend), token())
    store = LosingStore(bench.root, 3)
    lane = Lane(store, connect("us-east-1", bench.environ), backend.model, "converse")  # type: ignore[arg-type]

    for _ in range(4):
        with contextlib.suppress(Transient):
            lane.poll(batch)

    status = lane.poll(batch)
    assert (status.outcome, status.charged) == ("completed", 12)
    assert calls(bench) == 12


def test_all_slow_down_once_for_calls_that_were_under_way_together() -> None:
    pace = Pace()
    end = time.monotonic() + 60
    turns = [pace.wait(end) for _ in range(8)]
    for turn in turns:
        assert turn is not None
        pace.refused(turn)
    begun = time.monotonic()
    assert pace.wait(end) is not None
    assert 0.2 < time.monotonic() - begun < 2
    assert pace.wait(time.monotonic() + 0.1) is None
    for _ in range(5):
        pace.answered()
    time.sleep(0.5)
    begun = time.monotonic()
    for _ in range(20):
        pace.wait(end)
    assert time.monotonic() - begun < 1


def test_after_a_cancel_nothing_more_is_asked(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend), token())
    backend.cancel(batch)
    backend.cancel(batch)

    status = backend.poll(batch)

    assert (status.outcome, status.charged, status.usage) == ("cancelled", 0, Usage())
    assert bench.answers(backend, batch) == []
    assert calls(bench) == 0


def test_a_cancel_waits_for_what_is_being_asked(bench: Bench) -> None:
    backend = bench.quick(slice_seconds=30.0)
    batch = backend.submit(small(bench, backend, 40), token())
    bench.emulator.faults(
        [
            {"on": "converse", "do": "throttle", "times": 10, "after": 16},
        ]
    )
    poller = threading.Thread(target=backend.poll, args=(batch,))
    poller.start()
    until(lambda: bench.emulator.bill()["records"] >= 8, "some records to be asked")
    other = bench.open()
    other.cancel(batch)
    status = bench.finish(other, batch)
    poller.join(60)

    answers = bench.answers(other, batch)
    assert status.outcome in {"cancelled", "completed"}
    assert len(answers) == status.charged == bench.emulator.bill()["records"]
    assert not {path.rpartition("/")[2] for path in bench.paths() if "/claims/" in path} - {
        path.rpartition("/")[2] for path in bench.paths() if "/answers/" in path
    }


def test_a_discarded_batch_is_gone_and_never_asked_again(bench: Bench) -> None:
    backend, name = bench.open(), token()
    batch = backend.submit(small(bench, backend), name)
    bench.finish(backend, batch)
    claims = [path for path in bench.paths() if "/claims/" in path]

    backend.discard(batch)
    backend.discard(batch)

    assert len(claims) == 12
    assert bench.paths() == [f"{batch}/discarded"]
    assert backend.find(name) == []
    with pytest.raises(Transient, match="holds no batch on demand"):
        backend.poll(batch)
    assert calls(bench) == 12


@pytest.mark.parametrize("gone", ["requests.jsonl", "answers"])
def test_a_batch_that_is_half_discarded_is_not_asked_again(bench: Bench, gone: str) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend), token())
    bench.finish(backend, batch)
    bench.root.delete(f"{batch}/requests.jsonl")
    if gone == "answers":
        for path in bench.paths():
            if "/answers/" in path or "/claims/" in path:
                bench.root.delete(path)
        with pytest.raises(Transient, match="holds no requests"):
            backend.poll(batch)
    else:
        assert backend.poll(batch).outcome == "completed"
    assert calls(bench) == 12


def test_a_root_on_disk_will_do_as_well(bench: Bench, tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "root"))
    backend = bench.open(root=root, staging=f"s3://{bench.bucket}/staging")
    batch = backend.submit(small(bench, backend), token())
    status = bench.finish(backend, batch)
    assert status.charged == 12
    assert len(bench.answers(backend, batch)) == 12
    backend.cancel(batch)
    backend.discard(batch)
    assert backend.find(batch.partition("/")[2]) == []


def test_what_could_never_end_is_refused(bench: Bench) -> None:
    backend = bench.open()
    line = backend.encode(request_for(1))
    for lines in ([line, line], [b'{"recordId":"../up","modelInput":{}}'], [b"no json"]):
        with pytest.raises(Terminal):
            backend.submit(shard_of(lines, on_demand=True), token())
    assert bench.paths() == []


class HeldStore:
    """The store as a process sees it that is suspended just before one of its calls."""

    def __init__(self, store: Store, call: str, part: str) -> None:
        self._store = store
        self._call = call
        self._part = part
        self.reached = threading.Event()
        self.go = threading.Event()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._call:
            return found

        def held(path: str, *more: Any) -> Any:
            if self._part in path:
                self.reached.set()
                assert self.go.wait(120)
            return found(path, *more)

        return held


def test_who_was_suspended_before_a_claim_asks_nothing_of_a_batch_that_was_discarded_meanwhile(bench: Bench) -> None:
    backend, name = bench.open(), token()
    shard = small(bench, backend)
    batch = backend.submit(shard, name)
    held = HeldStore(bench.root, "put_if_absent", "/claims/")
    lane = Lane(held, connect("us-east-1", bench.environ), backend.model, "converse")  # type: ignore[arg-type]
    raised: list[Exception] = []

    def poll() -> None:
        try:
            lane.poll(batch)
        except Transient as error:
            raised.append(error)

    suspended = threading.Thread(target=poll)
    suspended.start()
    assert held.reached.wait(60)
    assert bench.finish(backend, batch).charged == 12
    backend.discard(batch)
    held.go.set()
    suspended.join(60)

    assert calls(bench) == 12
    assert bench.emulator.bill()["most_billed"] == 1
    assert "holds no batch on demand" in str(raised)
    assert bench.paths() == [f"{batch}/discarded"]


def test_who_waits_for_room_looks_again_before_each_call(bench: Bench) -> None:
    """The batch is given up and discarded by others while a call is throttled."""
    backend = bench.quick(slice_seconds=20.0)
    batch = backend.submit(small(bench, backend, 1), token())
    bench.emulator.faults([{"on": "converse", "do": "throttle", "times": 3}])
    poller = threading.Thread(target=_poll, args=(backend, batch))
    poller.start()
    until(lambda: calls(bench) >= 1, "a call to be throttled")
    bench.root.put_if_absent(f"{batch}/discarded", b"{}")
    poller.join(60)

    assert bench.emulator.bill()["records"] == 0
    assert not [path for path in bench.paths() if "/claims/" in path]


def _poll(backend: Backend, batch: str) -> None:
    with contextlib.suppress(Transient):
        backend.poll(batch)


def test_a_look_that_fails_withdraws_the_claim_and_asks_nothing(bench: Bench) -> None:
    class Blind:
        def __init__(self) -> None:
            self.failures = 1

        def __getattr__(self, name: str) -> Any:
            return getattr(bench.root, name)

        def info(self, path: str) -> Any:
            if path.endswith("/discarded") and self.failures:
                self.failures -= 1
                raise Transient("no answer")
            return bench.root.info(path)

    backend = bench.open()
    batch = backend.submit(small(bench, backend, 1), token())
    lane = Lane(Blind(), connect("us-east-1", bench.environ), backend.model, "converse")  # type: ignore[arg-type]
    with pytest.raises(Transient, match="no answer"):
        lane.poll(batch)
    assert calls(bench) == 0
    assert not [path for path in bench.paths() if "/claims/" in path]
    status = bench.finish(backend, batch)
    assert (status.outcome, status.charged) == ("completed", 1)


def test_a_discarded_batch_is_not_made_again(bench: Bench) -> None:
    backend, name = bench.open(), token()
    shard = small(bench, backend)
    batch = backend.submit(shard, name)
    bench.finish(backend, batch)
    backend.discard(batch)

    assert backend.submit(shard, name) == batch

    assert bench.paths() == [f"{batch}/discarded"]
    for look in (lambda: backend.poll(batch), lambda: bench.answers(backend, batch)):
        with pytest.raises(Transient, match="holds no batch on demand"):
            look()
    assert calls(bench) == 12


def test_a_submission_that_was_suspended_does_not_bring_a_discarded_batch_back(bench: Bench) -> None:
    backend, name = bench.open(), token()
    shard = small(bench, backend)
    held = HeldStore(bench.root, "write", "/requests.jsonl")
    lane = Lane(held, connect("us-east-1", bench.environ), backend.model, "converse")  # type: ignore[arg-type]
    suspended = threading.Thread(target=lane.submit, args=(shard, name))
    suspended.start()
    assert held.reached.wait(60)
    batch = backend.submit(shard, name)
    bench.finish(backend, batch)
    backend.discard(batch)
    held.go.set()
    suspended.join(60)

    assert bench.paths() == [f"{batch}/discarded"]
    assert backend.find(name) == []


def test_answers_that_are_removed_while_they_are_read_do_not_end_early(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(small(bench, backend), token())
    bench.finish(backend, batch)
    [output] = list(backend.outputs(batch))
    chunks = iter(output.chunks)
    assert next(chunks)
    bench.open().discard(batch)
    with pytest.raises(Transient):
        list(chunks)
