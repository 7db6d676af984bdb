"""What is kept of a refusal: its code and its sense, and nothing of a prompt."""

from __future__ import annotations

import html
import json
import time
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.connectors.backends import openai_batch
from lowtide.connectors.backends.openai_batch.answers import parse_answer
from lowtide_worker.answers import DEEPEST, failed, read_completion, spliced, told

RUN = 12

# No full stop: the dots that stand for what was hidden are no part of any text then.
letters = st.characters(codec="utf-8", exclude_characters=".", exclude_categories=["Cs", "Cc"])
sentences = st.text(letters, min_size=RUN, max_size=60)


def runs(text: str) -> set[str]:
    joined = " ".join(text.split())
    return {joined[at : at + RUN] for at in range(len(joined) - RUN + 1)}


@given(secret=sentences, before=st.text(letters, max_size=150), after=st.text(letters, max_size=150), data=st.data())
def test_no_run_of_a_prompt_is_told(secret: str, before: str, after: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(secret) - 1))
    message = before + secret[start:] + after
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": [{"text": f"x {secret} y"}]}]})

    _, said = told(400, json.dumps({"error": {"message": message}}).encode(), body.encode())

    assert not runs(said) & runs(secret)


quotable = st.text(letters, min_size=3, max_size=40).map(lambda text: " ".join(text.split()))


@given(quoted=quotable.filter(lambda text: len(text.strip("'\" ")) == len(text) >= 3))
def test_no_quotation_of_a_prompt_is_told_however_short(quoted: str) -> None:
    body = json.dumps({"messages": [{"content": f"x {quoted} y"}]})

    _, said = told(400, json.dumps({"error": {"message": f"cannot be read: '{quoted}'"}}).encode(), body.encode())

    assert said == "cannot be read: ..."


PATIENT = "Patientin Müller-Lüdenscheidt, 'geb.' 1961, C:\\neu \U0001f600 Köln"


@pytest.mark.parametrize(
    "quoted",
    [
        json.dumps(PATIENT),
        json.dumps(json.dumps({"input": PATIENT})),
        ascii(PATIENT),
        repr([PATIENT]),
        PATIENT.upper(),
        html.escape(PATIENT).replace("ü", "&uuml;").replace("ö", "&#246;"),
        json.dumps(PATIENT)[9:],
    ],
)
def test_a_prompt_is_not_told_however_it_is_written(quoted: str) -> None:
    body = json.dumps({"messages": [{"content": f"Bericht: {PATIENT}, stationär"}]}, ensure_ascii=False).encode()

    _, said = told(400, json.dumps({"error": {"message": f"cannot be read: {quoted}"}}).encode(), body)

    assert said.startswith("cannot be read")
    assert not any(word in said.lower() for word in ("atientin", "ller", "denscheidt", "1961", "neu", "ln"))


def test_of_a_very_long_request_only_the_sense_of_a_refusal_is_told_and_at_once() -> None:
    text = "a word of it " * 700_000
    body = json.dumps({"messages": [{"content": text}]}).encode()
    quotes = " ".join(f"'{word}{number}" for number, word in enumerate(["word"] * 60))

    begun = time.process_time()
    codes = [
        told(400, json.dumps({"error": {"message": said, "code": "c"}}).encode(), body)
        for said in (f"maximum context length is 8192 tokens: {text}", quotes)
    ]
    assert time.process_time() - begun < 1.0

    assert codes == [
        ("c", f"the request of {len(body):,} bytes is longer than the model's context"),
        ("c", f"what the engine says of a request as long as this one, {len(body):,} bytes, is not told"),
    ]


def test_an_answer_may_be_as_wide_as_it_likes_and_no_deeper_than_its_readers_bear() -> None:
    def nested(depth: int) -> bytes:
        return b'{"choices":[{"message":{"content":"yes"}}],"more":' + b"[" * depth + b"]" * depth + b"}"

    wide = [{"message": {"content": "yes"}, "logprobs": [{"token": "[{" * 5 + '\\"', "top": [{}, []]}] * 2000}]

    assert read_completion(json.dumps({"choices": wide}).encode()) is not None
    assert read_completion(nested(DEEPEST)) is not None
    assert read_completion(nested(2 * DEEPEST + 1)) is None
    deep = b'{"choices":[{"message":{}}],"more":[' + b'{"a":[' * 300 + b"]}" * 300 + b"]}"
    assert json.loads(deep)
    assert read_completion(deep) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":null}]}',
        b'{"choices":[null]}',
        b'{"data":[]}',
        b'{"data":[{"embedding":[1]}]}',
        b'{"output":[{"content":[{"text":"yes"}]}]}',
    ],
)
def test_one_without_a_message_is_no_completion(body: bytes) -> None:
    assert read_completion(body) is None


ODD = [
    "",
    "yes",
    "\ud800",
    "caf\u00e9",
    None,
    0,
    -1,
    7,
    2**41,
    1.5,
    True,
    [],
    [{"text": "yes"}],
    [{"text": 7}],
    [7],
    {},
]
COUNTS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
PLACES = [
    "",
    "choices",
    "choices.message",
    "choices.message.content",
    "choices.message.content.text",
    "choices.message.content.type",
    "choices.message.content.refusal",
    "choices.message.refusal",
    "choices.finish_reason",
    "usage",
    *(f"usage.{count}" for count in COUNTS),
    *(f"usage.{count}_details" for count in COUNTS),
    *(f"usage.{count}_details.{kind}_tokens" for count in COUNTS for kind in ("cached", "reasoning")),
    "output",
    "output.type",
    "output.content",
    "output.content.type",
    "output.content.text",
    "output.content.refusal",
    "error",
    "error.code",
    "error.type",
    "error.message",
    *(f"error.{inner}{code}" for inner in ("innererror", "inner_error") for code in ("", ".code")),
    "status",
    "incomplete_details",
    "incomplete_details.reason",
    "created",
    "created_at",
    "code",
    "message",
]
LISTS = {"choices", "content", "output"}


def read_by_the_reader(kind: object, within: str = "") -> set[str]:
    """The places that a type has, and those within them."""
    found: set[str] = set()
    for one in (kind, *typing.get_args(kind)):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            for field in msgspec.structs.fields(one):
                place = f"{within}.{field.name}".removeprefix(".")
                found |= {place, *read_by_the_reader(field.type, place)}
        elif one is not kind:
            found |= read_by_the_reader(one, within)
    return found


def completion_with(odd: object, place: str) -> object:
    """An answer with something odd at a place; what leads there is made."""
    whole: dict[str, object] = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    if not place:
        return odd
    *way, last = place.split(".")
    inside: Any = whole
    for name in way:
        if isinstance(inside.get(name), str):
            inside[name] = [{"text": inside[name]}]
        inside = inside.setdefault(name, [{}] if name in LISTS else {})
        inside = inside[0] if name in LISTS else inside
    inside[last] = odd
    return whole


def test_all_that_the_reader_looks_at_is_held_against_it() -> None:
    assert read_by_the_reader(openai_batch.answers._Body) == {*PLACES} - {""}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_whatever_an_engine_answers_with_success_its_line_can_be_read(place: str, is_ascii: bool) -> None:
    taken = 0
    for odd in ODD:
        written = json.dumps(completion_with(odd, place), ensure_ascii=is_ascii)
        # Where an answer was cut between two bytes of a character, it ends with the first.
        data = written.encode(errors="surrogatepass").replace(b"yes", b"yes\xf0\x9f")
        if read_completion(data):
            taken += 1
            answer = parse_answer(spliced("r0000001x1", data))
            assert answer is not None
            assert (answer.record_id, answer.retryable) == ("r0000001x1", False)
    assert (taken > 0) == (place not in {"", "choices"})
    assert taken < len(ODD)


def test_an_answer_that_is_no_completion_may_be_asked_for_again() -> None:
    answer = parse_answer(failed("r0000001x1", None, "invalid_answer", "no completion"))

    assert answer is not None
    assert (answer.status, answer.retryable) == ("error", True)
    assert "invalid_answer" in answer.error


def test_what_is_no_quotation_is_told_in_full() -> None:
    body = json.dumps(
        {"model": "org/a-model-of-ours", "messages": [{"content": "the context is long"}], "max_tokens": 9}
    )
    message = "The model 'org/a-model-of-ours' bears 4096 tokens: lower 'max_tokens' or the length of the messages."

    assert told(400, json.dumps({"error": {"message": message}}).encode(), body.encode())[1] == message


def test_a_code_that_is_no_code_is_not_told() -> None:
    said = told(400, b'{"error": {"code": "Wilhelmina has gout", "type": "BadRequest", "message": "x"}}', b"{}")

    assert said == ("BadRequest", "x")
