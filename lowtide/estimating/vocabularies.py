"""Which tokenizer counts for a model, how far it can be told without it, and the tokenizers that are at hand."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Protocol, cast

_PACKAGE = "bpe_openai"
_BINDINGS = f"{_PACKAGE}._bindings"

Count = Callable[[str], int]
"""Tokens of a text that holds no half of a surrogate pair."""

Tokenizers = Callable[[str], Count | None]
"""The tokenizer of that name, if it is at hand."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that share a tokenizer: about `factor` times as many tokens as `encoding` makes of the same text.

    With 90 % the true factor is within `spread` of that, as a share; `exact` says that `encoding` is their own.
    `framing` are the tokens around a system and a user prompt. `reasons`: thinking is billed as output.
    """

    name: str
    encoding: str
    factor: float
    spread: float
    framing: int = 11
    exact: bool = False
    reasons: bool = False


# Framing of 11: 3 tokens and a role for each of two messages, 3 before the answer (OpenAI's cookbook, "How to count
# tokens with tiktoken"). Factors of families whose tokenizer is not published, or not at hand, are judgements from
# published comparisons (Claude: 16 % more than GPT-4o on English, 30 % more on Python; Llama 3: cl100k_base's 100,000
# tokens and 28,000 for other languages; Mistral: from 32,000 to 131,000 tokens by version), hence their spread.
_REASONING = re.compile(r"(^|[./])(o\d|gpt-[5-9])|gpt-oss|deepseek.*r1|thinking|magistral")
_FAMILIES = (
    (
        r"(^|[./])(gpt-4o|gpt-4\.[15]|chatgpt-4o|gpt-[5-9]|o\d)|gpt-oss",
        Family("gpt", "o200k_base", 1.0, 0.01, exact=True),
    ),
    (r"(^|[./])(gpt-4|gpt-3\.5|gpt-35)", Family("gpt", "cl100k_base", 1.0, 0.01, exact=True)),
    (r"claude", Family("claude", "o200k_base", 1.22, 0.2)),
    (r"llama", Family("llama", "voyage3_base", 0.98, 0.15)),
    (r"qwen|qwq", Family("qwen", "voyage3_base", 1.0, 0.05)),
    (r"deepseek", Family("deepseek", "voyage3_base", 1.0, 0.12)),
    (r"mistral|mixtral|ministral|magistral", Family("mistral", "o200k_base", 1.15, 0.2)),
    (r"nova", Family("nova", "o200k_base", 1.1, 0.2)),
    (r"titan", Family("titan", "o200k_base", 1.15, 0.25)),
)
_OTHER = Family("other models", "o200k_base", 1.1, 0.25)
# Words and marks, or WordPiece, of the document alone.
_LOCAL = Family("local", "o200k_base", 1.0, 0.35, framing=0)


def family_of(provider: str, model: str) -> Family:
    """The family by the model's name or id, as backends give it."""
    if provider == "local":
        return _LOCAL
    name = model.lower()
    found = next((family for pattern, family in _FAMILIES if re.search(pattern, name)), _OTHER)
    return replace(found, reasons=True) if _REASONING.search(name) else found


class _Tokenizer(Protocol):
    def count(self, text: str) -> int: ...


class _Bindings(Protocol):
    def tokenizer_for_encoding(self, name: str) -> _Tokenizer: ...


@lru_cache(maxsize=4)
def counter(encoding: str) -> Count | None:
    """The tokenizer of that name; None where the extra `tokens` is not installed, or does not know it. Works offline.

    The first call takes some 0.15 s of CPU, to unpack the vocabulary.
    """
    try:
        return cast("_Bindings", _bindings()).tokenizer_for_encoding(encoding).count
    except (ImportError, AttributeError, ValueError, KeyError):
        return None


def _bindings() -> ModuleType:
    """The compiled part of bpe-openai. Its Python part unpacks every vocabulary it has when it is imported: 0.5 s."""
    if _BINDINGS in sys.modules:
        return sys.modules[_BINDINGS]
    package = importlib.util.find_spec(_PACKAGE)
    places = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec(_BINDINGS, places) if places else None
    if spec is None or spec.loader is None:
        return importlib.import_module(_BINDINGS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # As the import would: the compiled module cannot be made twice in one process.
    sys.modules[_BINDINGS] = module
    return module
