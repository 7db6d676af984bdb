"""Reach one Blob Storage container twice: through obstore, which is fast, and through Microsoft's own library."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient, LinearRetry
from obstore.store import AzureStore as Bucket

from lowtide.connectors.stores.addresses import BlobAddress
from lowtide.connectors.stores.clients import CONNECT_SECONDS, RETRIES, SILENCE_SECONDS, client_options, retry_config
from lowtide.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from obstore.store import AzureCredential

_SCOPE = "https://storage.azure.com/.default"
_CLOUD = "core.windows.net"
_HOW = (
    "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or "
    "AZURE_STORAGE_SAS_TOKEN, or sign in with Microsoft Entra (az login, a managed identity, AZURE_CLIENT_ID and so on)"
)


@dataclass(frozen=True)
class Connection:
    """One container, under both clients. Both retry what is worth it for about half a minute, and then give up.

    `root` is the container's whole address, with a slash at its end.
    """

    root: str
    bucket: Bucket
    service: BlobServiceClient
    container: ContainerClient

    @cached_property
    def flat(self) -> bool:
        """Whether the account is known to have no hierarchical namespace. Who may not ask is told False."""
        try:
            # A truth value, whatever the library's types say.
            return str(self.service.get_account_information().get("is_hns_enabled")).lower() == "false"
        except HttpResponseError as error:
            if error.status_code is not None and 400 <= error.status_code < 500:
                return False
            raise


@dataclass(frozen=True, repr=False)
class _Account:
    """An account, and one way to be let in: a key, a shared access signature, or neither, for Microsoft Entra."""

    name: str
    endpoint: str = ""
    key: str = ""
    sas: str = ""


def connect(address: BlobAddress, environ: Mapping[str, str] | None = None) -> Connection:
    """Find account and credentials as adlfs and the Azure tools do; nothing is sent to the container yet.

    AZURE_STORAGE_CONNECTION_STRING goes first, then AZURE_STORAGE_ACCOUNT_KEY, then AZURE_STORAGE_SAS_TOKEN, then
    azure-identity's DefaultAzureCredential. The account is the address's, else the connection string's, else
    AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_ACCOUNT. Keys and signatures are sent to the account that the
    environment names beside them and to no other: another account in the address is reached with Microsoft Entra.
    What `environ` does not hold is looked up in the process's own environment, but for what DefaultAzureCredential
    reads, which is looked up there alone. Raises ConfigError, and MissingExtra without azure-identity.
    """
    env = {**os.environ, **(environ or {})}
    account = _account(address, env)
    cloud = address.cloud or _CLOUD
    zone = f".{address.zone}" if address.zone else ""
    root = f"abfs://{address.container}@{account.name}{zone}.dfs.{cloud}/"
    endpoint = account.endpoint or f"https://{account.name}{zone}.blob.{cloud}"
    credential, provider = _credentials(account, root)
    try:
        service = BlobServiceClient(
            endpoint,
            credential=credential,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=SILENCE_SECONDS,
            retry_policy=LinearRetry(backoff=1, retry_total=RETRIES, random_jitter_range=1),
        )
    except ValueError as error:
        raise ConfigError(f"the Azure settings for {root[:-1]!r} do not work: {error}") from None
    bucket = Bucket(
        address.container,
        account_name=account.name,
        endpoint=endpoint,
        credential_provider=provider,
        # What stands in the environment must not make two clients of different minds.
        use_emulator=False,
        use_fabric_endpoint=False,
        skip_signature=False,
        client_options=client_options(endpoint),
        retry_config=retry_config(),
    )
    return Connection(root, bucket, service, service.get_container_client(address.container))


def _account(address: BlobAddress, env: Mapping[str, str]) -> _Account:
    told = _from_connection_string(env.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    named = env.get("AZURE_STORAGE_ACCOUNT_NAME") or env.get("AZURE_STORAGE_ACCOUNT") or ""
    name = address.account or (told.name if told else named)
    if not name:
        raise ConfigError(
            f"'abfs://{address.container}' names no storage account: write "
            f"abfs://{address.container}@account.dfs.core.windows.net/folder, or set AZURE_STORAGE_ACCOUNT_NAME"
        )
    if told and told.name == name:
        return told
    if named in {"", name}:
        key = env.get("AZURE_STORAGE_ACCOUNT_KEY") or env.get("AZURE_STORAGE_KEY") or ""
        return _Account(name, "", _key(key, "AZURE_STORAGE_ACCOUNT_KEY"), env.get("AZURE_STORAGE_SAS_TOKEN", ""))
    return _Account(name)


def _from_connection_string(text: str) -> _Account | None:
    """The account of a connection string, or None if there is none."""
    if not text.strip():
        return None
    parts = (part.partition("=") for part in text.split(";") if part.strip())
    found = {name.strip().lower(): value.strip() for name, _, value in parts}
    endpoint = found.get("blobendpoint", "").rstrip("/")
    host = endpoint.partition("://")[2]
    name = found.get("accountname") or host.partition(".")[0]
    if not name:
        raise ConfigError(
            "AZURE_STORAGE_CONNECTION_STRING names neither an AccountName nor a BlobEndpoint: copy it from the "
            "account's page Access keys"
        )
    if not endpoint:
        protocol = found.get("defaultendpointsprotocol", "https")
        endpoint = f"{protocol}://{name}.blob.{found.get('endpointsuffix', _CLOUD)}"
    key = _key(found.get("accountkey", ""), "the AccountKey in AZURE_STORAGE_CONNECTION_STRING")
    return _Account(name, endpoint, key, found.get("sharedaccesssignature", ""))


def _key(key: str, name: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ConfigError(f"{name} is not an account key: copy one from the account's page Access keys") from None
    return key


def _credentials(
    account: _Account, root: str
) -> tuple[dict[str, str] | str | TokenCredential, Callable[[], AzureCredential]]:
    """The account's credentials as each of the two libraries takes them."""
    if account.key:
        key = account.key
        named = {"account_name": account.name, "account_key": key}
        return named, lambda: {"access_key": key, "expires_at": None}
    if account.sas:
        signature = account.sas.removeprefix("?")
        return signature, lambda: {"sas_token": signature, "expires_at": None}
    identity = _identity()

    def token() -> AzureCredential:
        found = identity.get_token(_SCOPE)
        return {"token": found.token, "expires_at": datetime.fromtimestamp(found.expires_on, UTC)}

    try:
        token()
    except AzureError as error:
        reason = str(error.message).partition("\n")[0]
        raise ConfigError(f"no Azure credentials were found for {root[:-1]!r} ({reason}): {_HOW}") from None
    return identity, token


@lru_cache(maxsize=1)
def _identity() -> TokenCredential:
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtra("signing in to Azure storage with Microsoft Entra", "azure", "azure-identity") from None
    return DefaultAzureCredential()
