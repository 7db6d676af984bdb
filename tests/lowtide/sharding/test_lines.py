"""Splicing is only done where it gives what the backend's own encoding gives."""

from __future__ import annotations

import json
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.standins import Provider, StandInBackend

from lowtide.operations import Operation, Output, Template
from lowtide.records import Request
from lowtide.sharding import line_template
from lowtide.sharding.lines import LineFormat, escape

OPERATION = Operation(
    "prompt", "tone", 'Be "kind" {x} 5 %.', Template.parse("<{{ marker }}> {{ text }} <{{ marker }}>"), Output
)


class Encoding(StandInBackend):
    def __init__(self, encode: Callable[[Request], bytes]) -> None:
        super().__init__(Provider())
        self._encode = encode

    def encode(self, request: Request) -> bytes:
        return self._encode(request)


def fields(request: Request) -> dict[str, object]:
    return {"id": request.record_id, "system": request.system, "user": request.user, "text": request.text}


HONEST = {
    "orjson": Encoding(lambda request: orjson.dumps(fields(request))),
    "json with ASCII only": Encoding(lambda request: json.dumps(fields(request)).encode()),
    "json with spaces": Encoding(lambda request: json.dumps(fields(request), ensure_ascii=False, indent=None).encode()),
    "without the text": Encoding(lambda request: orjson.dumps({"id": request.record_id, "user": request.user})),
}

DISHONEST = {
    "strips": lambda request: orjson.dumps(fields(request) | {"text": request.text.strip()}),
    "strips the left": lambda request: orjson.dumps(fields(request) | {"text": request.text.lstrip()}),
    "cuts": lambda request: orjson.dumps(fields(request) | {"text": request.text[:30]}),
    "lowers": lambda request: orjson.dumps(fields(request) | {"text": request.text.lower()}),
    "counts": lambda request: orjson.dumps(fields(request) | {"length": len(request.text)}),
    "nests JSON in a string": lambda request: orjson.dumps(
        {"id": request.record_id, "body": json.dumps(fields(request))}
    ),
    "drops control characters": lambda request: orjson.dumps(
        fields(request) | {"text": request.text.replace("\x00", "")}
    ),
    "escapes HTML": lambda request: orjson.dumps(fields(request) | {"text": request.text.replace('"', "&quot;")}),
}


@pytest.mark.parametrize("backend", HONEST.values(), ids=HONEST.keys())
@given(
    values=st.fixed_dictionaries({"text": st.text(), "marker": st.text("0123456789abcdef", min_size=16, max_size=16)})
)
def test_a_spliced_line_says_what_an_encoded_one_says(backend: Encoding, values: dict[str, str]) -> None:
    record = "r0000001xabcdef01"
    line = line_template(backend, OPERATION).render(
        {name: escape(value) for name, value in {**values, "record_id": record}.items()}
    )
    request = Request(record, OPERATION, OPERATION.system, OPERATION.user.render(values), values["text"])
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert orjson.loads(line) == orjson.loads(backend.encode(request))


@pytest.mark.parametrize("encode", DISHONEST.values(), ids=DISHONEST.keys())
def test_a_backend_that_changes_what_it_writes_is_found_out(encode: Callable[[Request], bytes]) -> None:
    with pytest.raises((TypeError, ValueError)):
        line_template(Encoding(encode), OPERATION)


def test_a_backend_that_leaves_out_the_record_id_is_found_out() -> None:
    with pytest.raises(TypeError, match="does not write the record id"):
        line_template(Encoding(lambda request: orjson.dumps({"user": request.user})), OPERATION)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_many_lines_at_a_time_are_the_same_as_one_at_a_time(values: list[str]) -> None:
    template = line_template(HONEST["orjson"], OPERATION)
    columns = {
        "text": [escape(value) for value in values],
        "marker": [b"0" * 16] * len(values),
        "record_id": [b"r%07dxabcdef01" % at for at in range(len(values))],
    }
    one_by_one = [template.render({name: column[at] for name, column in columns.items()}) for at in range(len(values))]
    made = LineFormat.of(template)
    assert list(made.fill(columns)) == one_by_one
    assert made.sizes(columns, len(values)) == [len(line) for line in one_by_one]


def test_what_utf8_cannot_carry_is_not_escaped() -> None:
    with pytest.raises(TypeError):
        escape("\ud800")
