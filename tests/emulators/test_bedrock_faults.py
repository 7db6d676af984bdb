"""What can be made to go wrong with Bedrock's jobs, and that it is billed as the real thing would be."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import orjson
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from emulators.desk import Desk, client


def rows(desk: Desk, arn: str) -> dict[str, dict[str, Any]]:
    return {line["recordId"]: line for line in desk.lines(arn)}


@pytest.mark.parametrize(
    ("do", "error", "committed"),
    [
        ("error_before", ClientError, 0),
        ("error_after", ClientError, 1),
        ("reset_before", ConnectionClosedError, 0),
        ("reset_after", ConnectionClosedError, 1),
        ("timeout_before", ReadTimeoutError, 0),
        ("timeout_after", ReadTimeoutError, 1),
        ("throttle", ClientError, 0),
        ("quota", ClientError, 0),
    ],
)
def test_a_create_that_fails_has_or_has_not_been_accepted(desk: Desk, do: str, error: type[Exception], committed: int):
    desk.emulator.faults([{"on": "create", "do": do, "seconds": 2}])
    asked = desk.request(desk.put(desk.records()), clientRequestToken="tok")
    with pytest.raises(error) as failed:
        client("bedrock", desk.emulator.url, patience=0.5).create_model_invocation_job(**asked)
    if isinstance(failed.value, ClientError):
        code = {"throttle": "ThrottlingException", "quota": "ServiceQuotaExceededException"}
        assert failed.value.response["Error"]["Code"] == code.get(do, "InternalServerException")
    found = desk.bedrock.list_model_invocation_jobs()["invocationJobSummaries"]
    assert len(found) == committed == len(desk.emulator.calls()["created"])
    # Asked again with the same token, there is one job in the end, and one bill.
    arn = desk.bedrock.create_model_invocation_job(**asked)["jobArn"]
    assert [job["jobArn"] for job in found] in ([], [arn])
    assert desk.wait(arn)["status"] == "Completed"
    assert (desk.emulator.bill()["records"], desk.emulator.bill()["most_billed"]) == (100, 1)


def test_without_a_token_a_create_that_is_repeated_is_paid_twice(desk: Desk):
    desk.emulator.faults([{"on": "create", "do": "error_after"}])
    asked = desk.request(desk.put(desk.records()))
    with pytest.raises(ClientError):
        desk.bedrock.create_model_invocation_job(**asked)
    desk.wait(desk.bedrock.create_model_invocation_job(**asked)["jobArn"])
    while desk.emulator.bill()["records"] < 200:
        time.sleep(0.05)
    assert desk.emulator.bill()["most_billed"] == 2


@pytest.mark.parametrize(
    ("do", "code"),
    [
        ("error_before", "InternalServerException"),
        ("throttle", "ThrottlingException"),
        ("not_found", "ResourceNotFoundException"),
    ],
)
def test_polls_can_fail_as_often_as_asked(desk: Desk, do: str, code: str):
    arn = desk.run()
    desk.emulator.faults([{"on": ["get", "list"], "do": do, "times": 2}])
    for call in (lambda: desk.get(arn), desk.bedrock.list_model_invocation_jobs):
        with pytest.raises(ClientError) as failed:
            call()
        assert failed.value.response["Error"]["Code"] == code
    assert desk.get(arn)["status"] == "Completed"


def test_times_can_be_skewed(desk: Desk):
    arn = desk.run()
    straight = desk.get(arn)
    desk.emulator.faults([{"on": ["get", "list"], "do": "skew", "seconds": -7200, "times": "forever"}])
    skewed, (listed,) = desk.get(arn), desk.bedrock.list_model_invocation_jobs()["invocationJobSummaries"]
    for name in ("submitTime", "lastModifiedTime", "endTime", "jobExpirationTime"):
        assert (straight[name] - skewed[name]).total_seconds() == 7200
        assert listed[name] == skewed[name]


@pytest.mark.parametrize(
    ("do", "code"), [("row_error", 400), ("row_server_error", 500), ("row_throttled", 429), ("row_expired", 408)]
)
def test_rows_can_fail_and_cost_nothing(desk: Desk, do: str, code: int):
    desk.emulator.faults([{"on": "row", "do": do, "times": 10}])
    arn = desk.run()
    failed = [line["error"] for line in desk.lines(arn) if "error" in line]
    assert [error["errorCode"] for error in failed] == [code] * 10
    assert [error.get("expired") for error in failed] == [True if do == "row_expired" else None] * 10
    assert desk.get(arn)["errorRecordCount"] == 10
    assert desk.emulator.bill()["records"] == 90


def test_a_poisonous_record_fails_whenever_it_comes(desk: Desk):
    desk.emulator.faults([{"on": "row", "do": "poison", "times": "forever", "match": {"text": "Say 7."}}])
    for _ in range(2):
        found = rows(desk, desk.run())
        assert [name for name, line in found.items() if "error" in line] == ["r7"]


def test_the_same_records_are_struck_again_under_the_same_seed(desk: Desk):
    rule = {"on": "row", "do": "row_error", "rate": 0.3, "times": "forever", "each": 1}
    struck = []
    for seed in (1, 1, 2):
        desk.emulator.faults([rule], seed=seed)
        struck.append({name for name, line in rows(desk, desk.run()).items() if "error" in line})
    assert struck[0] == struck[1] != struck[2]
    assert 15 < len(struck[0]) < 45
    # Each record is struck once: the second attempt answers them all.
    assert not any("error" in line for line in desk.lines(desk.run()))


def test_a_lost_line_is_billed_and_counted_as_a_success(desk: Desk):
    desk.emulator.faults([{"on": "row", "do": "lose", "times": 5}])
    arn = desk.run()
    assert len(desk.lines(arn)) == 95
    assert desk.get(arn)["successRecordCount"] == desk.manifest(arn)["successRecordCount"] == 100
    assert desk.manifest(arn)["inputTokenCount"] == desk.emulator.bill()["input_tokens"]
    assert desk.emulator.bill()["records"] == 100


def test_a_line_can_come_twice_and_is_billed_once(desk: Desk):
    desk.emulator.faults([{"on": "row", "do": "duplicate", "times": 5}])
    counts = Counter(line["recordId"] for line in desk.lines(desk.run()))
    assert sorted(counts.values()) == [1] * 95 + [2] * 5
    assert desk.emulator.bill()["most_billed"] == 1


@pytest.mark.parametrize("do", ["truncate", "malform"])
def test_a_line_can_be_broken_and_leaves_the_others_whole(desk: Desk, do: str):
    desk.emulator.faults([{"on": "row", "do": do, "times": 3}])
    good, broken = [], 0
    for line in desk.output(desk.run()).splitlines():
        try:
            good.append(orjson.loads(line)["recordId"])
        except orjson.JSONDecodeError:
            broken += 1
    assert (len(set(good)), broken) == (97, 3)
    assert desk.emulator.bill()["records"] == 100


def test_a_line_can_appear_after_the_job_has_ended(desk: Desk):
    desk.emulator.faults([{"on": "row", "do": "late", "times": 4, "seconds": 300}])
    arn = desk.run()
    assert len(desk.lines(arn)) == 96
    desk.emulator.clock(advance=300)
    deadline = time.monotonic() + 20
    while len(desk.lines(arn)) < 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(rows(desk, arn)) == len(desk.lines(arn)) == 100


def test_an_answer_can_be_filtered_or_of_another_form_and_is_paid_for(desk: Desk):
    desk.emulator.faults([{"on": "row", "do": "refuse", "times": 3}, {"on": "row", "do": "invalid", "times": 3}])
    arn = desk.run()
    stops = Counter(line["modelOutput"]["stopReason"] for line in desk.lines(arn))
    assert stops["content_filtered"] == 3
    texts = [line["modelOutput"]["output"]["message"]["content"][0]["text"] for line in desk.lines(arn)]
    assert sum(text.startswith("Sure!") for text in texts) == 3
    assert desk.emulator.bill()["records"] == 100


@pytest.mark.parametrize("do", ["fail_validation", "quota"])
def test_a_job_can_fail_after_it_was_created_and_cost_nothing(desk: Desk, do: str):
    desk.emulator.faults([{"on": "validate", "do": do, "message": "as asked for"}])
    job = desk.get(desk.run())
    assert (job["status"], job["message"]) == ("Failed", "as asked for")
    assert desk.emulator.bill()["records"] == 0
    assert desk.get(desk.run())["status"] == "Completed"


def test_a_job_can_expire_before_it_began(desk: Desk):
    desk.emulator.faults([{"on": "validate", "do": "expire"}])
    assert desk.get(desk.run())["status"] == "Expired"
    assert desk.emulator.bill()["records"] == 0


@pytest.mark.parametrize(
    ("do", "status", "listed"),
    [("partial", "PartiallyCompleted", 0), ("expire", "PartiallyCompleted", 1), ("fail", "Failed", 0)],
)
def test_a_job_can_end_when_a_part_is_done_and_keeps_it(desk: Desk, do: str, status: str, listed: int):
    desk.emulator.faults([{"on": "process", "do": do}])
    arn = desk.run()
    job = desk.get(arn)
    done = job["processedRecordCount"]
    assert job["status"] == status
    assert 0 < done < 100
    answered = [name for name, line in rows(desk, arn).items() if "modelOutput" in line]
    assert len(answered) == done == desk.emulator.bill()["records"]
    assert len(desk.lines(arn)) == (100 if listed else done)
    assert desk.manifest(arn)["processedRecordCount"] == done
    assert job["message"]


def test_a_job_can_be_slow(desk: Desk):
    desk.emulator.faults([{"on": "process", "do": "slow", "seconds": 1000}])
    arn = desk.create(desk.put(desk.records()))
    desk.wait(arn, "InProgress")
    time.sleep(0.5)
    assert desk.get(arn)["status"] == "InProgress"
    desk.emulator.clock(advance=1001)
    assert desk.wait(arn)["status"] == "Completed"


def test_a_stop_can_take_its_time_while_records_are_still_answered(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"in_progress": 1000}})
    desk.emulator.faults([{"on": "cancel", "do": "stop_late", "seconds": 500}])
    arn = desk.create(desk.put(desk.records()))
    desk.wait(arn, "InProgress")
    desk.bedrock.stop_model_invocation_job(jobIdentifier=arn)
    before = desk.emulator.bill()["records"]
    desk.emulator.clock(advance=400)
    deadline = time.monotonic() + 20
    while desk.emulator.bill()["records"] < before + 30 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert desk.get(arn)["status"] == "Stopping"
    desk.emulator.clock(advance=101)
    job = desk.wait(arn)
    assert job["status"] == "Stopped"
    assert len(desk.lines(arn)) == job["processedRecordCount"] == desk.emulator.bill()["records"]


def test_a_job_that_is_done_before_its_stop_is_stopped_all_the_same(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"in_progress": 1000}})
    desk.emulator.faults([{"on": "cancel", "do": "stop_late", "seconds": 100_000}])
    arn = desk.create(desk.put(desk.records()))
    desk.wait(arn, "InProgress")
    desk.bedrock.stop_model_invocation_job(jobIdentifier=arn)
    desk.emulator.clock(advance=1000)
    assert desk.wait(arn)["status"] == "Stopped"
    assert len(desk.lines(arn)) == 100


def test_the_output_can_appear_after_the_job_has_ended(desk: Desk):
    desk.emulator.faults([{"on": "output", "do": "late", "seconds": 300}])
    arn = desk.run()
    assert desk.get(arn)["status"] == "Completed"
    with pytest.raises(desk.s3.exceptions.NoSuchKey):
        desk.output(arn)
    desk.emulator.clock(advance=300)
    deadline = time.monotonic() + 20
    while "Contents" not in desk.s3.list_objects_v2(Bucket=desk.bucket, Prefix="out/"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    assert len(desk.lines(arn)) == desk.manifest(arn)["totalRecordCount"] == 100


def test_the_output_can_be_reordered_where_it_is_not_shuffled(desk: Desk):
    desk.emulator.settings(bedrock={"shuffle": False})
    desk.emulator.faults([{"on": "output", "do": "reorder"}])
    first, second = desk.run(), desk.run()
    ids = [f"r{number}" for number in range(100)]
    assert [line["recordId"] for line in desk.lines(first)] != ids
    assert [line["recordId"] for line in desk.lines(second)] == ids


def test_a_fault_can_be_meant_for_one_job_alone(desk: Desk):
    desk.emulator.faults([{"on": "process", "do": "fail", "times": "forever", "match": {"name": "bad"}}])
    assert desk.get(desk.run(jobName="good-1"))["status"] == "Completed"
    assert desk.get(desk.run(jobName="a-bad-1"))["status"] == "Failed"
