"""Output lines: every family's answers, every kind of error, and lines that are none."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.connectors.backends.bedrock.answers import LOST, parse, parse_manifest
from lowtide.connectors.backends.bedrock.asking import lost
from lowtide.records import Answer, Usage


def line(**fields: object) -> bytes:
    return orjson.dumps({"recordId": "r1", "modelInput": {"messages": ["x"]}, **fields})


def read(**fields: object) -> Answer:
    answer = parse(line(**fields))
    assert answer is not None
    return answer


def converse(text: str = "yes", reason: str = "end_turn", **usage: object) -> dict[str, Any]:
    block = {"text": text, "image": None, "toolUse": None, "reasoningContent": None}
    counts = {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14, **usage}
    return {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": reason,
        "usage": counts,
        "metrics": None,
        "trace": None,
    }


def test_converse_with_nulls_spelt_out() -> None:
    assert read(modelOutput=converse(), error=None) == Answer("r1", "ok", "yes", input_tokens=10, output_tokens=4)


def test_text_blocks_are_joined_and_others_left_out() -> None:
    output = converse()
    output["output"]["message"]["content"] = [
        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
        {"text": "a"},
        {"text": None},
        {"text": "b"},
    ]
    assert read(modelOutput=output).text == "ab"


def test_what_was_read_from_a_cache_is_part_of_the_input() -> None:
    answer = read(modelOutput=converse(cacheReadInputTokens=100, cacheWriteInputTokens=7))
    assert (answer.input_tokens, answer.cached_tokens, answer.output_tokens) == (117, 100, 4)


@pytest.mark.parametrize("reason", ["content_filtered", "guardrail_intervened"])
def test_what_a_filter_stopped_is_refused(reason: str) -> None:
    answer = read(modelOutput=converse("no", reason))
    assert (answer.status, answer.text, answer.retryable, answer.input_tokens) == ("refused", "no", False, 10)
    without = converse(reason=reason)
    without["output"] = None
    assert read(modelOutput=without).status == "refused"


def test_an_answer_that_was_cut_off_is_for_the_validator_to_judge() -> None:
    cut = read(modelOutput=converse("{", "max_tokens"))
    assert (cut.status, cut.retryable) == ("error", False)
    assert "max_output_tokens" in cut.error


FAMILIES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "anthropic": (
        {
            "content": [{"type": "text", "text": "yes"}],
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 3,
                "output_tokens": 2,
                "cache_read_input_tokens": 5,
                "cache_creation_input_tokens": 1,
            },
        },
        (9, 2, 5),
    ),
    "nova": (
        {
            "output": {"message": {"content": [{"text": "yes"}], "role": "assistant"}},
            "stopReason": "end_turn",
            "usage": {
                "inputTokens": 3,
                "outputTokens": 2,
                "cacheReadInputTokenCount": 5,
                "cacheWriteInputTokenCount": 1,
            },
        },
        (9, 2, 5),
    ),
    "llama": (
        {"generation": "yes", "prompt_token_count": 3, "generation_token_count": 2, "stop_reason": "stop"},
        (3, 2, 0),
    ),
    "mistral": ({"outputs": [{"text": "yes", "stop_reason": "stop"}]}, (0, 0, 0)),
    "mistral-chat": (
        {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        },
        (3, 2, 0),
    ),
    "titan": (
        {
            "inputTextTokenCount": 3,
            "results": [{"tokenCount": 2, "outputText": "yes", "completionReason": "FINISHED"}],
        },
        (3, 2, 0),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_s_answer(family: str) -> None:
    output, tokens = FAMILIES[family]
    answer = read(modelOutput=output)
    assert (answer.status, answer.text) == ("ok", "yes")
    assert (answer.input_tokens, answer.output_tokens, answer.cached_tokens) == tokens


def test_each_family_s_refusal() -> None:
    assert read(modelOutput={"content": [], "stop_reason": "refusal"}).status == "refused"
    titan = {"results": [{"outputText": "", "tokenCount": 0, "completionReason": "CONTENT_FILTERED"}]}
    assert read(modelOutput=titan).status == "refused"


def test_an_output_of_no_known_form_is_an_error_and_not_asked_again() -> None:
    answer = read(modelOutput={"something": 1})
    assert (answer.status, answer.retryable, answer.error) == (
        "error",
        False,
        "the model's output has a form that is not known",
    )


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"errorCode": 400, "errorMessage": "bad"}, False),
        ({"errorCode": 403, "errorMessage": "bad"}, False),
        ({"errorCode": 408, "errorMessage": "bad"}, True),
        ({"errorCode": 429, "errorMessage": "bad"}, True),
        ({"errorCode": 500, "errorMessage": "bad"}, True),
        ({"errorCode": 503, "errorMessage": "bad"}, True),
        ({"errorCode": "400", "errorMessage": "bad"}, False),
        ({"errorCode": "503", "errorMessage": "bad"}, True),
        ({"errorCode": "ValidationException", "errorMessage": "bad"}, False),
        ({"errorCode": "ThrottlingException", "errorMessage": "bad"}, True),
        ({"errorCode": "InternalServerException", "errorMessage": "bad"}, True),
        ({"errorMessage": "bad"}, True),
        ({}, True),
    ],
)
def test_errors_and_which_are_worth_another_attempt(error: dict[str, Any], retryable: bool) -> None:
    answer = read(error=error)
    assert (answer.status, answer.retryable, answer.input_tokens) == ("error", retryable, 0)
    assert answer.error


def test_a_record_for_which_there_was_no_time_is_unanswered() -> None:
    answer = read(modelOutput=None, error={"errorCode": 408, "errorMessage": "late", "expired": True})
    assert (answer.status, answer.error) == ("unanswered", "late")
    assert read(error={"errorCode": 400, "errorMessage": "x", "expired": False}).status == "error"


def test_an_answer_lost_on_demand_is_final() -> None:
    answer = parse(lost("r1"))
    assert answer == Answer("r1", "error", error=LOST, retryable=False)


def test_a_long_message_is_cut() -> None:
    assert len(read(error={"errorCode": 400, "errorMessage": "x" * 5000}).error) < 600


def test_the_manifest_is_no_record() -> None:
    manifest = {
        "totalRecordCount": 100,
        "processedRecordCount": 100,
        "successRecordCount": 99,
        "errorRecordCount": 1,
        "inputTokenCount": 50,
        "outputTokenCount": 20,
        "cacheReadInputTokenCount": 8,
    }
    assert parse(orjson.dumps(manifest)) is None
    found = parse_manifest(orjson.dumps(manifest))
    assert found is not None
    assert found.success_record_count == 99
    assert found.usage == Usage(input_tokens=58, output_tokens=20, cached_tokens=8)


def test_a_manifest_that_cannot_be_right_says_nothing() -> None:
    zeros = {"successRecordCount": 99, "inputTokenCount": 0, "outputTokenCount": 0}
    found = parse_manifest(orjson.dumps(zeros))
    assert found is not None
    assert found.usage is None
    without = parse_manifest(b'{"successRecordCount": 99}')
    assert without is not None
    assert without.usage is None
    assert parse_manifest(b'{"successRecordCount": 9') is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"recordId": "r1"}',
        b'{"recordId": "r1", "modelOutput": null, "error": null}',
        b'{"modelOutput": {"generation": "x"}}',
        b'{"recordId": 5, "error": {}}',
        b'{"recordId": "r1", "modelOutput": {"output": {"message": {"content": [{"te',
        b'{"recordId": "r1", "modelOutput": {"usage": {"inputTokens": "many"}}}',
        b'{"recordId": "r1", "error": {"errorCode": 400}} trailing',
        b"\xff\xfe{}",
    ],
)
def test_a_broken_line_is_a_value_error(broken: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's own
        parse(broken)


@settings(max_examples=500, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "recordId",
                        "modelOutput",
                        "error",
                        "output",
                        "message",
                        "content",
                        "text",
                        "usage",
                        "errorCode",
                        "results",
                        "choices",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_no_line_raises_anything_else(value: object) -> None:
    try:
        answer = parse(orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS) if _fits(value) else b"1")
    except ValueError:
        return
    assert answer is None or answer.record_id is not None


def _fits(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(cut=st.integers(0, 400), noise=st.binary(max_size=4))
def test_a_line_that_is_cut_or_garbled_is_never_taken_for_another_record_s(cut: int, noise: bytes) -> None:
    whole = line(modelOutput=converse("a long enough answer " * 5))
    damaged = whole[:cut] + noise + whole[cut + len(noise) :]
    try:
        answer = parse(damaged[: max(cut, 1)])
    except ValueError:
        return
    assert answer is None or cut >= len(whole)


@pytest.mark.parametrize("tokens", [-1, -(10**6), 2**40 + 1, 10**30, 1e30])
def test_tokens_that_no_answer_can_have_break_the_line(tokens: float) -> None:
    outputs: list[dict[str, Any]] = [
        converse(inputTokens=1234567),
        converse(cacheReadInputTokens=1234567),
        {"content": [{"text": "x"}], "usage": {"output_tokens": 1234567}},
        {"generation": "x", "prompt_token_count": 1234567},
        {"inputTextTokenCount": 1, "results": [{"outputText": "x", "tokenCount": 1234567}]},
    ]
    for output in outputs:
        good = line(modelOutput=output)
        assert parse(good) is not None
        with pytest.raises(ValueError, match=r"Expected|range"):
            parse(good.replace(b"1234567", str(tokens).encode()))
    manifest = b'{"totalRecordCount": 3, "inputTokenCount": %s, "outputTokenCount": 2}'
    assert parse_manifest(manifest % b"5") is not None
    assert parse_manifest(manifest % str(tokens).encode()) is None


@pytest.mark.parametrize(("at", "found"), [(-1.0, 0.0), (1e300, 0.0), (4e9 + 1, 0.0), (1.7e9, 1.7e9)])
def test_a_time_that_cannot_be_is_not_known(at: float, found: float) -> None:
    assert read(modelOutput=converse(), answeredAt=at).answered_at == found
