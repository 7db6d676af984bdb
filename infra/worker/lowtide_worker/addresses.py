"""Addresses of stores, and how each is reached with what the environment says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from obstore.store import AzureStore, LocalStore, S3Store

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, RetryConfig, S3Config

_BLOB = re.compile(
    r"(?:abfss?|az)://(?P<container>[a-z0-9-]+)(?:@(?P<account>[a-z0-9]+)(?P<zone>\.z\d+)?\.(?:dfs|blob)"
    r"\.(?P<cloud>core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|storage\.azure\.net))?"
    r"(?:/(?P<path>.*))?"
)
_S3 = re.compile(r"s3://(?P<bucket>[^/]+)(?:/(?P<path>.*))?")
_CLOUD = "core.windows.net"


def store_of(uri: str, environ: Mapping[str, str]) -> AzureStore | LocalStore | S3Store:
    """The store of a folder, which has to exist on disk. Raises ValueError, without showing a password."""
    if uri.startswith("file:///"):
        path = Path(os.fsdecode(unquote(uri[len("file://") :], errors="surrogateescape")))
        if not path.is_dir():
            raise ValueError(f"there is no folder {uri}")
        return LocalStore(path, automatic_cleanup=False)
    if found := _S3.fullmatch(uri):
        return _s3(found["bucket"], (found["path"] or "").strip("/"), environ)
    if found := _BLOB.fullmatch(uri):
        return _blob(found, environ)
    shown = re.sub(r"//[^/]*:[^/]*@", "//...@", uri.partition("?")[0])
    raise ValueError(
        f"{shown!r} is no address of a folder: write file:///folder, s3://bucket/folder or "
        "abfs://container@account.dfs.core.windows.net/folder"
    )


def split_off_name(uri: str) -> tuple[str, str]:
    """The address of the folder that an object lies in, and the object's name."""
    parent, _, name = uri.rpartition("/")
    if not name or parent.endswith(":/"):
        raise ValueError(f"{uri!r} is no address of a file")
    return parent, unquote(name) if uri.startswith("file:") else name


def _s3(bucket: str, prefix: str, environ: Mapping[str, str]) -> S3Store:
    """Endpoint and region as the AWS tools find them; keys of the environment, or of a profile where boto3 is there.

    Without either obstore asks for a web identity, the container's role and the instance's role.
    """
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    given: S3Config = {}
    if endpoint:
        given["endpoint"] = endpoint
    if key and secret:
        given["access_key_id"], given["secret_access_key"] = key, secret
        if environ.get("AWS_SESSION_TOKEN"):
            given["session_token"] = environ["AWS_SESSION_TOKEN"]
    elif environ.get("AWS_PROFILE"):
        return _s3_of_profile(bucket, prefix, environ["AWS_PROFILE"], region, endpoint)
    return S3Store(
        bucket,
        prefix=prefix or None,
        region=region or "us-east-1",
        virtual_hosted_style_request=False,
        client_options=_client(endpoint),
        retry_config=_retries(),
        config=given,
    )


def _s3_of_profile(bucket: str, prefix: str, profile: str, region: str | None, endpoint: str | None) -> S3Store:
    try:
        import boto3  # noqa: PLC0415 - the worker does without, and only profiles need it
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ValueError("AWS_PROFILE is set, and profiles are read by boto3: pip install boto3, or unset it") from None
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        client = session.client("s3", endpoint_url=endpoint, region_name=session.region_name or "us-east-1")
        # botocore renews its own 10 to 15 minutes before they end, obstore asks again 5 minutes before.
        provider = Boto3CredentialProvider(session, ttl=timedelta(minutes=10))
    except BotoCoreError as error:
        raise ValueError(f"the AWS profile {profile!r} does not work: {error}") from None
    return S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=client.meta.endpoint_url,
        region=client.meta.region_name,
        virtual_hosted_style_request=False,
        credential_provider=provider,
        client_options=_client(client.meta.endpoint_url),
        retry_config=_retries(),
    )


def _blob(found: re.Match[str], environ: Mapping[str, str]) -> AzureStore:
    """Keys and signatures go to the account that the environment names beside them, and to no other.

    Without any obstore asks for a service principal, a workload identity and the machine's managed identity.
    """
    told = dict(
        part.strip().split("=", 1)
        for part in environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
        if "=" in part
    )
    told = {name.lower(): value for name, value in told.items()}
    named = environ.get("AZURE_STORAGE_ACCOUNT_NAME") or environ.get("AZURE_STORAGE_ACCOUNT") or ""
    account = found["account"] or told.get("accountname") or named
    if not account:
        raise ValueError(
            f"'abfs://{found['container']}' names no storage account: write "
            "abfs://container@account.dfs.core.windows.net/folder, or set AZURE_STORAGE_ACCOUNT_NAME"
        )
    endpoint = f"https://{account}{found['zone'] or ''}.blob.{found['cloud'] or told.get('endpointsuffix', _CLOUD)}"
    key, signature = None, None
    if told.get("accountname") == account:
        endpoint = told.get("blobendpoint", endpoint).rstrip("/")
        key, signature = told.get("accountkey"), told.get("sharedaccesssignature")
    elif named in {"", account}:
        key = environ.get("AZURE_STORAGE_ACCOUNT_KEY") or environ.get("AZURE_STORAGE_KEY")
        signature = environ.get("AZURE_STORAGE_SAS_TOKEN")
    given: AzureConfig = {}
    if key:
        given["account_key"] = key
    elif signature:
        given["sas_key"] = signature.removeprefix("?")
    return AzureStore(
        found["container"],
        prefix=(found["path"] or "").strip("/") or None,
        account_name=account,
        endpoint=endpoint,
        client_options=_client(endpoint),
        retry_config=_retries(),
        config=given,
    )


def _client(endpoint: str | None) -> ClientConfig:
    return {
        "allow_http": bool(endpoint and endpoint.startswith("http://")),
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=20),
        "timeout": timedelta(seconds=120),
    }


def _retries() -> RetryConfig:
    return {
        "max_retries": 20,
        "retry_timeout": timedelta(seconds=180),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 2},
    }
