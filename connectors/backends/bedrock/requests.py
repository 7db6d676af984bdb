"""From a request to its line: `{"recordId": ..., "modelInput": ...}`, for Converse or in the form of a model's family.

Nothing of a request goes into a line but as a JSON string, alone or between constant text, so lines can be spliced.
Converse: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. Families: the pages
"model-parameters-*" of Bedrock's user guide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from lowtide.connectors.backends.bedrock.models import Family, Model
from lowtide.connectors.backends.bedrock.names import FIELD
from lowtide.connectors.backends.bedrock.schemas import fits_native
from lowtide.errors import ConfigError
from lowtide.operations import Operation
from lowtide.records import Request

Invocation = Literal["converse", "invoke"]
Parameters = Mapping[str, str | int | float | bool]

_CONVERSE_NAMES = {"temperature": "temperature", "top_p": "topP", "topP": "topP"}
_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "topP": "top_p", "top_k": "top_k", "topK": "top_k"}
# The length of an answer is the operation's, and the prompt is ours. Tools with Converse fail every row of a batch.
_OURS = frozenset({
    "max_tokens", "maxTokens", "max_gen_len", "maxTokenCount", "max_new_tokens", "messages", "system", "prompt",
    "inputText", "schemaVersion", "anthropic_version", "model", "modelId", "stream", "inferenceConfig",
    "textGenerationConfig", "additionalModelRequestFields", "output_config", "outputConfig", "response_format",
    "tools", "tool_choice", "toolConfig", "n",
})  # fmt: skip
_BOUNDED = frozenset({"temperature", "top_p", "topP"})


@dataclass(frozen=True)
class Encoder:
    """Writes request lines. `native` says that the answer's schema is sent along where the model can hold to it."""

    invocation: Invocation
    model: Model
    parameters: Parameters = field(default_factory=dict)
    native: bool = False

    def encode(self, request: Request) -> bytes:
        """One line, without its end."""
        form = _converse if self.invocation == "converse" else _FAMILIES[self.model.family]
        return orjson.dumps({"recordId": request.record_id, "modelInput": form(self, request)})

    def schema(self, operation: Operation) -> Mapping[str, Any] | None:
        """The schema that is sent with the operation's requests; None where it stands in the prompt only."""
        return operation.schema if self.native and operation.schema and fits_native(operation.schema) else None


def check_parameters(parameters: Parameters, model: Model, invocation: Invocation) -> None:
    """Refuse parameters that would fail every request. Raises ConfigError that names the key.

    A batch whose rows set both temperature and top_p for a model of Anthropic's was reported to complete with all of
    them failed (github.com/BerriAI/litellm/pull/36159).
    """
    if invocation == "invoke" and model.family not in _FAMILIES:
        raise ConfigError(
            f"{FIELD}.invocation: found 'invoke'; expected converse: only the forms of Anthropic, Nova, Llama, Mistral "
            "and Titan are known, and this model is none of them"
        )
    for name, value in parameters.items():
        key = f"{FIELD}.parameters.{name}"
        if name in _OURS:
            raise ConfigError(
                f"{key}: found {value!r}; expected nothing: the operation sets it, or a batch cannot use it"
            )
        if name in _BOUNDED and (isinstance(value, bool | str) or not 0 <= value <= 1):
            raise ConfigError(f"{key}: found {value!r}; expected a number from 0 to 1")
    if len({"top_p", "topP"} & parameters.keys()) > 1:
        raise ConfigError(f"{FIELD}.parameters: found top_p and topP; expected one of them, they are the same")
    if model.family == "anthropic" and "temperature" in parameters and {"top_p", "topP"} & parameters.keys():
        raise ConfigError(
            f"{FIELD}.parameters: found temperature and top_p; expected one of them for a model of Anthropic's"
        )


def can_be_native(model: Model, invocation: Invocation) -> bool:
    """Whether answers can be held to a schema: by the table, and in a form of request that has a place for one."""
    return model.native and (invocation == "converse" or model.family == "anthropic")


def _converse(encoder: Encoder, request: Request) -> dict[str, Any]:
    parameters = encoder.parameters
    config: dict[str, Any] = {"maxTokens": request.operation.max_output_tokens}
    config |= {_CONVERSE_NAMES[name]: value for name, value in parameters.items() if name in _CONVERSE_NAMES}
    extra = {name: value for name, value in parameters.items() if name not in _CONVERSE_NAMES}
    separate = bool(request.system) and encoder.model.system
    user = request.user if separate or not request.system else f"{request.system}\n\n{request.user}"
    body: dict[str, Any] = {"system": [{"text": request.system}]} if separate else {}
    body |= {"messages": [{"role": "user", "content": [{"text": user}]}], "inferenceConfig": config}
    if (schema := encoder.schema(request.operation)) is not None:
        answer = {"name": "answer", "schema": orjson.dumps(schema).decode()}
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": answer}}}
    if extra:
        body["additionalModelRequestFields"] = _extra_fields(encoder.model.family, extra)
    return body


def _extra_fields(family: Family, extra: Mapping[str, Any]) -> dict[str, Any]:
    top_k = {name: value for name, value in extra.items() if name in {"top_k", "topK"}}
    others = {name: value for name, value in extra.items() if name not in top_k}
    if not top_k:
        return others
    value = next(iter(top_k.values()))
    return others | ({"inferenceConfig": {"topK": value}} if family == "nova" else {"top_k": value})


def _anthropic(encoder: Encoder, request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": request.operation.max_output_tokens,
        **_named(encoder.parameters, _SAMPLING),
        "messages": [{"role": "user", "content": [{"type": "text", "text": request.user}]}],
    }
    if request.system:
        body["system"] = request.system
    if (schema := encoder.schema(request.operation)) is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": dict(schema)}}
    return body


def _nova(encoder: Encoder, request: Request) -> dict[str, Any]:
    names = {"temperature": "temperature", "top_p": "topP", "topP": "topP", "top_k": "topK", "topK": "topK"}
    config = {name: value for name, value in encoder.parameters.items() if name in names}
    others = {name: value for name, value in encoder.parameters.items() if name not in names}
    body: dict[str, Any] = {"schemaVersion": "messages-v1"}
    if request.system:
        body["system"] = [{"text": request.system}]
    return body | {
        "messages": [{"role": "user", "content": [{"text": request.user}]}],
        "inferenceConfig": {"maxTokens": request.operation.max_output_tokens, **_named(config, names)},
        **others,
    }


def _llama(encoder: Encoder, request: Request) -> dict[str, Any]:
    fourth = encoder.model.quota.startswith("Llama 4")
    opened, closed, end = ("<|header_start|>", "<|header_end|>", "<|eot|>") if fourth else _LLAMA_3_MARKS
    system = f"{opened}system{closed}\n\n{request.system}{end}" if request.system else ""
    prompt = f"<|begin_of_text|>{system}{opened}user{closed}\n\n{request.user}{end}{opened}assistant{closed}\n\n"
    length = {"max_gen_len": request.operation.max_output_tokens}
    return {"prompt": prompt, **length, **_named(encoder.parameters, _SAMPLING)}


def _mistral_text(encoder: Encoder, request: Request) -> dict[str, Any]:
    asked = f"{request.system}\n\n{request.user}" if request.system else request.user
    length = {"max_tokens": request.operation.max_output_tokens}
    return {"prompt": f"<s>[INST] {asked} [/INST]", **length, **_named(encoder.parameters, _SAMPLING)}


def _mistral_chat(encoder: Encoder, request: Request) -> dict[str, Any]:
    messages = [{"role": "system", "content": request.system}] if request.system else []
    messages.append({"role": "user", "content": request.user})
    length = {"max_tokens": request.operation.max_output_tokens}
    return {"messages": messages, **length, **_named(encoder.parameters, _SAMPLING)}


def _titan(encoder: Encoder, request: Request) -> dict[str, Any]:
    asked = f"{request.system}\n\n{request.user}" if request.system else request.user
    names = {"temperature": "temperature", "top_p": "topP", "topP": "topP"}
    config = {"maxTokenCount": request.operation.max_output_tokens, **_named(encoder.parameters, names)}
    return {"inputText": f"User: {asked}\nBot:", "textGenerationConfig": config}


def _named(parameters: Parameters, names: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    return {names.get(name, name): value for name, value in parameters.items()}


_LLAMA_3_MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_FAMILIES: Mapping[Family, Callable[[Encoder, Request], dict[str, Any]]] = {
    "anthropic": _anthropic,
    "nova": _nova,
    "llama": _llama,
    "mistral-text": _mistral_text,
    "mistral-chat": _mistral_chat,
    "titan": _titan,
}
