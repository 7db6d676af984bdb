"""How models answer: the response bodies of Converse, and of InvokeModel by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lowtide.emulators.answers import Answered
from lowtide.emulators.bedrock.bodies import Asked

# Members of the union ContentBlock, in the order of botocore's service model.
_NULL_MEMBERS = dict.fromkeys(
    (
        "image",
        "document",
        "video",
        "audio",
        "toolUse",
        "toolResult",
        "guardContent",
        "cachePoint",
        "reasoningContent",
        "citationsContent",
        "searchResult",
    )
)
_CONVERSE_STOP = {"stop": "end_turn", "length": "max_tokens", "content_filter": "content_filtered"}
_ANTHROPIC_STOP = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
_PLAIN_STOP = {"stop": "stop", "length": "length", "content_filter": "stop"}
_TITAN_STOP = {"stop": "FINISH", "length": "LENGTH", "content_filter": "CONTENT_FILTERED"}

Write = Callable[[Asked, Answered, str, str], Mapping[str, object]]


def converse(answered: Answered, *, null_members: bool, latency_ms: int = 312) -> Mapping[str, object]:
    """The answer of Converse. In batches the members of the union that are not set are spelt out as null."""
    block: dict[str, object] = {"text": answered.text, **(_NULL_MEMBERS if null_members else {})}
    body: dict[str, object] = {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": _CONVERSE_STOP[answered.finish_reason],
        "usage": {
            "inputTokens": answered.input_tokens,
            "outputTokens": answered.output_tokens,
            "totalTokens": answered.input_tokens + answered.output_tokens,
            "cacheReadInputTokens": 0,
            "cacheWriteInputTokens": 0,
        },
        "metrics": {"latencyMs": latency_ms},
    }
    if null_members:
        body |= {"additionalModelResponseFields": None, "trace": None, "performanceConfig": None}
    return body


def _anthropic(asked: Asked, answered: Answered, model_id: str, request_id: str) -> Mapping[str, object]:
    return {
        "model": model_id.rsplit(".", 1)[-1].partition("-v1:")[0],
        "id": f"msg_bdrk_{request_id[:24]}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": answered.text}],
        "stop_reason": _ANTHROPIC_STOP[answered.finish_reason],
        "stop_sequence": None,
        "usage": {
            "input_tokens": answered.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": answered.output_tokens,
        },
    }


def _nova(asked: Asked, answered: Answered, model_id: str, request_id: str) -> Mapping[str, object]:
    return {
        "output": {"message": {"content": [{"text": answered.text}], "role": "assistant"}},
        "stopReason": _CONVERSE_STOP[answered.finish_reason],
        "usage": {
            "inputTokens": answered.input_tokens,
            "outputTokens": answered.output_tokens,
            "totalTokens": answered.input_tokens + answered.output_tokens,
            "cacheReadInputTokenCount": 0,
            "cacheWriteInputTokenCount": 0,
        },
    }


def _llama(asked: Asked, answered: Answered, model_id: str, request_id: str) -> Mapping[str, object]:
    return {
        "generation": answered.text,
        "prompt_token_count": answered.input_tokens,
        "generation_token_count": answered.output_tokens,
        "stop_reason": _PLAIN_STOP[answered.finish_reason],
    }


def _mistral(asked: Asked, answered: Answered, model_id: str, request_id: str) -> Mapping[str, object]:
    stop = _PLAIN_STOP[answered.finish_reason]
    if not asked.chat:
        return {"outputs": [{"text": answered.text, "stop_reason": stop}]}
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answered.text}, "stop_reason": stop}],
        "usage": {
            "prompt_tokens": answered.input_tokens,
            "completion_tokens": answered.output_tokens,
            "total_tokens": answered.input_tokens + answered.output_tokens,
        },
    }


def _open(asked: Asked, answered: Answered, model_id: str, request_id: str) -> Mapping[str, object]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answered.text},
        "finish_reason": answered.finish_reason,
    }
    return {
        "id": f"chatcmpl-{request_id[:24]}",
        "object": "chat.completion",
        "model": model_id,
        "choices": [choice],
        "usage": {
            "prompt_tokens": answered.input_tokens,
            "completion_tokens": answered.output_tokens,
            "total_tokens": answered.input_tokens + answered.output_tokens,
        },
    }


def _titan(asked: Asked, answered: Answered, model_id: str, request_id: str) -> Mapping[str, object]:
    return {
        "inputTextTokenCount": answered.input_tokens,
        "results": [
            {
                "tokenCount": answered.output_tokens,
                "outputText": answered.text,
                "completionReason": _TITAN_STOP[answered.finish_reason],
            }
        ],
    }


INVOKE: Mapping[str, Write] = {
    "anthropic": _anthropic,
    "nova": _nova,
    "llama": _llama,
    "mistral": _mistral,
    "titan": _titan,
    "open": _open,
}
