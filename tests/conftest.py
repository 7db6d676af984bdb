"""Fixtures that every part of the tests may use: real servers, started once a session and only if asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

# First, since once this folder is searched, its own folder `lowtide` would be taken for the package.
import lowtide  # noqa: F401

# --import-mode=importlib leaves sys.path alone, and processes that tests start import the servers too.
sys.path.insert(0, str(Path(__file__).parent))

from servers import aws
from servers import azurite as blob_service

# Machines are shared and noisy: how long an example takes says nothing about the code.
settings.register_profile("lowtide", deadline=None)
settings.load_profile("lowtide")

LONGEST = "schedules/test_on_a_server"
"""A story of some minutes, which one process after the other tells."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest story first, so that nobody waits for it at the end."""
    items.sort(key=lambda item: LONGEST not in item.nodeid)


CHROMIUMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Started for each module anew. While it is there its event loop runs in this thread, and Prefect's functions that
    look for one would hand tests of other modules a coroutine, and do nothing.
    """
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        found = next(filter(os.path.exists, (*CHROMIUMS, playwright.chromium.executable_path)), None)
        if found is None:
            pytest.skip("no Chromium here: apt-get install --no-install-recommends chromium")
        running = playwright.chromium.launch(executable_path=found, args=flags)
        yield running
        running.close()
