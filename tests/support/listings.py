"""What every store's listing promises."""

from __future__ import annotations

import random

from lowtide.protocols import Store


def check_order(store: Store) -> None:
    """Write objects whose order is easily got wrong, and list them from every start and by every prefix."""
    paths = ["a.txt", "a-b/c", "b/c", "b/c.d/e", "b/c0", "b0", "b.txt", "é/x", "éa", "z/\U0001f600", "z/\uffee"]
    random.Random(1).shuffle(paths)
    for path in paths:
        store.write(path, b"x")
    expected = sorted(paths, key=lambda path: path.encode())
    assert [info.path for info in store.list()] == expected
    for at, path in enumerate(expected):
        assert [info.path for info in store.list(after=path)] == expected[at + 1 :]
        for cut in range(len(path) + 1):
            prefix = path[:cut]
            wanted = [p for p in expected if p.startswith(prefix)]
            assert [info.path for info in store.list(prefix)] == wanted, prefix
    assert [info.path for info in store.list("b", after="b/c")] == ["b/c.d/e", "b/c0", "b0"]
    assert [info.path for info in store.list("b/", after="a")] == [p for p in expected if p.startswith("b/")]
    assert [info.path for info in store.list("b/", after="c")] == []
    assert [info.path for info in store.list("nothing/")] == []
