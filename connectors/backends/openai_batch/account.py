"""Where an API is and who asks: from the job file and the environment to accounts. Nothing is called yet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lowtide.connectors.backends.openai_batch.identity import entra_tokens
from lowtide.connectors.backends.openai_batch.services import AZURE, OPENAI, Service
from lowtide.errors import ConfigError

OPENAI_URL = "https://api.openai.com/v1"
_OPENAI_PERMISSION = "a restricted key needs Files: write, Batches: write, Models: read and Model capabilities: request"
_AZURE_PERMISSION = (
    "the identity needs the role Cognitive Services OpenAI Contributor on the resource, and its firewall must let "
    "this machine in"
)


@dataclass(frozen=True, slots=True)
class Account:
    """One API and the credentials for it.

    `key` is the key itself, or gives a token for each call. `version` is "" for OpenAI and for Azure's v1 API, whose
    address ends in `/openai/v1`, else a dated api-version. `credentials` and `permission` are for messages: where the
    key comes from, and what it has to be allowed.
    """

    service: Service
    base_url: str
    key: str | Callable[[], str] = field(repr=False)
    credentials: str
    permission: str
    version: str = ""
    organization: str | None = None
    project: str | None = None

    @property
    def address(self) -> str:
        """The API's address, for messages: no user name or password that may stand in it."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{(parts.netloc + parts.path).rpartition('@')[2]}"

    @property
    def secret(self) -> str:
        """What must never be repeated, "" where there is nothing."""
        return self.key if isinstance(self.key, str) else ""


def openai_account(base_url: str | None, environ: Mapping[str, str] | None, *, keyed: bool = True) -> Account:
    """OpenAI's, or that of a server that speaks the same. Raises ConfigError without OPENAI_API_KEY, if `keyed`."""
    env = {**os.environ, **(environ or {})}
    return Account(
        service=OPENAI,
        base_url=_url(base_url or env.get("OPENAI_BASE_URL") or OPENAI_URL, "backends[0].openai-batch.base_url"),
        key=_key(env, "OPENAI_API_KEY", "openai-batch", needed=keyed),
        credentials="OPENAI_API_KEY",
        permission=_OPENAI_PERMISSION,
        organization=env.get("OPENAI_ORG_ID") or None,
        project=env.get("OPENAI_PROJECT_ID") or None,
    )


def azure_account(
    endpoint: str | None,
    *,
    region: str,
    auth: str,
    api: str,
    environ: Mapping[str, str] | None,
    tokens: Callable[[], str] | None = None,
    where: str = "backends[0].azure-batch",
    keyed: bool = True,
) -> Account:
    """An Azure OpenAI resource's. `where` names its place in the job file, for messages.

    The key is AZURE_OPENAI_API_KEY_<REGION> (in capitals, with _ for what is no letter or digit), else
    AZURE_OPENAI_API_KEY, and may be missing unless `keyed`; with `auth` entra, tokens are those of the environment's
    identity, or of `tokens`. Raises ConfigError, or MissingExtra where azure-identity is needed and not installed.
    """
    env = {**os.environ, **(environ or {})}
    address = endpoint or env.get("AZURE_OPENAI_ENDPOINT")
    if not address:
        raise ConfigError(
            f"{where}.endpoint: missing; expected https://NAME.openai.azure.com here, or in AZURE_OPENAI_ENDPOINT"
        )
    base = _url(re.sub(r"/openai(/v1)?/*$", "", address), f"{where}.endpoint")
    if api != "v1" and not re.fullmatch(r"\d{4}-\d{2}-\d{2}(-preview)?", api):
        raise ConfigError(
            f"backends[0].azure-batch.api: found {api!r}; expected v1, or an api-version such as 2025-04-01-preview"
        )
    key: str | Callable[[], str]
    if auth == "entra":
        key, credentials = tokens or entra_tokens(environ or {}), "the Microsoft Entra identity of the environment"
    else:
        own = f"AZURE_OPENAI_API_KEY_{re.sub('[^A-Z0-9]', '_', region.upper())}" if region else ""
        credentials = own if own and env.get(own) else "AZURE_OPENAI_API_KEY"
        key = _key(env, credentials, "azure-batch", needed=keyed)
    return Account(
        service=AZURE,
        base_url=f"{base}/openai/v1" if api == "v1" else f"{base}/openai",
        key=key,
        credentials=credentials,
        permission=_AZURE_PERMISSION,
        version="" if api == "v1" else api,
    )


def _url(address: str, where: str) -> str:
    try:
        parts = urlsplit(address.strip())
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        fine = False
    if not fine:
        # A password, or a signature, may stand before the @, or behind the ?.
        shown = address.rpartition("@")[2].partition("?")[0][:200]
        raise ConfigError(f"{where}: found {shown!r}; expected an address that begins with https://") from None
    return address.strip().rstrip("/")


def _key(env: Mapping[str, str], name: str, backend: str, *, needed: bool) -> str:
    key = (env.get(name) or "").strip()
    if not key and not needed:
        return key
    if not key:
        raise ConfigError(f"{backend} needs a key: set the environment variable {name}")
    if not key.isascii() or not key.isprintable():
        # The HTTP client would name it in its error.
        raise ConfigError(f"{name} holds characters that no key has: set it again")
    return key
