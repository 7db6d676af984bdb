"""The life of a job: its states and times, how it is found, and how it is stopped."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulators.desk import Desk, converse_body


def summaries(desk: Desk, **asked: Any) -> list[dict[str, Any]]:
    return list(desk.bedrock.list_model_invocation_jobs(**asked)["invocationJobSummaries"])


def test_a_job_goes_through_every_state_in_order(desk: Desk):
    desk.emulator.settings(
        bedrock={"latency": dict.fromkeys(("submitted", "validating", "scheduled", "in_progress"), 0.25)}
    )
    arn = desk.create(desk.put(desk.records()))
    seen = [desk.get(arn)["status"]]
    while seen[-1] != "Completed":
        status = desk.get(arn)["status"]
        if status != seen[-1]:
            seen.append(status)
    assert seen == ["Submitted", "Validating", "Scheduled", "InProgress", "Completed"]


def test_each_state_lasts_as_long_as_the_clock_says(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"submitted": 600, "validating": 600, "scheduled": 600}})
    desk.emulator.clock(speed=0)
    arn = desk.create(desk.put(desk.records()))
    for status in ("Submitted", "Validating", "Scheduled"):
        desk.wait(arn, status)
        desk.emulator.clock(advance=599)
        time.sleep(0.1)
        assert desk.get(arn)["status"] == status
        desk.emulator.clock(advance=1)
    job = desk.wait(arn, "InProgress")
    assert (job["lastModifiedTime"] - job["submitTime"]).total_seconds() == pytest.approx(1800, abs=1)
    desk.emulator.clock(speed=1)
    assert desk.wait(arn)["status"] == "Completed"


def test_get_answers_what_was_asked_for_and_what_came_of_it(desk: Desk):
    arn = desk.create(desk.put(desk.records()), jobName="named", clientRequestToken="tok")
    job = desk.wait(arn)
    assert (job["jobArn"], job["jobName"], job["clientRequestToken"]) == (arn, "named", "tok")
    assert job["modelInvocationType"] == "Converse"
    assert job["inputDataConfig"]["s3InputDataConfig"]["s3Uri"] == f"s3://{desk.bucket}/in/records.jsonl"
    assert job["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"] == f"s3://{desk.bucket}/out"
    assert job["submitTime"] <= job["lastModifiedTime"] == job["endTime"]
    assert job["jobExpirationTime"] - job["submitTime"] == dt.timedelta(hours=24)
    assert [job[f"{kind}RecordCount"] for kind in ("total", "processed", "success", "error")] == [100, 100, 100, 0]
    assert desk.get(arn.rsplit("/", 1)[1])["jobArn"] == arn


@pytest.mark.parametrize(
    ("identifier", "code"),
    [
        ("aaaaaaaaaaaa", "ResourceNotFoundException"),
        ("arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/aaaaaaaaaaaa", "ResourceNotFoundException"),
        ("short", "ValidationException"),
        ("AAAAAAAAAAAA", "ValidationException"),
        ("arn:aws:bedrock:us-east-1:123456789012:other/aaaaaaaaaaaa", "ValidationException"),
    ],
)
def test_a_job_that_is_none_is_told_from_an_id_that_is_none(desk: Desk, identifier: str, code: str):
    for call in (desk.bedrock.get_model_invocation_job, desk.bedrock.stop_model_invocation_job):
        with pytest.raises(ClientError) as refused:
            call(jobIdentifier=identifier)
        assert refused.value.response["Error"]["Code"] == code


def test_counters_are_zero_before_processing_and_late_while_it_lasts(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"in_progress": 1000}, "counter_lag": 60})
    desk.emulator.clock(speed=0)
    arn = desk.create(desk.put(desk.records()))
    while desk.get(arn)["status"] != "InProgress":
        desk.emulator.clock(advance=0.1)
    assert desk.get(arn)["totalRecordCount"] == 0
    for _ in range(10):
        desk.emulator.clock(advance=50)
        time.sleep(0.05)
    job = desk.get(arn)
    # After 500 of 1000 seconds about half is done, and what is shown is a minute old.
    assert job["totalRecordCount"] == 100
    assert 35 <= job["processedRecordCount"] <= 50
    assert job["successRecordCount"] == job["processedRecordCount"]
    assert len(desk.emulator.charges()) > job["processedRecordCount"]
    desk.emulator.clock(speed=1, advance=500)
    assert desk.wait(arn)["processedRecordCount"] == 100


def test_a_new_job_can_be_missing_for_a_while(desk: Desk):
    desk.emulator.settings(bedrock={"visible_after": 300, "latency": {"submitted": 3600}})
    arn = desk.create("s3://bucket/in.jsonl", clientRequestToken="tok")
    assert summaries(desk) == []
    with pytest.raises(desk.bedrock.exceptions.ResourceNotFoundException):
        desk.get(arn)
    assert desk.create("s3://bucket/in.jsonl", clientRequestToken="tok") == arn
    desk.emulator.clock(advance=300)
    assert desk.get(arn)["status"] == "Submitted"
    assert len(summaries(desk)) == 1


@pytest.fixture
def five(desk: Desk) -> list[str]:
    """Five jobs of 100 seconds each after the other, oldest first; the third has ended."""
    desk.emulator.settings(bedrock={"latency": {"submitted": 1_000_000}})
    arns = []
    for number in range(5):
        arns.append(desk.create("s3://bucket/in.jsonl", jobName=f"{'even' if number % 2 == 0 else 'odd'}-{number}"))
        desk.emulator.clock(advance=100)
    desk.bedrock.stop_model_invocation_job(jobIdentifier=arns[2])
    desk.wait(arns[2], "Stopped")
    return arns


def test_a_list_is_sorted_by_creation_newest_first_unless_asked(desk: Desk, five: list[str]):
    newest = [job["jobArn"] for job in summaries(desk)]
    assert newest == five[::-1]
    assert [job["jobArn"] for job in summaries(desk, sortBy="CreationTime", sortOrder="Ascending")] == five
    assert summaries(desk, sortOrder="Ascending")[0]["jobName"] == "even-0"


def test_a_list_is_filtered_by_name_status_and_time(desk: Desk, five: list[str]):
    assert [job["jobName"] for job in summaries(desk, nameContains="odd")] == ["odd-3", "odd-1"]
    assert [job["jobArn"] for job in summaries(desk, statusEquals="Stopped")] == [five[2]]
    assert len(summaries(desk, statusEquals="Submitted", nameContains="even")) == 2
    moment = desk.get(five[2])["submitTime"]
    assert [job["jobArn"] for job in summaries(desk, submitTimeAfter=moment)] == [five[4], five[3]]
    assert [job["jobArn"] for job in summaries(desk, submitTimeBefore=moment)] == [five[1], five[0]]


def test_a_list_comes_in_pages_that_lose_and_repeat_nothing(desk: Desk, five: list[str]):
    first = desk.bedrock.list_model_invocation_jobs(maxResults=2)
    assert len(first["invocationJobSummaries"]) == 2
    # A job that is created between two pages moves nothing.
    desk.create("s3://bucket/in.jsonl")
    second = desk.bedrock.list_model_invocation_jobs(maxResults=2, nextToken=first["nextToken"])
    assert [job["jobArn"] for job in second["invocationJobSummaries"]] == [five[2], five[1]]
    pages = desk.bedrock.get_paginator("list_model_invocation_jobs").paginate(
        nameContains="even", PaginationConfig={"PageSize": 1}
    )
    assert [job["jobArn"] for page in pages for job in page["invocationJobSummaries"]] == [five[4], five[2], five[0]]
    assert "nextToken" not in desk.bedrock.list_model_invocation_jobs(maxResults=6)


@pytest.mark.parametrize(
    "asked",
    [
        {"statusEquals": "Done"},
        {"sortBy": "Name"},
        {"sortOrder": "Up"},
        {"nameContains": "under_score"},
        {"maxResults": 1001},
        {"nextToken": "never-given"},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(desk: Desk, asked: dict[str, Any]):
    with pytest.raises(desk.bedrock.exceptions.ValidationException):
        desk.bedrock.list_model_invocation_jobs(**asked)


def test_a_job_that_is_stopped_in_mid_run_keeps_and_bills_what_was_processed(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"in_progress": 1000, "stopping": 0.3}, "counter_lag": 0})
    arn = desk.create(desk.put(desk.records()))
    desk.wait(arn, "InProgress")
    desk.emulator.clock(speed=0)
    desk.emulator.clock(advance=400)
    while desk.get(arn)["processedRecordCount"] < 40:
        time.sleep(0.02)
    desk.emulator.clock(speed=1)
    desk.bedrock.stop_model_invocation_job(jobIdentifier=arn)
    assert desk.get(arn)["status"] == "Stopping"
    job = desk.wait(arn, "Stopped")
    processed = job["processedRecordCount"]
    assert 40 <= processed < 100
    assert job["totalRecordCount"] == 100
    lines = desk.lines(arn)
    assert len(lines) == processed
    assert {line["recordId"] for line in lines} == {charge["record_id"] for charge in desk.emulator.charges()}
    manifest = desk.manifest(arn)
    assert (manifest["totalRecordCount"], manifest["processedRecordCount"]) == (100, processed)
    assert manifest["inputTokenCount"] == desk.emulator.bill()["input_tokens"] > 0


def test_a_job_that_is_stopped_before_it_began_has_no_output_and_no_bill(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"scheduled": 1000}})
    arn = desk.create(desk.put(desk.records()))
    desk.wait(arn, "Scheduled")
    desk.bedrock.stop_model_invocation_job(jobIdentifier=arn)
    assert desk.wait(arn)["status"] == "Stopped"
    assert desk.emulator.bill()["records"] == 0
    assert "Contents" not in desk.s3.list_objects_v2(Bucket=desk.bucket, Prefix="out/")


def test_what_has_ended_or_is_stopping_cannot_be_stopped(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"scheduled": 1000, "stopping": 1000}})
    arn = desk.create(desk.put(desk.records()))
    desk.bedrock.stop_model_invocation_job(jobIdentifier=arn)
    with pytest.raises(desk.bedrock.exceptions.ConflictException):
        desk.bedrock.stop_model_invocation_job(jobIdentifier=arn)
    desk.emulator.clock(advance=1000)
    desk.wait(arn, "Stopped")
    with pytest.raises(desk.bedrock.exceptions.ConflictException):
        desk.bedrock.stop_model_invocation_job(jobIdentifier=arn)


def test_a_job_that_never_began_in_time_is_expired(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"scheduled": 25 * 3600}})
    arn = desk.create(desk.put(desk.records()))
    desk.wait(arn, "Scheduled")
    desk.emulator.clock(advance=25 * 3600)
    assert desk.wait(arn)["status"] == "Expired"
    assert desk.emulator.bill()["records"] == 0


@pytest.mark.parametrize("rows", ["listed", "missing"])
def test_a_job_that_ran_out_of_time_is_partially_completed(desk: Desk, rows: str):
    desk.emulator.settings(bedrock={"latency": {"in_progress": 48 * 3600}, "expired_rows": rows})
    arn = desk.create(desk.put(desk.records()), timeoutDurationInHours=24)
    desk.wait(arn, "InProgress")
    for _ in range(5):
        desk.emulator.clock(advance=5 * 3600)
        time.sleep(0.1)
    job = desk.wait(arn)
    assert job["status"] == "PartiallyCompleted"
    processed = job["processedRecordCount"]
    assert 10 < processed < 60
    assert job["errorRecordCount"] == 0
    assert len(desk.emulator.charges()) == processed
    lines = desk.lines(arn)
    late = [line for line in lines if "error" in line]
    assert len(lines) - len(late) == processed
    assert len(late) == (100 - processed if rows == "listed" else 0)
    assert all(line["error"]["expired"] is True and isinstance(line["error"]["errorCode"], int) for line in late)


def test_jobs_run_beside_each_other(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"in_progress": 1.0}})
    arns = []
    for job in range(5):
        records = [{"recordId": f"{job}-{n}", "modelInput": converse_body(f"{job} {n}")} for n in range(100)]
        arns.append(desk.create(desk.put(records, f"{job}.jsonl")))
    begun = time.monotonic()
    for number, arn in enumerate(arns):
        desk.wait(arn)
        ids = {line["recordId"] for line in desk.lines(arn, f"{number}.jsonl.out")}
        assert ids == {f"{number}-{n}" for n in range(100)}
    assert time.monotonic() - begun < 4.5
    assert desk.emulator.bill()["most_billed"] == 1
