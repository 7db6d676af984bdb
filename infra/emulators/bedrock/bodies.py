"""What a model is asked: the request bodies of Converse, and of InvokeModel by family, read and checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lowtide.emulators.bedrock.models import Model

_DEFAULT_TOKENS = 4096
_SHORT_TOKENS = 512
_LLAMA_TURN = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*(.*?)(?:<\|eot_id\|>|\Z)", re.DOTALL)
_DOCUMENT = re.compile(r"^<document-", re.MULTILINE)
_CONVERSE_KEYS = frozenset(
    {
        "messages",
        "system",
        "inferenceConfig",
        "toolConfig",
        "guardrailConfig",
        "additionalModelRequestFields",
        "promptVariables",
        "additionalModelResponseFieldPaths",
        "requestMetadata",
        "performanceConfig",
        "serviceTier",
        "outputConfig",
    }
)
_ANTHROPIC_KEYS = frozenset(
    {
        "anthropic_version",
        "anthropic_beta",
        "max_tokens",
        "messages",
        "system",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
        "metadata",
        "output_config",
    }
)


class BadBody(ValueError):
    """A body that the model refuses, with status 400."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. `chat` says whether it came as messages, where a family knows two forms. `max_tokens` > 0."""

    system: str
    user: str
    schema: Mapping[str, Any] | None
    max_tokens: int
    chat: bool = True
    tools: bool = False
    cache_point: bool = False


Read = Callable[[Mapping[str, Any], Model], Asked]


def read_converse(body: Mapping[str, Any], model: Model) -> Asked:
    """A body of Converse. Raises BadBody."""
    _only(body, _CONVERSE_KEYS)
    config = _mapping(body.get("inferenceConfig") or {}, "inferenceConfig")
    _only(config, {"maxTokens", "temperature", "topP", "stopSequences"})
    fields = _mapping(body.get("additionalModelRequestFields") or {}, "additionalModelRequestFields")
    _sampling(config, "temperature", "topP", model)
    _sampling({**config, **fields}, "temperature", "top_p", model)
    system = _system_blocks(body.get("system") or [])
    if system.text and not model.system:
        raise BadBody("This model doesn't support the system field. Remove system and try again.")
    return Asked(
        system=system.text,
        user=_messages(body, typed=False),
        schema=_converse_schema(body, model),
        max_tokens=_tokens(config, "maxTokens") or _DEFAULT_TOKENS,
        tools=bool(body.get("toolConfig")),
        cache_point=system.cache_point or _has_cache_point(body["messages"]),
    )


def read_anthropic(body: Mapping[str, Any], model: Model) -> Asked:
    """Anthropic's Messages on InvokeModel. Raises BadBody."""
    _only(body, _ANTHROPIC_KEYS)
    if body.get("anthropic_version") != "bedrock-2023-05-31":
        raise BadBody("anthropic_version: the value must be bedrock-2023-05-31")
    max_tokens = _tokens(body, "max_tokens")
    if max_tokens is None:
        raise BadBody("max_tokens: Field required")
    _sampling(body, "temperature", "top_p", model)
    system = body.get("system") or ""
    output = _mapping(body.get("output_config") or {}, "output_config")
    form = _mapping(output.get("format") or {}, "output_config.format")
    return Asked(
        system=system if isinstance(system, str) else _blocks(system, "system", typed=True),
        user=_messages(body, typed=True),
        schema=_schema(form.get("schema"), model) if form else None,
        max_tokens=max_tokens,
        tools=bool(body.get("tools")),
    )


def read_nova(body: Mapping[str, Any], model: Model) -> Asked:
    """Nova's own form, which is Converse's with a schemaVersion. Raises BadBody."""
    _only(body, {"schemaVersion", "messages", "system", "inferenceConfig", "toolConfig"})
    if body.get("schemaVersion", "messages-v1") != "messages-v1":
        raise BadBody("schemaVersion: the value must be messages-v1")
    config = _mapping(body.get("inferenceConfig") or {}, "inferenceConfig")
    _only(config, {"maxTokens", "max_new_tokens", "temperature", "topP", "topK", "stopSequences"})
    _sampling(config, "temperature", "topP", model)
    return Asked(
        system=_system_blocks(body.get("system") or []).text,
        user=_messages(body, typed=False),
        schema=None,
        max_tokens=_tokens(config, "maxTokens") or _tokens(config, "max_new_tokens") or _DEFAULT_TOKENS,
        tools=bool(body.get("toolConfig")),
    )


def read_llama(body: Mapping[str, Any], model: Model) -> Asked:
    """Llama: one prompt, which may hold turns in the form of the model's own template. Raises BadBody."""
    _only(body, {"prompt", "max_gen_len", "temperature", "top_p"})
    _sampling(body, "temperature", "top_p", model)
    prompt = _prompt(body, "prompt")
    turns = _LLAMA_TURN.findall(prompt)
    system, user = _parted(prompt)
    if turns:
        system = "\n".join(text for role, text in turns if role == "system")
        user = "\n".join(text for role, text in turns if role == "user")
    return Asked(system, user, None, _tokens(body, "max_gen_len") or _SHORT_TOKENS, chat=False)


def read_mistral(body: Mapping[str, Any], model: Model) -> Asked:
    """Mistral: a prompt with [INST], or messages. Raises BadBody."""
    _only(body, {"prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "stop", "response_format"})
    if "messages" in body:
        return _chat(body, "max_tokens", model)
    _sampling(body, "temperature", "top_p", model)
    prompt = _prompt(body, "prompt").removeprefix("<s>").strip()
    system, user = _parted(prompt.removeprefix("[INST]").removesuffix("[/INST]"))
    return Asked(system, user, None, _tokens(body, "max_tokens") or _SHORT_TOKENS, chat=False)


def read_open(body: Mapping[str, Any], model: Model) -> Asked:
    """Models with open weights, in OpenAI's chat form. Raises BadBody."""
    _only(body, {"model", "messages", "max_completion_tokens", "max_tokens", "temperature", "top_p", "response_format"})
    return _chat(body, "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens", model)


def _chat(body: Mapping[str, Any], tokens: str, model: Model) -> Asked:
    _sampling(body, "temperature", "top_p", model)
    form = _mapping(body.get("response_format") or {}, "response_format")
    wanted = _mapping(form.get("json_schema") or {}, "response_format.json_schema")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadBody("messages: at least one message is required")
    texts: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    for message in messages:
        role = _mapping(message, "messages").get("role")
        if role not in texts:
            raise BadBody("messages: a role is system, user or assistant")
        content = message.get("content")
        texts[role].append(content if isinstance(content, str) else _blocks(content, "messages", typed=True))
    return Asked(
        system="\n".join(texts["system"]),
        user="\n".join(texts["user"]),
        schema=_schema(wanted["schema"], model) if "schema" in wanted else None,
        max_tokens=_tokens(body, tokens) or _SHORT_TOKENS,
    )


def read_titan(body: Mapping[str, Any], model: Model) -> Asked:
    """Titan Text. Raises BadBody."""
    _only(body, {"inputText", "textGenerationConfig"})
    config = _mapping(body.get("textGenerationConfig") or {}, "textGenerationConfig")
    _only(config, {"maxTokenCount", "temperature", "topP", "stopSequences"})
    _sampling(config, "temperature", "topP", model)
    system, user = _parted(_prompt(body, "inputText"))
    return Asked(system, user, None, _tokens(config, "maxTokenCount") or _SHORT_TOKENS, chat=False)


INVOKE: Mapping[str, Read] = {
    "anthropic": read_anthropic,
    "nova": read_nova,
    "llama": read_llama,
    "mistral": read_mistral,
    "titan": read_titan,
    "open": read_open,
}


def _only(body: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    for key in body:
        if key not in known:
            raise BadBody(f"Malformed input request: #: extraneous key [{key}] is not permitted, please reformat it.")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadBody(f"Malformed input request: {where}: expected type: JSONObject")
    return value


def _tokens(config: Mapping[str, Any], name: str) -> int | None:
    value = config.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise BadBody(f"{name}: the value must be a whole number of 1 or more")
    return value


def _sampling(config: Mapping[str, Any], temperature: str, top_p: str, model: Model) -> None:
    for name in (temperature, top_p):
        value = config.get(name)
        if value is not None and (not isinstance(value, int | float) or not 0 <= value <= 1):
            raise BadBody(f"{name}: the value must be from 0 to 1")
    if model.family == "anthropic" and config.get(temperature) is not None and config.get(top_p) is not None:
        raise BadBody("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")


def _prompt(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadBody(f"Malformed input request: #: required key [{name}] not found, please reformat it.")
    return value


def _messages(body: Mapping[str, Any], *, typed: bool) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadBody("messages: at least one message is required")
    texts = []
    for number, message in enumerate(messages):
        role = _mapping(message, "messages").get("role")
        if role != ("user", "assistant")[number % 2]:
            raise BadBody("A conversation must start with a user message, and roles must alternate. Try again.")
        content = message.get("content")
        text = content if typed and isinstance(content, str) else _blocks(content, f"messages.{number}", typed=typed)
        if not text.strip():
            raise BadBody(f"The text field at messages.{number} is blank. Add text to it, and try again.")
        if role == "user":
            texts.append(text)
    return "\n".join(texts)


@dataclass(frozen=True, slots=True)
class _System:
    text: str
    cache_point: bool


def _system_blocks(blocks: object) -> _System:
    return _System(_blocks(blocks, "system", typed=False) if blocks else "", _cache_point_in(blocks))


def _blocks(blocks: object, where: str, *, typed: bool) -> str:
    if not isinstance(blocks, list) or not blocks:
        raise BadBody(f"The content field at {where} is empty. Add a ContentBlock object, and try again.")
    texts = []
    for block in blocks:
        text = _mapping(block, where).get("text")
        if text is None and set(block) & {"cachePoint", "guardContent"}:
            continue
        if not isinstance(text, str) or (typed and block.get("type") != "text"):
            raise BadBody(f"{where}: only text is understood here")
        texts.append(text)
    return "\n".join(texts)


def _cache_point_in(blocks: object) -> bool:
    return isinstance(blocks, list) and any(isinstance(block, Mapping) and "cachePoint" in block for block in blocks)


def _has_cache_point(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(_cache_point_in(message.get("content")) for message in messages)


def _converse_schema(body: Mapping[str, Any], model: Model) -> Mapping[str, Any] | None:
    form = _mapping(_mapping(body.get("outputConfig") or {}, "outputConfig").get("textFormat") or {}, "textFormat")
    if not form:
        return None
    if form.get("type") != "json_schema":
        raise BadBody("outputConfig.textFormat.type: the value must be json_schema")
    structure = _mapping(form.get("structure") or {}, "outputConfig.textFormat.structure")
    text = _mapping(structure.get("jsonSchema") or {}, "outputConfig.textFormat.structure.jsonSchema").get("schema")
    if not isinstance(text, str):
        raise BadBody("outputConfig.textFormat.structure.jsonSchema.schema: a JSON schema as text is required")
    try:
        return _schema(orjson.loads(text), model)
    except orjson.JSONDecodeError as error:
        raise BadBody("outputConfig.textFormat.structure.jsonSchema.schema: not valid JSON") from error


def _schema(schema: object, model: Model) -> Mapping[str, Any]:
    if not model.structured:
        raise BadBody("This model doesn't support structured output. Remove the output format and try again.")
    wanted = _mapping(schema, "schema")
    _closed(wanted)
    return wanted


def _closed(schema: object) -> None:
    """Every object of the schema must say that it has no other properties."""
    if isinstance(schema, Mapping):
        if "properties" in schema and schema.get("additionalProperties") is not False:
            raise BadBody("schema: for 'object' type, 'additionalProperties' must be explicitly set to false")
        for inner in schema.values():
            _closed(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _closed(inner)


def _parted(prompt: str) -> tuple[str, str]:
    """A single prompt in two: what stands before the document, and the document; or nothing, and all of it."""
    found = _DOCUMENT.search(prompt)
    return (prompt[: found.start()], prompt[found.start() :]) if found else ("", prompt)
