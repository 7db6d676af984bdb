"""One operation: what is asked of a model about one document, and what counts as an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import msgspec
import orjson

from lowtide.operations.template import Template


class Output(msgspec.Struct, frozen=True, gc=False):
    """An answer that has the shape which was asked for. `document` is it as JSON, or "" for plain text."""

    text: str = ""
    document: str = ""
    label: str | None = None
    confidence: float | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why an answer does not have the shape that was asked for. Never holds the answer itself."""

    reason: str


class Validator(Protocol):
    """Tells an answer from something else."""

    def __call__(self, text: str) -> Output | Invalid: ...


@dataclass(frozen=True)
class Operation:
    """A prompt, its answer's schema and their version.

    `kind` is summarize, translate, classify, extract or prompt. `name` is unique in a job. `system` is plain text;
    `user` may use the slots `text`, `marker` and the job's fields. `schema` is the JSON Schema of the answer, None for
    plain text. `parameters` are the kind's own settings (words, language, labels, to), for backends that are no
    language models.
    """

    kind: str
    name: str
    system: str
    user: Template
    validate: Validator = field(compare=False, repr=False)
    schema: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_output_tokens: int = 1024

    @cached_property
    def version(self) -> str:
        """16 hex digits that change with anything that could change an answer. The name is not part of it."""
        asked = [self.kind, self.system, self.user.source, self.schema, dict(self.parameters), self.max_output_tokens]
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
