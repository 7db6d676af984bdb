"""What the emulated models answer: the same text for the same question, always, in the form that was asked for.

Nothing here is random, and nothing is remembered between calls. A summary is the beginning of the document, a label is
one of those listed, a translation is the document after the mark of its language, and an object follows its schema.
Token counts are functions of the text, so that a bill can be added up again by whoever holds requests and answers: a
quarter of its bytes, or what the tokenizer of OpenAI's newer models makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from typing import Any

import orjson

from lowtide.emulators.instances import Source, instance

REFUSAL = "I'm sorry, but I can't help with that."

_PROMPT_OVERHEAD = 7
# 3 tokens and the role for each of two messages, and 3 before the answer.
_CHAT_OVERHEAD = 11
_CACHE_STEP = 16
_CACHED_OF = 4
_REASONED_OF = 3
_SUMMARY_WORDS = 40
_PLAIN_WORDS = 60
_MARKED = re.compile(r"<document-([^>\s]+)>\n(.*?)\n</document-\1>", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_WORDS_ASKED = re.compile(r"at most (\d+) words")
_LANGUAGE_ASKED = re.compile(r'into the language with the BCP 47 code "([^"]+)"')
_LABEL_LINE = re.compile(r'^- ("(?:[^"\\]|\\.)*")', re.MULTILINE)
_SCHEMA_MARK = "valid under this JSON Schema:\n"


class NoTokenizer(Exception):
    """The package that counts tokens is not installed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """How tokens are counted: those of a text, and what stands `around` a prompt. `schemas` count where that is set."""

    count: Callable[[str], int]
    around: int
    schemas: bool

    def prompt(self, system: str, user: str, schema: Mapping[str, Any] | None) -> int:
        """Tokens of a prompt: those of its texts, and a constant for what stands around them."""
        asked = self.count(orjson.dumps(schema).decode()) if schema is not None and self.schemas else 0
        return self.count(system) + self.count(user) + asked + self.around

    def cut(self, text: str, most: int) -> str:
        """The beginning of a text, of no more than so many tokens."""
        if self.count is count_tokens:
            return text.encode()[: most * 4].decode(errors="ignore")
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count(text[:middle]) <= most else (low, middle - 1)
        return text[:low]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer and its tokens.

    `cached_tokens` is part of `input_tokens`, `reasoning_tokens` of `output_tokens`. `finish_reason` is `stop`, or
    `length` where `max_tokens` cut the text off.
    """

    text: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the words of a system prompt ask for, read once for each prompt."""

    form: str
    labels: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    words: int = _SUMMARY_WORDS
    language: str = ""


def answer(
    system: str,
    user: str,
    schema: Mapping[str, Any] | None,
    max_tokens: int,
    *,
    reasoning: bool = False,
    seed: int = 0,
    tokens: Tokens | None = None,
) -> Answered:
    """The answer to a system and a user prompt, in the form of `schema`, or else of what the system prompt says.

    `max_tokens` bounds what can be read of the answer; 0 is no bound. With `reasoning`, one answer in three, chosen by
    the question, has spent reasoning tokens as well, which count as output. Another `seed` gives other answers.
    `tokens` says how they are counted; by bytes, if nothing does.
    """
    tokens = tokens or BYTES
    digest = _digest(system, user, seed)
    text = _text(_asked(system), document(user), schema, digest)
    visible = tokens.count(text)
    finish_reason = "stop"
    if 0 < max_tokens < visible:
        text = tokens.cut(text, max_tokens)
        visible, finish_reason = max_tokens, "length"
    thought = 16 + digest[2] % 64 if reasoning and digest[1] % _REASONED_OF == 0 else 0
    return Answered(
        text=text,
        input_tokens=tokens.prompt(system, user, schema),
        output_tokens=visible + thought,
        # A prefix that the question's hash says was seen before; real caches begin at prompts of 1,024 tokens.
        cached_tokens=tokens.count(system) // _CACHE_STEP * _CACHE_STEP if digest[0] % _CACHED_OF == 0 else 0,
        reasoning_tokens=thought,
        finish_reason=finish_reason,
    )


def unfit(answered: Answered, tokens: Tokens | None = None) -> Answered:
    """The answer with words around it and no form at all, as models give when they do not keep to what was asked."""
    words = " ".join(re.findall(r"\w+", answered.text)[:20])
    text = f"Sure! Here is what I found: {words}"
    return replace(answered, text=text, output_tokens=(tokens or BYTES).count(text) + answered.reasoning_tokens)


def refused(answered: Answered, tokens: Tokens | None = None) -> Answered:
    """The model's own refusal of the same question: the input is spent, the output is one sentence."""
    return replace(answered, text=REFUSAL, output_tokens=(tokens or BYTES).count(REFUSAL), reasoning_tokens=0)


def count_tokens(text: str) -> int:
    """Tokens of a text: a quarter of its UTF-8 bytes, rounded up."""
    return -(-(len(text) if text.isascii() else len(text.encode(errors="replace"))) // 4)


def input_tokens(system: str, user: str) -> int:
    """Tokens of a prompt by its bytes, as limits and quotas see it before anything is answered."""
    return BYTES.prompt(system, user, None)


BYTES = Tokens(count_tokens, _PROMPT_OVERHEAD, schemas=False)


def tokens_by(name: str) -> Tokens:
    """`bytes`, or `o200k`: the tokenizer itself, prompts framed as OpenAI's cookbook says. Raises NoTokenizer."""
    if name == "bytes":
        return BYTES
    try:
        tokenizer = import_module("bpe_openai._bindings").tokenizer_for_encoding("o200k_base")
    except ImportError as error:
        raise NoTokenizer("counting o200k tokens needs bpe-openai: pip install 'lowtide[tokens]'") from error
    count: Callable[[str], int] = tokenizer.count
    return Tokens(lambda text: count(text.encode(errors="replace").decode()), _CHAT_OVERHEAD, schemas=True)


def document(user: str) -> str:
    """The document in a user prompt: what stands between its markers, or the whole where there are none."""
    start = user.find("<document-")
    found = _MARKED.search(user, start) if start >= 0 else None
    return found[2] if found else user


def _digest(system: str, user: str, seed: int) -> bytes:
    hashed = sha256(f"{seed}:{system}".encode(errors="replace"))
    hashed.update(b"\0")
    hashed.update(user.encode(errors="replace"))
    return hashed.digest()


@lru_cache(maxsize=256)
def _asked(system: str) -> _Asked:
    mark = system.rfind(_SCHEMA_MARK)
    if mark >= 0:
        try:
            schema, _ = _decode_prefix(system[mark + len(_SCHEMA_MARK) :])
            return _Asked("schema", schema=schema)
        except ValueError:
            pass
    words = _WORDS_ASKED.search(system)
    language = _LANGUAGE_ASKED.search(system)
    labels = tuple(orjson.loads(label) for label in _LABEL_LINE.findall(system))
    for form, mark_of_form in (
        ("summary", 'The form is {"summary"'),
        ("label", 'The form is {"label"'),
        ("translation", 'The form is {"translation"'),
    ):
        if mark_of_form in system and (form != "label" or labels):
            return _Asked(
                form,
                labels=labels,
                words=int(words[1]) if words else _SUMMARY_WORDS,
                language=language[1] if language else "",
            )
    return _Asked("plain", words=_PLAIN_WORDS)


def _decode_prefix(text: str) -> tuple[Mapping[str, Any], str]:
    first, _, rest = text.partition("\n")
    schema = orjson.loads(first)
    if not isinstance(schema, dict):
        raise ValueError("the schema is no object")
    return schema, rest


def _text(asked: _Asked, text: str, schema: Mapping[str, Any] | None, digest: bytes) -> str:
    schema = schema if schema is not None else asked.schema
    if asked.form == "plain" and schema is None:
        return beginning(text, asked.words)
    source = Source(
        digest=digest,
        text=text,
        beginning=beginning(text, asked.words),
        language=asked.language,
        label=_label(asked.labels, text, digest),
    )
    if schema is not None:
        return orjson.dumps(instance(schema, source)).decode()
    match asked.form:
        case "summary":
            answered: dict[str, object] = {"summary": source.beginning}
        case "label":
            answered = {"label": source.label, "confidence": source.confidence}
        case _:
            answered = {"translation": source.translation, "source_language": "en"}
    return orjson.dumps(answered).decode()


def _label(labels: tuple[str, ...], text: str, digest: bytes) -> str:
    if not labels:
        return ""
    lowered = text[:4_000].lower()
    named = next((label for label in labels if label and label.lower() in lowered), None)
    return named if named is not None else labels[digest[3] % len(labels)]


def beginning(text: str, words: int) -> str:
    """The first sentence of a text, and the next ones while they fit in `words` words. Never empty."""
    head = text[: words * 16 + 256].strip()
    if not head:
        return "The document is empty."
    taken: list[str] = []
    count = 0
    for sentence in _SENTENCE_END.split(head):
        parts = sentence.split()
        if taken and count + len(parts) > words:
            break
        taken += parts[: words - count]
        count = len(taken)
        if count >= words:
            break
    return " ".join(taken) or head[:64]
