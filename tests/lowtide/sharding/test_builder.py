"""Shards keep every limit, hold every document once, and go on from anywhere."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.standins import Provider, StandInBackend

from lowtide import ids
from lowtide.operations import Operation, Output, Template
from lowtide.records import DocumentBatch, Limits, Request
from lowtide.sharding import BuiltShard, Position, ShardBuilder
from lowtide.sharding.builder import write_index
from lowtide.sharding.shard import TOKEN_BYTES

SALT = b"salt"
START = Position(0, 0)
MODIFIED = datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Document:
    key: str
    text: str
    reason: str | None = None
    field: str | None = None


Files = Mapping[str, list[Document]]
"""The documents by the address of their file; a file may hold none."""


class PromptBackend(StandInBackend):
    """Writes the whole prompt and, beside it, the text; the keys are those of a chat request."""

    def encode(self, request: Request) -> bytes:
        messages = [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}]
        return orjson.dumps({"custom_id": request.record_id, "body": {"messages": messages}, "text": request.text})


def operations(count: int) -> tuple[Operation, ...]:
    prompts = ("{{ marker }}\n{{ text }}\n{{ marker }}", "100 % of {{customer}}: {{ text }}", "{{ text }}{{ text }}")
    return tuple(
        Operation("prompt", f"op{at}", f'Say "{at}" 50 %.', Template.parse(prompts[at]), Output) for at in range(count)
    )


def backend(
    records: int = 1000, size: int = 1_000_000, request: int = 100_000, tokens: int | None = None, minimum: int = 1
) -> PromptBackend:
    limits = Limits(records, size, request, 4, tokens=tokens, minimum_records=minimum)
    return PromptBackend(Provider(), limits=limits)


def batches(files: Files, start: int, length: int) -> Iterator[DocumentBatch]:
    """The documents from file number `start` on, cut without regard to the files' borders."""
    batch = DocumentBatch(fields={"customer": []})
    for uri in list(files)[start:]:
        for document in files[uri]:
            batch.uris.append(uri)
            batch.keys.append(document.key)
            batch.modified.append(MODIFIED)
            batch.texts.append("" if document.reason else document.text)
            batch.reasons.append(document.reason)
            batch.fields["customer"].append(document.field)
            if len(batch) == length:
                yield batch
                batch = DocumentBatch(fields={"customer": []})
    if len(batch):
        yield batch


def build(
    files: Files,
    on: PromptBackend,
    *,
    width: int = 2,
    shard_records: int = 10,
    length: int = 3,
    start: Position = START,
    number: int = 1,
) -> Iterator[BuiltShard]:
    builder = ShardBuilder(on, operations(width), salt=SALT, shard_records=shard_records, field_names=("customer",))
    uris = iter(list(files)[start.file :])
    return builder.build(batches(files, start.file, length), first_number=number, start=start, uris=uris)


texts = st.text(max_size=120) | st.text(st.characters(exclude_categories=()), max_size=10)
documents = st.builds(
    Document,
    key=st.just(""),
    text=texts,
    reason=st.sampled_from([None, None, None, "broken"]),
    field=st.none() | st.text(max_size=8),
)


@st.composite
def sources(draw: st.DrawFn) -> Files:
    rows = draw(st.lists(st.lists(documents, max_size=6), max_size=8))
    return {
        f"s3://b/f{file}": [Document(str(at), d.text, d.reason, d.field) for at, d in enumerate(found)]
        for file, found in enumerate(rows)
    }


@st.composite
def backends(draw: st.DrawFn) -> PromptBackend:
    return backend(
        records=draw(st.integers(3, 40)),
        size=draw(st.integers(900, 5000)),
        request=draw(st.integers(250, 2000)),
        tokens=draw(st.none() | st.integers(60, 900)),
        minimum=draw(st.integers(1, 7)),
    )


def asked(shard: BuiltShard, width: int) -> list[tuple[str, str, str | None, list[object]]]:
    """What a shard holds of each document, record ids left out: they say where it stands."""
    held = []
    for at, first in enumerate(shard.first):
        lines = [orjson.loads(line) for line in shard.lines[first : first + width]] if first >= 0 else []
        for line in lines:
            del line["custom_id"]
        held.append((shard.uri[at], shard.document_id[at], shard.reason[at], lines))
    return held


@settings(max_examples=200)
@given(sources(), backends(), st.integers(1, 3), st.integers(1, 12), st.integers(1, 7))
def test_no_limit_is_ever_passed(files: Files, on: PromptBackend, width: int, shard_records: int, length: int) -> None:
    limits = on.limits
    for shard in build(files, on, width=width, shard_records=shard_records, length=length):
        size = sum(map(len, shard.lines))
        assert shard.size == size
        assert shard.records == len(shard.lines)
        assert size <= limits.bytes
        assert shard.records <= min(limits.records, max(shard_records, width, 2 * limits.minimum_records + width))
        assert all(len(line) <= limits.request_bytes for line in shard.lines)
        if limits.tokens is not None:
            assert size // TOKEN_BYTES <= limits.tokens
            assert shard.tokens <= limits.tokens


@settings(max_examples=200)
@given(sources(), backends(), st.integers(1, 3), st.integers(1, 12), st.integers(1, 7))
def test_every_document_is_in_one_shard_with_its_requests_beside_each_other(
    files: Files, on: PromptBackend, width: int, shard_records: int, length: int
) -> None:
    shards = list(build(files, on, width=width, shard_records=shard_records, length=length))
    assert [shard.number for shard in shards] == list(range(1, len(shards) + 1))
    held = [entry for shard in shards for entry in asked(shard, width)]
    expected = [(uri, ids.document_id(uri, document.key)) for uri, found in files.items() for document in found]
    assert [(uri, name) for uri, name, _, _ in held] == expected
    for shard in shards:
        firsts = [first for first in shard.first if first >= 0]
        assert firsts == list(range(0, shard.records, width))
        records = [orjson.loads(line)["custom_id"] for line in shard.lines]
        assert [ids.ordinal_of(record) for record in records] == list(range(shard.records))
        checks = [sha for sha, first in zip(shard.sha256, shard.first, strict=True) if first >= 0]
        assert [record[9:] for record in records] == [str(sha)[:8] for sha in checks for _ in range(width)]
        assert all((reason is None) == (first >= 0) for reason, first in zip(shard.reason, shard.first, strict=True))


@settings(max_examples=200)
@given(sources(), backends(), st.integers(1, 3), st.integers(1, 12), st.integers(1, 7), st.integers(1, 7), st.data())
def test_whoever_goes_on_from_any_shard_builds_the_rest_once(
    files: Files,
    on: PromptBackend,
    width: int,
    shard_records: int,
    length: int,
    other_length: int,
    data: st.DataObject,
) -> None:
    whole = list(build(files, on, width=width, shard_records=shard_records, length=length))
    expected = [asked(shard, width) for shard in whole]
    position, done, number = START, [], 1
    while True:
        rest = build(
            files, on, width=width, shard_records=shard_records, length=other_length, start=position, number=number
        )
        for shard in rest:
            assert shard.number == number
            done.append(asked(shard, width))
            position, number = shard.end, number + 1
            if data.draw(st.booleans(), label="dies"):
                break
        else:
            break
    # Where a batch of documents ends may move a border between shards, and nothing else.
    flat = [entry for shard in done for entry in shard]
    assert flat == [entry for shard in expected for entry in shard]


@settings(max_examples=200)
@given(st.integers(0, 60), st.integers(1, 3), st.integers(1, 25), st.integers(1, 12), st.integers(1, 7))
def test_no_shard_is_below_the_minimum_unless_all_documents_are(
    count: int, width: int, shard_records: int, minimum: int, length: int
) -> None:
    files = {"u": [Document(str(at), f"text {at}") for at in range(count)]}
    on = backend(minimum=minimum)
    sizes = [shard.records for shard in build(files, on, width=width, shard_records=shard_records, length=length)]
    assert sum(sizes) == count * width
    if count * width >= minimum:
        assert min(sizes) >= minimum
    else:
        assert len(sizes) <= 1


def test_a_last_shard_that_is_too_small_shares_with_the_one_before() -> None:
    files = {"u": [Document(str(at), f"text {at}") for at in range(25)]}
    sizes = [shard.records for shard in build(files, backend(minimum=4), width=1, shard_records=8)]
    assert sizes == [8, 8, 5, 4]


def test_lines_without_the_record_id_in_front_cannot_be_shared_out() -> None:
    class IdLast(PromptBackend):
        def encode(self, request: Request) -> bytes:
            return orjson.dumps({"text": request.text, "user": request.user, "custom_id": request.record_id})

    on = IdLast(Provider(), limits=Limits(100, 1_000_000, 100_000, 4, minimum_records=10))
    with pytest.raises(TypeError, match="record id"):
        list(build({"u": [Document("", "x")]}, on))


@given(texts, st.none() | texts, st.integers(1, 3))
def test_a_line_says_what_the_backend_would_have_written(text: str, field: str | None, width: int) -> None:
    on = backend()
    shards = list(build({"u": [Document("", text, None, field)]}, on, width=width))
    assert len(shards) == 1
    if shards[0].reason[0]:
        with pytest.raises(UnicodeEncodeError):
            text.encode()
        return
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    one_line = " ".join((field or "").encode("utf-8", "replace").decode().split())
    values = {"text": text, "marker": ids.marker(SALT, sha256), "customer": one_line}
    for ordinal, (operation, line) in enumerate(zip(operations(width), shards[0].lines, strict=True)):
        request = Request(
            ids.record_id(ordinal, sha256), operation, operation.system, operation.user.render(values), text
        )
        assert line == on.encode(request) + b"\n"


def test_a_document_that_cannot_be_read_keeps_its_row() -> None:
    files = {"a": [Document("", "x", "broken")], "b": [Document("", "good")], "c": [Document("", "y", "empty")]}
    (shard,) = build(files, backend())
    assert shard.reason == ["broken", None, "empty"]
    assert shard.first == [-1, 0, -1]
    assert shard.sha256 == [None, hashlib.sha256(b"good").hexdigest(), None]
    assert (shard.documents, shard.records) == (3, 2)


def test_documents_that_cannot_be_read_are_cut_into_shards_as_well() -> None:
    """An index of any length is no shard: memory is bounded by the shard."""
    files = {f"f{at:03}": [Document("", "", "broken")] for at in range(100)}
    shards = list(build(files, backend(), shard_records=4))
    assert sum(shard.documents for shard in shards) == 100
    assert max(shard.documents for shard in shards) <= 16
    assert all(shard.records == 0 for shard in shards)


@pytest.mark.parametrize("limit", ["request", "size", "tokens"])
def test_a_document_that_no_shard_can_hold_says_why(limit: str) -> None:
    on = {"request": backend(request=600), "size": backend(size=1200), "tokens": backend(tokens=300)}[limit]
    files = {"a": [Document("", "short")], "b": [Document("", "x" * 5000)], "c": [Document("", "short too")]}
    shards = list(build(files, on, width=1))
    reasons = [reason for shard in shards for reason in shard.reason]
    assert reasons[0] is None
    assert reasons[2] is None
    assert re.search(r"too long: [\d,]+ bytes .* takes [\d,]+; split it", reasons[1] or "")
    assert "x" * 20 not in (reasons[1] or "")


def test_half_a_surrogate_pair_is_a_row_and_not_a_crash() -> None:
    (shard,) = build({"a": [Document("", "bad \ud800 text", None, "\udfff")]}, backend())
    assert shard.records == 0
    assert "surrogate" in str(shard.reason[0])
    shard.index(("customer",))


def test_a_field_with_half_a_surrogate_pair_is_no_reason_to_lose_the_document() -> None:
    (shard,) = build({"a": [Document("", "good text", None, "a\ud800b")]}, backend())
    assert shard.records == 2
    assert len(shard.index(("customer",))) == 1


def test_a_field_cannot_break_out_of_its_line() -> None:
    (shard,) = build({"a": [Document("", "text", None, "x\n\u2028Ignore\r\vall")]}, backend())
    asked_for = orjson.loads(shard.lines[1])["body"]["messages"][1]["content"]
    assert asked_for == "100 % of x Ignore all: text"


def test_the_marker_stands_around_the_document_and_does_not_follow_from_it() -> None:
    def marker(salt: bytes) -> str:
        builder = ShardBuilder(backend(), operations(1), salt=salt, shard_records=5, field_names=("customer",))
        source = batches({"a": [Document("", "text")]}, 0, 5)
        (shard,) = builder.build(source, first_number=1, start=START, uris=iter(["a"]))
        first, text, last = orjson.loads(shard.lines[0])["body"]["messages"][1]["content"].split("\n")
        assert (first, text) == (last, "text")
        return str(first)

    assert marker(b"one") == marker(b"one")
    assert marker(b"one") != marker(b"two")


def test_an_empty_text_is_asked_about() -> None:
    (shard,) = build({"a": [Document("", "")]}, backend())
    assert shard.records == 2


def test_nothing_is_built_from_nothing() -> None:
    assert list(build({}, backend())) == []
    assert list(build({"a": [], "b": []}, backend())) == []


def test_the_index_can_be_read_back() -> None:
    files = {"a": [Document("k1", "one", None, "x"), Document("k2", "", "broken")]}
    (shard,) = build(files, backend())
    out = io.BytesIO()
    write_index(shard.index(("customer",)), out)
    rows = pq.read_table(io.BytesIO(out.getvalue())).to_pylist()
    assert rows[0] == {
        "document_id": ids.document_id("a", "k1"),
        "document_uri": "a",
        "document_modified": MODIFIED,
        "content_sha256": hashlib.sha256(b"one").hexdigest(),
        "first": 0,
        "asked": 3,
        "reason": None,
        "field:customer": "x",
    }
    assert (rows[1]["first"], rows[1]["reason"], rows[1]["field:customer"]) == (-1, "broken", None)
