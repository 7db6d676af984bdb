"""Tokens on the emulators' bill: a quarter of the bytes, or what a real tokenizer makes of what was really sent."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest
from bpe_openai import get_encoding
from hypothesis import given
from hypothesis import strategies as st

from lowtide.emulators.answers import NoTokenizer, answer, count_tokens, refused, tokens_by, unfit
from lowtide.emulators.serve import serving

SYSTEM = "Say what the document is about."
USER = "<document-a1>\nDer Hafen war am Montag geschlossen; 港は月曜日に閉鎖された。\n</document-a1>"
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
ENCODING = get_encoding("o200k_base")


def exactly(text: str) -> int:
    return len(ENCODING.encode_ordinary(text))


def post(url: str, body: Mapping[str, object]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - loopback
    request.add_header("Authorization", "Bearer any")
    with urllib.request.urlopen(request, timeout=60) as given_answer:  # noqa: S310 - loopback
        return dict(json.load(given_answer))


def test_by_bytes_nothing_has_changed() -> None:
    assert tokens_by("bytes").count is count_tokens
    assert answer(SYSTEM, USER, SCHEMA, 0) == answer(SYSTEM, USER, SCHEMA, 0, tokens=tokens_by("bytes"))


def test_a_prompt_is_counted_with_its_schema_and_its_frame() -> None:
    tokens = tokens_by("o200k")
    texts = exactly(SYSTEM) + exactly(USER)
    assert tokens.prompt(SYSTEM, USER, None) == texts + 11
    schema = exactly(json.dumps(SCHEMA, separators=(",", ":")))
    assert tokens.prompt(SYSTEM, USER, SCHEMA) == texts + 11 + schema


def test_answers_are_the_same_and_counted_by_the_tokenizer() -> None:
    tokens = tokens_by("o200k")
    given_answer = answer(SYSTEM, USER, SCHEMA, 0, tokens=tokens)
    assert given_answer.text == answer(SYSTEM, USER, SCHEMA, 0).text
    for other in (given_answer, refused(given_answer, tokens), unfit(given_answer, tokens)):
        assert other.output_tokens == exactly(other.text)


@given(st.text(max_size=300), st.integers(1, 40))
def test_a_cut_answer_holds_no_more_than_was_allowed(text: str, most: int) -> None:
    given_answer = answer("", text, None, most, tokens=tokens_by("o200k"))
    assert exactly(given_answer.text) <= most
    assert given_answer.output_tokens <= most


def test_the_bill_is_counted_by_the_tokenizer() -> None:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
    with serving(tokens="o200k") as server:
        said = post(f"{server.url}/v1/chat/completions", {"model": "gpt-4o-mini", "messages": messages})
        with urllib.request.urlopen(f"{server.url}/_emulator/bill", timeout=60) as bill:  # noqa: S310 - loopback
            billed = json.load(bill)
    assert said["usage"]["prompt_tokens"] == billed["input_tokens"] == exactly(SYSTEM) + exactly(USER) + 11
    assert billed["output_tokens"] == exactly(said["choices"][0]["message"]["content"])


def test_bedrock_counts_the_same_way() -> None:
    body = {"system": [{"text": SYSTEM}], "messages": [{"role": "user", "content": [{"text": USER}]}]}
    with serving(tokens="o200k") as server:
        url = f"{server.url}/model/amazon.nova-lite-v1:0/converse"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - loopback
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=any/20261101/us-east-1/bedrock/aws4_request")
        with urllib.request.urlopen(request, timeout=60) as given_answer:  # noqa: S310 - loopback
            usage = json.load(given_answer)["usage"]
    assert usage["inputTokens"] == exactly(SYSTEM) + exactly(USER) + 11


MISSING = """
import sys
sys.modules["bpe_openai"] = None
from lowtide.cli.group import main
main(["emulate", "--port", "0", "--tokens", "o200k"])
"""


def test_without_the_package_the_command_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "pip install 'lowtide[tokens]'" in done.stderr


def test_a_tokenizer_that_is_not_there_is_said_before_anything_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bpe_openai._bindings", None)
    with pytest.raises(NoTokenizer, match="bpe-openai"), serving(tokens="o200k"):
        pass
