"""The caps in a root's `lowtide.yaml`, and what is said of one that cannot be read."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.standins import MemoryStore

from lowtide.budget.caps import Cap
from lowtide.budget.rootfile import read_caps
from lowtide.errors import ConfigError

FILE = "memory://store/lowtide.yaml"


def read(text: str | bytes) -> tuple[Cap, ...]:
    store = MemoryStore()
    store.objects["lowtide.yaml"] = text.encode() if isinstance(text, str) else text
    return read_caps(store)


def test_a_root_without_the_file_has_no_caps() -> None:
    assert read_caps(MemoryStore()) == ()


def test_caps_are_read_with_their_places() -> None:
    caps = read(
        "version: 1\ncaps:\n"
        "  - {name: search team, tags: {team: search}, month_usd: 500}\n"
        "  - name: everything\n    month_usd: '2000.10'\n"
    )
    assert caps == (
        Cap("search team", Decimal(500), f"{FILE}:3", tags={"team": "search"}),
        Cap("everything", Decimal("2000.10"), f"{FILE}:4"),
    )
    assert read("version: 1\ncaps: []\n") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", f"{FILE}:1: the file is empty; expected a mapping with version and caps"),
        ("- 1\n", f"{FILE}:1: found a list of 1; expected a mapping with version and caps"),
        ("version: 2\ncaps: []\n", f"{FILE}:1: version: found 2; expected 1"),
        ("version: true\ncaps: []\n", f"{FILE}:1: version: found true; expected 1"),
        ("version: 1\n", f"{FILE}:1: caps: missing; expected"),
        ("version: 1\ncaps: 7\n", f"{FILE}:2: caps: found 7; expected a list of caps"),
        ("version: 1\ncap: []\n", f"{FILE}:2: cap: unknown key; did you mean 'caps'?"),
        ("version: 1\ncaps: [7]\n", f"{FILE}:2: caps[0]: found 7; expected a mapping such as"),
        (
            "version: 1\ncaps:\n  - {name: a, month_usd: 1.5 USD}\n",
            f"{FILE}:3: caps[0].month_usd: found '1.5 USD'; expected an amount in USD",
        ),
        ("version: 1\ncaps:\n  - {name: a}\n", f"{FILE}:3: caps[0].month_usd: missing; expected"),
        ("version: 1\ncaps:\n  - {name: a, month_usd: -1}\n", f"{FILE}:3: caps[0].month_usd: found -1; expected"),
        ("version: 1\ncaps:\n  - {name: 7, month_usd: 1}\n", f"{FILE}:3: caps[0].name: found 7; expected text"),
        (
            "version: 1\ncaps:\n  - {name: a, month_usd: 1, tags: {team: 7}}\n",
            f"{FILE}:3: caps[0].tags.team: found 7; expected text",
        ),
        ("version: 1\ncaps:\n  - {name: a, month_usd: 1, tags: {}}\n", f"{FILE}:3: caps[0].tags: found an empty"),
        (
            "version: 1\ncaps:\n  - {name: a, usd: 1, month_usd: 1}\n",
            f"{FILE}:3: caps[0].usd: unknown key; allowed: name, tags, month_usd",
        ),
        (
            "version: 1\ncaps:\n  - {name: a, month_usd: 1}\n  - {name: a, month_usd: 2}\n",
            f"{FILE}:4: caps[1].name: found 'a'; expected a name of its own (line 3 has this one)",
        ),
        ("version: 1\nversion: 1\ncaps: []\n", f"{FILE}:2: version: found a second time"),
        ("caps: [\n", f"{FILE}:2: not valid YAML"),
        (b"\xff\xfe", f"{FILE}:1: no UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert said in str(raised.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        read("version: 3\ncaps:\n  - {name: a, month_usd: x}\n  - {month_usd: 1, tags: 4}\n")
    assert len(str(raised.value).splitlines()) == 4
