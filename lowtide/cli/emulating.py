"""`emulate`: the provider APIs on this machine."""

from __future__ import annotations

import math
import signal
import threading
from pathlib import Path

import click

from lowtide.emulators.answers import NoTokenizer
from lowtide.emulators.faults import BadPlan, read_plan
from lowtide.emulators.serve import serving
from lowtide.errors import ConfigError, MissingExtra


def emulate(
    *, port: int, faults: str | None, speed: float, seed: int, tokens: str, s3: str | None, blob: str | None
) -> int:
    """Serve until interrupted; the first line of output is the address, the rest is what clients have to set."""
    if not 0 < speed < math.inf:
        raise ConfigError(f"--speed: found {speed}; expected a finite number above 0")
    try:
        plan = None if faults is None else read_plan(Path(faults))
    except BadPlan as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{faults}: cannot be read: {error.strerror}") from error
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    try:
        with serving(port, faults=plan, speed=speed, seed=seed, tokens=tokens, s3_url=s3, blob=blob) as server:
            click.echo(server.url)
            click.echo(_settings(server.url))
            done.wait()
    except NoTokenizer as error:
        raise MissingExtra(f"--tokens {tokens}", "tokens", "bpe-openai") from error
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror or error}; choose another, or 0 for a free one") from error
    return 0


def _settings(url: str) -> str:
    return f"""
# For OpenAI:
export OPENAI_BASE_URL={url}/v1
export OPENAI_API_KEY=emulated
# For Azure OpenAI; {url}/_emulator/settings lists the deployments:
export AZURE_OPENAI_ENDPOINT={url}
export AZURE_OPENAI_API_KEY=emulated
# For Bedrock, beside AWS_ENDPOINT_URL_S3 for a bucket on an S3 server:
export AWS_ENDPOINT_URL_BEDROCK={url}
export AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url}
export AWS_ENDPOINT_URL_SERVICE_QUOTAS={url}
# What a provider would charge so far:
curl {url}/_emulator/bill"""
