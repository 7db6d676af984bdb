"""Tokens of a Microsoft Entra identity."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Mapping

from lowtide.errors import MissingExtra, Terminal, Transient

SCOPE = "https://cognitiveservices.azure.com/.default"
"""What a token is asked for (documented)."""

_SAID = 300
_SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")


def entra_tokens(environ: Mapping[str, str]) -> Callable[[], str]:
    """A function that gives a valid token, and asks for a new one when needed.

    The identity is the service principal of AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, if `environ`
    holds all three, else what DefaultAzureCredential finds: environment, workload identity, managed identity, Azure
    CLI. The function raises Terminal where no identity is found or it is refused, and Transient where nobody answers.
    """
    try:
        from azure.identity import (  # noqa: PLC0415
            ClientSecretCredential,
            DefaultAzureCredential,
            get_bearer_token_provider,
        )
    except ImportError:
        raise MissingExtra("azure-batch with auth: entra", "azure", "azure-identity") from None
    # A page of warnings and tracebacks for what the error says in a line. Who has set a level wants to see them.
    logger = logging.getLogger("azure.identity")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
    credential: ClientSecretCredential | DefaultAzureCredential
    if all(environ.get(name) for name in _SERVICE_PRINCIPAL):
        tenant, client, secret = (environ[name] for name in _SERVICE_PRINCIPAL)
        credential = ClientSecretCredential(tenant, client, secret)
    else:
        credential = DefaultAzureCredential()
    return explained(get_bearer_token_provider(credential, SCOPE))


def explained(provider: Callable[[], str]) -> Callable[[], str]:
    """The same provider, with this project's errors in place of azure-identity's."""
    from azure.core.exceptions import (  # noqa: PLC0415
        AzureError,
        ClientAuthenticationError,
        ServiceRequestError,
        ServiceResponseError,
    )

    def token() -> str:
        try:
            return provider()
        except ClientAuthenticationError as error:
            # A network that is down comes as a refusal too.
            if isinstance(error.__cause__ or error.__context__, ServiceRequestError | ServiceResponseError):
                raise Transient(f"no Microsoft Entra token for {SCOPE} now: nobody answers") from None
            # The message lists every kind of identity that was tried, and why it failed, without secrets.
            tried = textwrap.shorten(str(error.message), _SAID, placeholder=" ...")
            raise Terminal(
                f"no Microsoft Entra token for {SCOPE}: {tried} (run `az login`, give this machine a managed identity, "
                "or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET)"
            ) from None
        except AzureError as error:
            raise Transient(f"no Microsoft Entra token for {SCOPE} now: {type(error).__name__}") from None

    return token
