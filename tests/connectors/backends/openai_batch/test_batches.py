"""A batch as providers show it, in every spelling that was seen, and what the engine is told of it."""

from __future__ import annotations

import pytest

from lowtide.connectors.backends.openai_batch.batches import read_batch, status_of
from lowtide.records import Usage

BASE = {"id": "batch_1", "object": "batch", "status": "completed", "created_at": 1722476583, "endpoint": None}


def status(**fields):
    return status_of(read_batch({**BASE, **fields}))


def counts(completed, failed, total):
    return {"completed": completed, "failed": failed, "total": total}


def failed(*codes, **more):
    data = [{"code": code, "message": f"about {code}", "line": 3} for code in codes]
    return status(status="failed", errors={"object": "list", "data": data}, **more)


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("validating", None), ("Validating", None), ("in_progress", None), ("finalizing", None), ("cancelling", None),
        ("notStarted", None), ("completed", "completed"), ("Completed", "completed"), ("failed", "failed"),
        ("EXPIRED", "expired"), ("cancelled", "cancelled"), ("canceled", "cancelled"),
    ],
)  # fmt: skip
def test_states_are_compared_in_lower_case_and_unknown_ones_have_not_ended(word, outcome):
    found = status(status=word, request_counts=counts(2, 1, 3))
    assert found.outcome == outcome
    assert found.provider_state == word.lower()
    assert found.answered == 3


def test_a_batch_without_a_status_has_not_ended():
    assert status_of(read_batch({"id": "b1"})).outcome is None


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        (1722476583, 1722476583.0), (1722476583.5, 1722476583.5), ("1722476583", 1722476583.0),
        ("2024-08-01T01:43:03Z", 1722476583.0), ("2024-08-01T01:43:03", 1722476583.0), ("yesterday", None),
        (None, None), ([], None), (True, None),
    ],
)  # fmt: skip
def test_timestamps_are_numbers_or_iso_strings_or_nothing(created, seconds):
    assert read_batch({**BASE, "created_at": created}).created_at == seconds


@pytest.mark.parametrize("nothing", [None, "", 0, {}])
def test_a_file_that_is_not_there_is_spelt_in_several_ways(nothing):
    batch = read_batch(
        {**BASE, "output_file_id": nothing, "error_file_id": nothing, "errors": nothing, "usage": nothing}
    )
    assert (batch.output_file, batch.error_file, batch.faults, batch.usage) == ("", "", (), None)


@pytest.mark.parametrize("data", [None, [], "x", {}, {"id": ""}, {"status": "completed"}, {"id": 3, "status": "x"}])
def test_what_is_no_batch_is_refused(data):
    with pytest.raises(ValueError, match="no "):
        read_batch(data)


@pytest.mark.parametrize(
    ("fields", "charged"),
    [
        ({"request_counts": counts(3, 0, 3)}, 3),
        ({"request_counts": counts(2, 1, 3)}, 2),
        ({"status": "expired", "request_counts": counts(2, 0, 3), "output_file_id": "f"}, 2),
        ({"status": "cancelled", "request_counts": counts(0, 0, 3)}, 0),
        # Not said, or not to be believed: zeros beside answers, and sums that leave records open.
        ({}, None),
        ({"request_counts": counts(None, None, 10)}, None),
        ({"request_counts": counts(0, 0, 0), "output_file_id": "f"}, None),
        ({"request_counts": counts(0, 0, 3)}, None),
        ({"request_counts": counts(2, 0, 3)}, None),
        ({"request_counts": counts(5, 0, 3)}, None),
        ({"status": "cancelled", "request_counts": counts(0, 0, 3), "output_file_id": "f"}, None),
        ({"status": "in_progress", "request_counts": counts(2, 0, 3)}, None),
    ],
)
def test_what_was_charged_is_told_only_where_the_counts_can_be_believed(fields, charged):
    assert status(**fields).charged == charged


def test_a_batch_that_failed_before_it_began_was_charged_nothing():
    # As in Azure's documentation: files are named, counts are null.
    found = failed("empty_file", request_counts=counts(None, None, 10), output_file_id="f", error_file_id="g")
    assert found.charged == 0


def test_a_batch_that_failed_in_the_middle_was_charged_what_it_answered():
    found = failed("server_error", request_counts=counts(4, 0, 10), output_file_id="f")
    assert (found.charged, found.fault) == (4, "")


def test_usage_is_the_providers_own_total():
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 20},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 30},
        "total_tokens": 150,
    }
    assert status(usage=usage).usage == Usage(100, 50, 20, 30)
    assert status(usage={"input_tokens": 100, "output_tokens": 50}).usage == Usage(100, 50)
    assert status(usage={"input_tokens": 0, "output_tokens": 0}).usage is None


@pytest.mark.parametrize(
    ("code", "fault", "said"),
    [
        ("token_limit_exceeded", "quota", "enqueued_tokens"),
        ("duplicate_custom_id", "fatal", "bug of Lowtide"),
        ("invalid_json_line", "fatal", "bug of Lowtide"),
        ("empty_file", "fatal", "bug of Lowtide"),
        ("too_many_tasks", "fatal", "bug of Lowtide"),
        ("url_mismatch", "fatal", "bug of Lowtide"),
        ("model_mismatch", "fatal", "bug of Lowtide"),
        ("model_not_found", "fatal", "check the model's or the deployment's name"),
        ("invalid_request", "fatal", "check model, parameters and call"),
        ("input_no_permissions", "fatal", "Storage Blob Data Contributor"),
        ("input_modified", "", "about input_modified"),
        ("server_error", "", "about server_error"),
    ],
)
def test_each_code_of_a_failed_batch_says_whether_asking_again_helps(code, fault, said):
    found = failed(code)
    assert found.fault == fault
    assert said in found.reason
    assert code in found.reason


def test_a_full_quota_may_be_told_in_words_only():
    data = [{"code": None, "message": "Enqueued token limit reached for gpt-4o in organization org-1."}]
    assert status(status="failed", errors={"data": data}).fault == "quota"


def test_many_faults_are_shortened():
    found = failed(*["invalid_json_line"] * 100)
    assert found.reason.count("about invalid_json_line") == 1
    assert "(line 3): about invalid_json_line; and 99 more lines like it (" in found.reason
    kinds = failed(*["model_not_found"] * 2, "a", "b", "c", "c")
    assert "about model_not_found; and 1 more line like it; a (line" in kinds.reason
    assert "; and 2 more (" in kinds.reason


@pytest.mark.parametrize("number", [1e300, float("inf"), 2**41])
def test_totals_that_cannot_be_are_not_known(number):
    assert status(usage={"input_tokens": number, "output_tokens": 5}).usage is None


def test_faults_in_forms_that_nobody_promised_do_no_harm():
    for errors in ({"data": None}, {"data": ["x", None]}, [{"code": "empty_file"}], "x"):
        assert status(status="failed", errors=errors).outcome == "failed"
