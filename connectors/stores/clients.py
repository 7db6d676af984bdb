"""How long the libraries wait, and how often they try again: the same for every service."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CONNECT_SECONDS = 5
SILENCE_SECONDS = 10
RETRIES = 3


def client_options(endpoint: str) -> ClientConfig:
    """obstore's settings for requests to that address."""
    return {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=SILENCE_SECONDS),
        # obstore's 30 s for a whole request would cut off every object that takes longer to download.
        "timeout": timedelta(hours=1),
    }


def retry_config() -> RetryConfig:
    """obstore's retries: what is worth it for about half a minute."""
    return {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=30),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    }
