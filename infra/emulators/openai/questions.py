"""From the body of a chat completion or a response to what is asked of the model, or to the provider's error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowtide.emulators import answers
from lowtide.emulators.openai.errors import BadRequest, RowError
from lowtide.emulators.openai.rules import CHAT_PARAMETERS, MODELS, RESPONSES_PARAMETERS, UNKNOWN_MODEL, Api, Model

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_SCHEMA_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the texts, the schema if there is one, and the bound on the answer (0: none)."""

    api: Api
    system: str
    user: str
    schema: Mapping[str, Any] | None
    max_tokens: int

    @property
    def input_tokens(self) -> int:
        """Prompt tokens, as they are billed and as they count against a quota."""
        return answers.input_tokens(self.system, self.user)


def read_question(api: Api, body: Mapping[str, Any], model: str) -> Question:
    """Check a body as the API of `model` would, and read it. Raises BadRequest."""
    known = CHAT_PARAMETERS if api == "chat" else RESPONSES_PARAMETERS
    if not known.issuperset(body):
        name = next(name for name in body if name not in known)
        raise _bad(f"Unknown parameter: '{name}'.", "unknown_parameter", name)
    if body.get("stream"):
        raise _bad("Streaming is not supported here.", "unsupported_value", "stream")
    rules = MODELS.get(model, UNKNOWN_MODEL)
    question = _chat(body, rules) if api == "chat" else _response(body)
    _check_sampling(body, rules)
    if question.max_tokens > rules.output:
        name = "max_output_tokens" if api == "responses" else "max_tokens"
        raise _bad(
            f"max_tokens is too large: {question.max_tokens}. This model supports at most {rules.output} completion "
            "tokens.",
            "invalid_value",
            name,
        )
    asked = question.input_tokens
    if asked > rules.context:
        raise _bad(
            f"This model's maximum context length is {rules.context} tokens. However, your messages resulted in "
            f"{asked} tokens. Please reduce the length of the messages.",
            "context_length_exceeded",
            "messages" if api == "chat" else "input",
        )
    return question


def prompt_tokens(api: Api | None, body: Mapping[str, Any]) -> int:
    """Prompt tokens of a body that has not been checked; 0 where they cannot be told."""
    try:
        texts = _messages(body) if api == "chat" else _inputs(body)
    except BadRequest:
        return 0
    return answers.input_tokens(*texts)


def _chat(body: Mapping[str, Any], rules: Model) -> Question:
    if rules.reasoning and body.get("max_tokens") is not None:
        raise _bad(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            "unsupported_parameter",
            "max_tokens",
        )
    system, user = _messages(body)
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type") == "json_object" and "json" not in f"{system}{user}".lower():
        raise _bad(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            None,
            "messages",
        )
    schema = None
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        schema = _schema(form.get("json_schema"), "response_format.json_schema")
    elif form is not None and (
        not isinstance(form, Mapping) or form.get("type") not in {"text", "json_object", "json_schema"}
    ):
        raise _bad("Invalid value for 'response_format'.", "invalid_value", "response_format")
    most = _positive(body, "max_completion_tokens") or _positive(body, "max_tokens")
    return Question("chat", system, user, schema, most)


def _response(body: Mapping[str, Any]) -> Question:
    system, user = _inputs(body)
    text = body.get("text")
    form = text.get("format") if isinstance(text, Mapping) else None
    schema = None
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        schema = _schema(form, "text.format")
    return Question("responses", system, user, schema, _positive(body, "max_output_tokens"))


def _messages(body: Mapping[str, Any]) -> tuple[str, str]:
    messages = body.get("messages")
    if messages is None:
        raise _bad("Missing required parameter: 'messages'.", "missing_required_parameter", "messages")
    if not isinstance(messages, list) or not messages:
        raise _bad("Invalid 'messages': empty array. Expected at least one message.", "empty_array", "messages")
    return _texts(messages, "messages")


def _inputs(body: Mapping[str, Any]) -> tuple[str, str]:
    given = body.get("input")
    instructions = body.get("instructions")
    system = instructions if isinstance(instructions, str) else ""
    if isinstance(given, str):
        return system, given
    if not isinstance(given, list) or not given:
        raise _bad("Missing required parameter: 'input'.", "missing_required_parameter", "input")
    own, user = _texts(given, "input")
    return "\n".join(part for part in (system, own) if part), user


def _texts(messages: list[Any], name: str) -> tuple[str, str]:
    system: list[str] = []
    user: list[str] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise _bad(f"Invalid value: '{name}[{number}].role'.", "invalid_value", f"{name}[{number}].role")
        content = message.get("content")
        if isinstance(content, list):
            content = "\n".join(part["text"] for part in content if isinstance(part, Mapping) and "text" in part)
        if not isinstance(content, str):
            raise _bad(f"Invalid type for '{name}[{number}].content'.", "invalid_type", f"{name}[{number}].content")
        (system if message["role"] in {"system", "developer"} else user).append(content)
    return "\n".join(system), "\n".join(user)


def _schema(form: object, place: str) -> Mapping[str, Any]:
    name = form.get("name") if isinstance(form, Mapping) else None
    schema = form.get("schema") if isinstance(form, Mapping) else None
    if not isinstance(name, str) or not isinstance(schema, Mapping) or not isinstance(form, Mapping):
        raise _bad(f"Missing required parameter: '{place}.name'.", "missing_required_parameter", f"{place}.name")
    if not _SCHEMA_NAME.fullmatch(name):
        raise _bad(
            f"Invalid '{place}.name': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$', at most 64 characters long.",
            "invalid_value",
            f"{place}.name",
        )
    if schema.get("type") != "object":
        raise _bad_schema(name, "(),", "schema must be a JSON Schema of 'type: \"object\"'", place)
    if form.get("strict"):
        _check_strict(schema, name, place, "()")
    return schema


def _check_strict(schema: object, name: str, place: str, context: str) -> None:
    if not isinstance(schema, Mapping):
        return
    properties = schema.get("properties", {})
    if schema.get("type") == "object" or properties:
        if schema.get("additionalProperties") is not False:
            raise _bad_schema(name, context, "'additionalProperties' is required to be supplied and to be false", place)
        if set(schema.get("required", [])) != set(properties):
            raise _bad_schema(
                name,
                context,
                "'required' is required to be supplied and to be an array including every key in properties",
                place,
            )
    for key, inner in properties.items():
        _check_strict(inner, name, place, f"('properties', '{key}')")
    _check_strict(schema.get("items"), name, place, f"{context}.items")
    for keyword in ("anyOf", "$defs"):
        inner = schema.get(keyword)
        for part in inner.values() if isinstance(inner, Mapping) else inner or ():
            _check_strict(part, name, place, f"{context}.{keyword}")


def _check_sampling(body: Mapping[str, Any], rules: Model) -> None:
    for name in _SAMPLING:
        value = body.get(name)
        if value is None:
            continue
        if rules.reasoning and value != (0 if name.endswith("penalty") else 1):
            raise _bad(
                f"Unsupported value: '{name}' does not support {value} with this model. Only the default value is "
                "supported.",
                "unsupported_value",
                name,
            )
        if not isinstance(value, int | float):
            raise _bad(f"Invalid type for '{name}': expected a decimal.", "invalid_type", name)


def _positive(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise _bad(f"Invalid type for '{name}': expected an integer.", "invalid_type", name)
    if value < 1:
        raise _bad(
            f"Invalid '{name}': integer below minimum value. Expected a value >= 1.",
            "integer_below_min_value",
            name,
        )
    return value


def _bad_schema(name: str, context: str, reason: str, place: str) -> BadRequest:
    parameter = place.partition(".")[0] if place.startswith("response_format") else f"{place}.schema"
    return _bad(f"Invalid schema for response_format '{name}': In context={context}, {reason}.", None, parameter)


def _bad(message: str, code: str | None, param: str) -> BadRequest:
    return BadRequest(RowError(400, message, code=code, param=param))
