"""From any text to an answer or a reason, and never to an exception or to a leak."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowtide.operations import Invalid, Operation, Output

Build = Callable[..., Operation]

FACTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "product": {"type": "string"},
        "amount": {"type": ["number", "null"], "minimum": 0},
        "on": {"type": "string", "format": "date"},
        "kind": {"enum": ["a", "b"]},
        "items": {"type": "array", "items": {"type": "object", "required": ["n"]}},
        "names": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["product"],
    "additionalProperties": False,
}
DEEP = '{"a":' * 3000 + "1" + "}" * 3000
OPEN = "[" * 200_000
HUGE = "9" * 5000


@pytest.fixture(scope="session")
def summarize(build: Build) -> Operation:
    return build("summarize")


@pytest.fixture(scope="session")
def classify(build: Build) -> Operation:
    return build("classify", labels={"Billing": "money", "bug report": "broken"})


@pytest.fixture(scope="session")
def translate(build: Build) -> Operation:
    return build("translate", to="fr")


@pytest.fixture(scope="session")
def extract(build: Build) -> Operation:
    return build("extract", schema=FACTS)


@pytest.fixture(scope="session")
def plain(build: Build) -> Operation:
    return build("prompt", user="{{ text }}")


@pytest.fixture(scope="session")
def every(
    summarize: Operation, classify: Operation, translate: Operation, extract: Operation, plain: Operation
) -> list[Operation]:
    return [summarize, classify, translate, extract, plain]


def reason(found: Output | Invalid) -> str:
    assert isinstance(found, Invalid), found
    return found.reason


def test_a_summary(summarize: Operation) -> None:
    assert summarize.validate('{"summary": " Two \\u00e9t\\u00e9s.\\n"}') == Output(
        text="Two étés.", document='{"summary":"Two étés."}'
    )


def test_a_label(classify: Operation) -> None:
    assert classify.validate('{"label": "Billing", "confidence": 0.9}') == Output(
        document='{"label":"Billing","confidence":0.9}', label="Billing", confidence=0.9
    )


@pytest.mark.parametrize("said", ["bug report", "Bug Report", " BUG\\n  report "])
def test_a_label_is_found_without_regard_to_capitals_and_space(said: str, classify: Operation) -> None:
    found = classify.validate(f'{{"label": "{said}"}}')
    assert found == Output(document='{"label":"bug report"}', label="bug report")


def test_a_translation(translate: Operation) -> None:
    assert translate.validate('{"source_language": "en", "translation": "Bonjour"}') == Output(
        text="Bonjour", document='{"translation":"Bonjour","source_language":"en"}', language="en"
    )


def test_an_extraction_keeps_every_value_as_it_is_written(extract: Operation) -> None:
    found = extract.validate('{ "amount": 0.1, "product": "Ö", "items": [{"n": 9007199254740993}], "names": {} }')
    assert found == Output(document='{"amount":0.1,"product":"Ö","items":[{"n":9007199254740993}],"names":{}}')


def test_plain_text(plain: Operation) -> None:
    assert plain.validate(" It is {calm}.\n") == Output(text="It is {calm}.", document="")


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"label": "Billing"}\n```',
        '```\n{"label": "Billing"}```',
        '\n```JSON \r\n{"label": "Billing"}\r\n```\n',
        ' {"label": "Billing", "confidence": null} ',
        '{"\\u006cabel": "Billing"}',
    ],
)
def test_a_fence_a_null_and_an_escape_change_nothing(text: str, classify: Operation) -> None:
    assert classify.validate(text) == Output(document='{"label":"Billing"}', label="Billing")


def test_nulls_for_what_is_optional_are_the_same_as_nothing(translate: Operation, extract: Operation) -> None:
    assert translate.validate('{"translation": "t", "source_language": null}') == translate.validate(
        '{"translation":"t"}'
    )
    assert extract.validate('```json\n{"product": "p", "amount": null}\n```') == Output(
        document='{"product":"p","amount":null}'
    )


def test_a_backtick_inside_an_answer_is_part_of_it(summarize: Operation, plain: Operation) -> None:
    found = summarize.validate('{"summary": "Run ```json\\n{}\\n``` twice"}')
    assert found == Output(text="Run ```json\n{}\n``` twice", document='{"summary":"Run ```json\\n{}\\n``` twice"}')
    assert plain.validate("```x```") == Output(text="```x```")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the answer is not JSON"),
        ("Billing", "the answer is not JSON"),
        ('{"label": "Billing"', "the answer is not JSON"),
        ('{"label": "Billing"} and more', "the answer is not JSON"),
        ('{"label": "Billing", "confidence": NaN}', "the answer is not JSON"),
        ('{"label": "Billing", "confidence": Infinity}', "the answer is not JSON"),
        ('{"label": "\\ud800"}', "the answer is not JSON"),
        ('{"label": "\ud800"}', "the answer holds half a surrogate pair"),
        ("[]", "the answer is not one JSON object"),
        ("null", "the answer is not one JSON object"),
        ('"Billing"', "the answer is not one JSON object"),
        ("{}", "label: is missing"),
        ('{"confidence": 1}', "label: is missing"),
        ('{"label": null}', "label: is not of the type that was asked for"),
        ('{"label": ["Billing"]}', "label: is not of the type that was asked for"),
        ('{"label": "Billing", "confidence": "high"}', "confidence: is not of the type that was asked for"),
        ('{"label": "Billing", "confidence": true}', "confidence: is not of the type that was asked for"),
        ('{"label": "Billing", "confidence": 1e999}', "confidence: is not of the type that was asked for"),
        ('{"label": "Billing", "confidence": 1.01}', "confidence: is not between 0 and 1"),
        ('{"label": "Billing", "confidence": -0.1}', "confidence: is not between 0 and 1"),
        (f'{{"label": "Billing", "confidence": {HUGE}}}', None),
        ('{"label": "shipping"}', "label: is none of the job's labels"),
        ('{"label": ""}', "label: is none of the job's labels"),
        ('{"label": "Billing", "why": "hunter2"}', "the answer has a field that was not asked for"),
        ('{"label": "Billing", "label": "bug report"}', "label: stands twice"),
        ('{"label": "Billing", "\\u006cabel": "bug report"}', "label: stands twice"),
        ('{"label": "Billing", "confidence": null, "confidence": 1}', "confidence: stands twice"),
        ('```json\n{"label": "Billing", "label": "bug report"}\n```', "label: stands twice"),
        (OPEN, None),
        (DEEP, None),
    ],
)  # fmt: skip
def test_what_is_no_label_says_why(text: str, expected: str | None, classify: Operation) -> None:
    found = reason(classify.validate(text))
    assert expected is None or found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not json", "the answer is not JSON"),
        ('{"product": "p"', "the answer is not JSON"),
        ("[]", "the answer: is not of type object"),
        ("{}", "product: is missing"),
        ('{"product": 7}', "product: is not of type string"),
        ('{"product": null}', "product: is not of type string"),
        ('{"product": "p", "amount": -1}', "amount: breaks the schema's 'minimum'"),
        ('{"product": "p", "on": "yesterday"}', "on: is no date"),
        ('{"product": "p", "kind": "hunter2"}', "kind: is none of the values that the schema allows"),
        ('{"product": "p", "items": [{"n": 1}, {}]}', "items[1].n: is missing"),
        ('{"product": "p", "hunter2": 1}', "the answer: has a field that the schema does not name"),
        ('{"product": "p", "names": {"hunter2": "x"}}', "names.*: is not of type integer"),
        ('{"product": "p", "product": "q"}', "product: stands twice"),
        ('{"product": "p", "names": {"hunter2": 1, "hunter2": 2}}', "*: stands twice"),
        ('{"product": "p", "amount": NaN}', "the answer holds NaN, which JSON does not know"),
        ('{"product": "p", "amount": -Infinity}', "the answer holds -Infinity, which JSON does not know"),
        ('{"product": "p", "amount": 1e999}', "the answer holds a number beyond the range of 64 bits"),
        ('{"product": "p", "amount": 9223372036854775808}', "the answer holds a number beyond the range of 64 bits"),
        (f'{{"product": "p", "amount": {HUGE}}}', "the answer holds a number beyond the range of 64 bits"),
        ('{"product": "\\ud800"}', "the answer holds half a surrogate pair"),
        ('{"product": "\ud800"}', "the answer holds half a surrogate pair"),
        ('{"\\udfff": 1}', "the answer holds half a surrogate pair"),
        (DEEP, "the answer is nested too deeply"),
        (OPEN, "the answer is nested too deeply"),
        ('{"a":' * 300 + "1" + "}" * 300, "the answer is nested too deeply"),
    ],
)  # fmt: skip
def test_what_breaks_the_users_schema_says_why(text: str, expected: str | None, extract: Operation) -> None:
    found = reason(extract.validate(text))
    assert expected is None or found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the answer is empty"),
        (" \n", "the answer is empty"),
        ("a\ud800", "the answer holds half a surrogate pair"),
    ],
)
def test_what_is_no_plain_text_says_why(text: str, expected: str, plain: Operation) -> None:
    assert reason(plain.validate(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"summary": ""}', "summary: is empty"),
        ('{"summary": " \\n"}', "summary: is empty"),
        ('{"summary": null}', "summary: is not of the type that was asked for"),
        ('{"summary": "a", "summary": "b"}', "summary: stands twice"),
    ],
)
def test_what_is_no_summary_says_why(text: str, expected: str, summarize: Operation) -> None:
    assert reason(summarize.validate(text)) == expected


def test_a_summary_may_speak_of_its_own_key(summarize: Operation) -> None:
    said = 'the key "summary" and "summary": twice'
    assert summarize.validate(json.dumps({"summary": said})) == Output(text=said, document=_compact({"summary": said}))


def test_what_is_no_translation_says_why(translate: Operation) -> None:
    assert reason(translate.validate('{"translation": " "}')) == "translation: is empty"
    assert reason(translate.validate(json.dumps({"translation": "t", "source_language": "x" * 65}))).startswith(
        "source_language: "
    )


_KEYS = st.sampled_from(["summary", "label", "confidence", "translation", "source_language", *FACTS["properties"]])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_JSON = VALUES.map(json.dumps)
_ANY_TEXT = st.text(st.characters(codec=None))
_PIECES = st.lists(
    st.sampled_from(
        ['{', '}', '[', ']', ':', ',', '"', '"summary"', '"label"', '"product"', '"amount"', "null", "NaN", "1e999",
         "-0",          "\\u0000", "\\ud800", "\\", "```json\n", "\n```", "```", "\ud800", "\x00", " ", "Billing", HUGE]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        _ANY_TEXT, _PIECES, VALUES.map(json.dumps), VALUES.map(lambda value: f"```json\n{json.dumps(value)}\n```")
    )
)
def test_no_text_raises_and_every_answer_keeps_its_promises(every: list[Operation], text: str) -> None:
    for operation in every:
        found = operation.validate(text)
        if isinstance(found, Invalid):
            assert found.reason
            assert "\n" not in found.reason
            continue
        found.text.encode()
        if operation.schema is None:
            assert found.text
            assert not found.document
            continue
        answer = json.loads(found.document, parse_constant=pytest.fail)
        assert _compact(answer) == found.document
        assert operation.validate(found.document) == found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {"product": st.text()},
        optional={
            "amount": st.none() | st.floats(0, allow_nan=False, allow_infinity=False) | st.integers(0, 2**63 - 1),
            "kind": st.sampled_from(["a", "b", "c"]),
            "names": st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1), max_size=3),
        },
    ),
    st.booleans(),
)
def test_an_answer_by_the_schema_comes_back_equal(extract: Operation, answer: dict[str, Any], spaced: bool) -> None:
    text = json.dumps(answer, indent=2 if spaced else None, ensure_ascii=spaced)
    found = extract.validate(text)
    if jsonschema_rs.is_valid(FACTS, answer):
        assert isinstance(found, Output)
        assert json.loads(found.document) == answer
    else:
        assert isinstance(found, Invalid)


@given(
    st.text(min_size=1, max_size=12).map(lambda word: f"Zq{word}"),
    st.sampled_from(["label", "why", "product", "names"]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_reason_never_repeats_the_answer(every: list[Operation], word: str, key: str) -> None:
    for answer in ({key: word}, {word: 1}, {key: {word: word}}, {key: [word]}, [word], word):
        for operation in every[:4]:
            found = operation.validate(json.dumps(answer))
            if isinstance(found, Invalid):
                assert "Zq" not in found.reason


@given(st.floats(0, 1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_confidence_is_kept_to_the_last_digit(classify: Operation, confidence: float) -> None:
    found = classify.validate(json.dumps({"label": "Billing", "confidence": confidence}))
    assert isinstance(found, Output)
    assert found.confidence == confidence
    assert math.copysign(1, json.loads(found.document)["confidence"]) == math.copysign(1, confidence)
    assert json.loads(found.document)["confidence"] == confidence


def _compact(value: object) -> str:
    import orjson

    return orjson.dumps(value).decode()
