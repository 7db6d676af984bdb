"""Wildcards, compared with Python's own on real trees."""

from __future__ import annotations

import fnmatch
import glob
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowtide.connectors.stores.globs import has_magic, literal_prefix, matcher

NAME = st.text(alphabet="ab.A-", min_size=1, max_size=3).filter(lambda name: name.strip(".") != "")
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join)
PART = st.sampled_from(
    ["**", "**", "*", "?", "a*", "*.b", "[ab]*", "[!a]", "a", "b", ".*", ".a", "*a*b*", "??", "[a-b]?"]
)
PATTERN = st.lists(PART, min_size=1, max_size=4).map("/".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(paths=st.lists(PATH, min_size=1, max_size=12), patterns=st.lists(PATTERN, min_size=1, max_size=8))
def test_patterns_mean_what_pythons_glob_means_by_them(paths, patterns):
    with tempfile.TemporaryDirectory() as root:
        files = set()
        for path in paths:
            target = Path(root, path)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            except OSError:  # one path is a folder of another
                continue
            if target.is_file():
                files.add(path)
        for pattern in patterns:
            everything = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 - it is what we compare with
            # `a/**` gives `a/` for a file `a`, which is no file.
            found = {path for path in everything if not path.endswith("/") and Path(root, path).is_file()}
            matches = matcher(pattern)
            assert {path for path in files if matches(path)} == found, pattern


@given(
    name=st.text(alphabet="ab[]!-*?^\\.", min_size=1, max_size=6),
    pattern=st.text("ab[]!-*?^\\", min_size=1, max_size=6),
)
def test_one_part_means_what_fnmatch_means_by_it(name, pattern):
    if pattern == "**" or name.startswith("."):
        return
    assert matcher(pattern)(name) == fnmatch.fnmatchcase(name, pattern)


@given(path=PATH)
def test_an_escaped_path_matches_itself_alone(path):
    assert matcher(glob.escape(path))(path)
    assert not matcher(glob.escape(path))(path + "x")


@given(path=PATH, pattern=PATTERN)
def test_what_matches_starts_with_the_literal_prefix(path, pattern):
    if matcher(pattern)(path):
        assert path.startswith(literal_prefix(pattern))


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**", "a", True),
        ("**", "a/b/c", True),
        ("**", ".git/config", False),
        ("**", "a/.hidden", False),
        ("**/.*", "a/.hidden", True),
        (".git/**", ".git/a/b", True),
        ("**/*.txt", "x.txt", True),
        ("**/*.txt", "a/b/x.txt", True),
        ("**/*.txt", "a/b/x.TXT", False),
        ("a/**/b", "a/b", True),
        ("a/**/b/**/c", "a/x/b/b/y/c", True),
        ("a/**", "a", False),
        ("a**b", "axxb", True),
        ("a**b", "ax/xb", False),
        ("*.md", "a/x.md", False),
        ("*", "a\nb", True),
        ("[[]x]", "[x]", True),
        ("*{a,b}", "x{a,b}", True),
    ],
)
def test_patterns_by_example(pattern, path, expected):
    assert matcher(pattern)(path) is expected


def test_a_hostile_name_costs_no_more_than_a_long_one():
    started = time.perf_counter()
    assert not matcher("**/*a*a*a*a*a*a*b/**/x")("/".join(["a" * 250] * 16))
    assert time.perf_counter() - started < 2


def test_magic_is_seen():
    assert [has_magic(text) for text in ("a", "a*", "a?", "[a]", "a]", "{a}")] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert os.sep == "/"
