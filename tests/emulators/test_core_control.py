"""The process as a whole: its first line, its handle, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from emulators.desk import HAIKU, Desk, client, converse_body
from servers.emulators import Emulator, emulators


def start(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lowtide.emulators", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_first_line_is_the_address_and_the_end_leaves_nothing_behind(tmp_path, sent):
    process = start(tmp_path)
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(f"{url}/_emulator/health", timeout=20).status == 200  # noqa: S310
    assert list(tmp_path.iterdir())
    process.send_signal(sent)
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
    process.stdout.close()
    process.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_a_bad_plan_ends_it_with_the_reason(tmp_path):
    (tmp_path / "faults.yaml").write_text("rules: [{on: create, do: dance}]")
    process = start(tmp_path, "--faults", str(tmp_path / "faults.yaml"))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert "dance" in err


def test_the_plan_on_the_command_line_is_followed_from_the_start_and_again_after_a_reset():
    plan = {"seed": 1, "rules": [{"on": "converse", "do": "throttle"}]}
    with emulators(faults=plan, speed=3.0) as emulator:
        runtime = client("bedrock-runtime", emulator.url)
        for _ in range(2):
            with pytest.raises(runtime.exceptions.ThrottlingException):
                runtime.converse(modelId=HAIKU, **converse_body("a"))
            runtime.converse(modelId=HAIKU, **converse_body("a"))
            assert emulator.struck() == [1]
            emulator.reset()
        assert emulator.clock()["speed"] == 3.0


def test_the_clock_can_be_moved_on_and_sped_up(emulator: Emulator):
    first = emulator.clock()["now"]
    assert emulator.clock(advance=5000)["now"] >= first + 5000
    assert emulator.clock(speed=0)["speed"] == 0
    still = emulator.clock()["now"]
    time.sleep(0.02)
    assert emulator.clock()["now"] == still


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("clock", b'{"advance": -1}'),
        ("clock", b'{"advance": "x"}'),
        ("clock", b'{"speed": true}'),
        ("clock", b'{"speed": NaN}'),
        ("clock", b'{"advance": Infinity}'),
        ("faults", b"[]"),
        ("faults", b'{"rules": [{"on": "create", "do": "throttle", "rate": 2}]}'),
        ("clock", b'{"back": 1}'),
        ("clock", b"no json"),
        ("faults", b'{"rules": [{"on": "create", "do": "dance"}]}'),
        ("settings", b'{"bedrock": {"dance": 1}}'),
        ("settings", b'{"bedrock": {"latency": {"submitted": -1}}}'),
        ("settings", b'{"nobody": {}}'),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(emulator: Emulator, path: str, body: bytes):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{emulator.url}/_emulator/{path}", body, timeout=20)  # noqa: S310
    assert refused.value.code == 400
    assert b"message" in refused.value.read()
    refused.value.close()


def test_calls_are_counted_and_what_they_created_is_listed(desk: Desk):
    arn = desk.create(desk.put(desk.records()), clientRequestToken="tok-1", jobName="named")
    desk.get(arn)
    desk.get(arn)
    calls = desk.emulator.calls()
    assert calls["counts"]["bedrock"] == {"CreateModelInvocationJob": 1, "GetModelInvocationJob": 2}
    assert calls["created"] == [
        {
            "service": "bedrock",
            "operation": "CreateModelInvocationJob",
            "id": arn.rsplit("/", 1)[1],
            "name": "named",
            "token": "tok-1",
        }
    ]


def test_a_reset_forgets_everything_and_ends_what_is_running(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"in_progress": 3600}})
    desk.wait(desk.create(desk.put(desk.records())), "InProgress")
    desk.emulator.faults([{"on": "list", "do": "throttle"}])
    desk.emulator.clock(advance=10)
    desk.emulator.reset()
    assert desk.bedrock.list_model_invocation_jobs()["invocationJobSummaries"] == []
    assert desk.emulator.bill()["records"] == 0
    assert desk.emulator.calls()["created"] == []
    assert desk.emulator.settings()["bedrock"]["latency"]["in_progress"] < 10
    assert abs(desk.emulator.clock()["now"] - time.time()) < 5


def test_the_bill_is_read_in_whole_and_record_by_record(desk: Desk):
    one, two = desk.run(), desk.run()
    bill = desk.emulator.bill()
    assert (bill["records"], bill["requests"], bill["most_billed"]) == (200, 100, 2)
    assert set(bill["billed_again"].values()) == {2}
    charges = desk.emulator.charges(batch=two.rsplit("/", 1)[1])
    assert sorted(charge["record_id"] for charge in charges) == sorted(f"r{number}" for number in range(100))
    assert {charge["batch_id"] for charge in desk.emulator.charges()} == {arn.rsplit("/", 1)[1] for arn in (one, two)}
