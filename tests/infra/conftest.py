"""The storage stack, on the one stand-in for AWS that applies what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.stacks import Stack, create, whole_ministack


@pytest.fixture(scope="session")
def storage() -> Iterator[Stack]:
    with whole_ministack() as url:
        yield create(url, "storage.yaml", ModelArns="arn:aws:bedrock:*::foundation-model/amazon.nova-lite-v1:0")
