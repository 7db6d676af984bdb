"""Statistics over documents: exact where they can be, fair where they are a sample, and never large."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.estimating.corpus import MEASURED, SAMPLE, Corpus

TEXTS = st.lists(st.tuples(st.sampled_from(["md", "pdf", "jsonl"]), st.text(max_size=3_000)), max_size=30)


def pieces_of(corpus: Corpus) -> list[tuple[str, str, int]]:
    return [(piece.group, piece.text, piece.times) for piece in corpus.sample().pieces]


def many(count: int, seed: int = 1, *, beyond: bool = False) -> list[str]:
    """Different documents of about 2 KB."""
    chance = random.Random(seed)
    words = ["harbour", "ferry", "invoice", "valve", "rent", "spring"] + ["größe", "価格", "туман"] * beyond
    return [f"{number} " + " ".join(chance.choices(words, k=300)) for number in range(count)]


@given(TEXTS)
def test_documents_and_bytes_are_counted(documents: list[tuple[str, str]]) -> None:
    corpus = Corpus()
    for group, text in documents:
        corpus.add(group, [text])
    assert corpus.documents == len(documents)
    assert corpus.text_bytes == sum(len(text.encode()) for _, text in documents)


@given(TEXTS, st.randoms())
def test_order_and_batches_do_not_matter(documents: list[tuple[str, str]], chance: random.Random) -> None:
    one_by_one, at_once = Corpus(), Corpus()
    for group, text in documents:
        one_by_one.add(group, [text])
    chance.shuffle(documents)
    for group in ("jsonl", "md", "pdf"):
        at_once.add(group, [text for other, text in documents if other == group])
    assert pieces_of(one_by_one) == pieces_of(at_once)
    assert one_by_one.text_bytes == at_once.text_bytes
    assert [found.counts.tolist() for _, found in one_by_one.groups if found.documents] == [
        found.counts.tolist() for _, found in at_once.groups if found.documents
    ]


def test_a_sample_is_the_same_in_any_order_too() -> None:
    texts = [*many(1_500), *many(1_500, beyond=True)]
    forwards, backwards = Corpus(), Corpus()
    forwards.add("md", texts)
    for at in range(len(texts), 0, -7):
        backwards.add("md", texts[max(at - 7, 0) : at])
    assert forwards.sample().share < 1
    assert pieces_of(forwards) == pieces_of(backwards)
    assert forwards.sample() == backwards.sample()


@settings(max_examples=50)
@given(st.lists(st.text(alphabet="aé价🙂\ud800 ", max_size=2_500), max_size=5))
def test_pieces_hold_the_whole_text_while_it_is_small(texts: list[str]) -> None:
    corpus = Corpus()
    corpus.add("txt", texts)
    sample = corpus.sample()
    assert sample.share == 1
    kept = sum(len(piece.text) * piece.times for piece in sample.pieces)
    assert kept == sum(map(len, texts))
    assert all(piece.text.encode() for piece in sample.pieces)


def test_a_sample_is_fair_to_formats_of_different_size() -> None:
    corpus = Corpus()
    corpus.add("md", many(4_000))
    corpus.add("pdf", many(1_000, seed=2))
    shares = [piece.group for piece in corpus.sample().pieces].count("pdf") / len(corpus.sample().pieces)
    assert 0.13 < shares < 0.28


def test_the_same_document_again_and_again_takes_no_room() -> None:
    corpus = Corpus()
    for _ in range(5):
        corpus.add("md", ["größer als sonst " * 100] * 2 * MEASURED)
    (piece, *rest) = corpus.sample().pieces
    assert piece.times == 10 * MEASURED
    assert len(rest) == 1
    assert corpus.text_bytes == 10 * MEASURED * len(("größer als sonst " * 100).encode())


def test_bytes_of_very_many_documents_beyond_ascii_are_nearly_right() -> None:
    texts = [*many(2 * MEASURED, beyond=True), *many(2 * MEASURED, seed=2)]
    corpus = Corpus()
    corpus.add("md", texts)
    actual = sum(len(text.encode()) for text in texts)
    assert abs(corpus.text_bytes / actual - 1) < 0.01


def test_memory_does_not_grow_with_the_documents() -> None:
    corpus = Corpus()
    corpus.add("md", many(4_000, beyond=True))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for seed in range(12):
            corpus.add("md", many(1_000, seed, beyond=True))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert corpus.documents == 16_000
    assert after - before < 8 * SAMPLE
    assert sum(len(piece.text) for piece in corpus.sample().pieces) <= SAMPLE
