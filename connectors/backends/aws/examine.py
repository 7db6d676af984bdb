"""Looks at things of an AWS account."""

from __future__ import annotations

from collections.abc import Callable

from lowtide.connectors.backends.aws.failures import FAILURES, reported
from lowtide.errors import LowtideError
from lowtide.records import Finding


def tried(name: str, permission: str, look: Callable[[], str]) -> Finding:
    """What `look` says of the thing of that name, or what went wrong; `permission` is what it takes."""
    try:
        return Finding(name, True, look())
    except FAILURES as error:
        return Finding(name, False, str(reported(error, "look", permission)))
    except LowtideError as error:
        return Finding(name, False, str(error))
