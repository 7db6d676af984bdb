"""The bodies of chat completions and responses, as the two providers send them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lowtide.emulators.answers import Answered
from lowtide.emulators.openai.errors import RowError
from lowtide.emulators.openai.rules import Api, Mode

_SAFE = {kind: {"filtered": False, "severity": "safe"} for kind in ("hate", "self_harm", "sexual", "violence")}
_PROMPT_SAFE = [
    {"prompt_index": 0, "content_filter_results": {**_SAFE, "jailbreak": {"filtered": False, "detected": False}}}
]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered request: what was answered, under which id, when, and by which model."""

    answered: Answered
    key: str
    created: int
    model: str
    refusal: bool = False


def body(api: Api, mode: Mode, reply: Reply) -> Mapping[str, object]:
    """The body with status 200."""
    return _chat(mode, reply) if api == "chat" else _response(reply)


def content_filtered(mode: Mode) -> RowError:
    """400: the prompt was not shown to the model."""
    if mode.name == "azure":
        filtered = {**_SAFE, "violence": {"filtered": True, "severity": "medium"}}
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": filtered}
        return RowError(
            400,
            "The response was filtered due to the prompt triggering the content management policy. Please modify your "
            "prompt and retry.",
            code="content_filter",
            param="prompt",
            extra={"status": 400, "innererror": inner},
        )
    return RowError(
        400,
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        code="content_filter",
    )


def _chat(mode: Mode, reply: Reply) -> Mapping[str, object]:
    answered = reply.answered
    message: dict[str, object] = {
        "role": "assistant",
        "content": None if reply.refusal else answered.text,
        "refusal": answered.text if reply.refusal else None,
        "annotations": [],
    }
    choice: dict[str, object] = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": answered.finish_reason,
    }
    body: dict[str, object] = {
        "id": f"chatcmpl-{reply.key}",
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": answered.input_tokens,
            "completion_tokens": answered.output_tokens,
            "total_tokens": answered.input_tokens + answered.output_tokens,
            "prompt_tokens_details": {"cached_tokens": answered.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": answered.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "system_fingerprint": "fp_lowtide",
    }
    if mode.name == "azure":
        choice["content_filter_results"] = _SAFE
        body["prompt_filter_results"] = _PROMPT_SAFE
    else:
        body["service_tier"] = "default"
    return body


def _response(reply: Reply) -> Mapping[str, object]:
    answered = reply.answered
    cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(answered.finish_reason)
    part: dict[str, object] = {"type": "output_text", "text": answered.text, "annotations": [], "logprobs": []}
    if reply.refusal:
        part = {"type": "refusal", "refusal": answered.text}
    return {
        "id": f"resp_{reply.key}",
        "object": "response",
        "created_at": reply.created,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": reply.model,
        "output": [
            {
                "type": "message",
                "id": f"msg_{reply.key}",
                "status": "incomplete" if cut else "completed",
                "role": "assistant",
                "content": [part],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": answered.input_tokens,
            "input_tokens_details": {"cached_tokens": answered.cached_tokens},
            "output_tokens": answered.output_tokens,
            "output_tokens_details": {"reasoning_tokens": answered.reasoning_tokens},
            "total_tokens": answered.input_tokens + answered.output_tokens,
        },
    }
