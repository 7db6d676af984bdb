"""Which schemas go into strict mode: whatever breaks one of its rules does not."""

from __future__ import annotations

import pytest

from lowtide.connectors.backends.openai_batch.schemas import is_strict, response_schema

TEXT = {"type": "string"}


def thing(properties=None, **more):
    found = {"name": TEXT} if properties is None else properties
    return {"type": "object", "properties": found, "required": list(found), "additionalProperties": False, **more}


def nested(levels):
    schema = thing()
    for _ in range(levels - 1):
        schema = thing({"inner": schema})
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        thing(),
        thing({"label": {"type": "string", "enum": ["a", "b"]}, "sure": {"type": "number", "description": "0 to 1"}}),
        thing({"people": {"type": "array", "items": thing()}, "note": {"type": ["string", "null"]}}),
        thing({"who": {"anyOf": [TEXT, {"type": "null"}]}}),
        thing({"who": {"$ref": "#/$defs/person"}}, **{"$defs": {"person": thing()}}),
        nested(5),
    ],
)
def test_a_schema_that_keeps_the_rules_is_strict(schema):
    assert is_strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {**thing(), "additionalProperties": True},
        {key: value for key, value in thing().items() if key != "additionalProperties"},
        {**thing({"a": TEXT, "b": TEXT}), "required": ["a"]},
        thing({"list": {"type": "array", "items": {"type": "object", "properties": {"x": TEXT}}}}),
        thing({"when": {"type": "string", "format": "date"}}),
        thing({"one": {"oneOf": [TEXT]}}),
        thing({"any": True}),
        thing({"free": {"type": "object"}}),
        thing({"who": {"$ref": "#/$defs/p"}}, **{"$defs": {"p": {"type": "object", "properties": {"x": TEXT}}}}),
        {"anyOf": [thing()], **thing()},
        thing({f"p{number}": TEXT for number in range(101)}),
        thing({"e": {"enum": [str(number) for number in range(501)]}}),
        nested(6),
    ],
)
def test_a_schema_that_breaks_a_rule_is_not(schema):
    assert not is_strict(schema)


def test_what_only_validators_read_is_left_out_of_a_strict_schema():
    form = response_schema("x", thing(**{"$schema": "https://json-schema.org/draft/2020-12/schema"}))
    assert form["strict"]
    assert "$schema" not in form["schema"]


def test_a_name_is_cut_to_what_providers_take():
    assert response_schema("ä" * 100, thing())["name"] == "_" * 64
