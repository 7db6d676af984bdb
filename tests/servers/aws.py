"""Two independent stand-ins for S3. Neither checks secrets, so any will do."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from servers.process import serving


def moto() -> AbstractContextManager[str]:
    """moto_server: https://docs.getmoto.org/en/latest/docs/server_mode.html"""
    program = Path(__file__).parents[2] / "infra" / "dev" / "moto_server.py"
    return serving(lambda port: [sys.executable, str(program), str(port)], ready="/moto-api/")


def ministack() -> AbstractContextManager[str]:
    """MiniStack, which binds every interface unless it is told not to."""
    return serving(
        lambda port: [sys.executable, "-m", "ministack"],
        ready="/_ministack/health",
        environ=lambda port: {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "SERVICES": "s3,sts",
            "LOG_LEVEL": "WARNING",
        },
    )


def environ(url: str) -> dict[str, str]:
    """The environment under which the AWS libraries talk to that server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
