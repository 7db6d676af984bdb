"""One question to one model: the body read, answered, and written in the family's form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowtide.emulators import answers
from lowtide.emulators.answers import Answered, Tokens
from lowtide.emulators.bedrock import bodies, shapes
from lowtide.emulators.bedrock.bodies import Asked, BadBody
from lowtide.emulators.bedrock.models import Model
from lowtide.emulators.bedrock.settings import Settings


@dataclass(frozen=True, slots=True)
class Modelled:
    """A model as somebody named it, and the form in which he speaks to it."""

    model: Model
    model_id: str
    converse: bool


def read(body: object, by: Modelled, settings: Settings, *, batch: bool) -> Asked:
    """What a body asks. Raises BadBody for what the model, or a batch, refuses."""
    if not isinstance(body, Mapping):
        raise BadBody("Malformed input request: expected type: JSONObject")
    reader = bodies.read_converse if by.converse else bodies.INVOKE[by.model.family]
    asked = reader(body, by.model)
    if batch and asked.tools and by.converse and not settings.tools_in_batch:
        raise BadBody("toolConfig is not supported for batch inference.")
    if batch and asked.cache_point and not settings.cache_points_in_batch:
        raise BadBody("cachePoint is not supported for batch inference.")
    if batch and asked.schema is not None and not settings.structured_in_batch:
        raise BadBody("Structured output is not supported for batch inference.")
    return asked


def answer(asked: Asked, tokens: Tokens, do: str = "") -> Answered:
    """The answer; under the fault `refuse` the content filter's, under `invalid` one of another form.

    Nothing is read from a cache: batches have none, and on demand it is the caller's to ask for.
    """
    given = answers.answer(asked.system, asked.user, asked.schema, asked.max_tokens, tokens=tokens)
    if do == "refuse":
        given = dataclasses.replace(answers.refused(given, tokens), finish_reason="content_filter")
    elif do == "invalid":
        given = answers.unfit(given, tokens)
    return dataclasses.replace(given, cached_tokens=0, reasoning_tokens=0)


def write(asked: Asked, given: Answered, by: Modelled, request_id: str, *, null_members: bool) -> Mapping[str, Any]:
    """The answer as the body of a response."""
    if by.converse:
        return shapes.converse(given, null_members=null_members)
    return shapes.INVOKE[by.model.family](asked, given, by.model_id, request_id)
