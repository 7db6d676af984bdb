"""Tokens of an answer before any was seen: by the kind of operation, its parameters and its schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lowtide.estimating.text import Text
from lowtide.operations import Operation

# Tokens of o200k_base in translated messages of programs by those of their English originals, at least 480 messages of
# over 40 characters in each language (Debian 12, measured in November 2026).
_EXPANSION = {
    "en": 1.0, "de": 1.33, "fr": 1.36, "es": 1.26, "it": 1.38, "pt": 1.21, "nl": 1.26, "sv": 1.34, "da": 1.35,
    "nb": 1.32, "no": 1.32, "fi": 1.55, "pl": 1.57, "cs": 1.57, "sk": 1.63, "hu": 1.73, "ro": 1.53, "tr": 1.41,
    "ru": 1.36, "uk": 1.63, "bg": 1.7, "sr": 1.71, "el": 1.9, "he": 1.53, "ar": 1.31, "fa": 1.5, "hi": 1.57, "bn": 1.86,
    "ta": 1.76, "te": 2.14, "th": 1.7, "vi": 1.45, "id": 1.2, "ja": 1.62, "ko": 1.43, "zh": 1.16, "ca": 1.5, "hr": 1.46,
    "sl": 1.49, "lt": 1.68, "lv": 1.67, "et": 1.33,
}  # fmt: skip
_OTHER_EXPANSION = 1.6
_TOKENS_PER_WORD = 1.35
_FILLED = (0.35, 0.8, 1.2)
"""Low, expected and high share of the words that a summary may have: models stay below a limit more often than not."""
_LONG_WORDS = 3.0
_LEAF_TOKENS = {"string": 12.0, "integer": 3.0, "number": 4.0, "boolean": 1.0, "null": 1.0}
_OPTIONAL = 0.7
_ITEMS = 2


Measure = Callable[[str], float]
"""Tokens of a short text, such as a label or a name of a property."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens of one answer on average, with 90 % between `low` and `high`."""

    low: float
    expected: float
    high: float

    def within(self, least: float, most: float) -> Guess:
        """The same between bounds that cannot be passed."""
        low, expected, high = (max(min(value, most), least) for value in (self.low, self.expected, self.high))
        return Guess(min(low, expected), expected, max(high, expected))


def guess(operation: Operation, text: Text, count: Measure, *, factor: float, reasons: bool) -> Guess:
    """One answer's tokens. `factor` is that of the model's family.

    Reasoning, which is billed as output, may use whatever `max_output_tokens` leaves.
    """
    match operation.kind:
        case "summarize":
            found = _summary(operation, text, count, factor)
        case "classify":
            found = _label(operation, count)
        case "translate":
            found = _translation(operation, text, count)
        case _:
            found = _answer(operation, count)
    most = float(operation.max_output_tokens)
    found = found.within(1, most)
    if reasons:
        return Guess(found.expected, found.expected + 0.4 * (most - found.expected), most).within(1, most)
    return found


def _summary(operation: Operation, text: Text, count: Measure, factor: float) -> Guess:
    words, language = operation.parameters.get("words"), operation.parameters.get("language")
    per_word = (
        factor * _TOKENS_PER_WORD * (_expansion(language) if isinstance(language, str) else 1 + 0.5 * text.foreign)
    )
    most = (words if isinstance(words, int) else 100) * per_word
    frame = count('{"summary":""}')
    # A summary is no longer than its document, and one that quotes it may have words as long as the document's.
    quoting = max(min(text.per_word / per_word, _LONG_WORDS), 1.0)
    low, expected, high = (frame + text.mean_of(1.0, most * share) for share in (*_FILLED[:2], _FILLED[2] * quoting))
    return Guess(low, expected, high)


def _label(operation: Operation, count: Measure) -> Guess:
    labels = operation.parameters.get("labels")
    names = list(labels) if isinstance(labels, Mapping) and labels else ["label"]
    sizes = [count(orjson.dumps({"label": name, "confidence": 0.95}).decode()) for name in names]
    return Guess(min(sizes) - 2, sum(sizes) / len(sizes), max(sizes) + 6)


def _translation(operation: Operation, text: Text, count: Measure) -> Guess:
    target = operation.parameters.get("to")
    factor = _expansion(target if isinstance(target, str) else "") / (1 + 0.5 * text.foreign)
    frame, most = count('{"translation":"","source_language":"en"}'), operation.max_output_tokens
    low, expected, high = (text.mean_of(factor * share, most) + frame for share in (0.65, 1.0, 1.5))
    return Guess(low, expected, high)


def _answer(operation: Operation, count: Measure) -> Guess:
    if operation.schema is None:
        most = operation.max_output_tokens
        return Guess(0.02 * most, 0.2 * most, most)
    expected = _Instances(operation.schema, count).tokens(operation.schema)
    return Guess(0.4 * expected, expected, 4 * expected)


class _Instances:
    """Ordinary values that a schema allows."""

    def __init__(self, root: Mapping[str, Any], count: Measure) -> None:
        self._root = root
        self._count = count
        self._known: dict[str, float] = {}

    def tokens(self, schema: object) -> float:
        """Tokens of such a value, as JSON."""
        if not isinstance(schema, Mapping):
            return _LEAF_TOKENS["string"]
        if "$ref" in schema:
            return self._referred(str(schema["$ref"]))
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            return _mean([self._count(orjson.dumps(value).decode()) for value in values])
        for keyword in ("anyOf", "oneOf"):
            if isinstance(schema.get(keyword), list):
                return _mean([self.tokens(part) for part in schema[keyword]])
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        if "properties" in schema or "object" in kinds:
            return self._object(schema)
        if "items" in schema or "array" in kinds:
            items = max(int(schema.get("minItems", 0)), min(_ITEMS, int(schema.get("maxItems", _ITEMS))))
            return 2 + items * (1 + self.tokens(schema.get("items")))
        return _mean([_LEAF_TOKENS.get(str(name), _LEAF_TOKENS["string"]) for name in kinds])

    def _object(self, schema: Mapping[str, Any]) -> float:
        required = schema.get("required", ())
        return 2 + sum(
            (1.0 if name in required else _OPTIONAL)
            * (self._count(orjson.dumps(name).decode()) + 2 + self.tokens(part))
            for name, part in schema.get("properties", {}).items()
        )

    def _referred(self, reference: str) -> float:
        """What `#/$defs/name` stands for, looked into once, so that a schema that holds itself has an end."""
        if reference not in self._known:
            self._known[reference] = _LEAF_TOKENS["string"]
            found: object = self._root
            for part in reference.removeprefix("#").strip("/").split("/"):
                found = found.get(part) if isinstance(found, Mapping) and part else found
            self._known[reference] = self.tokens(found)
        return self._known[reference]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else _LEAF_TOKENS["string"]


def _expansion(language: str) -> float:
    return _EXPANSION.get(language.partition("-")[0].lower(), _OTHER_EXPANSION)
