"""Every form of an output line that was seen or is documented, and the answer that it is."""

from __future__ import annotations

import time

import orjson
import pytest

from lowtide.connectors.backends.openai_batch.answers import CUT_OFF, parse_answer
from lowtide.records import Answer


def chat(content="hello", *, finish="stop", refusal=None, **more):
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1722477079,
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {
            "prompt_tokens": 27,
            "completion_tokens": 24,
            "total_tokens": 51,
            "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
        **more,
    }


def response(parts, *, status="completed", incomplete=None, **more):
    return {
        "id": "resp_1",
        "created_at": 1762445017.0,
        "status": status,
        "error": None,
        "incomplete_details": incomplete,
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": parts},
        ],
        "usage": {
            "input_tokens": 16,
            "input_tokens_details": {"cached_tokens": 3},
            "output_tokens": 25,
            "output_tokens_details": {"reasoning_tokens": 4},
        },
        **more,
    }


def parse(body=None, status=200, *, error=None, custom_id="r1", **more):
    row = {"id": "batch_req_1", "custom_id": custom_id, "response": None, "error": error, **more}
    if body is not None or status != 200:
        row["response"] = {"status_code": status, "request_id": "x", "body": body}
    return parse_answer(orjson.dumps(row))


def test_a_chat_completion_is_an_answer_with_its_tokens():
    assert parse(chat("hello")) == Answer("r1", "ok", "hello", "", False, 27, 24, 5, 7, 1722477079.0)


def test_a_response_is_an_answer_with_its_tokens():
    answer = parse(response([{"type": "output_text", "text": "hel"}, {"type": "output_text", "text": "lo"}]))
    assert answer == Answer("r1", "ok", "hello", "", False, 16, 25, 3, 4, 1762445017.0)


def test_a_line_needs_no_id_and_no_usage_details():
    body = {**chat(), "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None}}
    row = {"custom_id": "r1", "response": {"status_code": 200, "body": body}}
    answer = parse_answer(orjson.dumps(row))
    assert (answer.status, answer.input_tokens, answer.output_tokens) == ("ok", 3, 2)


def test_a_body_may_be_json_inside_a_string():
    assert parse(orjson.dumps(chat("hello")).decode()).text == "hello"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (chat(None, refusal="I cannot help with that"), "I cannot help with that"),
        (chat("I", finish="content_filter"), "I"),
        (response([{"type": "refusal", "refusal": "No"}]), "No"),
        (response([], status="incomplete", incomplete={"reason": "content_filter"}), ""),
    ],
)
def test_what_was_refused_after_it_was_processed_is_refused_and_keeps_its_tokens(body, text):
    answer = parse(body)
    assert (answer.status, answer.text, answer.retryable) == ("refused", text, False)
    assert answer.input_tokens > 0
    assert answer.error


@pytest.mark.parametrize(
    "body",
    [
        chat('{"summary": "The bri', finish="length"),
        chat("", finish="length"),
        response([], status="incomplete", incomplete={"reason": "max_output_tokens"}),
    ],
)
def test_an_answer_that_was_cut_off_is_not_asked_again(body):
    answer = parse(body)
    assert (answer.status, answer.error, answer.retryable) == ("error", CUT_OFF, False)
    assert answer.output_tokens > 0


@pytest.mark.parametrize(
    "error",
    [
        {"code": "content_filter", "message": "filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"code": "400", "message": "filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"code": "content_policy_violation", "message": "filtered"},
    ],
)
def test_a_prompt_that_the_filter_stopped_is_refused(error):
    assert parse({"error": error}, 400).status == "refused"


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False), (401, False), (404, False), (413, False), (422, False),
        (408, True), (409, True), (429, True), (500, True), (503, True),
    ],
)  # fmt: skip
def test_a_rejected_row_is_told_by_its_status_though_its_error_is_null(status, retryable):
    answer = parse({"error": {"code": "some_code", "message": "some   message"}}, status, error=None)
    assert (answer.status, answer.retryable) == ("error", retryable)
    assert answer.error == f"HTTP {status}, some_code: some message"


def test_a_rejected_row_may_have_its_error_beside_the_response_or_at_the_top_of_the_body():
    beside = parse(None, 500, error={"code": "server_error", "message": "oh"})
    assert (beside.error, beside.retryable) == ("HTTP 500, server_error: oh", True)
    bare = parse({"code": "InvalidRequest", "message": "no"}, 400)
    assert (bare.error, bare.retryable) == ("HTTP 400, invalidrequest: no", False)
    assert parse("", 503).retryable


def test_a_long_message_is_cut():
    assert len(parse({"error": {"message": "x" * 10_000}}, 400).error) < 250


@pytest.mark.parametrize("code", ["batch_expired", "batch_cancelled"])
def test_what_the_batch_did_not_get_to_was_never_answered(code):
    answer = parse(error={"code": code, "message": "This request could not be executed"})
    assert (answer.status, answer.retryable) == ("unanswered", False)
    assert parse(None, 400, error={"code": code}).status == "unanswered"


@pytest.mark.parametrize(
    ("code", "retryable"), [("server_error", True), ("mock_failure", True), ("context_length_exceeded", False)]
)
def test_an_error_without_a_response_is_asked_again_unless_its_code_is_final(code, retryable):
    answer = parse(error={"code": code, "message": "m"})
    assert (answer.status, answer.error, answer.retryable) == ("error", f"{code}: m", retryable)


def test_a_response_that_failed_inside_is_an_error():
    body = response([], status="failed", error={"code": "server_error", "message": "oh"})
    answer = parse(body)
    assert (answer.status, answer.retryable) == ("error", True)


@pytest.mark.parametrize("line", [b"", b"  \r", b"{}", b'{"id": "x", "error": null}'])
def test_a_line_that_answers_no_record_is_none(line):
    assert parse_answer(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "r1", "resp',
        b"not json",
        b'"a string"',
        b'{"custom_id": "r1"}',
        b'{"custom_id": "r1", "response": {"status_code": "ok", "body": {}}}',
        b'{"custom_id": "r1", "response": {"status_code": 200, "body": {}}}',
        b'{"custom_id": "r1", "response": {"status_code": 200, "body": "not json"}}',
        b'{"custom_id": 7, "response": {"status_code": 200, "body": {}}}',
        b"\xff\xfe",
        b'{"custom_id": "r1", "response": ' + b"[" * 100_000,
    ],
)
def test_a_broken_line_raises(line):
    with pytest.raises(ValueError):  # noqa: PT011 - any, and nothing else
        parse_answer(line)


def test_a_byte_order_mark_and_a_carriage_return_do_no_harm():
    row = orjson.dumps({"custom_id": "r1", "response": {"status_code": 200, "body": chat("hello")}})
    assert parse_answer(b"\xef\xbb\xbf" + row + b"\r").text == "hello"


def test_200_000_lines_take_seconds_not_minutes():
    line = orjson.dumps({"custom_id": "r1", "response": {"status_code": 200, "body": chat("word " * 60)}})
    started = time.process_time()
    for _ in range(20_000):
        parse_answer(line)
    # 0.1 s on an idle core; a JSON module that builds dicts takes ten times that.
    assert time.process_time() - started < 2


@pytest.mark.parametrize("tokens", [-1, -(10**6), 2**40 + 1, 10**30, 1e30, -0.5])
def test_tokens_that_no_answer_can_have_break_the_line(tokens):
    for name in (b'"prompt_tokens":', b'"completion_tokens":', b'"cached_tokens":', b'"reasoning_tokens":'):
        row = orjson.dumps({"custom_id": "r1", "response": {"status_code": 200, "body": chat()}})
        head, found, rest = row.partition(name)
        assert found
        with pytest.raises(ValueError, match=r"Expected|range"):
            parse_answer(head + found + str(tokens).encode() + rest.lstrip(b"0123456789"))


@pytest.mark.parametrize(("created", "found"), [(-1, 0.0), (1e300, 0.0), (4e9 + 1, 0.0), (1.7e9, 1.7e9), (10**18, 0.0)])
def test_a_time_that_cannot_be_is_not_known(created, found):
    assert parse(chat(created=created)).answered_at == found
