"""Clients of the AWS services that a batch needs, found and configured as the AWS tools do it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from lowtide.connectors.backends.aws.account import AwsAccount, Client, find_account
from lowtide.connectors.backends.bedrock.names import FIELD

CALL_SECONDS = 300
"""How long an answer on demand may take: a long one is written for minutes, and nothing is heard meanwhile."""

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


@dataclass(frozen=True)
class Aws:
    """One account and region. Clients are made when they are first asked for, each with the retries that fit it."""

    account: AwsAccount
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
    def region(self) -> str:
        """The region that jobs run in."""
        return self.account.region

    @property
    def endpoint_host(self) -> str:
        """Host and port of what stands in Bedrock's place; "" where it is AWS's own address of the region."""
        return urlsplit(self.account.endpoint("bedrock")).netloc.rpartition("@")[2].lower()

    @property
    def emulated(self) -> bool:
        """Whether Bedrock is somebody else's than AWS's, and Service Quotas would still be asked for at AWS."""
        endpoint = self.account.endpoint("bedrock")
        return bool(endpoint) and ".amazonaws.com" not in endpoint and not self.account.endpoint("service-quotas")

    def _client(self, service: str, config: str) -> Client:
        with self._lock:
            if config not in self._clients:
                self._clients[config] = self.account.client(service, _CONFIGS.get(config, _CHECKS))
            return self._clients[config]


def connect(region: str | None, environ: Mapping[str, str] | None = None) -> Aws:
    """Find credentials and region; no service is called yet. Raises ConfigError where there are none."""
    return Aws(find_account("bedrock", FIELD, region, environ))
