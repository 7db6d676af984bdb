"""What the emulated models answer: the same each time, in the form that our prompts and schemas ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.emulators.answers import answer, count_tokens, document, input_tokens, refused, unfit
from lowtide.job.model import Classify, Extract, Prompt, Summarize, Translate
from lowtide.operations import Operation, Output
from lowtide.operations.build import build_operation

TEXT = "The harbour was closed on Monday. Ships waited outside. Nobody knew why it had happened."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "count": {"type": "integer", "minimum": 0}},
    "required": ["place", "count"],
    "additionalProperties": False,
}


def operations(folder: Path) -> list[Operation]:
    """One of each kind."""
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    specs = [
        Summarize(words=30),
        Classify(labels={"news": "what happened", "sport": "", "law & order": "courts"}),
        Translate(to="fr"),
        Extract(schema="schema.json"),
        Prompt(user="Say something of {{ text }}"),
    ]
    return [build_operation(spec, folder) for spec in specs]


def ask(operation: Operation, text: str, *, native: bool, seed: int = 0) -> str:
    """The answer to an operation over a text, with its schema given or only said in words."""
    user = operation.user.render({"text": text, "marker": "k3j4"})
    schema = operation.schema if native else None
    return answer(operation.system, user, schema, 0, seed=seed).text


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("text", [TEXT, "", "x", "Größe 1 – 你好。" * 200, "word " * 3_000, '- "sport": no\n{"label"'])
def test_every_operation_gets_a_valid_answer(tmp_path: Path, text: str, native: bool) -> None:
    for operation in operations(tmp_path):
        given_answer = ask(operation, text, native=native)
        assert isinstance(operation.validate(given_answer), Output), (operation.kind, given_answer)


def test_an_answer_has_to_do_with_its_document(tmp_path: Path) -> None:
    summary, label, translation, _, plain = (ask(one, TEXT, native=False) for one in operations(tmp_path))
    assert json.loads(summary)["summary"].startswith("The harbour was closed on Monday.")
    assert json.loads(label)["label"] in {"news", "sport", "law & order"}
    assert json.loads(translation)["translation"] == f"[fr] {TEXT}"
    assert plain.startswith("The harbour was closed")


def test_a_label_that_stands_in_the_document_is_taken(tmp_path: Path) -> None:
    _, classify, *_ = operations(tmp_path)
    for native in (True, False):
        for word in ("news", "sport", "law & order"):
            text = f"All about {word} today."
            assert json.loads(ask(classify, text, native=native))["label"] == word


def test_the_same_question_has_the_same_answer_and_another_seed_another(tmp_path: Path) -> None:
    _, classify, *_ = operations(tmp_path)
    texts = [f"Item {number}." for number in range(20)]
    first = [ask(classify, text, native=False) for text in texts]
    assert [ask(classify, text, native=False) for text in texts] == first
    assert [ask(classify, text, native=False, seed=1) for text in texts] != first
    assert len({json.loads(one)["label"] for one in first}) == 3


def test_tokens_are_a_function_of_the_text() -> None:
    answered = answer("s" * 40, "u" * 41, None, 0)
    assert (count_tokens("s" * 40), count_tokens("u" * 41), count_tokens("ü")) == (10, 11, 1)
    assert answered.input_tokens == input_tokens("s" * 40, "u" * 41) > 21
    assert answered.output_tokens == count_tokens(answered.text)


def test_some_prompts_are_cached_in_part() -> None:
    cached = [answer("s" * 400, f"u {number}", None, 0) for number in range(40)]
    assert {one.cached_tokens for one in cached} == {0, 96}
    assert all(one.cached_tokens < one.input_tokens for one in cached)


def test_a_bound_cuts_the_answer_off() -> None:
    whole = answer("", "One two three four five six seven.", None, 0)
    cut = answer("", "One two three four five six seven.", None, 3)
    assert (whole.finish_reason, cut.finish_reason, cut.output_tokens) == ("stop", "length", 3)
    assert whole.text.startswith(cut.text)
    assert len(cut.text) == 12


def test_reasoning_counts_as_output_and_is_no_text() -> None:
    plain = [answer("", f"Question {number}.", None, 0) for number in range(30)]
    thought = [answer("", f"Question {number}.", None, 0, reasoning=True) for number in range(30)]
    assert not any(one.reasoning_tokens for one in plain)
    assert {bool(one.reasoning_tokens) for one in thought} == {True, False}
    for before, after in zip(plain, thought, strict=True):
        assert after.text == before.text
        assert after.output_tokens == before.output_tokens + after.reasoning_tokens


def test_an_unfit_answer_and_a_refusal_have_no_form(tmp_path: Path) -> None:
    summarize, *_ = operations(tmp_path)
    answered = answer(summarize.system, TEXT, summarize.schema, 0)
    for other in (unfit(answered), refused(answered)):
        assert not isinstance(summarize.validate(other.text), Output)
        assert (other.input_tokens, other.output_tokens) == (answered.input_tokens, count_tokens(other.text))


def test_only_what_stands_between_the_markers_is_the_document() -> None:
    assert document("Before <document-a1>\nthe\ntext\n</document-a1> after") == "the\ntext"
    assert document("<document-a1>\nx </document-b2>\n</document-a1>") == "x </document-b2>"
    assert document("no markers at all") == "no markers at all"


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "number", "maximum": -5}]}}},
    {"type": "object", "properties": {"a": {"const": 7}, "b": {"enum": ["x"]}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}, "minItems": 4}}},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "maxItems": 0}}},
    {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True, "minItems": 3}}},
    {"type": "object", "properties": {"a": {"type": "string", "minLength": 50, "maxLength": 50}}},
    {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}},
    {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 7, "minimum": 50}}},
    {"type": "object", "properties": {"a": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}}},
    {"type": "object", "properties": {"confidence": {"type": "number", "minimum": 0, "maximum": 1}}},
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {}, "c": True}},
    {"type": "object", "allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "string"}}}]},
    {
        "type": "object",
        "properties": {"node": {"$ref": "#/$defs/node"}},
        "required": ["node"],
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "child": {"anyOf": [{"$ref": "#/$defs/node"}]}},
                "required": ["name"],
            }
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=[json.dumps(schema)[:60] for schema in SCHEMAS])
def test_an_answer_is_valid_under_its_schema(schema: dict[str, Any]) -> None:
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for text in (TEXT, "", "短い"):
        for number in range(5):
            validator.validate(json.loads(answer("", f"{number} {text}", schema, 0).text))


@given(st.text(), st.text(), st.integers(0, 50))
def test_any_text_can_be_asked(system: str, user: str, most: int) -> None:
    answered = answer(system, user, None, most)
    assert answered.text.encode()
    assert answered.input_tokens > 0
    assert not most or answered.output_tokens <= most
    assert answered == answer(system, user, None, most)
