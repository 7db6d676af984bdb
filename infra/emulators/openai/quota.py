"""How many prompt tokens may be queued and running at once."""

from __future__ import annotations

from lowtide.emulators.openai.rules import AZURE, MODELS, UNKNOWN_MODEL
from lowtide.emulators.openai.settings import Settings
from lowtide.emulators.openai.state import Account


def limit_of(settings: Settings, account: Account, deployment: str, model: str) -> int | None:
    """The limit of a deployment on Azure, or of a model at OpenAI; None: none."""
    if account.mode is not AZURE:
        return settings.enqueued_tokens.get(model)
    own = settings.deployments_of(account.resource).get(deployment)
    if own is not None and own.enqueued_tokens is not None:
        return own.enqueued_tokens
    if model in settings.enqueued_tokens:
        return settings.enqueued_tokens[model]
    rules = MODELS.get(model, UNKNOWN_MODEL)
    in_zone = own is not None and own.sku == "datazonebatch" and rules.data_zone is not None
    return rules.data_zone if in_zone else rules.enqueued
