"""Accounts of AWS, found and configured as the AWS tools do it, for all backends that lie there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from lowtide.connectors.backends.aws.failures import without_password
from lowtide.errors import ConfigError

_CONNECT_SECONDS = 10


class Client(Protocol):
    """A boto3 client: each operation takes its parameters by name and returns the response."""

    def __getattr__(self, name: str) -> Callable[..., Mapping[str, object]]: ...


@dataclass(frozen=True)
class AwsAccount:
    """Credentials, and a region."""

    session: boto3.Session
    region: str
    environ: Mapping[str, str] = field(repr=False)

    def endpoint(self, service: str) -> str:
        """The address of what stands in the service's place; "" where it is AWS's own of the region."""
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
        variable = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"
        return self.environ.get(variable) or self.environ.get("AWS_ENDPOINT_URL") or ""

    def client(self, service: str, settings: Mapping[str, Any]) -> Client:
        """A new client with these settings of botocore's. Raises ConfigError."""
        try:
            made = self.session.client(  # type: ignore[call-overload]  # any service, by name
                service,
                region_name=self.region,
                endpoint_url=self.endpoint(service) or None,
                config=Config(user_agent_extra="lowtide", **{"connect_timeout": _CONNECT_SECONDS, **settings}),
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"the AWS settings for {service} do not work: {without_password(error)}") from None
        return cast("Client", made)


def find_account(backend: str, where: str, region: str | None, environ: Mapping[str, str] | None = None) -> AwsAccount:
    """The account for a backend of that kind, whose section is `where`; no service is called yet.

    Credentials and region come from boto3's chain, `environ` before the process's own environment; `region` goes before
    all. Raises ConfigError where there are none.
    """
    env = {**os.environ, **(environ or {})}
    try:
        session = _session(env, region)
        credentials = session.get_credentials()
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the AWS settings for {backend} do not work: {error}") from error
    if credentials is None:
        raise ConfigError(
            f"no AWS credentials were found for {backend}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or give this machine a role"
        )
    if not session.region_name:
        raise ConfigError(f"{where}.region: missing; expected a region here, or in AWS_REGION")
    return AwsAccount(session, session.region_name, env)


def _session(env: Mapping[str, str], region: str | None) -> boto3.Session:
    core = botocore.session.Session()
    for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"), ("AWS_CONFIG_FILE", "config_file")):
        if env.get(variable):
            core.set_config_variable(name, env[variable])
    region = region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None
    profile = env.get("AWS_PROFILE") or None
    keys = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
    if all(keys):
        return boto3.Session(*keys, env.get("AWS_SESSION_TOKEN") or None, region, core, profile)
    return boto3.Session(region_name=region, botocore_session=core, profile_name=profile)
