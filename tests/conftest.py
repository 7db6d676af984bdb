"""Fixtures that every part of the tests may use: real servers, started once a session and only if asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# First, since once this folder is searched, its own folder `lowtide` would be taken for the package.
import lowtide  # noqa: F401

# --import-mode=importlib leaves sys.path alone, and processes that tests start import the servers too.
sys.path.insert(0, str(Path(__file__).parent))

from servers import aws
from servers import azurite as blob_service

# Machines are shared and noisy: how long an example takes says nothing about the code.
settings.register_profile("lowtide", deadline=None)
settings.load_profile("lowtide")


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with aws.moto() as url:
        yield url


@pytest.fixture(scope="session")
def ministack_url() -> Iterator[str]:
    with aws.ministack() as url:
        yield url


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """The address of a Blob Storage server: `servers.azurite` says how it is reached."""
    with blob_service.azurite() as url:
        yield url
