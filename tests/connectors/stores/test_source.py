"""From what a user writes to the files that it means."""

from __future__ import annotations

import pytest

from lowtide.connectors.stores import matching, open_store, split_glob
from lowtide.errors import ConfigError


@pytest.mark.parametrize(
    ("uri", "store", "pattern"),
    [
        ("s3://b/tickets/**/*.txt", "s3://b/tickets", "**/*.txt"),
        ("s3://b/tickets/2026-*/x.txt", "s3://b/tickets", "2026-*/x.txt"),
        ("s3://b/tick*", "s3://b", "tick*"),
        ("s3://b/*", "s3://b", "*"),
        ("s3://b", "s3://b", "**"),
        ("s3://b/", "s3://b", "**"),
        ("s3://b/tickets/", "s3://b/tickets", "**"),
        ("s3://b/a/data.jsonl", "s3://b/a", "data.jsonl"),
        ("s3://b/a/[0-9]?.txt", "s3://b/a", "[0-9]?.txt"),
        ("abfs://con/t/**/*.txt", "abfs://con/t", "**/*.txt"),
        ("az://con", "az://con", "**"),
        ("abfss://con@acc.dfs.core.windows.net/t/a.txt", "abfss://con@acc.dfs.core.windows.net/t", "a.txt"),
        ("abfs://con@acc.dfs.core.windows.net/*.txt", "abfs://con@acc.dfs.core.windows.net", "*.txt"),
    ],
)
def test_an_address_is_cut_before_its_first_wildcard(uri, store, pattern):
    assert split_glob(uri) == (store, pattern)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for path in ("docs/a.txt", "docs/b.md", "docs/sub/c.txt", "docs/sub/.hidden", "docs/.git/d.txt", "docs/[x].txt"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def found(uri):
    store, pattern = split_glob(uri)
    return [info.uri.removeprefix(open_store(".").uri + "/docs/") for info in matching(open_store(store), pattern)]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("docs", ["%5Bx%5D.txt", "a.txt", "b.md", "sub/c.txt"]),
        ("docs/", ["%5Bx%5D.txt", "a.txt", "b.md", "sub/c.txt"]),
        ("./docs/../docs/sub", ["sub/c.txt"]),
        ("~/docs/a.txt", ["a.txt"]),
        ("docs/*.txt", ["%5Bx%5D.txt", "a.txt"]),
        ("docs/**/*.txt", ["%5Bx%5D.txt", "a.txt", "sub/c.txt"]),
        ("docs/[ab].*", ["a.txt", "b.md"]),
        ("docs/?.txt", ["a.txt"]),
        ("docs/[x].txt", ["%5Bx%5D.txt"]),
        ("docs/sub/.hidden", ["sub/.hidden"]),
        ("docs/**/.*", ["sub/.hidden"]),
        ("docs/.git/*", [".git/d.txt"]),
        ("docs/*.pdf", []),
    ],
)
def test_a_local_source_means_these_files(tree, uri, expected):
    assert found(uri) == expected
    if not uri.startswith((".", "~")):
        assert found(f"{tree}/{uri}") == expected
        assert found(f"file://{tree}/{uri}") == expected


@pytest.mark.parametrize("uri", ["nothing", "docs/nothing.txt", "nothing/*.txt", "file:///nothing/here"])
def test_a_local_source_that_is_not_there_is_a_config_error(tree, uri):
    with pytest.raises(ConfigError, match="nothing"):
        split_glob(uri)


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///x", "s3://b*/x", "gs://b/x", "", "abfs://", "abfs://co*/x", "abfs://A/x"]
)
def test_a_source_that_cannot_be_is_a_config_error(uri):
    with pytest.raises(ConfigError):
        split_glob(uri)


def test_an_s3_name_without_wildcards_is_a_file_or_what_lies_below_it(place):
    store = place.open()
    for path in ("tickets/a.txt", "tickets/sub/b.txt", "tickets/.hidden", "tickets-old/c.txt", "one.jsonl"):
        store.write(path, b"x")
    assert [info.path for info in matching(store, "tickets")] == ["tickets/a.txt", "tickets/sub/b.txt"]
    assert [info.path for info in matching(store, "one.jsonl")] == ["one.jsonl"]
    assert [info.path for info in matching(store, "tick*/*.txt")] == ["tickets-old/c.txt", "tickets/a.txt"]
    assert [info.path for info in matching(store, "nothing")] == []


def test_matching_lists_no_more_than_it_must(place):
    store = place.open()
    for path in ("2025-01/a", "2026-01/a", "2026-02/a"):
        store.write(path, b"x")
    asked = []

    class Listening:
        def list(self, prefix="", *, after=""):
            asked.append(prefix)
            return store.list(prefix, after=after)

    assert [info.path for info in matching(Listening(), "2026-*/a")] == ["2026-01/a", "2026-02/a"]
    assert asked == ["2026-"]
