"""Workers as processes over one folder: killed, interrupted, paused, and with an engine that dies."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import msgspec
import psutil
import pytest
from servers import aws, engine
from servers.engine import tokens_of
from servers.faulty import Fault, faulty
from support.fleets import Yard, echoed, wait_until, yard

from lowtide_worker import layout


@pytest.fixture
def home(tmp_path):
    with yard(tmp_path) as made:
        yield made


def contents(shard: str, rows: int) -> list[str]:
    return [f"{shard} record {row}" for row in range(rows)]


def one_spell(beat: layout.Beat) -> layout.Spell:
    assert len(beat.spells) == 1
    return beat.spells[0]


def check_whole(home: Yard, shard: str, expected: list[str]) -> None:
    answers = home.answers(shard)
    assert sorted(answers) == list(range(len(expected)))
    assert all(echoed(answers[row]) == content for row, content in enumerate(expected))
    end = home.end(shard)
    assert (end.outcome, end.answered, end.errors) == ("completed", len(expected), 0)


def command_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def check_time(beat: layout.Beat) -> None:
    accounted = beat.started + beat.boot + beat.waited + sum(spell.seconds for spell in beat.spells)
    assert accounted == pytest.approx(beat.at, abs=0.01)


def parts_of(home: Yard, shard: str) -> int:
    return len(list((home.folder / layout.shard_path(shard, "parts")).glob("*.jsonl")))


def test_workers_that_are_killed_at_any_time_lose_nothing_and_repeat_little(home):
    shards = {f"s{number:05d}-a1": contents(str(number), 350) for number in range(6)}
    rows = sum(map(len, shards.values()))
    luck = random.Random(20261121)
    with engine.running("--latency", "0.02") as server:
        home.fleet(layout.Engine(url=server.url))
        for name, messages in shards.items():
            home.shard(name, messages)
        victims = [home.worker() for _ in range(4)]
        wait_until(lambda: [beat.state for beat in home.beats()] == ["working"] * 4, "four at work")
        started = time.monotonic()
        for after, victim in zip(sorted(luck.uniform(0.0, 1.5) for _ in victims), victims, strict=True):
            time.sleep(max(0.0, started + after - time.monotonic()))
            victim.kill()
            home.worker()
        codes = home.finish()
        answered = server.answered()
    assert codes == [-signal.SIGKILL] * 4 + [0] * 4, home.said()
    for name, messages in shards.items():
        check_whole(home, name, messages)
    assert set(answered) == {message for messages in shards.values() for message in messages}
    again = sum(answered.values()) - rows
    assert again <= 0.03 * rows
    killed = [beat for beat in home.beats() if beat.exit_code is None]
    assert [beat.state for beat in killed] == ["working"] * 4
    assert sum(spell.answered for beat in home.beats() for spell in beat.spells) <= rows
    for beat in home.beats():
        check_time(beat)


def test_an_interrupted_worker_leaves_in_time_and_keeps_all_that_was_answered(home):
    messages = contents("one", 400)
    messages[10] = "[slow:60] takes longer than there is time"
    with engine.running("--latency", "0.1") as server:
        home.fleet(layout.Engine(url=server.url), drain_seconds=1.0, part_seconds=30.0, part_rows=1000)
        home.shard("s00001-a1", messages)
        worker = home.worker()
        wait_until(lambda: sum(server.answered().values()) > 30, "some answers")
        told = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == layout.RETRY, home.said()
        assert time.monotonic() - told < 8
        answered = server.answered()
    answers = home.answers("s00001-a1")
    assert {echoed(line) for line in answers.values()} == set(answered)
    assert 10 not in answers
    assert not home.has_ended("s00001-a1")
    (beat,) = home.beats()
    assert (beat.state, beat.exit_code) == ("ended", layout.RETRY)
    assert "SIGTERM" in beat.note
    assert one_spell(beat).answered == len(answers)
    assert one_spell(beat).lost < 2.0
    check_time(beat)


def test_a_shard_that_was_left_in_the_middle_is_gone_on_with(home):
    messages = contents("one", 300)
    with engine.running("--latency", "0.02") as server:
        home.fleet(layout.Engine(url=server.url), lease_seconds=600.0)
        home.shard("s00001-a1", messages)
        first = home.worker()
        wait_until(lambda: parts_of(home, "s00001-a1") > 3, "some parts")
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == layout.RETRY
        assert home.worker().wait(60) == 0
        assert set(server.answered().values()) == {1}
    check_whole(home, "s00001-a1", messages)
    assert sum(one_spell(beat).answered for beat in home.beats()) == 300
    tokens = [tokens_of(message) for message in messages]
    spells = [one_spell(beat) for beat in home.beats()]
    assert sum(spell.input_tokens for spell in spells) == sum(count[0] for count in tokens)
    assert sum(spell.output_tokens for spell in spells) == sum(count[1] for count in tokens)


def test_a_paused_worker_and_the_one_that_took_over_answer_each_record_once(home):
    messages = contents("one", 400)
    with engine.running("--latency", "0.03") as server:
        home.fleet(layout.Engine(url=server.url), lease_seconds=1.0)
        home.shard("s00001-a1", messages)
        ghost = home.worker()
        wait_until(lambda: parts_of(home, "s00001-a1") > 3, "some parts")
        ghost.send_signal(signal.SIGSTOP)
        heir = home.worker()
        claims = home.folder / layout.shard_path("s00001-a1", "claims")
        wait_until(lambda: len(list(claims.iterdir())) == 2, "a second claim")
        before = parts_of(home, "s00001-a1")
        wait_until(lambda: parts_of(home, "s00001-a1") > before + 2, "more parts")
        ghost.send_signal(signal.SIGCONT)
        assert [ghost.wait(60), heir.wait(60)] == [0, 0], home.said()
        answered = server.answered()
    check_whole(home, "s00001-a1", messages)
    assert sum(answered.values()) <= 400 * 1.05
    # One that claims a shard in the moment of its end has a second spell, without answers.
    assert sum(spell.answered for beat in home.beats() for spell in beat.spells) == 400


@pytest.mark.parametrize("gone", ["answers and claims", "the shard"])
def test_a_paused_worker_whose_shard_is_over_asks_no_more_and_writes_nothing_back(home, gone):
    messages = contents("one", 200)
    shard = home.folder / layout.shard_path("s00001-a1")
    with engine.running("--latency", "0.2") as server:
        home.fleet(layout.Engine(url=server.url), lease_seconds=1.5, part_seconds=1.0)
        home.shard("s00001-a1", messages)
        ghost = home.worker()
        wait_until(lambda: parts_of(home, "s00001-a1") > 2, "some parts")
        wait_until(lambda: server.asked().total() % 4 == 0, "requests in flight")
        ghost.send_signal(signal.SIGSTOP)
        if gone == "the shard":
            shutil.rmtree(shard)
            # One that was away for less than half a lease does not look again before it writes.
            time.sleep(1.0)
        else:
            assert home.worker().wait(60) == 0, home.said()
            assert home.end("s00001-a1").outcome == "completed"
            for path in [*(shard / "parts").iterdir(), *(shard / "claims").iterdir()]:
                path.unlink()
        before = server.asked().total()
        ghost.send_signal(signal.SIGCONT)
        assert ghost.wait(60) == 0, home.said()
        assert server.asked().total() - before <= 20
    assert list(home.folder.rglob("*.jsonl")) == []
    assert shard.exists() == (gone != "the shard")


def test_a_prompt_that_kills_the_engine_costs_one_row(home, tmp_path):
    messages = contents("one", 60)
    messages[23] = "[poison]"
    messages[40] = "[too-long]"
    log = tmp_path / "asked.log"
    home.fleet(layout.Engine(command=engine.command("--latency", "0.01", "--log", str(log))))
    home.shard("s00001-a1", messages)
    assert home.worker().wait(60) == 0, home.said()
    answers = home.answers("s00001-a1")
    assert sorted(answers) == list(range(60))
    assert answers[23]["error"]["code"] == "engine_died"
    assert "engine died on this record" in answers[23]["error"]["message"]
    assert answers[40]["error"] is not None
    assert all(answers[row]["error"] is None for row in range(60) if row not in {23, 40})
    end = home.end("s00001-a1")
    assert (end.outcome, end.answered, end.errors) == ("completed", 60, 2)
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert 2 <= asked.count("[poison]") <= 3
    (beat,) = home.beats()
    assert beat.restarts == asked.count("[poison]")
    assert beat.boot > 0.2 * beat.restarts
    check_time(beat)


def test_a_prompt_after_which_the_engine_fails_at_everything_costs_one_row(home):
    messages = contents("one", 40)
    messages[23] = "[break]"
    home.fleet(layout.Engine(command=engine.command("--latency", "0.01")), tries=1)
    home.shard("s00001-a1", messages)
    assert home.worker().wait(60) == 0, home.said()
    answers = home.answers("s00001-a1")
    assert [row for row in answers if answers[row]["error"]] == [23]
    assert "HTTP 500, server_error" in answers[23]["error"]["message"]
    assert home.end("s00001-a1").outcome == "completed"


@pytest.mark.parametrize("status", [401, 500])
def test_an_engine_that_answers_nothing_ends_the_worker_and_costs_no_row(home, status):
    home.fleet(layout.Engine(command=engine.command("--refuses", str(status))), tries=1)
    home.shard("s00001-a1", contents("one", 100))
    assert home.worker().wait(60) == 1
    assert not home.has_ended("s00001-a1")
    assert home.answers("s00001-a1") == {}
    (beat,) = home.beats()
    assert (beat.state, beat.exit_code) == ("ended", 1)
    assert f"HTTP {status}, server_error" in beat.note
    assert "cannot be started" not in home.said()
    assert one_spell(beat).answered == 0


def test_an_engine_that_dies_on_everything_ends_the_shard_as_failed(home):
    home.fleet(layout.Engine(command=engine.command(), restarts=2))
    home.shard("s00001-a1", ["[poison]"] * 50)
    assert home.worker().wait(60) == 0, home.said()
    end = home.end("s00001-a1")
    assert end.outcome == "failed"
    assert "again and again" in end.reason
    assert home.answers("s00001-a1") == {}


def test_an_engine_that_cannot_start_ends_the_worker_and_leaves_the_shard(home):
    home.fleet(layout.Engine(command=("false",)))
    home.shard("s00001-a1", contents("one", 3))
    assert home.worker().wait(60) == 1
    assert not home.has_ended("s00001-a1")
    (beat,) = home.beats()
    assert (beat.state, beat.exit_code) == ("ended", 1)
    assert "ended with code 1" in beat.note
    assert beat.spells == ()


def test_a_worker_for_which_nothing_becomes_free_leaves_after_its_idle_time(home):
    with engine.running() as server:
        home.fleet(layout.Engine(url=server.url), lease_seconds=600.0, idle_seconds=0.7)
        home.shard("s00001-a1", contents("one", 3))
        claim = home.folder / layout.claim_path("s00001-a1", 1)
        claim.parent.mkdir()
        claim.write_bytes(msgspec.json.encode(layout.Claim(worker="other", at=0.0)))
        assert home.worker().wait(60) == 0, home.said()
        assert not server.asked()
    assert not home.has_ended("s00001-a1")
    (beat,) = home.beats()
    assert 0.7 <= beat.waited < 10
    check_time(beat)


@pytest.mark.parametrize("last", [layout.END, layout.CANCEL])
def test_a_worker_whose_engine_starts_when_nothing_is_left_waits_for_it_no_more(home, last):
    home.fleet(layout.Engine(command=engine.command("--boot", "600")))
    home.shard("s00001-a1", contents("one", 3))
    worker = home.worker()
    wait_until(lambda: len(psutil.Process(worker.pid).children(recursive=True)) == 2, "the engine's start")
    running = psutil.Process(worker.pid).children(recursive=True)
    (home.folder / layout.shard_path("s00001-a1", last)).write_bytes(b"{}")
    assert worker.wait(30) == 0, home.said()
    assert psutil.wait_procs(running, 5)[1] == []
    assert last == layout.END or home.end("s00001-a1").outcome == "cancelled"
    (beat,) = home.beats()
    assert (beat.state, beat.exit_code) == ("ended", 0)


KEY = "k-0123456789abcdef"


def test_an_engine_that_finds_a_key_in_its_workers_environment_gets_it_with_each_request(home):
    home.fleet(layout.Engine(command=engine.command()))
    home.shard("s00001-a1", contents("one", 30))
    assert home.worker({"VLLM_API_KEY": KEY}).wait(60) == 0, home.said()
    check_whole(home, "s00001-a1", contents("one", 30))


def test_an_engine_elsewhere_gets_the_key_that_the_worker_has(home):
    with engine.running(key=KEY) as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", contents("one", 30))
        assert home.worker().wait(60) == 1
        assert "HTTP 401" in home.said()
        assert "no key was sent: LOWTIDE_ENGINE_API_KEY is not in the worker's environment" in home.said()
        assert home.worker({"LOWTIDE_ENGINE_API_KEY": "wrong", "VLLM_API_KEY": KEY}).wait(60) == 1
        assert home.answers("s00001-a1") == {}
        assert home.worker({"LOWTIDE_ENGINE_API_KEY": f" {KEY}\n"}).wait(60) == 0, home.said()
    check_whole(home, "s00001-a1", contents("one", 30))
    assert KEY not in home.said() + "".join(path.read_text() for path in home.folder.rglob("*.json"))


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(home):
    home.fleet(layout.Engine(command=engine.command()))
    home.shard("s00001-a1", contents("one", 3))
    assert home.worker({"LOWTIDE_ENGINE_API_KEY": "hunter2\nhunter3"}).wait(60) == 2
    assert "LOWTIDE_ENGINE_API_KEY in the environment is no API key" in home.said()
    assert "hunter" not in home.said()
    assert home.beats() == []


def test_a_worker_that_is_told_no_fleet_says_so():
    environ = {name: value for name, value in os.environ.items() if name != "LOWTIDE_FLEET"}
    command = [sys.executable, "-m", "lowtide_worker.main"]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "LOWTIDE_FLEET" in told.stderr


def test_a_worker_with_nothing_to_do_starts_no_engine(home, tmp_path):
    started = tmp_path / "started"
    home.fleet(layout.Engine(command=("touch", str(started))))
    assert home.worker().wait(60) == 0
    assert not started.exists()
    assert home.beats() == []


def test_a_cancelled_shard_is_ended_with_what_it_has(home):
    messages = contents("one", 2000)
    with engine.running("--latency", "0.02") as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", messages)
        worker = home.worker()
        wait_until(lambda: parts_of(home, "s00001-a1") > 3, "some parts")
        (home.folder / layout.shard_path("s00001-a1", layout.CANCEL)).touch()
        assert worker.wait(60) == 0, home.said()
        answered = server.answered()
    end = home.end("s00001-a1")
    answers = home.answers("s00001-a1")
    assert (end.outcome, end.answered) == ("cancelled", len(answers))
    assert 0 < len(answers) < 2000
    assert {echoed(line) for line in answers.values()} == set(answered)


def test_a_shard_that_was_cancelled_before_is_ended_without_an_engine(home, tmp_path):
    started = tmp_path / "started"
    home.fleet(layout.Engine(command=("touch", str(started))))
    home.shard("s00001-a1", contents("one", 5))
    (home.folder / layout.shard_path("s00001-a1", layout.CANCEL)).touch()
    assert home.worker().wait(60) == 0
    end = home.end("s00001-a1")
    assert (end.outcome, end.answered) == ("cancelled", 0)
    assert not started.exists()


def test_a_shard_whose_time_is_over_is_partial(home):
    with engine.running("--latency", "0.05") as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", contents("one", 5000), seconds=2.0)
        assert home.worker().wait(60) == 0, home.said()
        asked = server.asked()
    end = home.end("s00001-a1")
    answers = home.answers("s00001-a1")
    assert (end.outcome, end.answered) == ("partial", len(answers))
    assert "2 s" in end.reason
    assert {echoed(line) for line in answers.values()} == set(asked)
    assert answers
    (beat,) = home.beats()
    # The worker's start counts as well, and a tenth is left for its end.
    assert 1.8 <= one_spell(beat).seconds + beat.boot + beat.waited < 5.0
    check_time(beat)


def test_the_worker_says_what_is_wrong_with_its_fleet(home):
    assert home.worker().wait(60) == 2
    assert "no folder" in home.said()
    home.folder.mkdir()
    assert home.worker().wait(60) == 2
    assert "fleet.json" in home.said()
    (home.folder / layout.FLEET).write_text('{"model": "m"}')
    home.shard("s00001-a1", contents("one", 3))
    assert home.worker().wait(60) == 2
    assert "engine" in home.said()


def test_requests_that_are_not_what_the_task_says_fail_the_shard(home):
    with engine.running() as server:
        # Four are asked at a time: three wait for their answers when the fourth finds the end.
        home.fleet(layout.Engine(url=server.url), least=4)
        messages = [*contents("one", 27), *(f"[slow:600] {row}" for row in range(3))]
        home.shard("s00001-a1", messages)
        task = home.folder / layout.shard_path("s00001-a1", layout.TASK)
        told = json.loads(task.read_bytes())
        task.write_text(json.dumps({**told, "records": 31}))
        home.shard("s00002-a1", contents("two", 30))
        (home.root / "s00002-a1.jsonl").unlink()
        assert home.worker().wait(60) == 0, home.said()
        answered = server.answered()
    short, missing = home.end("s00001-a1"), home.end("s00002-a1")
    assert short.outcome == "failed"
    assert short.answered == 27
    assert sorted(map(echoed, home.answers("s00001-a1").values())) == sorted(answered) == sorted(messages[:27])
    assert "30 lines" in short.reason
    assert missing.outcome == "failed"
    assert "s00002-a1.jsonl" in missing.reason


def test_requests_that_are_cut_off_fail_the_shard(home):
    with engine.running() as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", contents("one", 30))
        requests = home.root / "s00001-a1.jsonl"
        requests.write_bytes(requests.read_bytes()[:300])
        assert home.worker().wait(60) == 0, home.said()
    end = home.end("s00001-a1")
    assert (end.outcome, end.answered) == ("failed", 0)
    assert "ends at byte 300" in end.reason


def test_a_store_that_refuses_is_told_from_an_interruption(home):
    with engine.running() as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", contents("one", 3))
        (home.folder / "workers").touch()
        assert home.worker().wait(60) == layout.STORE_FAILED
        assert not server.asked()
    assert "workers/" in home.said()


def test_a_worker_ends_though_its_engine_cannot_be_ended_in_order(home):
    home.fleet(layout.Engine(command=engine.command("--latency", "0.2")))
    home.shard("s00001-a1", contents("one", 20))
    worker = home.worker()
    wait_until(lambda: parts_of(home, "s00001-a1") > 0, "a part")
    (guard,) = (one for one in psutil.Process(worker.pid).children() if "guard.py" in " ".join(one.cmdline()))
    running = guard.children()
    guard.suspend()
    wait_until(lambda: home.has_ended("s00001-a1"), "the end")
    assert worker.wait(30) == 0, home.said()
    assert psutil.wait_procs([guard, *running], 5)[1] == []


def test_a_worker_that_has_to_go_goes_whatever_hangs():
    program = "import time; from lowtide_worker.main import end_process_in; end_process_in(0.2, 9); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 9


def test_a_worker_leaves_no_log_behind_but_that_of_an_engine_that_failed(home, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    environ = {"TMPDIR": str(logs)}
    home.fleet(layout.Engine(command=engine.command("--latency", "0.1")))
    home.shard("s00001-a1", contents("one", 100))
    killed = home.worker(environ)
    wait_until(lambda: parts_of(home, "s00001-a1") > 0, "a part")
    (left,) = logs.iterdir()
    killed.kill()
    killed.wait()
    assert home.worker(environ).wait(60) == 0, home.said()
    assert not left.exists()
    assert list(logs.iterdir()) == []
    home.fleet(layout.Engine(command=("false",)))
    home.shard("s00002-a1", contents("two", 1))
    assert home.worker(environ).wait(60) == 1
    (kept,) = logs.iterdir()
    assert str(kept / "engine.log") in home.beats()[-1].note + home.said()
    assert (kept / "engine.log").exists()


def test_the_engine_goes_with_a_worker_that_is_killed(home, tmp_path):
    log = tmp_path / "asked.log"
    home.fleet(layout.Engine(command=engine.command("--log", str(log))))
    home.shard("s00001-a1", [*contents("one", 3), "[hang]"])
    worker = home.worker()
    wait_until(lambda: log.exists() and log.read_text().count("\n") == 4, "all asked")
    mine = str(log).encode()
    worker.kill()

    def gone() -> bool:
        return not any(mine in command_of(process) for process in Path("/proc").iterdir())

    wait_until(gone, "the engine's end")


@pytest.fixture
def bucket(moto_url):
    client = boto3.client(
        "s3",
        endpoint_url=moto_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    name = f"fleet-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name)


@dataclass(frozen=True)
class Bucket:
    """A bucket that holds a fleet, copied from disk."""

    client: Any
    name: str

    @property
    def uri(self):
        return f"s3://{self.name}/spot/f1"

    def fill(self, home: Yard, shard: str) -> None:
        path = layout.shard_path(shard, layout.TASK)
        told = msgspec.json.decode((home.folder / path).read_bytes(), type=layout.Task)
        told = msgspec.structs.replace(told, requests=f"s3://{self.name}/requests/{shard}.jsonl")
        self._put(f"requests/{shard}.jsonl", (home.root / f"{shard}.jsonl").read_bytes())
        self._put(f"spot/f1/{path}", msgspec.json.encode(told))
        self._put(f"spot/f1/{layout.FLEET}", (home.folder / layout.FLEET).read_bytes())

    def parts(self, shard: str) -> list[str]:
        prefix = f"spot/f1/{layout.shard_path(shard, 'parts/')}"
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return [part["Key"] for part in found.get("Contents", ())]

    def lines(self, shard: str) -> list[bytes]:
        read = (self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in self.parts(shard))
        return [line for part in read for line in part.splitlines()]

    def _put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)


def test_a_fleet_in_s3_is_worked_at_in_the_same_way(home, bucket, moto_url):
    messages = contents("one", 300)
    environ = aws.environ(moto_url)
    with engine.running("--latency", "0.02") as server:
        home.fleet(layout.Engine(url=server.url))
        home.shard("s00001-a1", messages)
        bucket.fill(home, "s00001-a1")
        killed = home.worker(environ, uri=bucket.uri)
        wait_until(lambda: len(bucket.parts("s00001-a1")) > 3, "some parts")
        killed.kill()
        assert home.worker(environ, uri=bucket.uri).wait(60) == 0, home.said()
        again = server.answered().total() - 300
    found = [echoed(json.loads(line)) for line in bucket.lines("s00001-a1")]
    assert sorted(found) == sorted(messages)
    assert again <= 30


def test_an_interrupted_worker_leaves_in_time_even_if_the_store_hangs(home, bucket, moto_url):
    with engine.running("--latency", "0.02") as server, faulty(moto_url) as proxy:
        home.fleet(layout.Engine(url=server.url), drain_seconds=0.5)
        home.shard("s00001-a1", contents("one", 5000))
        bucket.fill(home, "s00001-a1")
        worker = home.worker(aws.environ(proxy.url), uri=bucket.uri)
        wait_until(lambda: len(bucket.parts("s00001-a1")) > 3, "some parts")
        proxy.faults = [Fault("PUT", 0, silence=15.0, times=1000)]
        time.sleep(0.5)
        told = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == layout.RETRY, home.said()
        assert time.monotonic() - told < 15
