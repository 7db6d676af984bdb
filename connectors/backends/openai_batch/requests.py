"""From a request to one line of a batch's input file.

    {"custom_id": "...", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "...", "messages": [...]}}

The id and the model's name come first in every line, so that the name can be exchanged without reading the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import orjson

from lowtide.connectors.backends.openai_batch.schemas import response_schema
from lowtide.connectors.backends.openai_batch.services import Call, LimitKey, family_of
from lowtide.errors import ConfigError
from lowtide.operations import Operation
from lowtide.records import Request

Value: TypeAlias = str | int | float | bool
Body: TypeAlias = dict[str, Any]

_HEAD = re.compile(rb'\{"custom_id":"[^"\\]*","method":"POST","url":"[^"\\]*","body":\{"model":("(?:[^"\\]|\\.)*")')

# What the operation says, or what the batch APIs do not know; `n` would multiply the price of each row.
_TAKEN = {
    "model", "messages", "input", "instructions", "max_tokens", "max_completion_tokens", "max_output_tokens",
    "response_format", "text.format", "stream", "background", "n", "call", "structured_output",
}  # fmt: skip


class RequestEncoder:
    """Writes request lines for one model. `model` tells what it understands, `name` stands in the lines.

    `limit_key` names the longest answer, by default as the model's family does.
    `parameters` are merged into the body; a dotted name such as `reasoning.effort` goes into an object. Raises
    ConfigError for one that the operation settles, or that clashes with another; `where` begins its message.
    """

    def __init__(
        self,
        *,
        call: Call,
        url: str,
        name: str,
        model: str,
        parameters: Mapping[str, Value],
        native: bool,
        limit_key: LimitKey | None = None,
        where: str = "backends[0].openai-batch",
    ) -> None:
        self._call = call
        self._url = url
        self._name = name
        self._limit_key = limit_key or family_of(model).limit_key
        self._native = native
        self._parameters = _nested(parameters, f"{where}.parameters")

    def encode(self, request: Request) -> bytes:
        """The line, without its end."""
        body = self._chat(request) if self._call == "chat" else self._response(request)
        line = {"custom_id": request.record_id, "method": "POST", "url": self._url, "body": body}
        return orjson.dumps(line)

    def _chat(self, request: Request) -> Body:
        system = [{"role": "system", "content": request.system}] if request.system else []
        body: Body = {
            "model": self._name,
            "messages": [*system, {"role": "user", "content": request.user}],
            self._limit_key: request.operation.max_output_tokens,
        }
        if form := self._form(request.operation):
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return _merged(body, self._parameters)

    def _response(self, request: Request) -> Body:
        body: Body = {"model": self._name}
        if request.system:
            body["instructions"] = request.system
        body |= {"input": request.user, "max_output_tokens": request.operation.max_output_tokens}
        if form := self._form(request.operation):
            body["text"] = {"format": {"type": "json_schema", **form}}
        return _merged(body, self._parameters)

    def _form(self, operation: Operation) -> Body | None:
        if not self._native or operation.schema is None:
            return None
        return response_schema(operation.name, operation.schema)


def model_in(line: bytes) -> bytes | None:
    """The model's name in a request line, as JSON; None if the line is none of ours."""
    found = _HEAD.match(line)
    return found[1] if found else None


def named(name: bytes) -> bytes:
    """The part of a line that holds the model's name, given as JSON. It stands once before anything of a document."""
    return b'"body":{"model":' + name


def _nested(parameters: Mapping[str, Value], where: str) -> Body:
    nested: Body = {}
    for name, value in parameters.items():
        *parents, last = name.split(".")
        places = {".".join([*parents, last][: depth + 1]) for depth in range(len(parents) + 1)}
        if places & _TAKEN or name == "text" or not all([*parents, last]):
            raise ConfigError(
                f"{where}.{name}: found {value!r}; expected nothing: the operation, or the backend, settles it"
            )
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(
                    f"{where}.{name}: found beside {parent!r}, which is set to a plain value; expected one of them"
                )
        if last in target:
            raise ConfigError(f"{where}.{name}: found it set in two ways; expected one")
        target[last] = value
    return nested


def _merged(body: Body, parameters: Body) -> Body:
    for name, value in parameters.items():
        body[name] = {**body[name], **value} if name in body and isinstance(value, dict) else value
    return body
