"""What is counted while the documents go by: all of them, or a sample that stands for them."""

from __future__ import annotations

import io
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_support import finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, echo_operation, work_on

from lowtide import ids
from lowtide.engine import open_run
from lowtide.inputs import list_inputs
from lowtide.operations import Template
from lowtide.plan import Candidate, Work
from lowtide.planning.published import PublishedDocuments, read_published
from lowtide.planning.sampling import choose_files, format_of
from lowtide.planning.survey import Survey, survey
from lowtide.records import DocumentBatch, FileInfo

TEXTS: dict[str, str | None] = {f"d{number}": f"text {number}" for number in range(10)}


def surveyed(work: Work, folder: Path, *, exact: bool = True, **options: object) -> Survey:
    inputs = list_inputs(work.documents, folder / "inputs.parquet")
    return survey(work, inputs, folder, exact=exact, **options)  # type: ignore[arg-type]


def work_over(texts: dict[str, str | None], store: MemoryStore | None = None, **changes: object) -> Work:
    work = work_on(store or MemoryStore(), StandInBackend(Provider()), ListedDocuments(texts))
    return replace(work, **changes)  # type: ignore[arg-type]


def published(rows: dict[str, str | None], *, operations: int = 2) -> PublishedDocuments:
    """A results table over documents, each with its text, or None for one that was not readable."""
    uris = [uri for uri in rows for _ in range(operations)]
    hashes = [None if (text := rows[uri]) is None else sha256(text.encode()).hexdigest() for uri in uris]
    table = pa.table({"document_id": [ids.document_id(uri, "") for uri in uris], "content_sha256": hashes})
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=3)
    return read_published(io.BytesIO(out.getvalue()))


def test_documents_are_counted_by_what_they_are_against_what_is_published(tmp_path: Path) -> None:
    before = published({"d0": "text 0", "d1": "old", "d2": None, "gone": "x"})
    assert (before.documents, before.rows) == (4, 8)
    found = surveyed(work_over({**TEXTS, "d9": None}), tmp_path, published=before)
    assert (found.documents, found.new, found.changed, found.unchanged, found.unreadable) == (10, 6, 2, 1, 1)
    assert found.exact
    assert found.text_bytes == 9 * len("text 0")


def test_the_same_request_twice_is_asked_once_and_counted_as_a_twin(tmp_path: Path) -> None:
    [asked] = surveyed(work_over({**TEXTS, "e1": "text 1", "e2": "text 1"}), tmp_path).asked
    assert asked is not None
    assert (asked.requests, asked.cached, asked.twins) == ((10,), 0, 2)
    assert asked.text_bytes == 10 * len("text 0")


def test_what_an_earlier_run_has_bought_is_not_counted_as_asked_unless_the_cache_is_left_alone(tmp_path: Path) -> None:
    store, provider = MemoryStore(), Provider()
    assert finish(open_run(work_on(store, StandInBackend(provider), ListedDocuments(TEXTS)))).done
    work = work_over({**TEXTS, "d3": "other", "e": "new"}, store)
    for changes, expected in (
        ({}, ((2,), 9)),
        ({"use_cache": False}, ((11,), 0)),
        ({"refresh": True}, ((11,), 0)),
        ({"operations": (echo_operation(), echo_operation("again"))}, ((2, 11), 9)),
    ):
        [asked] = surveyed(replace(work, **changes), tmp_path).asked  # type: ignore[arg-type]
        assert asked is not None
        assert (asked.requests, asked.cached) == expected, changes


def test_each_backend_is_asked_for_what_its_own_model_has_not_answered(tmp_path: Path) -> None:
    class Other(StandInBackend):
        name = "other"
        model = "echo-2"

    class Refusing(StandInBackend):
        name = "refusing"

        def refusal(self, operation: object) -> str | None:
            return "not here"

    store, provider = MemoryStore(), Provider()
    first = work_on(store, StandInBackend(provider), ListedDocuments(TEXTS))
    assert finish(open_run(first)).done
    candidates = tuple(Candidate(made, first.price) for made in (first.backend, Other(provider), Refusing(provider)))
    one, other, refused = surveyed(replace(first, candidates=candidates), tmp_path).asked
    assert one is not None
    assert other is not None
    assert (one.total, one.cached, other.total, other.cached) == (0, 10, 10, 0)
    assert refused is None


def test_a_field_in_the_prompt_makes_another_request(tmp_path: Path) -> None:
    documents = ListedDocuments(
        {"a": "same", "b": "same", "c": "same"}, fields={"who": {"a": "x", "b": " x ", "c": "y"}}
    )
    work = work_on(MemoryStore(), StandInBackend(Provider()), documents)
    asking = replace(echo_operation(), user=Template.parse("{{ who }}: {{ text }}"))
    [asked] = surveyed(replace(work, operations=(asking,)), tmp_path).asked
    assert asked is not None
    # White space around a value does not reach the prompt.
    assert (asked.requests, asked.twins) == ((2,), 1)


@dataclass
class Folder:
    """Files whose text is their name, over and over; those that end with `rows` hold a row for each 100 bytes."""

    sizes: dict[str, int]
    reads: int = 0

    def files(self) -> Iterator[FileInfo]:
        for name, size in sorted(self.sizes.items()):
            yield FileInfo(name, f"file:///{name}", size, "e", datetime(2026, 11, 2, tzinfo=UTC))

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        for info in files:
            rows = info.size // 100 if info.path.endswith("jsonl") else 1
            for start in range(0, rows, 50):
                batch = DocumentBatch()
                for row in range(start, min(start + 50, rows)):
                    self.reads += 1
                    text = f"{info.path} {row} ".ljust(info.size if rows == 1 and start == 0 else 92, ".")
                    batch.uris.append(info.uri)
                    batch.keys.append(str(row) if info.path.endswith("jsonl") else "")
                    batch.modified.append(info.modified)
                    batch.texts.append(text[:92] if info.path.endswith("jsonl") else text)
                    batch.reasons.append(None)
                yield batch


def over(folder: Folder) -> Work:
    return replace(work_over({}), documents=folder)


def test_a_sample_stands_for_all_by_count_and_by_bytes(tmp_path: Path) -> None:
    sizes = {f"{number:05d}.txt": 100 + number % 900 for number in range(5000)}
    sizes |= {f"x{number:05d}.md": 5000 for number in range(1000)}
    folder = Folder(sizes)
    found = surveyed(over(folder), tmp_path, exact=False)
    assert not found.exact
    assert found.read == folder.reads <= 128
    assert found.documents == found.new == 6000
    [asked] = found.asked
    assert asked is not None
    assert asked.requests == (6000,)
    assert asked.text_bytes == pytest.approx(sum(sizes.values()), rel=0.001)


def test_the_beginning_of_a_file_of_rows_stands_for_the_rest(tmp_path: Path) -> None:
    folder = Folder({"a.jsonl": 400_000, "b.jsonl": 2_000})
    found = surveyed(over(folder), tmp_path, exact=False, most_bytes=40_000)
    assert folder.reads < 1000
    # One file is read to its end, so that the bytes of a row are known; the other holds 4,000 rows.
    assert found.documents == pytest.approx(4_020, rel=0.1)


def test_a_sample_that_holds_everything_is_none(tmp_path: Path) -> None:
    found = surveyed(over(Folder({"a.txt": 10, "b.jsonl": 1000})), tmp_path, exact=False)
    assert found.exact
    assert found.documents == 11


def test_the_sample_is_the_same_each_time_and_lies_all_over_the_listing(tmp_path: Path) -> None:
    inputs = list_inputs(Folder({f"{number:05d}.txt": 10 for number in range(20_000)}), tmp_path / "i.parquet")
    [first], [second] = choose_files(inputs.path), choose_files(inputs.path)
    assert first == second
    places = [int(info.path[:5]) for info in first.chosen]
    assert len(places) == 400
    assert {place // 2000 for place in places} == set(range(10))


@given(st.dictionaries(st.sampled_from(["txt", "md", "pdf", "jsonl", ""]), st.integers(1, 300), min_size=1))
def test_every_format_is_in_the_sample_and_no_file_twice(counts: dict[str, int]) -> None:
    sizes = {
        f"f{at:04d}.{ending}" if ending else f"f{at}": 1000 for ending, count in counts.items() for at in range(count)
    }
    with tempfile.TemporaryDirectory() as folder:
        strata = choose_files(list_inputs(Folder(sizes), Path(folder, "inputs.parquet")).path, most_bytes=50_000)
    assert {stratum.format: stratum.files for stratum in strata} == counts
    for stratum in strata:
        assert 1 <= len({info.path for info in stratum.chosen}) == len(stratum.chosen) <= stratum.files
        assert {format_of(info.path) for info in stratum.chosen} == {stratum.format}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.TXT", "txt"),
        ("a.b/c", ""),
        ("a/rows.jsonl.gz", "jsonl"),
        ("x/METADATA", "metadata"),
        (".hidden", ""),
        ("a.gz", ""),
    ],
)
def test_the_format_is_what_the_name_ends_with(path: str, expected: str) -> None:
    assert format_of(path) == expected


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        folder = Folder({f"{number // 2:06d}{number % 2}.txt": 2000 for number in range(count)})
        work = over(folder)
        tracemalloc.start()
        surveyed(work, tmp_path)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # What is kept of a request is its key, and the stand-in holds a tuple for each file; texts are ten times as long.
    few = peak(10_000)
    assert peak(20_000) - few < 10_000 * 200
