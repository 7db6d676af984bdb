"""From a model's text to an answer, or to the reason why it is none. Nothing here raises, whatever the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import jsonschema_rs
import msgspec

from lowtide.operations import strict_json
from lowtide.operations.operation import Invalid, Output
from lowtide.operations.schemas import compile_schema, property_names

T = TypeVar("T", bound=msgspec.Struct)

_FENCE = re.compile(r"\s*```[A-Za-z0-9_-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*", re.DOTALL)
_PATH = re.compile(r" - at `\$\.([a-z_]+)`$")
_MISSING = re.compile(r"Object missing required field `([a-z_]+)`$")


class _Summary(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    summary: str


class _Class(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    label: str
    confidence: float | None = None


class _Translation(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    translation: str
    source_language: str | None = None


_summary_decoder = msgspec.json.Decoder(_Summary)
_class_decoder = msgspec.json.Decoder(_Class)
_translation_decoder = msgspec.json.Decoder(_Translation)


@dataclass(frozen=True, slots=True)
class SummaryAnswer:
    """`{"summary": text}`."""

    def __call__(self, text: str) -> Output | Invalid:
        answer = _decode(text, _summary_decoder, ('"summary"',))
        if isinstance(answer, Invalid):
            return answer
        summary = answer.summary.strip()
        if not summary:
            return Invalid("summary: is empty")
        return Output(text=summary, document=strict_json.dumps({"summary": summary}))


@dataclass(frozen=True, slots=True)
class TranslationAnswer:
    """`{"translation": text, "source_language": code}`, the code optional."""

    def __call__(self, text: str) -> Output | Invalid:
        answer = _decode(text, _translation_decoder, ('"translation"', '"source_language"'))
        if isinstance(answer, Invalid):
            return answer
        translation = answer.translation.strip()
        if not translation:
            return Invalid("translation: is empty")
        language = (answer.source_language or "").strip() or None
        if language is not None and len(language) > 64:
            return Invalid("source_language: is longer than 64 characters")
        document = {"translation": translation} | ({"source_language": language} if language else {})
        return Output(text=translation, document=strict_json.dumps(document), language=language)


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """`{"label": one of the labels, "confidence": 0 to 1}`, the confidence optional.

    `labels` maps every label, and every label without capitals and surplus space, to the label itself.
    """

    labels: Mapping[str, str]

    @classmethod
    def of(cls, labels: Iterable[str]) -> LabelAnswer:
        names = list(labels)
        return cls({_folded(label): label for label in names} | {label: label for label in names})

    def __call__(self, text: str) -> Output | Invalid:
        answer = _decode(text, _class_decoder, ('"label"', '"confidence"'))
        if isinstance(answer, Invalid):
            return answer
        label = self.labels.get(answer.label) or self.labels.get(_folded(answer.label))
        if label is None:
            return Invalid("label: is none of the job's labels")
        confidence = answer.confidence
        if confidence is None:
            return Output(document=strict_json.dumps({"label": label}), label=label)
        if not 0 <= confidence <= 1:
            return Invalid("confidence: is not between 0 and 1")
        document = strict_json.dumps({"label": label, "confidence": confidence})
        return Output(document=document, label=label, confidence=confidence)


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """Any text that is not empty."""

    def __call__(self, text: str) -> Output | Invalid:
        answer = text.strip()
        if not answer:
            return Invalid("the answer is empty")
        if not _is_unicode(answer):
            return Invalid("the answer holds half a surrogate pair")
        return Output(text=answer)


@dataclass(frozen=True)
class SchemaAnswer:
    """An object by the user's own JSON Schema, which is compiled once in each process."""

    schema: Mapping[str, Any]

    def __reduce__(self) -> tuple[type[SchemaAnswer], tuple[Mapping[str, Any]]]:
        return SchemaAnswer, (self.schema,)

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator:
        return compile_schema(self.schema)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(property_names(self.schema))

    def __call__(self, text: str) -> Output | Invalid:
        try:
            answer = strict_json.loads(_unfenced(text))
            # Written before it is checked: what cannot be written would trip the checks as well.
            document = strict_json.dumps(answer)
            fault = next(self._validator.iter_errors(answer), None)
        except strict_json.StrictJsonError as error:
            return Invalid(f"{self._known(error.key)}: stands twice" if error.key else _json_reason(error))
        except (ValueError, RecursionError):
            return Invalid("the answer is nested too deeply")
        return Output(document=document) if fault is None else Invalid(self._reason(fault))

    def _reason(self, fault: jsonschema_rs.ValidationError) -> str:
        field = ""
        for part in fault.instance_path:
            field += f"[{part}]" if isinstance(part, int) else f".{self._known(part)}"
        rule = fault.kind.as_dict()
        match fault.kind.name:
            case "required":
                field += f".{self._known(rule['property'])}"
                problem = "is missing"
            case "additionalProperties" | "unevaluatedProperties":
                problem = "has a field that the schema does not name"
            case "type":
                problem = f"is not of type {' or '.join(rule['types'])}"
            case "enum" | "const":
                problem = "is none of the values that the schema allows"
            case "format":
                problem = f"is no {rule['format']}"
            case keyword:
                problem = f"breaks the schema's {keyword!r}"
        return f"{field.lstrip('.') or 'the answer'}: {problem}"

    def _known(self, name: str) -> str:
        """The name, if it is the schema's own. Any other was written by the model, perhaps from the document."""
        return name if name in self._names else "*"


def _decode(text: str, decoder: msgspec.json.Decoder[T], quoted_keys: tuple[str, ...]) -> T | Invalid:
    try:
        answer = decoder.decode(text)
    except (ValueError, RecursionError) as error:
        bare = _unfenced(text)
        if bare is text:
            return _decoding_fault(error)
        try:
            answer = decoder.decode(bare)
        except (ValueError, RecursionError) as fault:
            return _decoding_fault(fault)
    # msgspec lets the last of two equal keys win. A key can be there twice only if its text is, or if it is escaped.
    if "\\u" in text:
        return _checked_for_duplicates(text, answer)
    for key in quoted_keys:
        if text.count(key) > 1:
            return _checked_for_duplicates(text, answer)
    return answer


def _checked_for_duplicates(text: str, answer: T) -> T | Invalid:
    try:
        strict_json.loads(_unfenced(text))
    except strict_json.StrictJsonError as error:
        # Unknown keys were refused before, so a key that stands twice is one of ours.
        return Invalid(f"{error.key}: stands twice" if error.key else _json_reason(error))
    return answer


def _json_reason(error: strict_json.StrictJsonError) -> str:
    return "the answer is not JSON" if error.fault == "syntax" else f"the answer {error}"


def _decoding_fault(error: Exception) -> Invalid:
    """Said in our own words: msgspec's may repeat the answer."""
    match error:
        case msgspec.ValidationError():
            return Invalid(_shape_reason(str(error)))
        case RecursionError():
            return Invalid("the answer is nested too deeply")
        case UnicodeError():
            return Invalid("the answer holds half a surrogate pair")
        case _:
            return Invalid("the answer is not JSON")


def _shape_reason(message: str) -> str:
    missing, field = _MISSING.search(message), _PATH.search(message)
    if missing:
        return f"{missing[1]}: is missing"
    if field:
        return f"{field[1]}: is not of the type that was asked for"
    if "unknown field" in message:
        return "the answer has a field that was not asked for"
    return "the answer is not one JSON object"


def _unfenced(text: str) -> str:
    """What stands between ```json and ```, or the very same text."""
    if "```" not in text:
        return text
    fenced = _FENCE.fullmatch(text)
    return fenced[1] if fenced else text


def _folded(label: str) -> str:
    return " ".join(label.split()).casefold()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
