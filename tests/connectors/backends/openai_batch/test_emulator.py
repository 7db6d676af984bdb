"""Both providers as the emulators show them, with everything that goes wrong there; the bill says what was paid."""

from __future__ import annotations

import time

import orjson
import pytest
from support.openai_support import (
    answers_of,
    azure_backend,
    ended,
    openai_backend,
    outputs_of,
    prompt,
    raw_shard,
    request_of,
    shard_of,
    summarize,
)

from lowtide.errors import QuotaFull, SubmitUnknown, Terminal, Transient

BACKENDS = {
    "openai": openai_backend,
    "azure": azure_backend,
    "azure dated": lambda url, **more: azure_backend(url, api="2025-04-01-preview", **more),
}


@pytest.fixture(params=list(BACKENDS))
def backend(request, emulator):
    return BACKENDS[request.param](emulator.url)


def requests(count=40):
    return [request_of(at, f"Document {at} tells of a bridge.") for at in range(count)]


def submitted(backend, count=40, name="lt-token-s00001-a1"):
    return backend.submit(shard_of(backend, requests(count)), name)


def service_of(backend):
    return backend.provider


def fault(on, do, **more):
    return {"on": on, "do": do, **more}


@pytest.mark.parametrize("call", ["chat", "responses"])
@pytest.mark.parametrize("which", list(BACKENDS))
def test_a_batch_goes_all_the_way_and_its_tokens_are_the_bills(emulator, which, call):
    backend = BACKENDS[which](emulator.url, call=call)
    batch_id = submitted(backend)
    status = ended(backend, batch_id)
    assert (status.outcome, status.answered, status.charged, status.fault) == ("completed", 40, 40, "")
    answers = answers_of(backend, batch_id)
    assert len(answers) == 40
    for answer in answers.values():
        assert answer.status == "ok"
        assert orjson.loads(answer.text).keys() == {"summary"}
        assert answer.answered_at > 1.7e9
    charges = {charge["record_id"]: charge for charge in emulator.charges(batch_id)}
    assert charges.keys() == answers.keys()
    for record_id, answer in answers.items():
        charge = charges[record_id]
        assert [answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.reasoning_tokens] == [
            charge[name] for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
        ]
    if status.usage is not None:
        assert status.usage.input_tokens == sum(charge["input_tokens"] for charge in charges.values())
        assert status.usage.output_tokens == sum(charge["output_tokens"] for charge in charges.values())
    assert (status.usage is not None) == (service_of(backend) == "openai")


@pytest.mark.parametrize("do", ["error_after", "reset_after", "timeout_after"])
def test_a_create_call_that_fails_after_it_was_accepted_is_found_and_was_sent_once(emulator, backend, do):
    emulator.faults([fault("create", do, seconds=0.2)])
    with pytest.raises(SubmitUnknown):
        submitted(backend, name="lost")
    [batch_id] = backend.find("lost")
    assert ended(backend, batch_id).outcome == "completed"
    assert len(answers_of(backend, batch_id)) == 40
    assert emulator.bill()["most_billed"] == 1
    assert backend.find("another") == []


@pytest.mark.parametrize("do", ["error_before", "reset_before", "timeout_before"])
def test_a_create_call_that_fails_before_it_was_accepted_is_not_found(emulator, backend, do):
    emulator.faults([fault("create", do, seconds=0.2)])
    with pytest.raises(SubmitUnknown):
        submitted(backend, name="lost")
    assert backend.find("lost") == []
    ended(backend, submitted(backend, name="lost"))
    assert emulator.bill()["most_billed"] == 1


@pytest.mark.parametrize("do", ["error_before", "error_after", "reset_before", "reset_after", "throttle"])
def test_an_upload_that_fails_costs_nothing_and_can_be_tried_again(emulator, backend, do):
    emulator.faults([fault("upload", do)])
    with pytest.raises(Transient):
        submitted(backend)
    assert backend.find("lt-token-s00001-a1") == []
    assert ended(backend, submitted(backend)).charged == 40


def test_a_full_quota_is_told_at_create_or_afterwards(emulator):
    fast, slow = (azure_backend(f"{emulator.url}/azure/{name}") for name in ("fast", "slow"))
    emulator.settings(
        openai={
            "resources": {
                name: {
                    "deployments": {"gpt-4.1-mini-batch": {"model": "gpt-4.1-mini", "enqueued_tokens": 50}},
                    "fail_fast": name == "fast",
                }
                for name in ("fast", "slow")
            }
        }
    )
    with pytest.raises(QuotaFull, match="token_limit_exceeded"):
        submitted(fast)
    status = ended(slow, submitted(slow))
    assert (status.outcome, status.fault, status.charged) == ("failed", "quota", 0)
    with pytest.raises(QuotaFull, match="asked again in"):
        submitted(slow, name="next")
    assert emulator.bill()["records"] == 0


def test_a_throttled_create_has_accepted_nothing(emulator, backend):
    emulator.faults([fault("create", "throttle")])
    with pytest.raises(QuotaFull):
        submitted(backend, name="throttled")
    assert backend.find("throttled") == []


def test_throttled_and_failing_looks_are_repeated_or_passing(emulator, backend):
    batch_id = submitted(backend)
    emulator.faults([fault(["get", "list", "download"], "throttle", times=1, seconds=0.05)])
    assert backend.poll(batch_id).provider_state
    emulator.faults([fault(["get", "list", "download"], "error_before", times="forever")])
    for look in (lambda: backend.poll(batch_id), lambda: backend.find("x"), lambda: outputs_of(backend, batch_id)):
        with pytest.raises(Transient):
            look()


def test_an_output_file_that_is_gone_once_is_there_the_next_time(emulator, backend):
    batch_id = submitted(backend)
    ended(backend, batch_id)
    emulator.faults([fault("download", "not_found")])
    with pytest.raises(Transient, match="404"):
        outputs_of(backend, batch_id)
    assert len(answers_of(backend, batch_id)) == 40


def test_a_download_that_breaks_off_is_passing(emulator, backend):
    batch_id = submitted(backend)
    ended(backend, batch_id)
    emulator.faults([fault("download", "reset_before", times=3)])
    with pytest.raises(Transient):
        outputs_of(backend, batch_id)
    assert len(answers_of(backend, batch_id)) == 40


@pytest.mark.parametrize("do", ["upper_case", "iso_times", "empty_file_ids"])
def test_a_batch_in_another_spelling_is_the_same_batch(emulator, backend, do):
    emulator.faults([fault(["create", "get", "list"], do, times="forever")])
    batch_id = submitted(backend, name="spelt")
    status = ended(backend, batch_id)
    assert (status.outcome, status.provider_state, status.charged) == ("completed", "completed", 40)
    assert backend.find("spelt") == [batch_id]
    assert len(answers_of(backend, batch_id)) == 40
    backend.discard(batch_id)


@pytest.mark.parametrize("empty", ["file", "blank", "null"])
def test_an_error_file_may_be_empty_or_absent(emulator, empty):
    emulator.settings(openai={"empty_error_file": empty})
    backend = azure_backend(emulator.url)
    batch_id = submitted(backend)
    ended(backend, batch_id)
    assert outputs_of(backend, batch_id).get("errors.jsonl", b"") == b""
    assert len(answers_of(backend, batch_id)) == 40
    backend.discard(batch_id)


def test_a_completed_batch_whose_rows_all_failed_has_their_errors(emulator, backend):
    emulator.faults([fault("row", "row_error", times="forever")])
    batch_id = submitted(backend)
    status = ended(backend, batch_id)
    answers = answers_of(backend, batch_id)
    assert (status.outcome, status.charged, len(answers)) == ("completed", 0, 40)
    assert {(answer.status, answer.retryable) for answer in answers.values()} == {("error", False)}
    assert all("400" in answer.error for answer in answers.values())


@pytest.mark.parametrize(
    ("do", "status", "retryable"),
    [
        ("row_server_error", "error", True),
        ("row_throttled", "error", True),
        ("row_expired", "unanswered", False),
        ("refuse", "refused", False),
    ],
)
def test_a_row_that_was_not_answered_says_why(emulator, backend, do, status, retryable):
    emulator.faults([fault("row", do, rate=0.5, times="forever")])
    batch_id = submitted(backend)
    counted = ended(backend, batch_id)
    answers = answers_of(backend, batch_id).values()
    told = [answer for answer in answers if answer.status != "ok"]
    assert 5 < len(told) < 35
    assert len(answers) == 40
    assert {(answer.status, answer.retryable) for answer in told} == {(status, retryable)}
    billed = len(emulator.charges(batch_id))
    assert counted.charged == billed


def test_half_of_an_expired_batch_is_kept_and_charged(emulator, backend):
    emulator.faults([fault("process", "expire")])
    batch_id = submitted(backend)
    status = ended(backend, batch_id)
    answers = answers_of(backend, batch_id).values()
    assert (status.outcome, status.charged) == ("expired", 20)
    assert "expired" in status.reason
    assert sorted(answer.status for answer in answers) == ["ok"] * 20 + ["unanswered"] * 20


def test_a_batch_that_failed_in_the_middle_has_partial_answers(emulator, backend):
    emulator.faults([fault("process", "partial")])
    batch_id = submitted(backend)
    status = ended(backend, batch_id)
    assert (status.outcome, status.charged, status.fault) == ("failed", 20, "")
    assert sum(answer.status == "ok" for answer in answers_of(backend, batch_id).values()) == 20


def test_a_cancelled_batch_keeps_what_was_answered(emulator, backend):
    emulator.settings(openai={"processing_seconds": 400.0})
    batch_id = submitted(backend)
    end = time.monotonic() + 30
    while backend.poll(batch_id).answered < 3 and time.monotonic() < end:
        time.sleep(0.05)
    backend.cancel(batch_id)
    backend.cancel(batch_id)
    status = ended(backend, batch_id)
    answers = [answer for answer in answers_of(backend, batch_id).values() if answer.status == "ok"]
    assert status.outcome == "cancelled"
    assert 3 <= len(answers) < 40
    assert status.charged == len(answers) == len(emulator.charges(batch_id))
    backend.cancel(batch_id)


def test_a_lost_line_was_charged_nonetheless(emulator, backend):
    emulator.faults([fault("row", "lose", times=3)])
    batch_id = submitted(backend)
    status = ended(backend, batch_id)
    assert (len(answers_of(backend, batch_id)), status.charged) == (37, 40)


@pytest.mark.parametrize(
    ("code", "kind"), [("duplicate_custom_id", "fatal"), ("token_limit_exceeded", "quota"), ("input_modified", "")]
)
def test_a_batch_that_fails_in_validation_says_whether_asking_again_helps(emulator, backend, code, kind):
    emulator.faults([fault("validate", "fail_validation", code=code, message="as told")])
    status = ended(backend, submitted(backend))
    assert (status.outcome, status.fault) == ("failed", kind)
    assert code in status.reason
    assert status.charged in {0, None}


@pytest.mark.parametrize("which", ["openai", "azure"])
def test_a_model_that_is_not_there_is_a_matter_for_the_user(emulator, which):
    wrong = {"openai": {"model": "no-such-model"}, "azure": {"deployment": "no-such-deployment"}}[which]
    backend = BACKENDS[which](emulator.url, **wrong)
    status = ended(backend, submitted(backend))
    assert (status.outcome, status.fault) == ("failed", "fatal")
    assert "model_not_found" in status.reason
    assert "check the model's or the deployment's name" in status.reason


def test_files_are_deleted_after_collection_and_again_without_harm(emulator, backend):
    batch_id = submitted(backend)
    ended(backend, batch_id)
    before = emulator.calls()["counts"]
    backend.discard(batch_id)
    with pytest.raises(Transient, match="404"):
        outputs_of(backend, batch_id)
    backend.discard(batch_id)
    assert before != emulator.calls()["counts"]


def test_kept_files_stay(emulator):
    backend = openai_backend(emulator.url, keep_files=True)
    batch_id = submitted(backend)
    ended(backend, batch_id)
    backend.discard(batch_id)
    assert len(answers_of(backend, batch_id)) == 40


def test_azure_is_waited_for_until_it_has_processed_the_file(emulator):
    emulator.settings(openai={"file_seconds": 25.0})
    backend = azure_backend(emulator.url)
    assert ended(backend, submitted(backend)).outcome == "completed"


def test_a_batch_that_listings_do_not_show_yet_is_found_later(emulator, backend):
    emulator.settings(openai={"visible_after": 3600})
    batch_id = submitted(backend, name="new")
    assert backend.find("new") == []
    emulator.clock(advance=3600)
    assert backend.find("new") == [batch_id]


def test_more_batches_than_a_page_are_looked_through(emulator):
    backend = openai_backend(emulator.url)
    ids = [submitted(backend, 1, name=f"token-{at}") for at in range(130)]
    assert backend.find("token-0") == ids[:1]
    assert backend.find("token-129") == ids[129:]


def test_an_answer_that_was_cut_off_is_told(emulator, backend):
    cut = [request_of(1, operation=summarize(max_output_tokens=1)), request_of(2, operation=prompt(1))]
    batch_id = backend.submit(shard_of(backend, cut), "cut")
    ended(backend, batch_id)
    assert {answer.status for answer in answers_of(backend, batch_id).values()} == {"error"}


def test_a_shard_over_the_limit_is_never_sent(backend):
    line = backend.encode(request_of(1))
    with pytest.raises(Terminal, match="bug of Lowtide"):
        backend.submit(raw_shard([line] * 100_001), "large")


@pytest.mark.parametrize("which", ["openai", "azure"])
def test_each_thing_that_is_missing_is_named(emulator, which):
    good = {finding.name: finding for finding in BACKENDS[which](emulator.url).examine()}
    model = "model" if which == "openai" else "deployment"
    assert list(good) == ["credentials", "files", "batches", model, "quota"]
    assert all(finding.ok for finding in good.values())
    wrong = {"openai": {"model": "no-such"}, "azure": {"deployment": "no-such"}}[which]
    found = {finding.name: finding for finding in BACKENDS[which](emulator.url, **wrong).examine()}
    assert not found[model].ok
    assert "no-such" in found[model].found
    gone = {finding.name: finding for finding in BACKENDS[which]("http://127.0.0.1:9").examine()}
    assert not any(finding.ok for name, finding in gone.items() if name not in {"credentials", "quota"})
