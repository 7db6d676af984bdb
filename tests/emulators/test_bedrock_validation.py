"""Asynchronous validation: what makes a job Failed before it costs anything, and what does not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from emulators.desk import Desk, converse_body


def failed(desk: Desk, uri: str, **changes: Any) -> str:
    """The message of the job, which has failed and cost nothing."""
    arn = desk.create(uri, **changes)
    job = desk.wait(arn)
    assert job["status"] == "Failed", job
    assert desk.emulator.bill()["records"] == 0
    assert "Contents" not in desk.s3.list_objects_v2(Bucket=desk.bucket, Prefix=f"out/{arn.rsplit('/', 1)[1]}")
    return str(job["message"])


def lines(count: int) -> bytes:
    return b"".join(
        orjson.dumps({"recordId": f"r{number}", "modelInput": converse_body(f"Say {number}.")}) + b"\n"
        for number in range(count)
    )


def test_creation_says_nothing_of_it_and_validation_does(desk: Desk):
    desk.emulator.settings(bedrock={"latency": {"validating": 0.5}})
    arn = desk.create(desk.put(b"no json\n"))
    assert desk.wait(arn, "Validating")["status"] == "Validating"
    assert desk.wait(arn)["status"] == "Failed"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lines(60) + b'{"recordId": "x", "modelInp\n' + lines(60), "Line 61 of records.jsonl"),
        (lines(100) + b"[]\n", "Line 101"),
        (lines(100) + b'{"recordId": "x"}\n', "Line 101"),
        (lines(100) + b'{"recordId": "x", "modelInput": "text"}\n', "Line 101"),
        (b"\xef\xbb\xbf" + lines(100), "Line 1"),
        (lines(100) + b'{"recordId": 7, "modelInput": {}}\n', "recordId"),
        (b"", "minimum"),
    ],
)
def test_what_is_no_record_fails_the_job(desk: Desk, data: bytes, said: str):
    assert said in failed(desk, desk.put(data))


def test_nothing_of_a_document_is_in_the_message(desk: Desk):
    assert "secret" not in failed(desk, desk.put(lines(100) + b'{"recordId": "secret", "modelInput": "secret"\n'))


def test_a_record_too_few_fails_the_job_and_the_minimum_does_not(desk: Desk):
    assert "99 records; the minimum for Claude 3 Haiku is 100" in failed(desk, desk.put(lines(99)))
    assert desk.wait(desk.create(desk.put(lines(100))))["status"] == "Completed"


def test_llama_4_scout_asks_for_fifty(desk: Desk):
    scout = "meta.llama4-scout-17b-instruct-v1:0"
    assert "50" in failed(desk, desk.put(lines(49)), modelId=scout)
    assert desk.wait(desk.create(desk.put(lines(50)), modelId=scout))["status"] == "Completed"


def test_records_are_counted_over_all_files_and_limited_in_each(desk: Desk):
    desk.emulator.settings(bedrock={"quotas": {"records_per_file": 120, "records_per_job": 200}})
    for name in "ab":
        desk.put(lines(60), f"good/{name}.jsonl")
        desk.put(lines(120), f"many/{name}.jsonl")
    assert desk.wait(desk.create(f"s3://{desk.bucket}/good/"))["status"] == "Completed"
    desk.emulator.settings()
    job = desk.wait(desk.create(f"s3://{desk.bucket}/many/"))
    assert (job["status"], "240 records; the quota is 200" in job["message"]) == ("Failed", True)
    job = desk.wait(desk.create(desk.put(lines(121))))
    assert (job["status"], "121 records; the quota is 120" in job["message"]) == ("Failed", True)


def test_files_and_jobs_are_limited_in_bytes(desk: Desk):
    data = lines(100)
    desk.emulator.settings(bedrock={"quotas": {"file_bytes": len(data) - 1}})
    assert str(len(data)) in failed(desk, desk.put(data))
    desk.emulator.settings(bedrock={"quotas": {"file_bytes": len(data), "job_bytes": len(data)}})
    desk.put(data, "two/a.jsonl")
    desk.put(data, "two/b.jsonl")
    assert str(2 * len(data)) in failed(desk, f"s3://{desk.bucket}/two")
    assert desk.wait(desk.create(f"s3://{desk.bucket}/two/a.jsonl"))["status"] == "Completed"


def test_a_file_must_be_named_jsonl(desk: Desk):
    assert ".jsonl" in failed(desk, desk.put(lines(100), "in/records.json"))


def test_a_folder_is_read_for_its_jsonl_files_whatever_else_it_holds(desk: Desk):
    desk.put(lines(100), "folder/a.jsonl")
    desk.put(lines(100), "folder/deep/b.jsonl")
    desk.put(b"a picture", "folder/deep/c.png")
    arn = desk.create(f"s3://{desk.bucket}/folder")
    assert desk.wait(arn)["totalRecordCount"] == 200
    assert len(desk.lines(arn, "a.jsonl.out")) == len(desk.lines(arn, "deep/b.jsonl.out")) == 100


def test_an_input_that_is_not_there_or_not_readable_fails_the_job(desk: Desk):
    assert "no file" in failed(desk, f"s3://{desk.bucket}/nothing/here.jsonl")
    assert "NoSuchBucket" in failed(desk, "s3://no-such-bucket-anywhere/in.jsonl")
    for action in ("s3:ListBucket", "s3:GetObject"):
        desk.emulator.settings(bedrock={"denied": [action]})
        assert action in failed(desk, desk.put(lines(100)))


def test_an_output_that_cannot_be_written_fails_the_job_after_it_was_paid_for(desk: Desk):
    desk.emulator.settings(bedrock={"denied": ["s3:PutObject"]})
    job = desk.wait(desk.create(desk.put(lines(100))))
    assert job["status"] == "Failed"
    assert "s3:PutObject" in job["message"]
    assert desk.emulator.bill()["records"] == 100


def test_empty_lines_are_no_records(desk: Desk):
    arn = desk.create(desk.put(b"\n" + lines(100) + b"\n  \n"))
    assert desk.wait(arn)["totalRecordCount"] == 100


def test_what_a_record_asks_is_not_looked_at_before_it_is_asked(desk: Desk):
    record = {"recordId": "r", "modelInput": {"nonsense": True}}
    arn = desk.create(desk.put([record] * 100))
    job = desk.wait(arn)
    assert (job["status"], job["errorRecordCount"]) == ("Completed", 100)
    assert desk.emulator.bill()["records"] == 0
