"""Estimates: ordered, monotone, honest about what they rest on, and right where everything can be counted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.emulators.answers import tokens_by
from lowtide.estimating import Corpus, Estimate, estimate
from lowtide.estimating.vocabularies import Tokenizers, counter, family_of
from lowtide.job.model import Classify, Extract, OperationSpec, Prompt, Summarize, Translate
from lowtide.operations import Operation, build_operation
from lowtide.plan import Range

TEXT = "The ferry left the harbour at seven, although the fog had not lifted. Nobody knew why the pump had stopped. "
SCHEMA = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "next": {"$ref": "#"}, "kind": {"enum": ["a", "b"]}},
    "required": ["place"],
}
GPT, CLAUDE = "gpt-4o-mini", "anthropic.claude-sonnet-4-5-20250929-v1:0"


def nothing_at_hand(encoding: str) -> None:
    """Where the extra is not installed."""


def operations(folder: Path) -> list[Operation]:
    """One of each kind."""
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    specs: list[OperationSpec] = [
        Summarize(words=50),
        Classify(labels={"news": "what happened", "sport": ""}),
        Translate(to="de"),
        Extract(schema="schema.json"),
        Prompt(user="What is odd about {{ text }}? It is by {{ author }}."),
    ]
    return [build_operation(spec, folder) for spec in specs]


SUMMARIZE = build_operation(Summarize(words=50), Path())


def estimated(
    texts: Sequence[str],
    *,
    asked: Sequence[Operation] = (SUMMARIZE,),
    requests: Sequence[int] | None = None,
    whole: bool = True,
    model: str = GPT,
    provider: str = "openai",
    tokenizers: Tokenizers = counter,
) -> Estimate:
    corpus = Corpus()
    corpus.add("txt", texts)
    return estimate(
        corpus,
        provider=provider,
        model=model,
        operations=asked,
        requests=[len(texts)] * len(asked) if requests is None else requests,
        whole=whole,
        tokenizers=tokenizers,
    )


def ordered(found: Range) -> bool:
    return 0 <= found.low <= found.expected <= found.high


def actual_input(texts: Sequence[str], operation: Operation) -> int:
    tokens = tokens_by("o200k")
    prompts = [
        operation.user.render({"text": text, "marker": sha256(text.encode()).hexdigest()[:16]}) for text in texts
    ]
    return sum(tokens.prompt(operation.system, prompt, operation.schema) for prompt in prompts)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=2_000), max_size=6),
    st.integers(0, 50),
    st.booleans(),
    st.sampled_from([GPT, CLAUDE, "gpt-4", "o4-mini", "us.meta.llama3-3-70b-instruct-v1:0", "somebody's", "tfidf-1"]),
    st.sampled_from([counter, nothing_at_hand]),
)
def test_a_range_is_ordered(texts: list[str], requests: int, whole: bool, model: str, tokenizers: Tokenizers) -> None:
    for provider in ("openai", "aws", "local"):
        found = estimated(
            texts, requests=[requests], whole=whole, model=model, provider=provider, tokenizers=tokenizers
        )
        assert ordered(found.input)
        assert ordered(found.output)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=2_000), min_size=1, max_size=6),
    st.lists(st.text(max_size=2_000), min_size=1, max_size=3),
    st.sampled_from([counter, nothing_at_hand]),
)
def test_more_documents_never_cost_less(some: list[str], more: list[str], tokenizers: Tokenizers) -> None:
    fewer, all_ = estimated(some, tokenizers=tokenizers), estimated([*some, *more], tokenizers=tokenizers)
    assert all_.input.expected >= fewer.input.expected
    # Rounded once, of a mean over documents: a token either way.
    assert all_.output.expected >= fewer.output.expected - 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=500), min_size=1, max_size=6), st.integers(0, 100), st.integers(0, 100))
def test_more_requests_never_cost_less(texts: list[str], fewer: int, more: int) -> None:
    least, most = sorted((fewer, more))
    before = estimated(texts, requests=[least], whole=False)
    after = estimated(texts, requests=[most], whole=False)
    assert before.input.expected <= after.input.expected
    assert before.output.expected <= after.output.expected


def test_small_collections_are_counted_nearly_exactly() -> None:
    texts = [f"{number}. {TEXT * (1 + number % 9)}" for number in range(60)]
    found = estimated(texts)
    assert abs(found.input.expected / actual_input(texts, SUMMARIZE) - 1) < 0.005
    assert found.basis == "o200k_base over all text"


def test_a_prompt_may_hold_the_document_twice_or_not_at_all(tmp_path: Path) -> None:
    twice = build_operation(Prompt(user="{{ text }} against {{ text }}"), tmp_path)
    once = build_operation(Prompt(user="{{ text }} against nothing"), tmp_path)
    texts = [TEXT * 40] * 10
    text = estimated(texts, asked=[twice]).input.expected - estimated(texts, asked=[once]).input.expected
    counted = counter("o200k_base")
    assert counted is not None
    assert abs(text / (10 * counted(TEXT * 40)) - 1) < 0.05


def test_cached_documents_are_left_out() -> None:
    texts = [TEXT * 5] * 100
    every, half = estimated(texts), estimated(texts, requests=[50])
    assert half.input.expected == pytest.approx(every.input.expected / 2, rel=0.001)
    assert estimated(texts, requests=[0]).input == Range(0, 0, 0)


def test_a_sample_of_the_documents_has_a_wider_range() -> None:
    texts = [TEXT * (1 + number % 17) for number in range(50)]
    seen, guessed = estimated(texts, requests=[1_000]), estimated(texts, requests=[1_000], whole=False)
    assert guessed.input.expected == seen.input.expected
    assert guessed.input.high - guessed.input.low > 1.5 * (seen.input.high - seen.input.low)


def test_without_the_tokenizer_the_range_is_wider_and_says_so() -> None:
    texts = [TEXT * 20] * 30
    with_it, without = estimated(texts), estimated(texts, tokenizers=nothing_at_hand)
    assert without.basis == "ratios by script"
    assert without.input.high - without.input.low > 3 * (with_it.input.high - with_it.input.low)
    assert without.input.low <= actual_input(texts, SUMMARIZE) <= without.input.high


def test_a_tokenizer_of_another_family_is_no_exact_figure() -> None:
    texts = [TEXT * 20] * 30
    gpt, claude = estimated(texts), estimated(texts, model=CLAUDE, provider="aws")
    assert "x 1.22" in claude.basis
    assert "claude" in claude.basis
    assert claude.input.expected > gpt.input.expected
    assert (claude.input.high - claude.input.low) / claude.input.expected > 0.3


@pytest.mark.parametrize(
    ("model", "encoding", "exact"),
    [
        ("gpt-4o-mini-2024-07-18", "o200k_base", True),
        ("gpt-4.1-nano", "o200k_base", True),
        ("gpt-5.1", "o200k_base", True),
        ("o3-mini", "o200k_base", True),
        ("openai.gpt-oss-120b-1:0", "o200k_base", True),
        ("gpt-4", "cl100k_base", True),
        ("gpt-35-turbo", "cl100k_base", True),
        (CLAUDE, "o200k_base", False),
        ("qwen.qwen3-32b-v1:0", "voyage3_base", False),
        ("amazon.nova-lite-v1:0", "o200k_base", False),
        ("my-own-model", "o200k_base", False),
    ],
)
def test_each_model_has_its_tokenizer(model: str, encoding: str, exact: bool) -> None:
    family = family_of("aws", model)
    assert (family.encoding, family.exact) == (encoding, exact)


def test_answers_stay_below_what_the_operation_allows(tmp_path: Path) -> None:
    texts = [TEXT * 300] * 4
    for operation in operations(tmp_path):
        for model in (GPT, "o4-mini"):
            found = estimated(texts, asked=[operation], model=model).output
            assert 0 < found.expected <= found.high <= 4 * operation.max_output_tokens + 1, operation.kind


def test_a_label_is_short_and_a_translation_as_long_as_its_document(tmp_path: Path) -> None:
    texts = [TEXT * 30] * 10
    _, classify, translate, *_ = operations(tmp_path)
    counted = counter("o200k_base")
    assert counted is not None
    assert estimated(texts, asked=[classify]).output.expected < 10 * 20
    text = 10 * counted(TEXT * 30)
    assert text < estimated(texts, asked=[translate]).output.expected < 1.6 * text


def test_a_short_document_has_a_short_summary() -> None:
    assert estimated(["Fog."] * 10).output.expected < estimated([TEXT * 20] * 10).output.expected / 3


def test_reasoning_is_billed_as_output() -> None:
    texts = [TEXT * 20] * 10
    assert estimated(texts, model="o4-mini").output.expected > 1.5 * estimated(texts).output.expected
    assert estimated(texts, model="o4-mini").output.high == 10 * SUMMARIZE.max_output_tokens


def test_local_models_count_the_document_alone() -> None:
    assert estimated([""] * 10, provider="local", model="tfidf-1").input.expected == 0


SCRIPT = """
import sys
if sys.argv[1] == "missing":
    sys.modules["bpe_openai"] = None
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError("the network was asked")
sys.addaudithook(refuse)
from pathlib import Path
from lowtide.estimating import Corpus, estimate
from lowtide.job.model import Summarize
from lowtide.operations import build_operation
corpus = Corpus()
corpus.add("txt", ["The ferry left the harbour at seven. "] * 50)
operation = build_operation(Summarize(words=20), Path())
for model in ("gpt-4o", "gpt-4"):
    found = estimate(corpus, provider="openai", model=model, operations=[operation], requests=[50], whole=True)
    print(found.basis, found.input.expected > 5000, sep=": ")
"""


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("there", ["o200k_base over all text: True", "cl100k_base over all text: True"]),
        ("missing", ["ratios by script: True", "ratios by script: True"]),
    ],
)
def test_nothing_is_fetched_and_a_missing_package_breaks_nothing(package: str, said: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, package], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == said, done.stderr
