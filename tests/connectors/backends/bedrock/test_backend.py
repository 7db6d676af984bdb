"""A job's life through real boto3: created once, found again, ended once its totals are final, read by listing."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import msgspec
import orjson
import pytest
from bedrock_bench import HAIKU_45, ROLE, Bench, request_for, shard_of, summarize, token, until

from lowtide.connectors.backends.bedrock import Backend
from lowtide.connectors.backends.bedrock.jobs import Job, Look
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, QuotaFull, SubmitUnknown, Terminal, Transient
from lowtide.records import Answer, Shard, Usage


def created(bench: Bench) -> int:
    return len(bench.emulator.calls()["created"])


def total(answers: Sequence[Answer]) -> Usage:
    return Usage(
        input_tokens=sum(answer.input_tokens for answer in answers),
        output_tokens=sum(answer.output_tokens for answer in answers),
        cached_tokens=sum(answer.cached_tokens for answer in answers),
    )


def test_a_job_answers_every_record_once_and_says_what_it_charged(bench: Bench) -> None:
    backend = bench.open()
    batch = backend.submit(bench.on_root(backend, 120), token())

    status = bench.finish(backend, batch)
    answers = bench.answers(backend, batch)

    assert (status.outcome, status.provider_state, status.charged) == ("completed", "Completed", 120)
    assert sorted(answer.record_id for answer in answers) == [request_for(n).record_id for n in range(120)]
    assert {answer.status for answer in answers} == {"ok"}
    assert json.loads(answers[0].text)["summary"]
    assert status.usage == total(answers)
    bill = bench.emulator.bill()
    assert bill["records"] == 120
    assert bill["most_billed"] == 1


def test_requests_on_s3_are_read_where_they_lie(bench: Bench) -> None:
    backend = bench.open()
    shard = bench.on_root(backend)

    batch = backend.submit(shard, token())
    bench.finish(backend, batch)

    assert not [key for key in bench.paths() if key.endswith("/requests.jsonl")]
    assert [output.name for output in backend.outputs(batch)] == ["manifest.json.out", "s00001-a1.jsonl.out"]


def test_requests_elsewhere_are_copied_below_the_staging_folder(bench: Bench) -> None:
    backend = bench.open()
    name = token()

    batch = backend.submit(bench.shard(backend), name)

    assert f"bedrock/{name}/requests.jsonl" in bench.paths()
    assert bench.finish(backend, batch).outcome == "completed"


@pytest.mark.parametrize("folder", ["window=2026-W47", "with space", "100%"])
def test_requests_at_an_address_that_bedrock_refuses_are_copied(bench: Bench, folder: str) -> None:
    backend = bench.open()
    shard = bench.on_root(backend, name=f"runs/{folder}/s00001.jsonl")
    name = token()

    batch = backend.submit(shard, name)

    assert f"bedrock/{name}/requests.jsonl" in bench.paths()
    assert bench.finish(backend, batch).charged == 100


def test_a_torn_copy_is_never_submitted(bench: Bench) -> None:
    backend = bench.open()
    whole = bench.shard(backend)
    torn = Shard("run", 1, 1, 100, whole.size, "memory://shard", lambda: io.BytesIO(whole.open().read()[:-9]))

    with pytest.raises(Terminal, match="build the shard again"):
        backend.submit(torn, token())

    assert created(bench) == 0
    assert bench.paths() == []


def test_the_same_token_is_one_job(bench: Bench) -> None:
    backend, name = bench.open(), token()
    shard = bench.on_root(backend)

    first = backend.submit(shard, name)
    second = backend.submit(shard, name)

    assert first == second
    assert backend.find(name) == [first]
    assert created(bench) == 1


@pytest.mark.parametrize("fault", ["error_after", "reset_after", "timeout_after"])
def test_a_create_call_that_fails_after_it_was_accepted_is_found_again(bench: Bench, fault: str) -> None:
    backend, name = bench.open(), token()
    shard = bench.on_root(backend)
    bench.emulator.faults([{"on": "create", "do": fault, "seconds": 1}])

    with pytest.raises(SubmitUnknown):
        backend.submit(shard, name)

    found = backend.find(name)
    assert len(found) == 1
    assert created(bench) == 1
    assert bench.emulator.calls()["counts"]["bedrock"]["CreateModelInvocationJob"] == 1
    assert bench.finish(backend, found[0]).charged == 100


@pytest.mark.parametrize("fault", ["error_before", "reset_before", "timeout_before"])
def test_a_create_call_that_fails_before_it_was_accepted_is_sent_once_and_not_found(bench: Bench, fault: str) -> None:
    backend, name = bench.open(), token()
    shard = bench.on_root(backend)
    bench.emulator.faults([{"on": "create", "do": fault, "seconds": 1}])

    with pytest.raises(SubmitUnknown):
        backend.submit(shard, name)

    assert backend.find(name) == []
    assert bench.emulator.calls()["counts"]["bedrock"]["CreateModelInvocationJob"] == 1


def test_throttling_and_a_full_quota_are_back_pressure(bench: Bench) -> None:
    backend = bench.open()
    shard = bench.on_root(backend)
    for fault in ("throttle", "quota"):
        bench.emulator.faults([{"on": "create", "do": fault}])
        with pytest.raises(QuotaFull):
            backend.submit(shard, token())
    assert created(bench) == 0


def test_the_account_s_own_number_of_jobs_is_kept_by_bedrock(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"quotas": {"jobs": 1}, "latency": {"in_progress": 60.0}})
    backend = bench.open()
    shard = bench.on_root(backend)
    backend.submit(shard, token())

    with pytest.raises(QuotaFull, match="ServiceQuotaExceeded"):
        backend.submit(shard, token())


def test_nobody_listening_is_transient_and_nothing_was_accepted(bench: Bench) -> None:
    bench.environ["AWS_ENDPOINT_URL_BEDROCK"] = "http://127.0.0.1:9"
    backend = bench.open()

    with pytest.raises(Transient, match="cannot be reached"):
        backend.submit(bench.on_root(backend), token())


def test_a_name_that_is_taken_by_another_job_is_looked_up(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"unique_names": True})
    backend, name = bench.open(), token()
    client = bench.bedrock()
    shard = bench.on_root(backend)
    there = client.create_model_invocation_job(
        jobName=name,
        roleArn=ROLE,
        modelId=backend.model,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": shard.uri}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://{bench.bucket}/elsewhere/"}},
    )["jobArn"]

    with pytest.raises(SubmitUnknown, match="ConflictException"):
        backend.submit(shard, name)

    assert backend.find(name) == [there]


def test_what_bedrock_refuses_is_terminal_and_says_what_is_missing(bench: Bench) -> None:
    backend = bench.open(model="anthropic.claude-instant-v1")
    with pytest.raises(
        Terminal,
        match=r"'anthropic\.claude-instant-v1': .*Batch inference is not supported.*choose a model that takes batches",
    ):
        backend.submit(bench.on_root(backend), token())

    bench.emulator.settings(bedrock={"denied": ["iam:PassRole"]})
    backend = bench.open()
    with pytest.raises(Terminal, match="iam:PassRole on the service role"):
        backend.submit(bench.on_root(backend), token())
    assert created(bench) == 0


@pytest.mark.parametrize("bad", ["a" * 64, "under_score", "", "-first", "last-", "a b", "lt-1\n"])
def test_a_token_that_cannot_be_a_job_s_name_is_refused_before_any_call(bench: Bench, bad: str) -> None:
    backend = bench.open()
    for shard in (bench.on_root(backend), bench.shard(backend), bench.shard(backend, 5, on_demand=True)):
        with pytest.raises(Terminal, match="cannot be the name"):
            backend.submit(shard, bad)
    assert "CreateModelInvocationJob" not in bench.emulator.calls()["counts"].get("bedrock", {})
    assert backend.find(bad) == []


def test_what_a_job_cannot_hold_is_refused_before_any_call(bench: Bench) -> None:
    backend = bench.open()
    lines = [backend.encode(request_for(number)) for number in range(99)]
    with pytest.raises(Terminal, match="100 to 50000"):
        backend.submit(shard_of(lines), token())
    too_large = Shard("run", 1, 1, 100, backend.limits.bytes + 1, "memory://shard", io.BytesIO)
    with pytest.raises(Terminal, match="bytes"):
        backend.submit(too_large, token())
    assert created(bench) == 0


def test_a_job_that_the_list_does_not_show_yet_is_found_later(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"visible_after": 2.0})
    backend, name = bench.open(), token()
    bench.emulator.faults([{"on": "create", "do": "error_after"}])
    with pytest.raises(SubmitUnknown):
        backend.submit(bench.on_root(backend), name)

    assert backend.find(name) == []
    until(lambda: len(backend.find(name)) == 1, "the list to show the job")
    assert not backend.limits.consistent_lookup


def test_a_new_job_that_is_not_found_yet_is_transient(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"visible_after": 600.0})
    backend = bench.open()
    batch = backend.submit(bench.on_root(backend), token())
    for call in (backend.poll, backend.cancel):
        with pytest.raises(Transient, match="does not know the job"):
            call(batch)


def test_the_list_is_read_to_its_end_and_names_are_compared_whole(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"quotas": {"jobs": 5000}, "latency": {"submitted": 600.0}})
    backend, name = bench.open(), "lt-" + "a" * 35
    shard = bench.on_root(backend)
    first = backend.submit(shard, name)
    for number in range(1010):
        backend._jobs.create(f"{name}-{number}", shard.uri, f"s3://{bench.bucket}/out/")

    assert backend.find(name) == [first]


def test_poll_errors_are_transient_and_denials_name_the_permission(bench: Bench) -> None:
    backend, name = bench.open(), token()
    batch = backend.submit(bench.on_root(backend), name)
    bench.emulator.faults([{"on": ["get", "list"], "do": "error_before", "times": "forever"}])
    with pytest.raises(Transient):
        backend.poll(batch)
    with pytest.raises(Transient):
        backend.find(name)
    bench.emulator.faults([])
    bench.emulator.settings(bedrock={"denied": ["bedrock:GetModelInvocationJob", "bedrock:ListModelInvocationJobs"]})
    with pytest.raises(Terminal, match="allow bedrock:GetModelInvocationJob"):
        backend.poll(batch)
    with pytest.raises(Terminal, match="allow bedrock:ListModelInvocationJobs"):
        backend.find(name)


def test_progress_is_told_and_a_stop_keeps_what_was_answered(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"latency": {"in_progress": 20.0}, "counter_lag": 0.0})
    backend = bench.quick()
    batch = backend.submit(bench.on_root(backend, 200), token())
    until(lambda: 20 < backend.poll(batch).answered < 180, "some records to be answered")

    backend.cancel(batch)
    backend.cancel(batch)
    status = bench.finish(backend, batch)
    backend.cancel(batch)

    answers = bench.answers(backend, batch)
    assert status.outcome == "cancelled"
    assert 20 < len(answers) < 200
    assert status.charged == len(answers) == bench.emulator.bill()["records"]
    assert status.usage == total(answers)


def test_a_partial_job_keeps_its_answers_and_tells_the_rest_as_unanswered(bench: Bench) -> None:
    backend = bench.quick()
    bench.emulator.faults([{"on": "process", "do": "expire"}])
    batch = backend.submit(bench.on_root(backend, 150), token())

    status = bench.finish(backend, batch)
    answers = bench.answers(backend, batch)

    assert status.outcome == "partial"
    answered = [answer for answer in answers if answer.status == "ok"]
    left = [answer for answer in answers if answer.status == "unanswered"]
    assert len(answered) == status.charged == bench.emulator.bill()["records"]
    assert len(answered) + len(left) == 150
    assert left
    assert all(answer.retryable for answer in left)


def test_a_job_that_fails_in_its_midst_says_what_it_charged(bench: Bench) -> None:
    backend = bench.quick()
    bench.emulator.faults([{"on": "process", "do": "fail", "message": "something broke"}])
    batch = backend.submit(bench.on_root(backend, 150), token())

    status = bench.finish(backend, batch)

    assert (status.outcome, status.reason) == ("failed", "something broke")
    assert 0 < (status.charged or 0) < 150
    assert status.charged == len(bench.answers(backend, batch)) == bench.emulator.bill()["records"]


@pytest.mark.parametrize("fault", ["fail_validation", "expire"])
def test_a_job_that_never_began_charged_nothing(bench: Bench, fault: str) -> None:
    backend = bench.open()
    bench.emulator.faults([{"on": "validate", "do": fault}])
    batch = backend.submit(bench.on_root(backend), token())

    status = bench.finish(backend, batch)

    assert status.outcome == {"fail_validation": "failed", "expire": "expired"}[fault]
    assert (status.charged, status.fault) == (0, "")
    assert status.reason
    assert bench.answers(backend, batch) == []


def test_a_job_that_failed_for_want_of_room_may_be_asked_again(bench: Bench) -> None:
    backend = bench.open()
    message = "The job failed: ServiceQuotaExceededException at the model."
    bench.emulator.faults([{"on": "validate", "do": "fail_validation", "message": message}])
    batch = backend.submit(bench.on_root(backend), token())
    assert bench.finish(backend, batch).fault == "quota"


def test_an_end_without_a_manifest_is_told_once_the_counters_are_final(bench: Bench) -> None:
    backend = bench.quick(settle_seconds=2.0)
    batch = backend.submit(bench.on_root(backend), token())
    bench.finish(bench.open(), batch)
    for key in bench.paths():
        if key.endswith("manifest.json.out"):
            bench.root.delete(key)

    assert bench.open().poll(batch).outcome is None
    status = bench.finish(backend, batch)

    assert (status.outcome, status.charged, status.usage) == ("completed", 100, None)


def test_an_end_is_not_told_before_the_output_is_there(bench: Bench) -> None:
    backend = bench.open()
    bench.emulator.faults([{"on": "output", "do": "late", "seconds": 4}])
    batch = backend.submit(bench.on_root(backend), token())
    until(lambda: backend.poll(batch).provider_state == "Completed", "the job to end")
    assert backend.poll(batch).outcome is None
    with pytest.raises(Transient, match="holds no rows"):
        list(backend.outputs(batch))

    assert bench.finish(backend, batch).usage is not None
    assert len(bench.answers(backend, batch)) == 100


def test_an_end_is_told_in_the_end_though_nothing_adds_up(bench: Bench) -> None:
    backend = bench.quick(settle_seconds=1.5)
    bench.emulator.faults([{"on": "output", "do": "late", "seconds": 600}, {"on": "process", "do": "fail"}])
    batch = backend.submit(bench.on_root(backend), token())

    status = bench.finish(backend, batch)

    assert status.outcome == "failed"
    assert status.charged == bench.emulator.bill()["records"]
    assert status.usage is None


def test_an_end_that_the_provider_s_clock_puts_elsewhere_is_told_nonetheless(bench: Bench) -> None:
    backend = bench.quick(settle_seconds=1.0)
    bench.emulator.faults(
        [
            {"on": "get", "do": "skew", "seconds": 86400, "times": "forever"},
            {"on": "output", "do": "late", "seconds": 600},
            {"on": "process", "do": "fail"},
        ]
    )
    batch = backend.submit(bench.on_root(backend), token())
    assert bench.finish(backend, batch).outcome == "failed"


def test_rows_that_fail_are_told_one_by_one_in_a_completed_job(bench: Bench) -> None:
    backend = bench.open()
    bench.emulator.faults(
        [
            {"on": "row", "do": "row_error", "times": 3},
            {"on": "row", "do": "row_server_error", "times": 4},
            {"on": "row", "do": "row_throttled", "times": 5},
            {"on": "row", "do": "row_expired", "times": 6},
            {"on": "row", "do": "refuse", "times": 7},
        ]
    )
    batch = backend.submit(bench.on_root(backend), token())

    status = bench.finish(backend, batch)
    answers = bench.answers(backend, batch)

    found = [(answer.status, answer.retryable) for answer in answers]
    assert status.outcome == "completed"
    assert found.count(("error", False)) == 3
    assert found.count(("error", True)) == 9
    assert found.count(("unanswered", True)) == 6
    assert found.count(("refused", False)) == 7
    assert status.charged == 82 == bench.emulator.bill()["records"]
    assert status.usage == total(answers)


def test_a_completed_job_with_no_row_answered_charged_nothing(bench: Bench) -> None:
    backend = bench.open()
    bench.emulator.faults([{"on": "row", "do": "row_error", "times": "forever"}])
    batch = backend.submit(bench.on_root(backend), token())
    status = bench.finish(backend, batch)
    assert (status.outcome, status.charged, status.usage) == ("completed", 0, Usage())
    assert len(bench.answers(backend, batch)) == 100


def test_discarding_removes_the_copy_and_the_output_and_nothing_else(bench: Bench) -> None:
    backend = bench.open()
    kept = bench.on_root(backend)
    bench.root.write("bedrock/mine.txt", b"mine")
    batches = [backend.submit(kept, token()), backend.submit(bench.shard(backend), token())]
    for batch in batches:
        bench.finish(backend, batch)
        backend.discard(batch)
        backend.discard(batch)

    assert bench.paths() == ["bedrock/mine.txt", "runs/j/w/r/requests/s00001-a1.jsonl"]
    assert kept.open().read()


def test_nothing_is_removed_if_files_are_to_be_kept_or_lie_elsewhere(bench: Bench) -> None:
    backend = bench.open(keep_files=True)
    batch = backend.submit(bench.shard(backend), token())
    bench.finish(backend, batch)
    before = bench.paths()
    backend.discard(batch)
    assert bench.paths() == before

    client = bench.bedrock()
    shard = bench.on_root(backend, name="mine/requests.jsonl")
    theirs = client.create_model_invocation_job(
        jobName="theirs",
        roleArn=ROLE,
        modelId=backend.model,
        modelInvocationType="Converse",
        inputDataConfig={"s3InputDataConfig": {"s3Uri": shard.uri}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"{bench.root.uri}/mine/out/"}},
    )["jobArn"]
    bench.finish(backend, theirs)
    before = bench.paths()
    bench.open().discard(theirs)
    assert bench.paths() == before


def test_a_job_is_read_where_it_wrote_though_the_job_file_has_another_staging_now(bench: Bench) -> None:
    backend = bench.open(staging=f"s3://{bench.bucket}/first")
    batch = backend.submit(bench.shard(backend), token())
    moved = bench.open(staging=f"s3://{bench.bucket}/second")

    assert bench.finish(moved, batch).charged == 100
    assert len(bench.answers(moved, batch)) == 100
    moved.discard(batch)
    assert not list(open_store(f"s3://{bench.bucket}", environ=bench.environ).list("first/"))


def test_what_the_job_file_says_reaches_bedrock(bench: Bench) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"
    vpc = {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1", "sg-2"]}
    backend = bench.open(kms_key=key, vpc=vpc, tags={"team": "data"}, timeout_hours=48, model=HAIKU_45)
    name = token()
    batch = backend.submit(bench.on_root(backend), name)

    client = bench.bedrock()
    job = client.get_model_invocation_job(jobIdentifier=batch)

    assert (job["jobName"], job["clientRequestToken"]) == (name, name)
    assert job["modelInvocationType"] == "Converse"
    assert job["timeoutDurationInHours"] == 48
    assert job["vpcConfig"] == {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1", "sg-2"]}
    assert job["outputDataConfig"]["s3OutputDataConfig"]["s3EncryptionKeyId"] == key
    assert bench.finish(backend, batch).charged == 100


def test_a_schema_is_sent_along_where_the_model_can_hold_to_it(bench: Bench) -> None:
    schema = {
        "type": "object",
        "properties": {"summary": {"type": "string"}},
        "required": ["summary"],
        "additionalProperties": False,
    }
    backend = bench.open(model=HAIKU_45)
    operation = summarize(schema)
    lines = [backend.encode(request_for(number, operation=operation)) for number in range(100)]
    assert "outputConfig" in orjson.loads(lines[0])["modelInput"]

    batch = backend.submit(shard_of(lines), token())
    bench.finish(backend, batch)

    answers = bench.answers(backend, batch)
    assert {answer.status for answer in answers} == {"ok"}


INVOKED = [
    "anthropic.claude-3-haiku-20240307-v1:0",
    "amazon.nova-lite-v1:0",
    "meta.llama3-1-8b-instruct-v1:0",
    "meta.llama4-scout-17b-instruct-v1:0",
    "mistral.mistral-small-2402-v1:0",
    "mistral.mistral-large-2407-v1:0",
    "amazon.titan-text-premier-v1:0",
]


@pytest.mark.parametrize("model", INVOKED)
@pytest.mark.parametrize("invocation", ["invoke", "converse"])
def test_every_family_answers_in_both_forms(bench: Bench, model: str, invocation: str) -> None:
    backend = bench.open(model=model, invocation=invocation, parameters={"temperature": 0.2})
    batch = backend.submit(bench.on_root(backend), token())

    status = bench.finish(backend, batch)
    answers = bench.answers(backend, batch)

    assert status.charged == 100
    assert {answer.status for answer in answers} == {"ok"}, answers[0]
    assert all("harbour" in answer.text for answer in answers)
    if model != "mistral.mistral-small-2402-v1:0" or invocation == "converse":
        assert status.usage == total(answers)


def test_limits_are_the_account_s_own_where_they_are_told(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"quotas": {"jobs": 7, "records_per_job": 1234, "file_bytes": 2_000_000_000}})
    limits = bench.open().limits
    assert (limits.records, limits.live_batches, limits.minimum_records) == (1234, 7, 100)
    assert limits.bytes == 2_000_000_000
    assert limits.tokens is None
    assert bench.open(model="meta.llama4-scout-17b-instruct-v1:0").limits.minimum_records == 50


@pytest.mark.parametrize("trouble", ["denied", "unreachable", "error", "silent"])
def test_limits_are_the_defaults_where_quotas_cannot_be_read(bench: Bench, trouble: str) -> None:
    match trouble:
        case "denied":
            bench.emulator.settings(bedrock={"denied": ["servicequotas:ListServiceQuotas"]})
        case "unreachable":
            bench.environ["AWS_ENDPOINT_URL_SERVICE_QUOTAS"] = "http://127.0.0.1:9"
        case "error":
            bench.emulator.faults([{"on": "list", "do": "error_before", "times": "forever"}])
        case "silent":
            bench.emulator.faults([{"on": "list", "do": "timeout_before", "seconds": 20, "times": "forever"}])
    limits = bench.open().limits
    assert (limits.records, limits.bytes, limits.live_batches) == (50_000, 1_000_000_000, 20)


def test_staging_has_to_be_on_s3(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = open_store(str(tmp_path_factory.mktemp("root")))
    with pytest.raises(
        ConfigError, match=r"^backends\[0\]\.bedrock\.staging: missing; expected .*which Bedrock cannot read"
    ):
        bench.open(root=root)
    backend = bench.open(root=root, staging=f"s3://{bench.bucket}/staging")
    batch = backend.submit(bench.shard(backend), token())
    assert bench.finish(backend, batch).charged == 100


def test_a_backend_is_itself(bench: Bench) -> None:
    backend: Backend = bench.open(parameters={"temperature": 0.5})
    assert (backend.name, backend.provider, backend.region) == ("bedrock", "aws", "us-east-1")
    assert backend.parameters == {"temperature": 0.5, "invocation": "converse", "structured_output": "prompt"}
    assert backend.refusal(summarize()) is None


class Silent:
    """A staging folder in which no output is found."""

    def manifest(self, job: Job) -> None:
        return None

    def written(self, job: Job) -> bool:
        return False


@pytest.mark.parametrize("state", ["Failed", "Expired", "Stopped"])
@pytest.mark.parametrize(
    ("counters", "charged"),
    [
        ({"success_record_count": 300, "processed_record_count": 300}, 300),
        ({"processed_record_count": 300}, 300),
        ({"success_record_count": 0, "error_record_count": 300, "processed_record_count": 300}, 0),
        ({}, 0),
    ],
)
def test_what_the_counters_say_was_charged_though_no_output_is_found(
    bench: Bench, state: str, counters: dict[str, int], charged: int
) -> None:
    backend = bench.open()
    backend._staging = Silent()  # type: ignore[assignment]
    job = msgspec.convert(
        {
            "jobArn": "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/abcdefghijkl",
            "status": state,
            "message": "cannot write: AccessDenied",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://b/i.jsonl"}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://b/o/"}},
            "totalRecordCount": 500,
        },
        Job,
    )
    status = backend._ended(job.job_arn, Look(msgspec.structs.replace(job, **counters), 120.0))
    assert (status.outcome is not None, status.charged) == (True, charged)


def test_a_refused_create_removes_the_copy_that_was_made_for_it_and_nothing_else(bench: Bench) -> None:
    bench.emulator.settings(bedrock={"denied": ["iam:PassRole"]})
    backend, name = bench.open(), token()
    own = bench.on_root(backend)
    with pytest.raises(Terminal, match="iam:PassRole"):
        backend.submit(own, name)
    with pytest.raises(Terminal, match="iam:PassRole"):
        backend.submit(bench.shard(backend), name)
    assert [bench.root.uri_of(path) for path in bench.paths()] == [own.uri]

    # A job whose creation was not confirmed may be reading the copy.
    bench.root.write(f"bedrock/{name}/requests.jsonl", bench.shard(backend).open().read())
    with pytest.raises(Terminal, match="iam:PassRole"):
        backend.submit(bench.shard(backend), name)
    assert f"bedrock/{name}/requests.jsonl" in bench.paths()
