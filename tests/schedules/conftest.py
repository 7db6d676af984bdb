"""A Prefect server on PostgreSQL with a worker, and a browser that looks at its pages."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        found = next(filter(os.path.exists, (*CHROMIUMS, playwright.chromium.executable_path)), None)
        if found is None:
            pytest.skip("no Chromium here: apt-get install --no-install-recommends chromium")
        running = playwright.chromium.launch(executable_path=found, args=flags)
        yield running
        running.close()
