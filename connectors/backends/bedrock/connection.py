"""Clients of the AWS services that a batch needs, found and configured as the AWS tools do it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from lowtide.connectors.backends.bedrock.failures import without_password
from lowtide.connectors.backends.bedrock.names import FIELD
from lowtide.errors import ConfigError

CALL_SECONDS = 300
"""How long an answer on demand may take: a long one is written for minutes, and nothing is heard meanwhile."""

_CONNECT_SECONDS = 10
_ONCE = {"total_max_attempts": 1, "mode": "standard"}
_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    # A create call that is sent twice may be paid twice, so botocore must not repeat it.
    "create": {"read_timeout": 60, "retries": _ONCE},
    "bedrock": {"read_timeout": 30, "retries": {"total_max_attempts": 4, "mode": "adaptive"}},
    # So are requests on demand: what may be asked again is decided in asking.py.
    "bedrock-runtime": {"read_timeout": CALL_SECONDS, "retries": _ONCE, "max_pool_connections": 32},
    "service-quotas": {
        "connect_timeout": 2,
        "read_timeout": 4,
        "retries": {"total_max_attempts": 2, "mode": "standard"},
    },
}
_CHECKS: Mapping[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 10,
    "retries": {"total_max_attempts": 2, "mode": "standard"},
}


class Client(Protocol):
    """A boto3 client: each operation takes its parameters by name and returns the response."""

    def __getattr__(self, name: str) -> Callable[..., Mapping[str, object]]: ...


@dataclass(frozen=True)
class Aws:
    """One account and region. Clients are made when they are first asked for, each with the retries that fit it."""

    session: boto3.Session
    region: str
    environ: Mapping[str, str] = field(repr=False)
    _clients: dict[str, Client] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def create(self) -> Client:
        """Bedrock's control plane, each call sent once."""
        return self._client("bedrock", "create")

    @cached_property
    def bedrock(self) -> Client:
        """Bedrock's control plane for calls that may be repeated."""
        return self._client("bedrock", "bedrock")

    @cached_property
    def runtime(self) -> Client:
        """Bedrock's models, each call sent once. May be used by threads."""
        return self._client("bedrock-runtime", "bedrock-runtime")

    @cached_property
    def quotas(self) -> Client:
        """Service Quotas, which must not keep anybody waiting."""
        return self._client("service-quotas", "service-quotas")

    def other(self, service: str) -> Client:
        """Another service, for checks."""
        return self._client(service, service)

    @property
    def endpoint_host(self) -> str:
        """Host and port of what stands in Bedrock's place; "" where it is AWS's own address of the region."""
        return urlsplit(self._endpoint("bedrock")).netloc.rpartition("@")[2].lower()

    @property
    def emulated(self) -> bool:
        """Whether Bedrock is somebody else's than AWS's, and Service Quotas would still be asked for at AWS."""
        endpoint = self._endpoint("bedrock")
        return bool(endpoint) and ".amazonaws.com" not in endpoint and not self._endpoint("service-quotas")

    def _endpoint(self, service: str) -> str:
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
        variable = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"
        return self.environ.get(variable) or self.environ.get("AWS_ENDPOINT_URL") or ""

    def _client(self, service: str, config: str) -> Client:
        with self._lock:
            if config not in self._clients:
                settings: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, **_CONFIGS.get(config, _CHECKS)}
                try:
                    made = self.session.client(  # type: ignore[call-overload]  # any service, by name
                        service,
                        region_name=self.region,
                        endpoint_url=self._endpoint(service) or None,
                        config=Config(user_agent_extra="lowtide", **settings),
                    )
                except (BotoCoreError, ValueError) as error:
                    raise ConfigError(
                        f"the AWS settings for {service} do not work: {without_password(error)}"
                    ) from None
                self._clients[config] = cast("Client", made)
            return self._clients[config]


def connect(region: str | None, environ: Mapping[str, str] | None = None) -> Aws:
    """Find credentials and region; no service is called yet.

    Both come from boto3's chain, `environ` before the process's own environment; `region` goes before all. Raises
    ConfigError where there are none.
    """
    env = {**os.environ, **(environ or {})}
    try:
        session = _session(env, region)
        credentials = session.get_credentials()
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the AWS settings for bedrock do not work: {error}") from error
    if credentials is None:
        raise ConfigError(
            "no AWS credentials were found for bedrock: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or give this machine a role"
        )
    if not session.region_name:
        raise ConfigError(f"{FIELD}.region: missing; expected a region here, or in AWS_REGION")
    return Aws(session, session.region_name, env)


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
