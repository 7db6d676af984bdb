"""Reach one S3 bucket twice: through obstore, which is fast, and through boto3, which can do everything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store as Bucket

from lowtide.connectors.stores.clients import CONNECT_SECONDS, RETRIES, SILENCE_SECONDS, client_options, retry_config
from lowtide.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# obstore asks again for credentials 5 minutes before these end; botocore renews its own 10 to 15 minutes before theirs
# end (botocore.credentials.RefreshableCredentials). So what obstore holds is always still valid.
_CREDENTIALS_FOR = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Connection:
    """One bucket, under both clients. Both retry what is worth it for about half a minute, and then give up."""

    name: str
    bucket: Bucket
    client: S3Client


def connect(name: str, environ: Mapping[str, str] | None = None) -> Connection:
    """Find credentials, region and endpoint as the AWS tools do; nothing is sent to the bucket yet.

    Credentials come from boto3's chain: environment, shared files, web identity, container, instance. The endpoint is
    AWS_ENDPOINT_URL_S3, else AWS_ENDPOINT_URL, else the profile's, else that of the region; the region is AWS_REGION,
    else AWS_DEFAULT_REGION, else the profile's, else us-east-1
    (https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html, feature-region.html).
    What `environ` does not hold is looked up in the process's own environment.
    """
    env = {**os.environ, **(environ or {})}
    try:
        session = _session(env)
        credentials = session.get_credentials()
        if credentials is None:
            raise ConfigError(
                f"no AWS credentials were found for 's3://{name}': set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE, or give this machine a role"
            )
        endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None
        client = session.client("s3", endpoint_url=endpoint, config=_config(_is_custom(endpoint)))
        endpoint = client.meta.endpoint_url
        if _is_custom(endpoint):
            client = session.client("s3", endpoint_url=endpoint, config=_config(True))
        provider = Boto3CredentialProvider(session, ttl=_CREDENTIALS_FOR)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the AWS settings for 's3://{name}' do not work: {error}") from error
    bucket = Bucket(
        name,
        endpoint=endpoint,
        region=client.meta.region_name,
        virtual_hosted_style_request=False,
        # DeleteObjects is missing from some S3-compatible stores; one key at a time is deleted here anyway.
        disable_bulk_delete=True,
        credential_provider=provider,
        client_options=client_options(endpoint),
        retry_config=retry_config(),
    )
    return Connection(name, bucket, client)


def _session(env: Mapping[str, str]) -> boto3.Session:
    core = botocore.session.Session()
    for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"), ("AWS_CONFIG_FILE", "config_file")):
        if env.get(variable):
            core.set_config_variable(name, env[variable])
    keys = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    profile = env.get("AWS_PROFILE") or None
    if all(keys):
        session = boto3.Session(*keys, env.get("AWS_SESSION_TOKEN") or None, region, core, profile)
    else:
        session = boto3.Session(region_name=region, botocore_session=core, profile_name=profile)
    if session.region_name:
        return session
    core.set_config_variable("region", "us-east-1")
    return session


def _is_custom(endpoint: str | None) -> bool:
    return endpoint is not None and ".amazonaws.com" not in endpoint


def _config(custom: bool) -> Config:
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=SILENCE_SECONDS,
        retries={"mode": "standard", "total_max_attempts": RETRIES + 1},
        s3={"addressing_style": "path"} if custom else {},
        # Newer checksums are unknown to many S3-compatible stores.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="lowtide",
    )
